"""The ReplicaSet controller: as many active pods as spec.replicas says.

Mimics kube-controller-manager's replicaset controller: slow-start creation, the order of deletion, adoption and release,
status with its conditions, availability after minReadySeconds. Its expectations are always met here, since what it does
is seen at once. Counters are kept per ReplicaSet from the store's changes, so that a sync costs the same however many
pods there are. Called by its work queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eksim.engine.clock import CONTROLLER, Clock
from eksim.errors import Refused
from eksim.kube.controllers.base import ApiClient, ControllerSettings, WorkQueue
from eksim.kube.controllers.deployment_rules import get_condition, whole_second
from eksim.kube.controllers.informers import Informers, Templates, is_active
from eksim.kube.controllers.pod_ranking import pods_to_delete
from eksim.parts import EventRecorder
from eksim.state.objects import ApiObject, Owner, Pod
from eksim.state.selectors import LabelSelector
from eksim.state.store import Store
from eksim.versions import ControllerRules

Json = dict[str, Any]
KIND = "ReplicaSet"


class SetState:
    """One ReplicaSet as the controller sees it, with its active pods counted."""

    __slots__ = (
        "active",
        "creating",
        "key",
        "labels",
        "min_ready_s",
        "mismatched",
        "obj",
        "orphans_seen",
        "owner",
        "prefix",
        "ready",
        "replicas",
        "selector",
        "settled",
        "spec",
        "template",
        "unlabelled",
    )

    def __init__(self, obj: ApiObject) -> None:
        self.obj = obj
        self.key = obj.key
        self.prefix = obj.name + "-"
        self.owner = Owner(KIND, obj.name, obj.uid, obj.api_version)
        self.active: dict[str, Pod] = {}
        self.ready: dict[str, Pod] = {}
        #: active pods that lack a label of the template
        self.unlabelled: dict[str, Pod] = {}
        #: active pods that the selector no longer matches
        self.mismatched: dict[str, Pod] = {}
        self.orphans_seen = -1
        #: whether a sync would find nothing to do until something changes
        self.settled = False
        #: a creation that waits for the client
        self.creating: _Creation | None = None
        self.spec: Json = {}
        self.template: Json = {}
        self.labels: dict[str, str] = {}
        self.replicas = 0
        self.min_ready_s = 0.0
        self.selector: LabelSelector

    def read(self, templates: Templates) -> None:
        """Take over the object's spec, if it was replaced."""
        spec = self.obj.spec
        if spec is self.spec:
            return
        self.spec = spec
        replicas = spec.get("replicas")
        self.replicas = 1 if replicas is None else replicas
        self.min_ready_s = float(spec.get("minReadySeconds") or 0)
        self.selector = templates.selector(spec.get("selector"))
        template = spec.get("template") or {}
        if template is not self.template:
            self.template = template
            self.labels = (template.get("metadata") or {}).get("labels") or {}
            for pod in self.active.values():
                self.note_labels(pod)

    def note(self, pod: Pod) -> bool:
        """Count the pod as it is now; whether a count changed."""
        key = pod.key
        if pod.deletion_s is not None or pod.phase == "Succeeded" or pod.phase == "Failed":  # is_active
            return self.drop(key)
        changed = False
        if key not in self.active:
            self.active[key] = pod
            self.note_labels(pod)
            changed = True
        if pod.ready:
            if key not in self.ready:
                self.ready[key] = pod
                changed = True
        elif key in self.ready:
            del self.ready[key]
            changed = True
        return changed

    def note_labels(self, pod: Pod) -> None:
        """Compare the pod's labels with template and selector."""
        labels = pod.labels
        if labels is self.labels:
            return
        key = pod.key
        if all(labels.get(name) == value for name, value in self.labels.items()):
            self.unlabelled.pop(key, None)
        else:
            self.unlabelled[key] = pod
        if self.selector.matches(labels):
            self.mismatched.pop(key, None)
        else:
            self.mismatched[key] = pod

    def drop(self, key: str) -> bool:
        """The pod no longer counts; whether it did."""
        if self.active.pop(key, None) is None:
            return False
        self.ready.pop(key, None)
        self.unlabelled.pop(key, None)
        self.mismatched.pop(key, None)
        return True

    def available(self, now_s: float, end_included: bool) -> int:
        """How many pods have been ready for minReadySeconds."""
        min_ready = self.min_ready_s
        if not min_ready:
            return len(self.ready)
        return sum(1 for pod in self.ready.values() if is_available(pod, min_ready, now_s, end_included))


