"""A replay's state in the trimmed form of the recordings, and how two such states differ.

Called by :mod:`eksim.testing.replay_controllers`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eksim.kube.controllers.pod_ranking import DELETION_COST
from eksim.state.objects import ApiObject, Owner, Pod
from eksim.testing.controller_world import World, target_node

Json = dict[str, Any]


def snapshot_state(world: World) -> dict[str, Json]:
    """kind → name → trimmed object; pods as they are (:func:`show_pod` trims them to the likeness of a record)."""
    out: dict[str, Json] = {}
    if world.store.pods:
        out["Pod"] = {pod.name: pod for pod in world.store.pods.values()}
    for kind, room in world.store.objects.items():
        if room:
            out[kind] = {obj.name: _show(obj) for obj in room.values()}
    return out


def _whole(time_s: float) -> int:
    return math.floor(time_s)


def _owner(owner: Owner | None) -> str | None:
    return None if owner is None else f"{owner.kind}/{owner.name}"


def _show(obj: ApiObject) -> Json:
    status = dict(obj.status)
    if "conditions" in status:
        status["conditions"] = {c["type"]: c for c in status["conditions"]}
    out: Json = {"annotations": obj.annotations, "status": status}
    if obj.kind == "ControllerRevision":
        return {
            "annotations": obj.annotations,
            "hash": obj.labels.get("controller-revision-hash"),
            "owner": _owner(obj.owner),
            "revision": obj.extra.get("revision"),
        }
    out["generation"] = obj.generation
    if obj.kind == "DaemonSet":
        return out
    out["replicas"] = obj.spec.get("replicas")
    out["minReadySeconds"] = obj.spec.get("minReadySeconds") or None
    if obj.kind == "Deployment":
        del out["minReadySeconds"]
        out["paused"] = obj.spec.get("paused") or None
    else:
        out["created"] = _whole(obj.created_s)
        out["hash"] = obj.labels.get("pod-template-hash")
        out["owner"] = _owner(obj.owner)
    return out


def show_pod(pod: Pod, likeness: Json) -> Json:
    """The pod trimmed like ``likeness``: uid and labels only if that shows them."""
    out: Json = {
        "owner": _owner(pod.owner),
        "node": pod.node,
        "phase": pod.phase,
        "ready": pod.ready,
        "created": _whole(pod.created_s),
        "deleting": None if pod.deletion_s is None else _whole(pod.deletion_s),
        "restarts": pod.restarts,
        "cost": pod.annotations.get(DELETION_COST),
        "image": pod.spec.containers[0].image,
        "for_node": target_node(pod),
    }
    if "uid" in likeness:
        out["uid"] = pod.uid
    for key in likeness:
        if key not in out and key not in ("uid", "disruption", "finalizers"):
            out[key] = pod.labels.get(key)
    return out


def _flat(value: Any, path: str, out: dict[str, Any]) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _flat(item, f"{path}.{key}" if path else str(key), out)
    elif isinstance(value, list) and value and isinstance(value[0], dict) and "type" in value[0]:
        for item in value:
            _flat(item, f"{path}.{item['type']}", out)
    elif value not in (None, "", 0, False):
        out[path] = value


def differences(
    recorded: Json, mine: Json, accepted: Mapping[str, Sequence[Any]] | None = None, masked: Sequence[str] = ()
) -> str | None:
    """The first field that differs; absent, zero and empty are the same. ``accepted``: other values by path."""
    one: dict[str, Any] = {}
    other: dict[str, Any] = {}
    _flat(recorded, "", one)
    _flat(mine, "", other)
    for path in (*one, *(p for p in other if p not in one)):
        if one.get(path) == other.get(path) or path in masked:
            continue
        values = (accepted or {}).get(path)
        if values is not None and other.get(path) in values:
            continue
        return f"{path} is {other.get(path)!r}, recorded {one.get(path)!r}"
    return None


def multiset_difference(recorded: list[Json], mine: list[Json]) -> str | None:
    """Whether two lists of pods are alike without regard to names, nodes and uids."""
    one = sorted(_blank(pod) for pod in recorded)
    other = sorted(_blank(pod) for pod in mine)
    if one == other:
        return None
    if len(one) != len(other):
        return f"{len(other)} pods, recorded {len(one)}"
    for pod, wanted in zip(other, one, strict=True):
        if pod != wanted:
            return f"a pod is {pod}, recorded {wanted}"
    return None


def _blank(pod: Json) -> str:
    flat: dict[str, Any] = {}
    _flat({key: value for key, value in pod.items() if key not in ("node", "uid")}, "", flat)
    return ", ".join(f"{key}={flat[key]}" for key in sorted(flat))


_POD_NAME = re.compile(r"pod: \S+$")
_EventKey = tuple[str, str, str]


def blank_events(
    events: Iterable[Sequence[str]], names: bool, *, scaling: bool
) -> dict[_EventKey, list[tuple[str, str, str]]]:
    """(component, kind, name) → events in order; runs of one reason sorted; pod names blanked unless ``names``."""
    runs: dict[_EventKey, list[list[tuple[str, str, str]]]] = {}
    for component, type_, reason, kind, name, message in events:
        if reason == "ScalingReplicaSet" and not scaling:
            continue
        text = message if names else _POD_NAME.sub("pod", message)
        of_object = runs.setdefault((component, kind, name), [])
        if not of_object or of_object[-1][0][1] != reason:
            of_object.append([])
        of_object[-1].append((type_, reason, text))
    return {key: [event for run in of_object for event in sorted(run)] for key, of_object in runs.items()}
