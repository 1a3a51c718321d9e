"""The DaemonSet controller: one pod for each node that fits, updated a few at a time.

Mimics kube-controller-manager's daemonset controller: placement by affinity and taints, creation in slow-start batches,
failed pods with back-off, rolling update with maxUnavailable or maxSurge, ControllerRevisions, status. The real one
looks at every node in each sync; here a sync looks at the nodes of which something changed, with the same outcome.
Called by its work queue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eksim.engine.clock import CONTROLLER, Clock
from eksim.errors import Refused
from eksim.kube.controllers.base import ApiClient, ControllerSettings, SyncFailed, WorkQueue
from eksim.kube.controllers.daemonset_history import RevisionHistory
from eksim.kube.controllers.daemonset_rules import (
    FailedPodsBackoff,
    by_creation_and_phase,
    excess_daemon_pods,
    find_updated_pods_on_node,
    node_should_run_daemon_pod,
    pinned_spec,
    target_node_name,
)
from eksim.kube.controllers.daemonset_state import DaemonState
from eksim.kube.controllers.informers import Informers, Templates
from eksim.kube.controllers.replicaset import is_available
from eksim.parts import EventRecorder
from eksim.state.objects import ApiObject, Node, Owner, Pod
from eksim.state.store import Store
from eksim.versions import ControllerRules

Json = dict[str, Any]
KIND = "DaemonSet"

#: Pods created or deleted in one sync.
BURST_REPLICAS = 250


class DaemonSetController:
    """One object for all DaemonSets."""

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
        self._shuffled = shuffled
        self._skip_idle_syncs = settings.skip_idle_syncs
        #: the DaemonSet whose status is being written just now
        self._writing: ApiObject | None = None
        self.queue = WorkQueue(clock, self._process, settings.daemonset_workers)
        #: today's queue of changed nodes
        self.node_queue = WorkQueue(clock, self._process_node)
        self._history = RevisionHistory(store, informers, templates, client)
        self._backoff = FailedPodsBackoff()
        self._states: dict[str, DaemonState] = {}
        informers.pod_handlers[KIND] = self
        informers.object_handlers.setdefault(KIND, []).append(self)
        informers.object_handlers.setdefault("ControllerRevision", []).append(_Revisions(self))
        informers.node_handlers.append(self)

    def start(self) -> None:
        """Take up the DaemonSets that are there."""
        for obj in list(self._store.list(KIND)):
            self.object_added(obj)

    @property
    def busy(self) -> bool:
        """Whether a key is at hand."""
        return self.queue.busy or self.node_queue.busy

    # -- what wakes it ----------------------------------------------------------------------------------------------

    def object_added(self, obj: ApiObject) -> None:
        """addDaemonset."""
        state = self._states[obj.uid] = DaemonState(obj)
        state.read(self._templates)
        for name in self._store.nodes:
            state.touch(name)
        for pod in self._informers.pods_of.get(obj.uid, {}).values():
            state.place(pod)
        self.queue.add(obj.key)

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        """updateDaemonset."""
        if obj is not self._writing:
            self.queue.add(obj.key)

    def object_deleted(self, obj: ApiObject) -> None:
        """deleteDaemonset."""
        self._states.pop(obj.uid, None)
        self.queue.add(obj.key)

    def _state_of(self, owner: Owner | None) -> DaemonState | None:
        return self._states.get(owner.uid) if owner is not None else None

    def pod_added(self, pod: Pod) -> None:
        """addPod, or a pod was adopted."""
        self._pod_changed(pod)

    def pod_updated(self, pod: Pod) -> None:
        """updatePod."""
        state = self._state_of(pod.owner)
        if state is None or pod.deletion_s is not None:
            return
        if self._skip_idle_syncs and not self.queue.retrying and state.counts_the_same(pod):
            return
        became_ready = pod.ready and pod.key not in state.ready
        self._pod_changed(pod)
        if became_ready and state.min_ready_s:
            # a second more than needed, against skewed clocks
            self.queue.add_after(state.key, state.min_ready_s + 1.0)

    def pod_relabelled(self, pod: Pod) -> None:
        """updatePod with changed metadata."""
        self._pod_changed(pod)

    def _pod_changed(self, pod: Pod) -> None:
        state = self._state_of(pod.owner)
        if state is not None:
            state.place(pod)
            self.queue.add(state.key)

    def pod_gone(self, pod: Pod, owner: Owner) -> None:
        """deletePod, also for a pod whose deletion began or that was released."""
        state = self._states.get(owner.uid)
        if state is not None:
            if self._store.pods.get(pod.key) is pod and pod.owner is not None and pod.owner.uid == owner.uid:
                state.place(pod)  # terminating: still there
            else:
                state.remove(pod)
            self.queue.add(state.key)

    def orphan_changed(self, pod: Pod) -> None:
        """A pod without owner: every set that selects it looks at it."""
        for state in self._states.values():
            if state.obj.namespace == pod.namespace and state.selects(pod.labels, self._templates):
                self.queue.add(state.key)

    def node_added(self, node: Node) -> None:
        """addNode."""
        for state in self._states.values():
            state.touch(node.name)
            state.read(self._templates)
            if state.fit(node)[0]:
                self.queue.add(state.key)

    def node_updated(self, node: Node, old: Node) -> None:
        """updateNode: only labels and taints matter here."""
        same_fit = node.labels == old.labels and node.taints == old.taints
        if same_fit and node.unschedulable == old.unschedulable and node.annotations == old.annotations:
            return
        if not same_fit:
            for state in self._states.values():
                state.refit(node.name)
        if self._rules.daemonset_node_queue:
            self.node_queue.add(node.name)
            return
        for state in self._states.values():
            state.read(self._templates)
            if node_should_run_daemon_pod(old, state.spec) != state.fit(node):
                self.queue.add(state.key)

    def node_deleted(self, node: Node) -> None:
        """A gone node no longer counts; nobody is woken by that."""
        for state in self._states.values():
            state.refit(node.name)

    def revision_changed(self, revision: ApiObject) -> None:
        """updateHistory, deleteHistory."""
        daemon_set = self._informers.owner_of(revision.owner, KIND, revision.namespace)
        if daemon_set is not None:
            self.queue.add(daemon_set.key)

    def _process_node(self, name: str) -> None:
        """Source: kubernetes/pkg/controller/daemon/daemon_controller.go:syncNodeUpdate, v1.34.1."""
        node = self._store.nodes.get(name)
        if node is not None:
            for state in self._states.values():
                state.read(self._templates)
                run, stay = state.fit(node)
                there = any(pod.node == name for pod in state.on_node.get(name, {}).values())
                misscheduled = state.obj.status.get("numberMisscheduled", 0) > 0
                if (run and not there) or (there and (not stay or misscheduled)):
                    self.queue.add(state.key)
        self.node_queue.forget(name)
        self.node_queue.done(name)

    # -- the sync ---------------------------------------------------------------------------------------------------

    def _process(self, key: str) -> None:
        obj = self._store.get(KIND, key)
        state = None if obj is None else self._states.get(obj.uid)
        if state is None or state.obj.deletion_s is not None:
            self.queue.forget(key)
            self.queue.done(key)
            return
        self._go_on(key, self._sync(state))

    def _go_on(self, key: str, sync: Iterator[float]) -> None:
        """Run a sync until it is done or must wait for its client (it yields the seconds)."""
        try:
            for wait in sync:
                self._clock.arm(self._clock.now + wait, CONTROLLER, self._go_on, key, sync)
                return
        except SyncFailed:
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
        self.queue.done(key)

    def _sync(self, state: DaemonState) -> Iterator[float]:
        """Source: kubernetes/pkg/controller/daemon/daemon_controller.go:syncDaemonSet, v1.34.1."""
        state.read(self._templates)
        hash_, old_revisions = self._history.construct(state)
        state.set_hash(hash_)
        failed: SyncFailed | None = None
        try:
            self._claim_pods(state)
            yield from self._manage(state)
            if state.rolling:
                yield from self._rolling_update(state)
            self._history.cleanup(state, old_revisions)
        except SyncFailed as error:
            failed = error
        self._update_status(state)
        if failed is not None:
            raise failed

    def _claim_pods(self, state: DaemonState) -> None:
        """Source: kubernetes/pkg/controller/controller_ref_manager.go:ClaimPods, v1.34.1."""
        informers = self._informers
        if state.orphans_seen != informers.orphan_changes:
            state.orphans_seen = informers.orphan_changes
            for pod in list(informers.orphans.values()):
                if (
                    pod.namespace == state.obj.namespace
                    and pod.deletion_s is None
                    and state.selects(pod.labels, self._templates)
                ):
                    self._store.update_pod(pod, owner=state.owner)
        for pod in list(state.mismatched.values()):
            self._store.update_pod(pod, owner=None)

    def _manage(self, state: DaemonState) -> Iterator[float]:
        """Source: kubernetes/pkg/controller/daemon/daemon_controller.go:manage, v1.34.1."""
        create: list[str] = []
        delete: list[Pod] = []
        nodes = self._store.nodes
        for name in state.take_changed():
            node = nodes.get(name)
            if node is None:
                # pods that wait for a node that is gone are never scheduled, and nobody else deletes them
                delete += [pod for pod in state.on_node.get(name, {}).values() if not pod.node]
            else:
                self._pods_should_be_on_node(state, node, create, delete)
        yield from self._sync_nodes(state, delete, create)

    def _pods_should_be_on_node(
        self, state: DaemonState, node: Node, create: list[str], delete: list[Pod]
    ) -> None:
        """Source: kubernetes/pkg/controller/daemon/daemon_controller.go:podsShouldBeOnNode, v1.34.1."""
        run, stay = state.fit(node)
        pods = state.on_node.get(node.name) or {}
        if run and not pods:
            create.append(node.name)
        elif stay:
            running = self._running_pods(state, node, delete)
            if not state.surge:
                if len(running) > 1:
                    running.sort(key=by_creation_and_phase)
                    delete += running[1:]
            elif len(running) <= 1:
                if not running and run:
                    create.append(node.name)
            else:
                running.sort(key=by_creation_and_phase)
                new = next((p for p in running if p.labels.get("controller-revision-hash") == state.hash), None)
                delete += excess_daemon_pods(running, state.hash, new is not None and self._is_available(state, new))
        else:
            delete += [pod for pod in pods.values() if pod.deletion_s is None]

    def _running_pods(self, state: DaemonState, node: Node, delete: list[Pod]) -> list[Pod]:
        """The pods there that have not ended; ended ones are deleted, failed ones after a back-off."""
        running = []
        obj = state.obj
        for pod in (state.on_node.get(node.name) or {}).values():
            if pod.deletion_s is not None:
                continue
            if pod.phase == "Failed":
                key = f"{obj.uid}/{obj.status.get('observedGeneration', 0)}/{node.name}"
                now = self._clock.now
                if self._backoff.in_backoff(key, now):
                    state.look_again(node.name)
                    self.queue.add_after(state.key, self._backoff.get(key))
                    continue
                self._backoff.next(key, now)
                text = f"Found failed daemon pod {pod.namespace}/{pod.name} on node {node.name}, will try to kill it"
                self._recorder.event(obj, "Warning", "FailedDaemonPod", text)
                delete.append(pod)
            elif pod.phase == "Succeeded":
                text = (
                    f"Found succeeded daemon pod {pod.namespace}/{pod.name} on node {node.name}, will try to delete it"
                )
                self._recorder.event(obj, "Normal", "SucceededDaemonPod", text)
                delete.append(pod)
            else:
                running.append(pod)
        return running

    def _is_available(self, state: DaemonState, pod: Pod) -> bool:
        return is_available(pod, state.min_ready_s, self._clock.now, self._rules.exact_availability)

    def _sync_nodes(self, state: DaemonState, delete: list[Pod], create: list[str]) -> Iterator[float]:
        """Create in slow-start batches, then delete; yields the seconds that the client must wait.

        Source: kubernetes/pkg/controller/daemon/daemon_controller.go:syncNodes, v1.34.1.
        """
        client, obj, recorder = self._client, state.obj, self._recorder
        for name in create:
            state.look_again(name)
        failed: Refused | None = None
        count = min(len(create), BURST_REPLICAS)
        batch, position = min(count, 1), 0
        while position < count:
            for name in create[position : position + batch]:
                wait = client.bucket.reserve()
                if wait > 0:
                    yield wait
                pod = client.create_pod(state.prefix, state.pod_maker(name, pinned_spec), obj.namespace, name)
                if isinstance(pod, Refused):
                    failed = failed or pod
                    recorder.event(obj, "Warning", "FailedCreate", f"Error creating: {pod.message}")
                else:
                    recorder.event(obj, "Normal", "SuccessfulCreate", f"Created pod: {pod.name}")
            position += batch
            if failed is not None and position < count:
                break
            batch = min(2 * batch, count - position)
        for pod in delete[:BURST_REPLICAS]:
            wait = client.bucket.reserve()
            if wait > 0:
                yield wait
            if self._store.pods.get(pod.key) is pod:
                self._store.begin_pod_deletion(pod)
                recorder.event(obj, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")
        for pod in delete[BURST_REPLICAS:]:
            state.look_again(target_node_name(pod))
        if failed is not None:
            raise SyncFailed(failed)

    # -- rolling update -----------------------------------------------------------------------------------------------

    def _rolling_update(self, state: DaemonState) -> Iterator[float]:
        """Source: kubernetes/pkg/controller/daemon/update.go:rollingUpdate, v1.34.1."""
        self._refresh(state)
        if not state.has_old_pods():
            return
        nodes = self._store.nodes
        wanted = {name: None for name, node in nodes.items() if state.fit(node)[0]}
        names = dict.fromkeys((*state.on_node, *wanted))
        surge, unavailable = state.fenceposts(len(wanted))
        if surge == 0:
            yield from self._sync_nodes(state, self._old_pods_to_replace(state, names, unavailable), [])
        else:
            delete, create = self._surge(state, names, wanted, surge)
            yield from self._sync_nodes(state, delete, create)

    def _old_pods_to_replace(self, state: DaemonState, names: dict[str, None], unavailable_max: int) -> list[Pod]:
        unavailable = 0
        replace: list[Pod] = []
        candidates: list[Pod] = []
        for name in names:
            pods = state.on_node.get(name) or {}
            new, old, clear = find_updated_pods_on_node(pods.values(), state.hash, state.generation)
            if not clear or (new is None) == (old is None):
                unavailable += 1
            elif new is not None:
                if not self._is_available(state, new):
                    unavailable += 1
            elif old is not None and self._is_available(state, old):
                candidates.append(old)
            elif old is not None:
                replace.append(old)
                unavailable += self._rules.daemonset_replaced_count
        left = unavailable_max - unavailable
        return replace + list(self._shuffled(candidates))[: max(0, left)]

    def _surge(
        self, state: DaemonState, names: dict[str, None], wanted: dict[str, None], surge_max: int
    ) -> tuple[list[Pod], list[str]]:
        """(old pods to delete, nodes that get a new pod beside the old one)."""
        surging = available = 0
        delete: list[Pod] = []
        unfit: list[Pod] = []
        allowed: list[str] = []
        candidates: list[Pod] = []
        for name in names:
            pods = state.on_node.get(name) or {}
            new, old, clear = find_updated_pods_on_node(pods.values(), state.hash, state.generation)
            if not clear:
                surging += 1
                continue
            new_available = new is not None and self._is_available(state, new)
            old_available = old is not None and self._is_available(state, old)
            available += new_available or old_available
            if old is None:
                continue
            if new is not None:
                if new_available:
                    delete.append(old)
                else:
                    surging += 1
            elif not old_available:
                if name in wanted:
                    allowed.append(name)
                else:
                    delete.append(old)
            elif name not in wanted:
                unfit.append(old)
            else:
                candidates.append(old)
        left = max(0, surge_max - surging)
        create = allowed + [target_node_name(pod) for pod in list(self._shuffled(candidates))[:left]]
        deletable = available - len(wanted)
        if deletable > 0:
            delete += list(self._shuffled(unfit))[:deletable]
        return delete, create

    # -- status -------------------------------------------------------------------------------------------------------

    def _refresh(self, state: DaemonState) -> None:
        """Bring the counts of the nodes that changed up to date."""
        nodes = self._store.nodes
        for name in state.take_uncounted():
            state.count(name, nodes.get(name), self._is_available)

    def _update_status(self, state: DaemonState) -> None:
        """Source: kubernetes/pkg/controller/daemon/daemon_controller.go:updateDaemonSetStatus, v1.34.1."""
        self._refresh(state)
        obj = state.obj
        status = state.status()
        if status != {key: value for key, value in obj.status.items() if key in status or value}:
            self._client.bucket.reserve()
            # what this sync changed beside the status has woken it already
            self._writing = obj if self._skip_idle_syncs else None
            refused = self._store.update_object(obj, status=status)
            self._writing = None
            if refused is not None:
                raise SyncFailed(refused)
        if state.min_ready_s and state.ready_not_available():
            self.queue.add_after(state.key, state.min_ready_s)


class _Revisions:
    """Hands ControllerRevisions' changes to the DaemonSet controller."""

    __slots__ = ("_controller",)

    def __init__(self, controller: DaemonSetController) -> None:
        self._controller = controller

    def object_added(self, obj: ApiObject) -> None:
        """A new revision of an owned history wakes nobody."""

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        self._controller.revision_changed(obj)

    def object_deleted(self, obj: ApiObject) -> None:
        self._controller.revision_changed(obj)
