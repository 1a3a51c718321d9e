"""The pod collector: pods whose node is gone, and unscheduled ones that are being deleted.

Mimics the podgc controller: it looks every 20 s; a node must have been gone for 40 s before its pods are deleted by
force. Looks only at the phase points at which it would find something. Left out: the threshold of 12,500 ended pods.
Called by the clock.
"""

from __future__ import annotations

from eksim.engine.clock import CONTROLLER, Clock, Grid
from eksim.kube.controllers.base import ApiClient, WorkQueue
from eksim.state.changes import Verb
from eksim.state.objects import Condition, Node, Pod
from eksim.state.store import Store

#: Source: kubernetes/pkg/controller/podgc/gc_controller.go: gcCheckPeriod, quarantineTime, v1.34.1.
PERIOD_S = 20.0
QUARANTINE_S = 40.0


class PodCollector:
    """Source: kubernetes/pkg/controller/podgc/gc_controller.go:gcOrphaned, gcUnscheduledTerminating, v1.34.1."""

    def __init__(self, clock: Clock, store: Store, client: ApiClient, *, sets_condition: bool) -> None:
        self._clock = clock
        self._store = store
        self._client = client
        self._sets_condition = sets_condition
        self._grid = Grid(clock.now, PERIOD_S)
        #: nodes that are gone but still have pods → when a look first missed them (None: no look has yet)
        self._missing: dict[str, float | None] = {}
        self._armed = False
        self.queue = WorkQueue(clock, lambda key: None)
        store.watch(Verb.NODE_DELETED, self._node_deleted)
        store.watch(Verb.POD_BOUND, self._pod_bound)
        store.watch(Verb.POD_CREATED, self._pod_bound)

    def start(self) -> None:
        """Pods that the store already has on nodes that do not exist."""
        for name, pods in self._store.pods_by_node.items():
            if pods and name not in self._store.nodes:
                self._miss(name)

    @property
    def busy(self) -> bool:
        """Whether pods of a gone node wait for it."""
        return bool(self._missing)

    def _node_deleted(self, node: Node, _: object) -> None:
        if self._store.pods_by_node.get(node.name):
            self._miss(node.name)

    def _pod_bound(self, pod: Pod, _: object) -> None:
        if pod.node and pod.node not in self._store.nodes:
            self._miss(pod.node)

    def _miss(self, node: str) -> None:
        self._missing.setdefault(node, None)
        self._arm()

    def _arm(self) -> None:
        if not self._armed and self._missing:
            self._armed = True
            self._clock.arm(self._grid.after(self._clock.now), CONTROLLER, self._look)

    def _look(self) -> None:
        """One of the periodic looks: nodes missed for the first time are quarantined, those missed long enough end."""
        self._armed = False
        now = self._clock.now
        for name in list(self._missing):
            pods = self._store.pods_by_node.get(name)
            if name in self._store.nodes or not pods:
                del self._missing[name]
                continue
            since = self._missing[name]
            if since is None:
                self._missing[name] = now
            elif now - since >= QUARANTINE_S:
                for pod in list(pods.values()):
                    self._delete(pod)
                del self._missing[name]
        self._arm()

    def _delete(self, pod: Pod) -> None:
        """Mark the pod failed, then delete it without grace."""
        bucket = self._client.bucket
        bucket.reserve()
        if pod.phase not in ("Succeeded", "Failed"):
            if self._sets_condition:
                condition = Condition(
                    "DisruptionTarget",
                    "True",
                    "DeletionByPodGC",
                    "PodGC: node no longer exists",
                    last_transition_s=self._clock.now,
                )
                self._store.update_pod(pod, conditions={**pod.conditions, condition.type: condition})
                self._store.set_pod_status(pod, phase="Failed", ready=False)
            bucket.reserve()
        self._store.delete_pod(pod)
