"""The scheduler's picture of nodes and placed pods, assumed ones included.

Mimics ``backend/cache`` (then ``internal/cache``): cache.go, node_tree.go, snapshot.go. There is no second copy for the
snapshot, since one cycle runs at a time: only the *order* of nodes is a picture, renewed when a cycle begins. Beside the
real cache's sums it counts pods by selector (:meth:`Cache.counter`) and keeps a log of nodes that changed, for the fast
path. Called by the event handlers and the cycle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eksim.errors import BrokenInvariant
from eksim.kube.scheduler.nodeinfo import LabelsKey, NodeInfo, PodInfo
from eksim.state.objects import Node, Pod
from eksim.state.selectors import LabelSelector
from eksim.versions import SchedulerRules

_LOG_MAX = 100_000


class ImageState:
    """An image that nodes have: its size in bytes as first reported, and which nodes."""

    __slots__ = ("nodes", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.nodes: dict[str, None] = {}


def zone_key(labels: dict[str, str]) -> str:
    """Region and zone in one text; empty without either. The beta labels come first.

    Source: component-helpers/node/topology/helpers.go:GetZoneKey, v1.34.1.
    """
    zone = labels.get("failure-domain.beta.kubernetes.io/zone")
    if zone is None:
        zone = labels.get("topology.kubernetes.io/zone", "")
    region = labels.get("failure-domain.beta.kubernetes.io/region")
    if region is None:
        region = labels.get("topology.kubernetes.io/region", "")
    return f"{region}:\0:{zone}" if region or zone else ""


class NodeTree:
    """Nodes by zone, zones in the order first seen.

    Source: kubernetes/pkg/scheduler/backend/cache/node_tree.go, v1.34.1 (the same at v1.21.9).
    """

    __slots__ = ("count", "zones")

    def __init__(self) -> None:
        self.zones: dict[str, dict[str, None]] = {}
        self.count = 0

    def add_node(self, node: Node) -> None:
        """Append the node to its zone."""
        names = self.zones.setdefault(zone_key(node.labels), {})
        if node.name not in names:
            names[node.name] = None
            self.count += 1

    def remove_node(self, node: Node) -> None:
        """Take the node out of its zone; an empty zone loses its place."""
        zone = zone_key(node.labels)
        names = self.zones.get(zone, {})
        if node.name in names:
            del names[node.name]
            self.count -= 1
            if not names:
                del self.zones[zone]

    def update_node(self, old: Node, new: Node) -> None:
        """Move the node if its zone changed."""
        if zone_key(old.labels) != zone_key(new.labels):
            self.remove_node(old)
            self.add_node(new)

    def list(self) -> list[str]:
        """One node of each zone in turn."""
        lists = [list(names) for names in self.zones.values()]
        longest = max((len(names) for names in lists), default=0)
        return [names[i] for i in range(longest) for names in lists if i < len(names)]


class Cache:
    """Nodes with their pods, assumed pods, and the order in which a cycle sees the nodes."""

    def __init__(self, rules: SchedulerRules) -> None:
        self.rules = rules
        self.nodes: dict[str, NodeInfo] = {}
        self.pods: dict[str, PodInfo] = {}
        self.assumed: dict[str, PodInfo] = {}
        self.tree = NodeTree()
        self.images: dict[str, ImageState] = {}
        #: raised whenever an image's nodes or the number of nodes may have changed
        self.images_version = 0
        #: nodes with images that have changed since the last snapshot (from 1.29)
        self.images_to_count: dict[str, NodeInfo] = {}
        #: the snapshot's nodes in order, and the same by name
        self.order: list[NodeInfo] = []
        self.snapshot: dict[str, NodeInfo] = {}
        self.order_version = 0
        #: nodes came or went since the order was listed
        self.tree_changed = False
        #: rows of nodes that changed, oldest first; a new ``log_epoch`` means: forget what you know
        self.log: list[int] = []
        self.log_epoch = 0
        #: raised with every change of a node or of what is on it
        self.version = 0
        self._rows = 0
        self._kinds: dict[Any, int] = {}
        #: priority → how many pods in the cache have it
        self.priorities: dict[int, int] = {}
        #: nodes that hold pods with any pod (anti-)affinity, and with a required anti-affinity
        self.affinity_nodes: dict[str, NodeInfo] = {}
        self.anti_nodes: dict[str, NodeInfo] = {}
        #: distinct (facts, namespace) of pods with affinity → how many; ``affinity_version`` is raised when one comes
        self.affinity_kinds: dict[tuple[int, str], tuple[int, PodInfo]] = {}
        self.affinity_version = 0
        self._counters: dict[tuple[str, LabelSelector], int] = {}
        self._counters_of: dict[str, list[tuple[int, LabelSelector]]] = {}
        self._matching: dict[tuple[str, LabelsKey], tuple[int, ...]] = {}

    # -- counting pods by selector --------------------------------------------------------------------------------

    def counter(self, namespace: str, selector: LabelSelector) -> int:
        """The number under which :attr:`NodeInfo.counts` counts the namespace's matching, not terminating pods."""
        key = (namespace, selector)
        number = self._counters.get(key)
        if number is None:
            number = self._counters[key] = len(self._counters)
            self._counters_of.setdefault(namespace, []).append((number, selector))
            self._matching.clear()
            for pod in self.pods.values():
                if pod.namespace == namespace and selector.matches(pod.labels):
                    pod.counters = (*pod.counters, number)
                    if not pod.terminating:
                        counts = self.nodes[pod.node].counts
                        counts[number] = counts.get(number, 0) + 1
        return number

    def counters_of(self, pod: PodInfo) -> tuple[int, ...]:
        """The counters that count this pod."""
        key = (pod.namespace, pod.labels_key)
        found = self._matching.get(key)
        if found is None:
            found = self._matching[key] = tuple(
                number
                for number, selector in self._counters_of.get(pod.namespace, ())
                if selector.matches(pod.labels)
            )
        return found

    # -- pods -----------------------------------------------------------------------------------------------------

    def assume_pod(self, pod: PodInfo, node: str) -> None:
        """Count the pod as placed before it is.

        Source: kubernetes/pkg/scheduler/backend/cache/cache.go:AssumePod, v1.34.1.
        """
        if pod.key in self.pods:
            raise BrokenInvariant(f"pod {pod.key} is in the cache, so can't be assumed")
        pod.node = node
        self._add(pod)
        self.assumed[pod.key] = pod

    def forget_pod(self, key: str) -> None:
        """Take an assumed pod back."""
        pod = self.assumed.pop(key, None)
        if pod is not None:
            self._remove(pod)

    def add_pod(self, pod: PodInfo) -> None:
        """A bound pod appears; if it was assumed, the assumption is confirmed.

        Source: kubernetes/pkg/scheduler/backend/cache/cache.go:AddPod, v1.34.1 and v1.21.9.
        """
        known = self.pods.get(pod.key)
        if known is None:
            self._add(pod)
        elif self.assumed.pop(pod.key, None) is not None:
            if self.rules.confirm_replaces or known.node != pod.node:
                self._remove(known)
                self._add(pod)
            else:
                known.pod = pod.pod

    def confirm_pod(self, pod: Pod) -> bool:
        """:meth:`add_pod` for an assumed pod of which nothing but its place was written; False if there is more to it."""
        known = self.assumed.get(pod.key)
        if known is None or known.node != pod.node or known.labels is not pod.labels or pod.deletion_s is not None:
            return False
        del self.assumed[pod.key]
        known.pod = pod
        if self.rules.confirm_replaces:
            known.start_s = pod.started_s
            self.nodes[known.node].move_last(known)
        return True

    def update_pod(self, pod: PodInfo) -> None:
        """A bound pod changed: it is taken off and put on again, and so stands last on its node."""
        known = self.pods.get(pod.key)
        if known is not None and pod.key not in self.assumed:
            self._remove(known)
            self._add(pod)

    def refresh_pod(self, pod: Pod) -> None:
        """A bound pod's status changed: as :meth:`update_pod`, but nothing that is summed or counted did."""
        known = self.pods.get(pod.key)
        if known is not None and pod.key not in self.assumed:
            known.start_s = pod.started_s
            self.nodes[known.node].move_last(known)

    def remove_pod(self, key: str) -> PodInfo | None:
        """A bound pod is gone."""
        pod = self.pods.get(key)
        if pod is not None:
            self.assumed.pop(key, None)
            self._remove(pod)
        return pod

    def _add(self, pod: PodInfo) -> None:
        node = self.nodes.get(pod.node)
        if node is None:
            node = self._new_node(pod.node)
        if self._counters:
            pod.counters = self.counters_of(pod)
        node.add_pod(pod)
        self.pods[pod.key] = pod
        priority = pod.priority
        self.priorities[priority] = self.priorities.get(priority, 0) + 1
        if pod.facts.has_affinity:
            self._affinity_came(pod, node)
        self._changed(node)

    def _remove(self, pod: PodInfo) -> None:
        node = self.nodes[pod.node]
        node.remove_pod(pod)
        del self.pods[pod.key]
        priority = pod.priority
        left = self.priorities[priority] - 1
        if left:
            self.priorities[priority] = left
        else:
            del self.priorities[priority]
        if pod.facts.has_affinity:
            self._affinity_went(pod, node)
        self._changed(node)
        if node.node is None and not node.pods:
            del self.nodes[node.name]

    def _affinity_came(self, pod: PodInfo, node: NodeInfo) -> None:
        if node.node is not None:
            self.affinity_nodes[node.name] = node
            if node.with_required_anti:
                self.anti_nodes[node.name] = node
        kind = (id(pod.facts), pod.namespace)
        count, one = self.affinity_kinds.get(kind, (0, pod))
        self.affinity_kinds[kind] = (count + 1, one)
        if not count:
            self.affinity_version += 1

    def _affinity_went(self, pod: PodInfo, node: NodeInfo) -> None:
        if not node.with_affinity:
            self.affinity_nodes.pop(node.name, None)
        if not node.with_required_anti:
            self.anti_nodes.pop(node.name, None)
        kind = (id(pod.facts), pod.namespace)
        count, one = self.affinity_kinds[kind]
        if count > 1:
            self.affinity_kinds[kind] = (count - 1, one)
        else:
            del self.affinity_kinds[kind]
            self.affinity_version += 1

    # -- nodes ----------------------------------------------------------------------------------------------------

    def add_node(self, node: Node) -> NodeInfo:
        """Source: kubernetes/pkg/scheduler/backend/cache/cache.go:AddNode, v1.34.1."""
        info = self.nodes.get(node.name)
        if info is None:
            info = self._new_node(node.name)
        else:
            self._remove_images(info.node)
        self.tree.add_node(node)
        self._add_images(node, info)
        info.set_node(node)
        self._node_came(info)
        return info

    def update_node(self, old: Node, node: Node) -> NodeInfo:
        """Source: kubernetes/pkg/scheduler/backend/cache/cache.go:UpdateNode, v1.34.1."""
        info = self.nodes.get(node.name)
        if info is None:
            info = self._new_node(node.name)
            self.tree.add_node(node)
        else:
            self._remove_images(old)
        self.tree.update_node(old, node)
        self._add_images(node, info)
        info.set_node(node)
        self._node_came(info)
        return info

    def remove_node(self, node: Node) -> None:
        """The node leaves; while pods of it are known, a ghost stays, which no cycle sees.

        Source: kubernetes/pkg/scheduler/backend/cache/cache.go:RemoveNode, v1.34.1.
        """
        info = self.nodes.get(node.name)
        if info is None:
            return
        info.node = None
        if not info.pods:
            del self.nodes[node.name]
        self.tree.remove_node(node)
        self._remove_images(node)
        self.tree_changed = True
        self.affinity_nodes.pop(node.name, None)
        self.anti_nodes.pop(node.name, None)
        self._changed(info)

    def _new_node(self, name: str) -> NodeInfo:
        info = self.nodes[name] = NodeInfo(name)
        info.row = self._rows
        self._rows += 1
        return info

    def _kind_of(self, node: Node) -> int:
        """A number for all that plugins may see of a node object but its name; −1 where names or more matter."""
        if node.images or "scheduler.alpha.kubernetes.io/preferAvoidPods" in node.annotations:
            return -1
        labels = tuple(sorted((k, "" if k == "kubernetes.io/hostname" else v) for k, v in node.labels.items()))
        key = (labels, node.taints, node.unschedulable, tuple(sorted(node.allocatable.items())))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = len(self._kinds)
        return kind

    def _node_came(self, info: NodeInfo) -> None:
        assert info.node is not None
        info.kind = self._kind_of(info.node)
        if self.snapshot.get(info.name) is not info:
            self.tree_changed = True
        if info.with_affinity:
            self.affinity_nodes[info.name] = info
            if info.with_required_anti:
                self.anti_nodes[info.name] = info
        self._changed(info)

    def _changed(self, info: NodeInfo) -> None:
        self.version += 1
        if info.image_states and self.rules.image_counts_live:
            self.images_to_count[info.name] = info
        log = self.log
        log.append(info.row)
        if len(log) > _LOG_MAX:
            log.clear()
            self.log_epoch += 1

    # -- the snapshot ---------------------------------------------------------------------------------------------

    def update_snapshot(self) -> list[NodeInfo]:
        """The nodes in the order in which this cycle sees them; listed anew only if nodes came or went.

        Source: kubernetes/pkg/scheduler/backend/cache/cache.go:UpdateSnapshot, v1.34.1.
        """
        if self.images_to_count:
            self._count_images()
        if self.tree_changed:
            self.tree_changed = False
            relist = False
            current = {name: info for name, info in self.nodes.items() if info.node is not None}
            for name, info in current.items() if self.snapshot else ():
                known = self.snapshot.get(name)
                if known is None:
                    relist = True
                elif known is not info:
                    # Gone and back between two cycles: it keeps its place.
                    self.order[known.order_index] = info
                    info.order_index = known.order_index
                    self.order_version += 1
                self.snapshot[name] = info
            if len(self.snapshot) != len(current):
                relist = True
            if relist:
                self.snapshot = current
                self.order = [current[name] for name in self.tree.list()]
                for index, info in enumerate(self.order):
                    info.order_index = index
                self.order_version += 1
        return self.order

    def have_pods_with_affinity(self) -> Iterable[NodeInfo]:
        """Nodes of the snapshot with pods that have pod (anti-)affinity."""
        return self.affinity_nodes.values()

    def have_pods_with_required_anti_affinity(self) -> Iterable[NodeInfo]:
        """Nodes of the snapshot with pods that have a required anti-affinity."""
        return self.anti_nodes.values()

    # -- images ---------------------------------------------------------------------------------------------------

    def _add_images(self, node: Node, info: NodeInfo) -> None:
        """Source: kubernetes/pkg/scheduler/backend/cache/cache.go:addNodeImageStates, v1.34.1."""
        self.images_version += 1
        states: dict[str, ImageState] = {}
        counts: dict[str, tuple[int, int]] = {}
        for names, size in node.images:
            for name in names:
                state = self.images.get(name)
                if state is None:
                    state = self.images[name] = ImageState(size)
                state.nodes[node.name] = None
                if name not in states:
                    states[name] = state
                    counts[name] = (state.size, len(state.nodes))
        info.image_states = states
        info.images = counts

    def _count_images(self) -> None:
        """A node that has changed since the last snapshot is copied into this one, with the counts of its images as they
        are now; the others keep theirs.

        Source: kubernetes/pkg/scheduler/framework/types.go:ImageStateSummary.Snapshot; cache.go:UpdateSnapshot, v1.34.1.
        """
        for info in self.images_to_count.values():
            counts = {name: (state.size, len(state.nodes)) for name, state in info.image_states.items()}
            if counts != info.images:
                info.images = counts
                self.images_version += 1
        self.images_to_count.clear()

    def _remove_images(self, node: Node | None) -> None:
        """Source: kubernetes/pkg/scheduler/backend/cache/cache.go:removeNodeImageStates, v1.34.1."""
        self.images_version += 1
        if node is None:
            return
        for names, _ in node.images:
            for name in names:
                state = self.images.get(name)
                if state is not None:
                    state.nodes.pop(node.name, None)
                    if not state.nodes:
                        del self.images[name]
