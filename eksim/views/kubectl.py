"""``kubectl get`` as kubectl lays it out, from a snapshot.

Sources: kubernetes/pkg/printers/internalversion/printers.go, cli-runtime/pkg/printers/tableprinter.go, v1.21.2 and v1.34.1.
Leaves out: ``-o yaml|json``, selectors, watches (the live API's business). ``describe`` is in ``describe.py``.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Callable
from typing import Any

from eksim.state.objects import ApiObject, Node, Pod
from eksim.state.snapshot import Snapshot
from eksim.units import human_duration
from eksim.views.tabwriter import tabulate

NONE = "<none>"


def age(snapshot: Snapshot, since_s: float | None) -> str:
    """AGE of something created at ``since_s``: timestamps have whole seconds."""
    if since_s is None:
        return "<unknown>"
    stamp = math.floor(snapshot.epoch_s + since_s) - snapshot.epoch_s
    return human_duration(snapshot.now_s - stamp)


def pod_status(pod: Pod, minor: int) -> str:
    """The STATUS cell. Source: printers.go:printPod."""
    status = pod.reason or pod.phase
    if minor >= 27 and pod.scheduled is not None and pod.scheduled.reason == "SchedulingGated":
        status = "SchedulingGated"
    if pod.waiting:
        inits = len(pod.spec.init_containers)
        status = f"Init:0/{inits}" if inits and pod.waiting == "PodInitializing" else pod.waiting
    if pod.phase == "Succeeded" and not pod.reason:
        status = "Completed"
    if pod.deletion_s is not None and (minor < 27 or pod.phase not in ("Succeeded", "Failed")):
        status = "Terminating"
    return status


def pods_table(snapshot: Snapshot, pods: list[Pod], wide: bool) -> list[list[str]]:
    """Rows of ``kubectl get pods``, the header first."""
    rows = [["NAME", "READY", "STATUS", "RESTARTS", "AGE"]]
    if wide:
        rows[0] += ["IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    for pod in pods:
        total = len(pod.spec.containers)
        row = [
            pod.name,
            f"{total if pod.ready else 0}/{total}",
            pod_status(pod, snapshot.minor),
            str(pod.restarts),
            age(snapshot, pod.created_s),
        ]
        if wide:
            row += [pod.ip or NONE, pod.node or NONE, pod.nominated_node or NONE, NONE]
        rows.append(row)
    return rows


def nodes_table(snapshot: Snapshot, nodes: list[Node], wide: bool) -> list[list[str]]:
    """Rows of ``kubectl get nodes``."""
    rows = [["NAME", "STATUS", "ROLES", "AGE", "VERSION"]]
    if wide:
        rows[0] += ["INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"]
    for node in nodes:
        status = ("Ready" if node.ready else "NotReady") + (",SchedulingDisabled" if node.unschedulable else "")
        row = [node.name, status, NONE, age(snapshot, node.created_s), str(node.facts.get("kubelet_version", ""))]
        if wide:
            row += [
                str(node.facts.get(k) or NONE) for k in ("ip", "external_ip", "os_image", "kernel_version", "runtime")
            ]
        rows.append(row)
    return rows


def _containers(obj: ApiObject, key: str) -> str:
    containers = obj.spec.get("template", {}).get("spec", {}).get("containers", ())
    return ",".join(str(c.get(key, "")) for c in containers)


def _selector(obj: ApiObject) -> str:
    labels = (obj.spec.get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items()))


def _deployment(snapshot: Snapshot, obj: ApiObject) -> list[str]:
    status = obj.status
    return [
        obj.name,
        f"{status.get('readyReplicas', 0)}/{obj.spec.get('replicas', 1)}",
        str(status.get("updatedReplicas", 0)),
        str(status.get("availableReplicas", 0)),
        age(snapshot, obj.created_s),
    ]


def _replica_set(snapshot: Snapshot, obj: ApiObject) -> list[str]:
    status = obj.status
    counts = (obj.spec.get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0))
    return [obj.name, *map(str, counts), age(snapshot, obj.created_s)]


def _daemon_set(snapshot: Snapshot, obj: ApiObject) -> list[str]:
    names = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    selector = obj.spec.get("template", {}).get("spec", {}).get("nodeSelector") or {}
    shown = ",".join(f"{k}={v}" for k, v in sorted(selector.items())) or NONE
    return [obj.name, *(str(obj.status.get(n, 0)) for n in names), shown, age(snapshot, obj.created_s)]


_OBJECTS: dict[str, tuple[list[str], Callable[[Snapshot, ApiObject], list[str]]]] = {
    "Deployment": (["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"], _deployment),
    "ReplicaSet": (["NAME", "DESIRED", "CURRENT", "READY", "AGE"], _replica_set),
    "DaemonSet": (
        ["NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"],
        _daemon_set,
    ),
}


def objects_table(snapshot: Snapshot, kind: str, objects: list[ApiObject], wide: bool) -> list[list[str]]:
    """Rows of ``kubectl get deployments``, ``replicasets`` or ``daemonsets``."""
    header, cells = _OBJECTS[kind]
    rows = [[*header, *(["CONTAINERS", "IMAGES", "SELECTOR"] if wide else [])]]
    for obj in objects:
        more = [_containers(obj, "name"), _containers(obj, "image"), _selector(obj)] if wide else []
        rows.append([*cells(snapshot, obj), *more])
    return rows


def events_table(snapshot: Snapshot, events: list[Any]) -> list[list[str]]:
    """Rows of ``kubectl get events``: LAST SEEN is a bare age. Source: printers.go:printEvent."""
    rows = [["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]]
    for event in events:
        seen = event.series_last_s
        if seen is None:
            seen = event.last_s if event.last_s is not None else event.first_s
        if seen is None:
            seen = event.event_time_s
        obj = f"{event.involved_kind.lower()}/{event.involved_name}"
        rows.append([age(snapshot, seen), event.type, event.reason, obj, event.message.strip()])
    return rows


def get(
    snapshot: Snapshot,
    kind: str,
    name: str = "",
    namespace: str = "default",
    all_namespaces: bool = False,
    wide: bool = False,
) -> str:
    """``kubectl get KIND [NAME] [-A] [-o wide]``: what it prints on standard output (and, if nothing is found, on error)."""
    scope = None if all_namespaces else namespace
    if kind == "Node":
        nodes = [n for n in snapshot.nodes() if not name or fnmatch.fnmatchcase(n.name, name)]
        table, spaces = nodes_table(snapshot, nodes, wide), [""] * len(nodes)
    elif kind == "Pod":
        pods = [p for p in snapshot.pods(scope) if not name or fnmatch.fnmatchcase(p.name, name)]
        table, spaces = pods_table(snapshot, pods, wide), [p.namespace for p in pods]
    elif kind == "Event":
        events = [e for e in snapshot.events if scope is None or e.namespace == scope]
        events.sort(key=lambda e: (e.namespace, e.name))
        table, spaces = events_table(snapshot, events), [e.namespace for e in events]
    else:
        objects = [o for o in snapshot.objects(kind, scope) if not name or fnmatch.fnmatchcase(o.name, name)]
        table, spaces = objects_table(snapshot, kind, objects, wide), [o.namespace for o in objects]
    if len(table) == 1:
        if name:
            return f'Error from server (NotFound): {kind.lower()}s "{name}" not found'
        return (
            "No resources found" if scope is None or kind == "Node" else f"No resources found in {namespace} namespace."
        )
    if all_namespaces and kind != "Node":
        table = [[space, *row] for space, row in zip(["NAMESPACE", *spaces], table, strict=True)]
    return "\n".join(tabulate(table, 6, 3))
