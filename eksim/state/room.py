"""Which node a pod fits, reckoned from the store by plain counting, without the scheduler's plugins.

For judges, who must not ask the ones they judge. Called by ``invariants`` and ``watchdog``.
"""

from __future__ import annotations

from eksim.state.affinity import PodAffinityTerm
from eksim.state.objects import Node, Pod
from eksim.state.picture import Picture
from eksim.state.podspec import HostPort, PodSpec, tolerates
from eksim.state.selectors import node_selector_matches
from eksim.state.store import Store


def bound(store: Store, picture: Picture) -> dict[str, dict[str, int]]:
    """node → resource → what unfinished and assumed pods ask there, counted anew; ``pods``: how many they are."""
    sums: dict[str, dict[str, int]] = {name: {"pods": 0} for name in store.nodes}
    for pod in store.pods.values():
        node = pod.node or picture.assumed.get(pod.key, "")
        if node in sums and pod.phase not in ("Succeeded", "Failed"):
            total = sums[node]
            total["pods"] += 1
            for resource, amount in pod.spec.requests.items():
                total[resource] = total.get(resource, 0) + amount
    return sums


class Room:
    """What is bound or assumed where, and what still fits."""

    def __init__(self, store: Store, picture: Picture) -> None:
        self.store = store
        self.used = bound(store, picture)
        for name, total in self.used.items():
            for resource, amount in picture.requested.get(name, {}).items():
                total[resource] = max(total.get(resource, 0), amount)
        self.nominated: dict[str, list[Pod]] = {}
        #: (pod, its node) of what counts there
        self._placed: list[tuple[Pod, Node]] = []
        #: (pod with required anti-affinity, its node)
        self._shy: list[tuple[Pod, Node]] = []
        #: pods are left of a node that is gone: that they are in nobody's way now is what no event tells of
        self._stranded = self._stranded_shy = False
        for pod in store.pods.values():
            if pod.nominated_node and not pod.node:
                self.nominated.setdefault(pod.nominated_node, []).append(pod)
            where = pod.node or picture.assumed.get(pod.key, "")
            node = store.nodes.get(where)
            if node is None and where:
                self._stranded = True
                self._stranded_shy = self._stranded_shy or bool(pod.spec.affinity.anti_required)
            if node is not None and pod.phase not in ("Succeeded", "Failed"):
                self._placed.append((pod, node))
                if pod.spec.affinity.anti_required:
                    self._shy.append((pod, node))
        self._known: dict[tuple[int, str, int], list[str]] = {}

    def words(self, node: str) -> str:
        """The node's use in words."""
        return ", ".join(
            f"{self.used[node].get(resource, 0)} of {amount} {resource}"
            for resource, amount in self.store.nodes[node].allocatable.items()
        )

    def nodes_for(self, pod: Pod) -> list[str]:
        """The nodes that the pod fits; none for a pod that is not judged. Pods of one template are looked at once, unless
        there are nominations."""
        if not is_judged(pod):
            return []
        kind = (id(pod.spec), pod.namespace, id(pod.labels))
        found = None if self.nominated else self._known.get(kind)
        if found is None:
            found = self._known[kind] = [name for name, node in self.store.nodes.items() if self._fits(pod, node)]
        return found

    def _fits(self, pod: Pod, node: Node) -> bool:
        spec = pod.spec
        if not admits(spec, node):
            return False
        used = self.used[node.name]
        others = [
            other
            for other in self.nominated.get(node.name, ())
            if other is not pod and other.spec.priority >= spec.priority
        ]
        if used["pods"] + len(others) + 1 > node.allocatable.get("pods", 0):
            return False
        for resource, amount in spec.requests.items():
            more = sum(other.spec.requests.get(resource, 0) for other in others)
            if amount and used.get(resource, 0) + more + amount > node.allocatable.get(resource, 0):
                return False
        return not self._ports_taken(spec, node, others) and not self._kept_away(pod, node, others)

    def _ports_taken(self, spec: PodSpec, node: Node, others: list[Pod]) -> bool:
        if not spec.host_ports:
            return False
        here = [other for other, where in self._placed if where is node]
        taken = [port for other in (*here, *others) for port in other.spec.host_ports]
        return any(_clash(port, other) for port in spec.host_ports for other in taken)

    def _kept_away(self, pod: Pod, node: Node, others: list[Pod]) -> bool:
        """By its own anti-affinity, or by that of a pod which is there.

        Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/filtering.go:satisfyPodAntiAffinity,
        satisfyExistingPodsAntiAffinity, v1.34.1.
        """
        if self._stranded and (pod.spec.affinity.anti_required or self._stranded_shy):
            return True
        guests = [(other, node) for other in others]
        for term in pod.spec.affinity.anti_required:
            for other, where in (*self._placed, *guests):
                if _together(term.topology_key, node, where) and _may_select(term, pod.namespace, other):
                    return True
        for other, where in (*self._shy, *guests):
            for term in other.spec.affinity.anti_required:
                if _together(term.topology_key, node, where) and _may_select(term, other.namespace, pod):
                    return True
        return False


def _clash(one: HostPort, other: HostPort) -> bool:
    anywhere = "0.0.0.0" in (one[0], other[0])
    return one[1:] == other[1:] and (anywhere or one[0] == other[0])


def _together(key: str, node: Node, other: Node) -> bool:
    """Whether two nodes stand in the same domain of the key."""
    value = node.labels.get(key)
    return value is not None and value == other.labels.get(key)


def _may_select(term: PodAffinityTerm, namespace: str, pod: Pod) -> bool:
    """Whether a term of a pod of ``namespace`` selects ``pod``, or may: which namespaces a selector means is not judged."""
    if term.namespace_selector is None and pod.namespace not in (term.namespaces or (namespace,)):
        return False
    return term.selector.matches(pod.labels)


def is_judged(pod: Pod) -> bool:
    """Whether this module knows where such a pod fits, and that it would hear of it: not if it wants other pods near, or
    spread, or has gates; nor if it was last kept away by the anti-affinity of a pod that was there, for when that one goes
    no plugin's hint speaks for it.

    Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/plugin.go:isSchedulableAfterPodChange, v1.34.1.
    """
    spec = pod.spec
    if spec.affinity.pod_required or spec.topology_spread or spec.scheduling_gates:
        return False
    return pod.scheduled is None or "existing pods anti-affinity" not in pod.scheduled.message


def admits(spec: PodSpec, node: Node) -> bool:
    """Whether the node takes such a pod, its other pods apart: cordon, taints, selector, name."""
    if spec.node_name and spec.node_name != node.name:
        return False
    for taint in node.taints:
        if taint.effect != "PreferNoSchedule" and not tolerates(spec.tolerations, taint):
            return False
    if node.unschedulable and not any(t.key in ("", "node.kubernetes.io/unschedulable") for t in spec.tolerations):
        return False
    if any(node.labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    required = spec.affinity.node_required
    return required is None or node_selector_matches(required, node.labels, node.name)
