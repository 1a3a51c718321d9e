"""A node and its pods as the scheduler's cache holds them, with running sums.

Mimics ``framework/types.go`` (NodeInfo, PodInfo, AffinityTerm) and ``HostPortInfo``; leaves out volumes. A ``PodInfo``
is the scheduler's own picture of a pod: what its handlers were told, not what the API server holds by now.
Called by the cache, the plugins and preemption.
"""

from __future__ import annotations

from typing import Any

from eksim.kube.scheduler.facts import SpecFacts, facts_of
from eksim.state.objects import Node, Pod
from eksim.state.podspec import HostPort

LabelsKey = tuple[tuple[str, str], ...]


def labels_key(labels: dict[str, str]) -> LabelsKey:
    """Labels as something that can be hashed and compared."""
    return tuple(sorted(labels.items()))


class PodInfo:
    """A pod as the scheduler knows it. ``start_s``: status.startTime, None while it has none."""

    __slots__ = (
        "counters",
        "facts",
        "index",
        "key",
        "labels",
        "labels_key",
        "namespace",
        "node",
        "pod",
        "preempted",
        "priority",
        "start_s",
        "terminating",
    )

    def __init__(self, pod: Pod, node: str = "") -> None:
        self.pod = pod
        self.key = pod.key
        self.namespace = pod.namespace
        self.labels = labels = pod.labels
        spec = pod.spec
        self.facts: SpecFacts = spec.facts or facts_of(spec)
        known = self.facts.labels
        if known is None or known[0] is not labels:
            known = self.facts.labels = (labels, labels_key(labels))
        self.labels_key = known[1]
        self.priority: int = spec.priority
        self.node = node or pod.node
        self.start_s = pod.started_s
        self.terminating = pod.deletion_s is not None
        self.preempted = "DisruptionTarget" in pod.conditions and is_preempted(pod)
        #: place in the node's list
        self.index = -1
        #: which of the cache's pod counters it adds to while it is on a node
        self.counters: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"<PodInfo {self.key} on {self.node or '-'}>"


def renewed(info: PodInfo, pod: Pod, old: Pod) -> PodInfo:
    """The picture of a pod after an update from ``old``: the same one if nothing that is in it has changed."""
    if (
        info.pod is pod
        and info.labels is pod.labels
        and info.facts.spec is pod.spec
        and old.conditions is pod.conditions
        and info.start_s == pod.started_s
        and info.terminating == (pod.deletion_s is not None)
        and info.node == pod.node
    ):
        return info
    return PodInfo(pod)


def is_preempted(pod: Pod) -> bool:
    """Whether the scheduler preempted it (condition DisruptionTarget, PreemptionByScheduler).

    Source: kubernetes/pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go:
    podTerminatingByPreemption, v1.34.1.
    """
    condition = pod.conditions.get("DisruptionTarget")
    return condition is not None and condition.status == "True" and condition.reason == "PreemptionByScheduler"


def ports_conflict(used: dict[HostPort, None], wanted: HostPort) -> bool:
    """Whether a host port is taken; 0.0.0.0 conflicts with every address.

    Source: kubernetes/pkg/scheduler/framework/types.go:HostPortInfo.CheckConflict, v1.34.1.
    """
    ip, protocol, port = wanted
    if ip == "0.0.0.0":
        return any(p == port and proto == protocol for _, proto, p in used)
    return wanted in used or ("0.0.0.0", protocol, port) in used


