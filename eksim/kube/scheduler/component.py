"""kube-scheduler as a component of the simulation: hears of pods and nodes, runs cycles, binds, writes statuses, evicts.

Mimics ``scheduler.go:Run`` with its informers, its binding goroutines and the queue's two flush loops. The loops sleep
until a pod could be concerned; then they are armed at the next point of their own phase, with the outcome of polling. A
cycle decides on what it sees when it begins and takes effect when it ends, so that what happens meanwhile counts as it
does in the real queue. Leaves out: leader election, client rate limits, the expiry of assumed pods (a binding's answer
is never lost here). Built by ``cluster.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from eksim.engine.clock import SCHEDULER, Clock, Grid, Timer
from eksim.engine.streams import NO_LATENCY, Latency, Stream, Streams, sampler
from eksim.errors import Refused, Standstill
from eksim.kube.scheduler.cycle import Attempt
from eksim.kube.scheduler.cycle import Scheduler as SchedulerCore
from eksim.kube.scheduler.diagnosis import Diagnosis
from eksim.kube.scheduler.evictions import Evictions
from eksim.kube.scheduler.framework import CycleState
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.preemption import Candidate
from eksim.kube.scheduler.profile import backoff_of, build_profiles
from eksim.kube.scheduler.queue import BACKOFF_FLUSH_S, LEFTOVER_FLUSH_S
from eksim.kube.scheduler.queued_pod import QueuedPod
from eksim.parts import EventRecorder
from eksim.state.changes import Verb
from eksim.state.objects import ApiObject, Condition, Node, Pod
from eksim.state.store import Store
from eksim.versions import KubernetesRules

#: An event's note may not be longer (bytes).
NOTE_LENGTH_LIMIT: Final = 1024

#: So many changes that wake nobody are kept until something else is to be done.
QUIET_MAX: Final = 256

#: Cycles within one instant after which it is asked whether they go on for ever: more than so many for each pod.
TRIES_AT_ONCE: Final = 10_000
TRIES_PER_POD: Final = 20

_OWNERS = ("ReplicaSet", "StatefulSet", "ReplicationController")


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """``start_s``: when the scheduler started, which sets the phase of its flushes; ``config``: a
    KubeSchedulerConfiguration; ``latencies``: durations by name, of which ``scheduler/cycle`` (one scheduling cycle) and
    ``scheduler/bind`` (one API call) are used."""

    start_s: float = 0.0
    config: Mapping[str, Any] | None = None
    latencies: Mapping[str, Latency] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeUsage:
    """A node as the scheduler counts it, assumed pods included: resource name → amount (cpu in millicores)."""

    requested: Mapping[str, int]
    allocatable: Mapping[str, int]


class Draws:
    """Ties are drawn evenly; where preemption begins, too. Streams are made when first needed."""

    __slots__ = ("_streams", "_ties")

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._ties: Stream | None = None

    def host(self, top: Sequence[str]) -> int:
        """One of the best nodes."""
        ties = self._ties
        if ties is None:
            ties = self._ties = self._streams["scheduler/ties"]
        return ties.randrange(len(top))

    def offset(self, nodes: int) -> int:
        """Where preemption's search begins."""
        return self._streams["scheduler/preemption"].randrange(nodes)

    def candidate(self, nodes: Sequence[str]) -> int:
        """One of the equally good candidates."""
        return self._streams["scheduler/preemption"].randrange(len(nodes))


def truncate_message(message: str) -> str:
    """Cut to what an event may hold.

    Source: kubernetes/pkg/scheduler/schedule_one.go:truncateMessage, v1.34.1.
    """
    if 4 * len(message) <= NOTE_LENGTH_LIMIT:
        return message
    raw = message.encode()
    if len(raw) <= NOTE_LENGTH_LIMIT:
        return message
    return raw[: NOTE_LENGTH_LIMIT - 4].decode(errors="ignore") + " ..."


