"""Where a DaemonSet's pods run and what they carry. Pure functions.

Called by :mod:`eksim.kube.controllers.daemonset`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from eksim.kube.controllers.deployment_rules import whole_second
from eksim.state.affinity import Affinity
from eksim.state.objects import Node, Pod
from eksim.state.podspec import PodSpec, Toleration, tolerates
from eksim.state.selectors import NodeSelectorTerm, Requirement, node_selector_matches

Json = dict[str, Any]

REVISION_HASH_LABEL = "controller-revision-hash"
GENERATION_LABEL = "pod-template-generation"

_PRESSURES = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


def daemon_tolerations(spec: PodSpec) -> tuple[Toleration, ...]:
    """The template's tolerations with those that every DaemonSet's pod gets.

    Source: kubernetes/pkg/controller/daemon/util/daemonset_util.go:AddOrUpdateDaemonPodTolerations, v1.34.1.
    """
    added = [Toleration(f"node.kubernetes.io/{key}", "Exists", "", "NoExecute") for key in ("not-ready", "unreachable")]
    added += [Toleration(f"node.kubernetes.io/{key}", "Exists", "", "NoSchedule") for key in _PRESSURES]
    if spec.host_network:
        added.append(Toleration("node.kubernetes.io/network-unavailable", "Exists", "", "NoSchedule"))
    out = list(spec.tolerations)
    for toleration in added:
        for i, present in enumerate(out):
            if present.key_of()[:4] == toleration.key_of()[:4]:
                out[i] = toleration
                break
        else:
            out.append(toleration)
    return tuple(out)


def toleration_manifest(toleration: Toleration) -> Json:
    """A toleration as the manifest has it, without its empty fields."""
    out: Json = {"key": toleration.key, "operator": toleration.operator, "value": toleration.value}
    out |= {"effect": toleration.effect}
    out = {key: value for key, value in out.items() if value}
    if toleration.seconds is not None:
        out["tolerationSeconds"] = toleration.seconds
    return out


@lru_cache(maxsize=256)
def daemon_spec(spec: PodSpec) -> PodSpec:
    """The template's spec with the tolerations of a DaemonSet's pods."""
    out = copy.copy(spec)
    out.facts = None
    out.tolerations = daemon_tolerations(spec)
    out.manifest = {**spec.manifest, "tolerations": [toleration_manifest(t) for t in out.tolerations]}
    return out


def node_should_run_daemon_pod(node: Node, spec: PodSpec) -> tuple[bool, bool]:
    """(a pod should run there, one that is there may stay). ``spec`` has the daemon tolerations.

    Source: kubernetes/pkg/controller/daemon/daemon_controller.go:NodeShouldRunDaemonPod, v1.34.1.
    """
    if spec.node_name and spec.node_name != node.name:
        return False, False
    labels = node.labels
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return False, False
    terms = spec.affinity.node_required
    if terms is not None and not node_selector_matches(terms, labels, node.name):
        return False, False
    fits = stays = True
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(spec.tolerations, taint):
            fits = False
            if taint.effect == "NoExecute":
                stays = False
    return fits, fits or stays


@lru_cache(maxsize=1024)
def pinned_spec(spec: PodSpec, node: str) -> PodSpec:
    """The spec of a pod for one node: required node affinity to its name, in place of other matchFields.

    Source: kubernetes/pkg/controller/daemon/util/daemonset_util.go:ReplaceDaemonSetPodNodeNameNodeAffinity, v1.34.1.
    """
    pin = Requirement("metadata.name", "In", (node,))
    affinity: Affinity = copy.copy(spec.affinity)
    terms = affinity.node_required or (NodeSelectorTerm((), ()),)
    affinity.node_required = tuple(NodeSelectorTerm(term.expressions, (pin,)) for term in terms)
    out = copy.copy(spec)
    out.affinity = affinity
    out.facts = None
    out.manifest = _pinned_manifest(spec.manifest, node)
    return out


def _pinned_manifest(manifest: Json, node: str) -> Json:
    affinity = manifest.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    key = "requiredDuringSchedulingIgnoredDuringExecution"
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = (node_affinity.get(key) or {}).get("nodeSelectorTerms") or [{}]
    required = {"nodeSelectorTerms": [{**term, "matchFields": fields} for term in terms]}
    return {**manifest, "affinity": {**affinity, "nodeAffinity": {**node_affinity, key: required}}}


def target_node_name(pod: Pod) -> str:
    """The node that a pod runs on or is pinned to; "" if neither.

    Source: kubernetes/pkg/controller/daemon/util/daemonset_util.go:GetTargetNodeName, v1.34.1.
    """
    if pod.node:
        return pod.node
    for term in pod.spec.affinity.node_required or ():
        for requirement in term.fields:
            if requirement.key == "metadata.name" and requirement.operator == "In" and len(requirement.values) == 1:
                return requirement.values[0]
    return ""


def by_creation_and_phase(pod: Pod) -> tuple[bool, float, str]:
    """Order: scheduled first, then the older, then by name."""
    return (not pod.node, whole_second(pod.created_s), pod.name)


def is_pod_updated(labels: Mapping[str, str], hash_: str, generation: str) -> bool:
    """Whether a pod was made from the DaemonSet's present template.

    Source: kubernetes/pkg/controller/daemon/util/daemonset_util.go:IsPodUpdated, v1.34.1.
    """
    if hash_ and labels.get(REVISION_HASH_LABEL) == hash_:
        return True
    return bool(generation) and labels.get(GENERATION_LABEL) == generation


def find_updated_pods_on_node(pods: Iterable[Pod], hash_: str, generation: str) -> tuple[Pod | None, Pod | None, bool]:
    """(the new pod, the old pod, True) of those not being deleted; False if there is more than one of a kind.

    Source: kubernetes/pkg/controller/daemon/update.go:findUpdatedPodsOnNode, v1.34.1.
    """
    new: Pod | None = None
    old: Pod | None = None
    for pod in pods:
        if pod.deletion_s is not None:
            continue
        if is_pod_updated(pod.labels, hash_, generation):
            if new is not None:
                return None, None, False
            new = pod
        else:
            if old is not None:
                return None, None, False
            old = pod
    return new, old, True


class FailedPodsBackoff:
    """How long a failed daemon pod's successor must wait: 1 s on the node, doubling to 15 min.

    Source: kubernetes/staging/src/k8s.io/client-go/util/flowcontrol/backoff.go, v1.34.1.
    """

    INITIAL_S = 1.0
    MAX_S = 900.0

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[str, tuple[float, float]] = {}

    def get(self, key: str) -> float:
        """The present delay in seconds."""
        return self._entries.get(key, (0.0, 0.0))[0]

    def in_backoff(self, key: str, now_s: float) -> bool:
        """Whether the delay since the last update is still running."""
        entry = self._entries.get(key)
        if entry is None or now_s - entry[1] > 2 * self.MAX_S:
            return False
        return now_s - entry[1] < entry[0]

    def next(self, key: str, now_s: float) -> None:
        """Lengthen the delay."""
        entry = self._entries.get(key)
        if entry is None or now_s - entry[1] > 2 * self.MAX_S:
            self._entries[key] = (self.INITIAL_S, now_s)
        else:
            self._entries[key] = (min(entry[0] * 2, self.MAX_S), now_s)


def excess_daemon_pods(running: Sequence[Pod], hash_: str, new_available: bool) -> list[Pod]:
    """Of several running pods on one node under maxSurge, those to delete; ``running`` in order of creation.

    ``new_available``: whether the oldest new pod is available.
    Source: kubernetes/pkg/controller/daemon/daemon_controller.go:podsShouldBeOnNode, v1.34.1.
    """
    new: Pod | None = None
    old: Pod | None = None
    out = []
    for pod in running:
        if pod.labels.get(REVISION_HASH_LABEL) == hash_:
            if new is None:
                new = pod
                continue
        elif old is None:
            old = pod
            continue
        out.append(pod)
    if new is not None and old is not None and (not old.ready or new_available):
        out.append(old)
    return out
