"""Which pods are nominated to which node while preemption makes room for them.

Mimics ``backend/queue/nominator.go`` (then: scheduling_queue.go:nominatedPodMap). Called by the queue and the cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eksim.kube.scheduler.nodeinfo import PodInfo
from eksim.state.objects import Pod


class Nominator:
    """Nominations by node and by pod. ``alive(key)``: the pod as the API server holds it, or None."""

    __slots__ = ("_alive", "_checks_bound", "by_node", "node_of")

    def __init__(self, alive: Callable[[str], Pod | None], *, checks_bound: bool) -> None:
        self._alive = alive
        self._checks_bound = checks_bound
        #: node → pod key → pod
        self.by_node: dict[str, dict[str, PodInfo]] = {}
        #: pod key → node
        self.node_of: dict[str, str] = {}

    def add(self, pod: PodInfo, node: str | None) -> None:
        """Nominate ``pod`` to ``node``; None: to what its status says. The empty name clears.

        Source: nominator.go:addNominatedPodUnlocked, v1.34.1; scheduling_queue.go:nominatedPodMap.add, v1.21.9.
        """
        self.delete(pod.key)
        where = pod.pod.nominated_node if node is None else node
        if not where:
            return
        alive = self._alive(pod.key)
        if alive is None or (self._checks_bound and alive.node):
            return
        self.node_of[pod.key] = where
        self.by_node.setdefault(where, {})[pod.key] = pod

    def update(self, old: Pod, pod: PodInfo) -> None:
        """The pod was updated; a nomination not yet written to its status stays.

        Source: nominator.go:UpdateNominatedPod, v1.34.1.
        """
        kept = None
        if not old.nominated_node and not pod.pod.nominated_node:
            kept = self.node_of.get(pod.key)
        self.delete(pod.key)
        self.add(pod, kept)

    def delete(self, key: str) -> None:
        """The pod is nominated no more."""
        node = self.node_of.pop(key, None)
        if node is not None:
            pods = self.by_node[node]
            del pods[key]
            if not pods:
                del self.by_node[node]

    def pods_for_node(self, node: str) -> Sequence[PodInfo]:
        """The pods nominated to a node, in the order of nomination."""
        pods = self.by_node.get(node)
        return tuple(pods.values()) if pods else ()