class NodeInfo:
    """A node (None: a ghost, whose pods are still there) with its pods and what they ask for.

    cpu in millicores, memory and ephemeral storage in bytes, the rest in units.
    """

    __slots__ = (
        "alloc_cpu",
        "alloc_ephemeral",
        "alloc_memory",
        "alloc_pods",
        "alloc_scalars",
        "counts",
        "cpu",
        "ephemeral",
        "image_states",
        "images",
        "kind",
        "labels",
        "memory",
        "name",
        "node",
        "nonzero_cpu",
        "nonzero_memory",
        "order_index",
        "pods",
        "ports",
        "row",
        "scalars",
        "version",
        "with_affinity",
        "with_required_anti",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.labels: dict[str, str] = {}
        self.pods: list[PodInfo] = []
        self.with_affinity: list[PodInfo] = []
        self.with_required_anti: list[PodInfo] = []
        self.cpu = 0
        self.memory = 0
        self.ephemeral = 0
        self.scalars: dict[str, int] = {}
        self.nonzero_cpu = 0
        self.nonzero_memory = 0
        self.ports: dict[HostPort, None] = {}
        self.alloc_cpu = 0
        self.alloc_memory = 0
        self.alloc_ephemeral = 0
        self.alloc_pods = 0
        self.alloc_scalars: dict[str, int] = {}
        #: image name → (bytes, nodes that have it) as the snapshot shows them
        self.images: dict[str, tuple[int, int]] = {}
        #: image name → its state, shared with the cache
        self.image_states: dict[str, Any] = {}
        #: pod counter → how many of the node's pods it counts
        self.counts: dict[int, int] = {}
        #: raised when the node object changes
        self.version = 0
        self.row = -1
        #: nodes of equal kind differ in name and pods at most; −1: of no kind
        self.kind = -1
        #: place in the snapshot's order
        self.order_index = -1

    def __repr__(self) -> str:
        return f"<NodeInfo {self.name} {len(self.pods)} pods>"

    def set_node(self, node: Node) -> None:
        """Take over the node object."""
        self.node = node
        self.labels = node.labels
        allocatable = node.allocatable
        self.alloc_cpu = allocatable.get("cpu", 0)
        self.alloc_memory = allocatable.get("memory", 0)
        self.alloc_ephemeral = allocatable.get("ephemeral-storage", 0)
        self.alloc_pods = allocatable.get("pods", 0)
        self.alloc_scalars = {
            name: amount
            for name, amount in allocatable.items()
            if name not in ("cpu", "memory", "ephemeral-storage", "pods")
        }
        self.version += 1

    def add_pod(self, pod: PodInfo) -> None:
        """Source: kubernetes/pkg/scheduler/framework/types.go:NodeInfo.AddPodInfo, v1.34.1."""
        facts = pod.facts
        pod.index = len(self.pods)
        self.pods.append(pod)
        if facts.has_affinity:
            self.with_affinity.append(pod)
            if facts.has_required_anti:
                self.with_required_anti.append(pod)
        self.cpu += facts.cpu
        self.memory += facts.memory
        self.nonzero_cpu += facts.nonzero_cpu
        self.nonzero_memory += facts.nonzero_memory
        if facts.uncommon:
            self.ephemeral += facts.ephemeral
            for name, amount in facts.scalars:
                self.scalars[name] = self.scalars.get(name, 0) + amount
            for port in facts.host_ports:
                self.ports[port] = None
        if not pod.terminating:
            counts = self.counts
            for counter in pod.counters:
                counts[counter] = counts.get(counter, 0) + 1

    def remove_pod(self, pod: PodInfo) -> None:
        """Take a pod off; the last one takes its place in the list.

        Source: kubernetes/pkg/scheduler/framework/types.go:NodeInfo.RemovePod, v1.34.1.
        """
        facts = pod.facts
        pods = self.pods
        index = pod.index
        last = pods.pop()
        if last is not pod:
            pods[index] = last
            last.index = index
        if facts.has_affinity:
            _remove(self.with_affinity, pod)
            if facts.has_required_anti:
                _remove(self.with_required_anti, pod)
        self.cpu -= facts.cpu
        self.memory -= facts.memory
        self.nonzero_cpu -= facts.nonzero_cpu
        self.nonzero_memory -= facts.nonzero_memory
        if facts.uncommon:
            self.ephemeral -= facts.ephemeral
            for name, amount in facts.scalars:
                self.scalars[name] -= amount
            for port in facts.host_ports:
                self.ports.pop(port, None)
        if not pod.terminating:
            counts = self.counts
            for counter in pod.counters:
                counts[counter] -= 1

    def move_last(self, pod: PodInfo) -> None:
        """As if the pod were taken off and put on again."""
        pods = self.pods
        index, last = pod.index, pods[-1]
        if last is not pod:
            pods[index] = last
            last.index = index
            pods[-1] = pod
            pod.index = len(pods) - 1

    def clone(self) -> NodeInfo:
        """A copy to try things on; its pods are copies too, since each knows its place."""
        copy = NodeInfo(self.name)
        copy.node = self.node
        copy.labels = self.labels
        copied = {pod.key: copy_pod(pod) for pod in self.pods}
        copy.pods = list(copied.values())
        copy.with_affinity = [copied[pod.key] for pod in self.with_affinity]
        copy.with_required_anti = [copied[pod.key] for pod in self.with_required_anti]
        copy.cpu, copy.memory, copy.ephemeral = self.cpu, self.memory, self.ephemeral
        copy.scalars = dict(self.scalars)
        copy.nonzero_cpu, copy.nonzero_memory = self.nonzero_cpu, self.nonzero_memory
        copy.ports = dict(self.ports)
        copy.alloc_cpu, copy.alloc_memory = self.alloc_cpu, self.alloc_memory
        copy.alloc_ephemeral, copy.alloc_pods = self.alloc_ephemeral, self.alloc_pods
        copy.alloc_scalars = self.alloc_scalars
        copy.images, copy.image_states = self.images, self.image_states
        copy.counts = dict(self.counts)
        copy.kind = self.kind
        copy.version, copy.row, copy.order_index = self.version, self.row, self.order_index
        return copy


def copy_pod(pod: PodInfo) -> PodInfo:
    """A PodInfo with the same content."""
    copy = PodInfo.__new__(PodInfo)
    for name in PodInfo.__slots__:
        setattr(copy, name, getattr(pod, name))
    return copy


def _remove(pods: list[PodInfo], pod: PodInfo) -> None:
    for i, other in enumerate(pods):
        if other is pod:
            pods[i] = pods[-1]
            pods.pop()
            return