def is_available(pod: Pod, min_ready_s: float, now_s: float, end_included: bool) -> bool:
    """Whether a pod has been ready for ``min_ready_s`` seconds; ``end_included``: also at the very moment.

    Source: kubernetes/pkg/api/v1/pod/util.go:IsPodAvailable, v1.34.1.
    """
    if not pod.ready:
        return False
    if not min_ready_s:
        return True
    if pod.ready_s is None:
        return False
    end = whole_second(pod.ready_s) + min_ready_s
    return end <= now_s if end_included else end < now_s


class _Creation:
    """A sync's creations in slow-start batches: 1, 2, 4, …; a batch with a failure is the last.

    Source: kubernetes/pkg/controller/replicaset/replica_set.go:slowStartBatch, v1.34.1.
    """

    __slots__ = ("batch", "counts", "failed", "in_batch", "remaining")

    def __init__(self, count: int, counts: tuple[int, int, int, int]) -> None:
        self.remaining = count
        self.batch = min(count, 1)
        self.in_batch = 0
        self.failed: Refused | None = None
        #: the counts before it began, for the status
        self.counts = counts


class ReplicaSetController:
    """One object for all ReplicaSets."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        informers: Informers,
        templates: Templates,
        client: ApiClient,
        recorder: EventRecorder,
        rules: ControllerRules,
        settings: ControllerSettings,
        shuffled: Callable[[Sequence[Pod]], Sequence[Pod]],
    ) -> None:
        self._clock = clock
        self._store = store
        self._informers = informers
        self._templates = templates
        self._client = client
        self._recorder = recorder
        self._rules = rules
        self._settings = settings
        self._shuffled = shuffled
        self.queue = WorkQueue(clock, self._process, settings.replicaset_workers)
        self._states: dict[str, SetState] = {}
        #: the set whose status this controller is writing just now
        self._writing: SetState | None = None
        informers.pod_handlers[KIND] = self
        informers.object_handlers.setdefault(KIND, []).append(self)

    def start(self) -> None:
        """Take up the ReplicaSets that are there."""
        for obj in list(self._store.list(KIND)):
            self.object_added(obj)

    @property
    def busy(self) -> bool:
        """Whether a key is at hand."""
        return self.queue.busy

    # -- what wakes it ----------------------------------------------------------------------------------------------

    def object_added(self, obj: ApiObject) -> None:
        """addRS."""
        state = self._states[obj.uid] = SetState(obj)
        state.read(self._templates)
        for pod in self._informers.pods_of.get(obj.uid, {}).values():
            state.note(pod)
        self.queue.add(obj.key)

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        """updateRS."""
        state = self._states.get(obj.uid)
        if state is None:
            return
        if self._writing is state and self._settings.skip_idle_syncs:
            return  # its own status: the next sync would find it as it left it
        state.settled = False
        self.queue.add(obj.key)

    def object_deleted(self, obj: ApiObject) -> None:
        """deleteRS."""
        self._states.pop(obj.uid, None)
        self.queue.add(obj.key)

    def _state_of(self, owner: Owner) -> SetState | None:
        return self._states.get(owner.uid)

    def pod_added(self, pod: Pod) -> None:
        """addPod, or a pod was adopted."""
        state = self._states.get(pod.owner.uid) if pod.owner is not None else None
        if state is not None:
            state.note(pod)
            state.settled = False
            self.queue.add(state.key)

    def pod_updated(self, pod: Pod) -> None:
        """updatePod."""
        state = self._states.get(pod.owner.uid) if pod.owner is not None else None
        if state is None or pod.deletion_s is not None:
            return
        was_ready = pod.key in state.ready
        if (
            state.settled
            and pod.ready == was_ready
            and pod.key in state.active
            and pod.phase != "Succeeded"
            and pod.phase != "Failed"
        ):
            return  # counted as before, and nothing else to do
        if state.note(pod) or not state.settled:
            state.settled = False
            self.queue.add(state.key)
        elif not self._settings.skip_idle_syncs:
            self.queue.add(state.key)
        if pod.ready and not was_ready and state.min_ready_s and not self._rules.exact_availability:
            # a second more than needed, against skewed clocks
            self.queue.add_after(state.key, state.min_ready_s + 1.0)

    def pod_relabelled(self, pod: Pod) -> None:
        """updatePod with changed metadata."""
        state = self._states.get(pod.owner.uid) if pod.owner is not None else None
        if state is not None:
            if pod.key in state.active:
                state.note_labels(pod)
            state.settled = False
            self.queue.add(state.key)

    def pod_gone(self, pod: Pod, owner: Owner) -> None:
        """deletePod, also for a pod whose deletion began or that was released."""
        state = self._states.get(owner.uid)
        if state is not None:
            state.drop(pod.key)
            state.settled = False
            self.queue.add(state.key)

    def orphan_changed(self, pod: Pod) -> None:
        """A pod without owner: every set that selects it looks at it."""
        for state in self._states.values():
            if (
                state.obj.namespace == pod.namespace
                and not state.selector.empty
                and state.selector.matches(pod.labels)
            ):
                state.settled = False
                self.queue.add(state.key)

    # -- the sync ---------------------------------------------------------------------------------------------------

    def _process(self, key: str) -> None:
        obj = self._store.get(KIND, key)
        state = None if obj is None else self._states.get(obj.uid)
        if state is None:
            self.queue.forget(key)
            self.queue.done(key)
            return
        state.read(self._templates)
        self._claim_pods(state)
        now = self._clock.now
        active = len(state.active)
        counts = (
            active,
            active - len(state.unlabelled),
            len(state.ready),
            state.available(now, self._rules.exact_availability),
        )
        diff = active - state.replicas
        if diff == 0 or state.obj.deletion_s is not None:
            self._finish(state, counts, None, managed=False)
        elif diff < 0:
            state.creating = _Creation(min(-diff, self._settings.burst_replicas), counts)
            self._create(state)
        else:
            self._delete(state, min(diff, self._settings.burst_replicas))
            self._finish(state, counts, None, managed=True)

    def _claim_pods(self, state: SetState) -> None:
        """Adopt matching orphans, release pods that match no longer.

        Source: kubernetes/pkg/controller/controller_ref_manager.go:ClaimPods, v1.34.1.
        """
        informers = self._informers
        if state.orphans_seen != informers.orphan_changes:
            state.orphans_seen = informers.orphan_changes
            if informers.orphans and state.obj.deletion_s is None:
                for pod in list(informers.orphans.values()):
                    if pod.namespace == state.obj.namespace and is_active(pod) and state.selector.matches(pod.labels):
                        self._store.update_pod(pod, owner=state.owner)
        if state.mismatched:
            for pod in list(state.mismatched.values()):
                self._store.update_pod(pod, owner=None)

    def _create(self, state: SetState) -> None:
        """Go on with the creations until they are done or the client must wait."""
        creation = state.creating
        assert creation is not None
        bucket = self._client.bucket
        obj = state.obj
        spec = self._templates.pod_spec(state.template)
        annotations = (state.template.get("metadata") or {}).get("annotations") or {}

        def make(name: str, uid: str) -> Pod:
            return Pod(
                obj.namespace, name, spec, state.labels, uid=uid, annotations=annotations, owner=state.owner,
                node=spec.node_name,
            )  # fmt: skip

        while creation.batch:
            while creation.in_batch < creation.batch:
                wait = bucket.reserve()
                if wait > 0:
                    self._clock.arm(self._clock.now + wait, CONTROLLER, self._resume, state, make)
                    return
                self._create_one(state, creation, make)
            if creation.failed is not None:
                break
            creation.remaining -= creation.batch
            creation.batch = min(2 * creation.batch, creation.remaining)
            creation.in_batch = 0
        state.creating = None
        self._finish(state, creation.counts, creation.failed, managed=True)

    def _resume(self, state: SetState, make: Callable[[str, str], Pod]) -> None:
        """The client's turn has come for the next creation."""
        creation = state.creating
        assert creation is not None
        self._create_one(state, creation, make)
        self._create(state)

    def _create_one(self, state: SetState, creation: _Creation, make: Callable[[str, str], Pod]) -> None:
        creation.in_batch += 1
        pod = self._client.create_pod(state.prefix, make, state.obj.namespace)
        if isinstance(pod, Refused):
            if creation.failed is None:
                creation.failed = pod
            self._recorder.event(state.obj, "Warning", "FailedCreate", f"Error creating: {pod.message}")
        else:
            self._recorder.event(state.obj, "Normal", "SuccessfulCreate", f"Created pod: {pod.name}")

    def _delete(self, state: SetState, count: int) -> None:
        rules = self._rules
        on_node: dict[str, int] = {}
        if state.obj.owner is not None and count < len(state.active):
            for obj in self._informers.owned_by(KIND, state.obj.owner.uid):
                for pod in self._states[obj.uid].active.values():
                    on_node[pod.node] = on_node.get(pod.node, 0) + 1
        chosen = pods_to_delete(
            list(state.active.values()),
            on_node,
            count,
            self._clock.now,
            logarithmic=rules.logarithmic_scale_down,
            costs=rules.pod_deletion_cost,
            shuffled=self._shuffled,
        )
        for pod in chosen:
            self._client.bucket.reserve()
            self._store.begin_pod_deletion(pod)
            self._recorder.event(state.obj, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

    def _finish(
        self, state: SetState, counts: tuple[int, int, int, int], failed: Refused | None, *, managed: bool
    ) -> None:
        """Write the status and end the sync."""
        key = state.key
        obj = state.obj
        if self._states.get(obj.uid) is state:
            written = self._update_status(state, counts, failed, managed)
            _, _, ready, available = counts
            if failed is None and state.min_ready_s:
                self._requeue_for_availability(state, ready, available)
            state.settled = (
                self._settings.skip_idle_syncs
                and not managed
                and failed is None
                and not state.min_ready_s
                and len(state.active) == state.replicas == counts[0]
                and written is None
            )
        if failed is None:
            self.queue.forget(key)
            self.queue.done(key)
        else:
            self.queue.add_rate_limited(key)
            self.queue.done(key)

    def _requeue_for_availability(self, state: SetState, ready: int, available: int) -> None:
        """Source: kubernetes/pkg/controller/replicaset/replica_set.go:syncReplicaSet, v1.21.9, v1.34.1."""
        min_ready = state.min_ready_s
        if not self._rules.exact_availability:
            if ready == state.replicas and available != state.replicas:
                self.queue.add_after(state.key, min_ready)
            return
        if ready == available:
            return
        now = self._clock.now
        waits = [
            end - now
            for pod in state.ready.values()
            if pod.ready_s is not None and (end := whole_second(pod.ready_s) + min_ready) > now
        ]
        self.queue.add_after(state.key, min(waits) if waits else min_ready)

    def _update_status(
        self, state: SetState, counts: tuple[int, int, int, int], failed: Refused | None, managed: bool
    ) -> Refused | None:
        """Source: kubernetes/pkg/controller/replicaset/replica_set_utils.go:calculateStatus, updateReplicaSetStatus,
        v1.34.1."""
        obj = state.obj
        old = obj.status
        replicas, labelled, ready, available = counts
        conditions: list[Json] = old.get("conditions") or []
        failure = get_condition(conditions, "ReplicaFailure") if conditions else None
        if failed is not None and failure is None:
            conditions = [
                *conditions,
                {
                    "type": "ReplicaFailure",
                    "status": "True",
                    "reason": "FailedCreate" if replicas < state.replicas else "FailedDelete",
                    "message": failed.message,
                    "lastTransitionTime": whole_second(self._clock.now),
                },
            ]
        elif failed is None and failure is not None:
            conditions = [c for c in conditions if c is not failure]
        status: Json = {"replicas": replicas}
        if labelled:
            status["fullyLabeledReplicas"] = labelled
        if ready:
            status["readyReplicas"] = ready
        if available:
            status["availableReplicas"] = available
        status["observedGeneration"] = obj.generation
        if conditions:
            status["conditions"] = conditions
        if status == old:
            return None
        self._client.bucket.reserve()
        # with nothing to manage, what this writes is what the next sync would find
        if not managed and failed is None and len(state.active) == replicas:
            self._writing = state
        refused = self._store.update_object(obj, status=status)
        self._writing = None
        return refused

    def counts(self, uid: str) -> tuple[int, int] | None:
        """(active, ready) pods of a ReplicaSet, for looking at."""
        state = self._states.get(uid)
        return None if state is None else (len(state.active), len(state.ready))