class Scheduler:
    """The one kube-scheduler of a cluster."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        streams: Streams,
        rules: KubernetesRules,
        recorder: EventRecorder,
        settings: SchedulerSettings,
    ) -> None:
        self.clock = clock
        self.store = store
        self.rules = rules.scheduler
        self.recorder = recorder
        self.listers = Listers(store)
        self.core = SchedulerCore(
            self.rules,
            build_profiles(self.rules, settings.config),
            self.listers,
            now=lambda: clock.now,
            alive=store.pods.get,
            choices=Draws(streams),
            backoff_limits=backoff_of(settings.config),
        )
        self._evictions = Evictions(clock, store, self.rules, recorder, self.core.nominator)
        self._names = self.core.profiles
        cycle = settings.latencies.get("scheduler/cycle", NO_LATENCY)
        self._instant = cycle.kind == "constant" and cycle.a == 0
        self._draw_cycle = sampler(cycle, streams["scheduler/cycle"])
        self._draw_call = sampler(settings.latencies.get("scheduler/bind", NO_LATENCY), streams["scheduler/bind"])
        self._inbox: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        #: when the last change came, and how many of the inbox came before that instant
        self._noted_at = 0.0
        self._earlier = 0
        self._armed = False
        #: the inbox is being worked off, so there is no need to be woken for what comes
        self._awake = False
        self._busy = False
        self._calls_out = 0
        # Today back-off ends on whole seconds, and the flush keeps to them; before, it ran from the start.
        self._backoff_grid = Grid(0.0 if self.rules.backoff_windows else settings.start_s, BACKOFF_FLUSH_S)
        self._leftover_grid = Grid(settings.start_s, LEFTOVER_FLUSH_S)
        self._backoff_timer: Timer | None = None
        self._leftover_timer: Timer | None = None
        self._watch()

    # -- hearing ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        watch = self.store.watch
        watch(Verb.POD_CREATED, self._on_pod_created)
        watch(Verb.POD_BOUND, self._on_pod_bound)
        watch(Verb.POD_STATUS, self._on_pod_status)
        watch(Verb.POD_CONDITION, self._on_pod_condition)
        watch(Verb.POD_UPDATED, self._on_pod_updated)
        watch(Verb.POD_DELETING, self._on_pod_deleting)
        watch(Verb.POD_DELETED, self._on_pod_deleted)
        watch(Verb.NODE_ADDED, lambda node, _: self._note(self.core.handlers.add_node_to_cache, node))
        watch(Verb.NODE_UPDATED, lambda node, old: self._note(self.core.handlers.update_node_in_cache, old, node))
        watch(Verb.NODE_READY, lambda node, _: self._note(self._node_condition_changed, node))
        watch(Verb.NODE_DELETED, lambda node, _: self._note(self.core.handlers.delete_node_from_cache, node))
        watch(Verb.OBJECT_CREATED, self._on_object)
        watch(Verb.OBJECT_UPDATED, self._on_object)
        watch(Verb.OBJECT_DELETED, self._on_object)

    def _note(self, handler: Callable[..., None], *args: Any) -> None:
        now = self.clock.now
        if now != self._noted_at:
            self._noted_at = now
            self._earlier = len(self._inbox)
        self._inbox.append((handler, args))
        if not self._armed and not self._awake:
            self._armed = True
            self.clock.arm(now, SCHEDULER, self._wake)

    def _note_quietly(self, handler: Callable[..., None], *args: Any) -> None:
        """Hear of it when there is something else to hear or to do: it wakes nobody, and nothing is decided by it before."""
        inbox = self._inbox
        if len(inbox) >= QUIET_MAX:
            self._note(handler, *args)
            return
        now = self.clock.now
        if now != self._noted_at:
            self._noted_at = now
            self._earlier = len(inbox)
        inbox.append((handler, args))

    def _on_pod_created(self, pod: Pod, _: Any) -> None:
        if pod.node:
            self._note(self.core.handlers.add_pod_to_cache, pod)
        elif pod.spec.scheduler_name in self._names:
            self._note(self.core.handlers.add_pod_to_scheduling_queue, pod)

    def _on_pod_bound(self, pod: Pod, _: Any) -> None:
        self._note(self._pod_bound, pod)

    def _on_pod_status(self, pod: Pod, _: Any) -> None:
        if pod.node:
            if pod.phase in ("Succeeded", "Failed"):
                self._note(self._pod_finished, pod)
            elif self.rules.queueing_hints:
                self._note_quietly(self.core.cache.refresh_pod, pod)
            else:
                self._note(self.core.handlers.refresh_pod_in_cache, pod)

    def _on_pod_condition(self, pod: Pod, old: Pod) -> None:
        if not pod.node and pod.spec.scheduler_name in self._names:
            self._note(self._pending_updated, old, pod)

    def _on_pod_updated(self, pod: Pod, old: Pod) -> None:
        if pod.node:
            self._note(self._assigned_updated, old, pod)
        elif pod.spec.scheduler_name in self._names:
            self._note(self._pending_updated, old, pod)

    def _on_pod_deleting(self, pod: Pod, _: Any) -> None:
        if pod.node:
            self._note(self._assigned_updated, pod, pod)

    def _on_pod_deleted(self, pod: Pod, _: Any) -> None:
        if pod.node:
            self._note(self._pod_finished, pod)
        elif pod.spec.scheduler_name in self._names:
            self._note(self.core.handlers.delete_pod_from_scheduling_queue, pod)

    def _on_object(self, obj: ApiObject, old: ApiObject | None) -> None:
        if obj.kind == "Service":
            self._note(self._service_changed)
        elif obj.kind in _OWNERS:
            if old is None or old.spec.get("selector") != obj.spec.get("selector"):
                self._note(self._owner_changed)
        elif obj.kind == "Namespace":
            self._note(self._owner_changed)

    # -- handlers ---------------------------------------------------------------------------------------------------

    def _pod_bound(self, pod: Pod) -> None:
        handlers = self.core.handlers
        handlers.add_pod_to_cache(pod)
        if pod.spec.scheduler_name in self._names:
            handlers.delete_pod_from_scheduling_queue(pod)

    def _pod_finished(self, pod: Pod) -> None:
        """Gone, or ended, which the scheduler's informer cannot tell apart; heard of once."""
        if pod.key in self.core.cache.pods:
            self.core.handlers.delete_pod_from_cache(pod)

    def _assigned_updated(self, old: Pod, pod: Pod) -> None:
        if pod.key in self.core.cache.pods:
            self.core.handlers.update_pod_in_cache(old, pod)

    def _pending_updated(self, old: Pod, pod: Pod) -> None:
        if pod.node or self.store.pods.get(pod.key) is not pod:
            return
        # managedFields change with every write; isPodUpdated looked at them up to 1.21.
        updated = (
            self.rules.status_patch_moves
            or old.labels != pod.labels
            or old.annotations != pod.annotations
            or old.spec is not pod.spec
            or old.owner is not pod.owner
        )
        self.core.handlers.update_pod_in_scheduling_queue(old, pod, updated=updated)

    def _node_condition_changed(self, node: Node) -> None:
        if node.name in self.core.cache.nodes:
            self.core.handlers.node_condition_changed(node)

    def _service_changed(self) -> None:
        self.listers.version += 1
        self.core.handlers.on_service_change()

    def _owner_changed(self) -> None:
        self.listers.version += 1

    # -- running ----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._armed = False
        self._go_on()

    def _go_on(self) -> None:
        """Hear what came, then try pods unless a cycle is under way."""
        self._awake = True
        if self._inbox:
            self._drain()
        if not self._busy:
            self._run()
        self._awake = False

    def _drain(self) -> None:
        inbox = self._inbox
        for handler, args in inbox:  # what a handler adds is heard too
            handler(*args)
        inbox.clear()
        self._earlier = 0

    def _drain_earlier(self) -> None:
        """Hear what came before this instant: it came before the cycle's end."""
        inbox = self._inbox
        count = self._earlier if self._noted_at == self.clock.now else len(inbox)
        if count:
            for handler, args in inbox[:count]:
                handler(*args)
            del inbox[:count]
            self._earlier = 0

    def _run(self) -> None:
        """Cycles one after another, as long as a pod is due (scheduler.go:Run).

        Raises Standstill if cycles that take no time go on for ever.
        """
        core = self.core
        queue = core.queue
        tries = 0
        while (queue.active_count or queue.backoff_count) and (attempt := core.begin()) is not None:
            if not self._instant:
                self._busy = True
                clock = self.clock
                clock.arm(clock.now + self._draw_cycle(), SCHEDULER, self._end_cycle, attempt)
                return
            self._apply(attempt)
            self._drain()
            tries += 1
            if not tries % TRIES_AT_ONCE and tries > TRIES_PER_POD * len(self.store.pods):
                raise Standstill(
                    f"at {self.clock.now:g} s the scheduler has tried pods {tries:,} times in one instant "
                    f"({attempt.pod.key} the last: {attempt.message.rstrip('. ')}); expected latencies other than none"
                )
        self._arm_flushes()

    def _end_cycle(self, attempt: Attempt) -> None:
        self._busy = False
        self._awake = True
        if self._inbox:
            self._drain_earlier()
        self._apply(attempt)
        if self._inbox:
            self._drain()
        self._run()
        self._awake = False

    def _apply(self, attempt: Attempt) -> None:
        if attempt.chosen is not None:
            node = attempt.chosen.name
            self.core.assume(attempt.queued, node)
            self._later(self._bind, attempt.queued, node)
            return
        candidate = attempt.candidate
        if candidate is not None and not self.rules.async_preemption:
            self._evictions.prepare_candidate(attempt.pod, candidate)
        elif candidate is not None:
            self.core.queue.preempting[attempt.pod.key] = None
        self.core.handle_scheduling_failure(attempt)
        self._tell_failure(attempt)
        if candidate is not None and self.rules.async_preemption:
            self._later(self._prepare_candidate_async, attempt.pod, candidate)

    def _later(self, call: Callable[..., None], *args: Any) -> None:
        """Do it when the API call is answered."""
        delay = self._draw_call()
        if delay == 0:
            call(*args)
            return
        self._calls_out += 1
        self.clock.arm(self.clock.now + delay, SCHEDULER, self._answered, call, args)

    def _answered(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self._calls_out -= 1
        call(*args)

    # -- what it writes ---------------------------------------------------------------------------------------------

    def _bind(self, queued: QueuedPod, node: str) -> None:
        """Source: kubernetes/pkg/scheduler/schedule_one.go:bind, finishBinding, handleBindingCycleError, v1.34.1."""
        pod = queued.pod
        refused = self.store.bind_pod(pod, node)
        if refused is None:
            text = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
            self.recorder.event(pod, "Normal", "Scheduled", text, action="Binding")
            return
        message = self._bind_error(pod, refused)
        # The assumption is taken back, and waiting pods hear of it, in the scheduler's own turn.
        self._note(self.core.handle_binding_failure, queued)
        self.recorder.event(pod, "Warning", "FailedScheduling", truncate_message(message), action="Scheduling")
        if self.store.pods.get(pod.key) is pod and not pod.node:
            self._patch(pod, "SchedulerError", message, None)

    def _bind_error(self, pod: Pod, refused: Refused) -> str:
        text = refused.message
        if refused.code == "Conflict":
            text = f'Operation cannot be fulfilled on pods/binding "{pod.name}": {text}'
        text = f'running Bind plugin "DefaultBinder": {text}'
        return text if self.rules.events_by_plugin else f"binding rejected: {text}"

    def _tell_failure(self, attempt: Attempt) -> None:
        """Event and status of a failed attempt.

        Source: schedule_one.go:handleSchedulingFailure, updatePod, v1.34.1; scheduler.go:recordSchedulingFailure,
        v1.21.9.
        """
        pod = attempt.pod
        note = truncate_message(attempt.message)
        self.recorder.event(pod, "Warning", "FailedScheduling", note, action="Scheduling")
        if self.store.pods.get(pod.key) is pod and not pod.node:
            self._patch(pod, attempt.reason, attempt.message, attempt.nominated)

    def _patch(self, pod: Pod, reason: str, message: str, nominated: str | None) -> None:
        """Write the PodScheduled condition and the nomination, if they differ from what stands there."""
        old = pod.scheduled
        condition: Condition | None = None
        if old is None or old.status != "False" or old.reason != reason or old.message != message:
            now = self.clock.now
            since = old.last_transition_s if old is not None and old.status == "False" else now
            condition = Condition("PodScheduled", "False", reason, message, last_transition_s=since)
        if nominated == pod.nominated_node:
            nominated = None
        if condition is not None or nominated is not None:
            self.store.patch_pod_scheduling(pod, condition, nominated)

    # -- preemption -------------------------------------------------------------------------------------------------

    def _prepare_candidate_async(self, pod: Pod, candidate: Candidate) -> None:
        """The pod then waits for its victims to go. If they are gone by now, that has been missed: it is tried again.

        Source: kubernetes/pkg/scheduler/framework/preemption/preemption.go:prepareCandidateAsync, v1.34.1.
        """
        left = self._evictions.prepare_candidate(pod, candidate)
        self.core.queue.preempting.pop(pod.key, None)
        if not left:
            self._note(self.core.queue.activate, pod.key)

    # -- flushes ----------------------------------------------------------------------------------------------------

    def _arm_flushes(self) -> None:
        queue = self.core.queue
        end = queue.next_backoff_end() if queue.backoff_count else None
        if end is not None:
            if self.rules.backoff_windows:
                # A pod backs off all through the second in which its back-off ends.
                when = max(end + 1.0, self._backoff_grid.after(self.clock.now))
            else:
                when = self._backoff_grid.at_or_after(end)
            timer = self._backoff_timer
            if timer is None or not timer.pending or timer.when > when:
                if timer is not None:
                    timer.cancel()
                self._backoff_timer = self.clock.call_at(when, SCHEDULER, self._flush, queue.flush_backoff_completed)
        since = queue.oldest_unschedulable_since()
        if since is not None:
            when = self._leftover_grid.after(since + self.rules.leftover_s)
            timer = self._leftover_timer
            if timer is None or not timer.pending or timer.when > when:
                if timer is not None:
                    timer.cancel()
                flush = queue.flush_unschedulable_leftover
                self._leftover_timer = self.clock.call_at(when, SCHEDULER, self._flush, flush)

    def _flush(self, flush: Callable[[], None]) -> None:
        self._drain()
        flush()
        self._go_on()

    # -- asking -----------------------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Nothing is being tried or bound, and nothing is about to be; retries that cannot succeed do not count."""
        queue = self.core.queue
        if self._busy or self._armed or self._calls_out or queue.active_count or queue.in_flight:
            return False
        return not queue.backoff_count or not any(self._may_succeed(queued) for queued in queue.backoff_pods())

    def _may_succeed(self, queued: QueuedPod) -> bool:
        core = self.core
        framework = self._names[queued.pod.spec.scheduler_name]
        if any(priority < queued.info.priority for priority in core.cache.priorities):
            return True
        core.cache.update_snapshot()
        state = CycleState(core.handle)
        names, rejection, _ = framework.run_pre_filter(state, queued.info)
        if rejection is not None:
            return False
        return any(
            framework.run_filters(state, queued.info, node) is None
            for node in core.cache.order
            if names is None or node.name in names
        )

    def diagnosis_of(self, key: str) -> Diagnosis | None:
        """Why the pending pod ``namespace/name`` was last refused; None if it was not, or is not pending."""
        queued = self.core.queue.pods.get(key)
        found: Diagnosis | None = queued.diagnosis if queued is not None else None
        return found

    def place_of(self, key: str) -> tuple[str, int, float] | None:
        """(``active``, ``backoff``, ``unschedulable``, ``gated`` or ``in flight``; attempts; since when in seconds)."""
        queued = self.core.queue.pods.get(key)
        return None if queued is None else (queued.where, queued.attempts, queued.since)

    def node_usage(self, name: str) -> NodeUsage | None:
        """What the scheduler counts on a node."""
        info = self.core.cache.nodes.get(name)
        if info is None or info.node is None:
            return None
        requested = {"pods": len(info.pods), "cpu": info.cpu, "memory": info.memory}
        if info.ephemeral:
            requested["ephemeral-storage"] = info.ephemeral
        requested.update((resource, amount) for resource, amount in info.scalars.items() if amount)
        return NodeUsage(requested, info.node.allocatable)
