"""The scheduling queue: activeQ, backoffQ, the unschedulable pods, and what moves a pod from one to the other.

Mimics ``backend/queue`` (scheduling_queue.go, active_queue.go, backoff_queue.go; then internal/queue). Times are float
seconds, asked of the ``now`` handed in; the flushes are called from outside, at their own phase. Nothing is iterated in
random order: where the real code walks a map, this walks the order of insertion. Called by the event handlers and the
cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any, Final

from eksim.kube.scheduler.events import (
    NODE,
    UNSCHEDULABLE_TIMEOUT,
    WILDCARD,
    ClusterEvent,
    match_cluster_events,
    pod_scheduling_properties_change,
)
from eksim.kube.scheduler.facts import facts_of
from eksim.kube.scheduler.framework import Framework, Handle
from eksim.kube.scheduler.nodeinfo import PodInfo, renewed
from eksim.kube.scheduler.nominator import Nominator
from eksim.kube.scheduler.plugins import scheduling_gates
from eksim.kube.scheduler.queued_pod import (
    ACTIVE,
    BACKOFF,
    GATED,
    IN_FLIGHT,
    INITIAL_BACKOFF_S,
    MAX_BACKOFF_S,
    UNSCHEDULABLE,
    Backoff,
    InFlight,
    QueuedPod,
)
from eksim.state.objects import Pod
from eksim.versions import SchedulerRules

BACKOFF_FLUSH_S: Final = 1.0
LEFTOVER_FLUSH_S: Final = 30.0

PREEMPTION: Final = "DefaultPreemption"


class PriorityQueue:
    """Pending pods that wait to be tried."""

    def __init__(
        self,
        rules: SchedulerRules,
        now: Callable[[], float],
        handle: Handle,
        profiles: dict[str, Framework],
        nominator: Nominator,
        backoff_limits: tuple[float, float] = (INITIAL_BACKOFF_S, MAX_BACKOFF_S),
    ) -> None:
        self.rules = rules
        self.now = now
        self.handle = handle
        self.profiles = profiles
        self.nominator = nominator
        self.pods: dict[str, QueuedPod] = {}
        self.unschedulable: dict[str, QueuedPod] = {}
        self.gated: dict[str, QueuedPod] = {}
        self._in_flight = InFlight(rules)
        self.in_flight = self._in_flight.pods
        self.backoff = Backoff(rules, now, backoff_limits)
        self.active_count = 0
        self.backoff_count = 0
        self._active: list[tuple[int, float, int, QueuedPod]] = []
        self._backoff: list[tuple[float, int, float, int, QueuedPod]] = []
        self._error_backoff: list[tuple[float, int, float, int, QueuedPod]] = []
        self._tickets = 0
        self.scheduling_cycle = 0
        self.move_request_cycle = -1
        self._interest: dict[ClusterEvent, bool] = {}
        #: pods whose preemption's API calls are under way
        self.preempting: dict[str, None] = {}

    # -- the heaps ------------------------------------------------------------------------------------------------

    def _ticket(self, queued: QueuedPod, where: str) -> int:
        self._leave(queued)
        self._tickets += 1
        queued.ticket = self._tickets
        queued.where = where
        return self._tickets

    def _leave(self, queued: QueuedPod) -> None:
        where = queued.where
        if where == ACTIVE:
            self.active_count -= 1
        elif where == BACKOFF:
            self.backoff_count -= 1
        elif where == UNSCHEDULABLE:
            del self.unschedulable[queued.key]
        elif where == GATED:
            del self.gated[queued.key]
        queued.where = ""
        queued.ticket = 0

    def _to_active(self, queued: QueuedPod) -> None:
        where = queued.where
        if where == UNSCHEDULABLE:
            del self.unschedulable[queued.key]
        elif where:
            self._leave(queued)
        # _ticket, written out
        ticket = self._tickets = self._tickets + 1
        queued.ticket = ticket
        queued.where = ACTIVE
        self.active_count += 1
        heappush(self._active, (-queued.info.priority, queued.since, ticket, queued))

    def _to_backoff(self, queued: QueuedPod) -> None:
        ticket = self._ticket(queued, BACKOFF)
        self.backoff_count += 1
        until = self.backoff.ends(queued)
        if self.rules.pop_from_backoff and not queued.plugins:
            heappush(self._error_backoff, (until, 0, 0.0, ticket, queued))
        elif self.rules.pop_from_backoff:
            heappush(self._backoff, (until, -queued.info.priority, queued.since, ticket, queued))
        else:
            heappush(self._backoff, (until, 0, 0.0, ticket, queued))

    def _to_unschedulable(self, queued: QueuedPod) -> None:
        where, room = (GATED, self.gated) if queued.gate else (UNSCHEDULABLE, self.unschedulable)
        if queued.where != where:
            self._ticket(queued, where)
            room[queued.key] = queued

    def _head(self, heap: list[Any]) -> QueuedPod | None:
        while heap:
            entry = heap[0]
            queued: QueuedPod = entry[-1]
            if queued.ticket == entry[-2]:
                return queued
            heappop(heap)
        return None

    # -- coming, going, changing ----------------------------------------------------------------------------------

    def add(self, pod: Pod) -> None:
        """A new pending pod.

        Source: scheduling_queue.go:Add, v1.34.1.
        """
        queued = QueuedPod(PodInfo(pod), self.now())
        self.pods[pod.key] = queued
        if not (pod.spec.scheduling_gates or self.preempting or pod.nominated_node or self.nominator.node_of):
            # The usual case, written out.
            self._tickets += 1
            queued.ticket = self._tickets
            queued.where = ACTIVE
            self.active_count += 1
            heappush(self._active, (-queued.info.priority, queued.since, queued.ticket, queued))
            return
        if self._move_to_active(queued) and (pod.nominated_node or pod.key in self.nominator.node_of):
            self.nominator.add(queued.info, None)

    def delete(self, key: str) -> QueuedPod | None:
        """The pod is pending no more: deleted or bound.

        Source: scheduling_queue.go:Delete, v1.34.1.
        """
        if self.nominator.node_of:
            self.nominator.delete(key)
        queued = self.pods.get(key)
        if queued is None or queued.where == IN_FLIGHT:
            return None
        self._leave(queued)
        del self.pods[key]
        return queued

    def update(self, old: Pod, pod: Pod, *, updated: bool) -> None:
        """A pending pod changed. ``updated``: whether isPodUpdated finds a difference (without hints).

        Source: scheduling_queue.go:Update, v1.34.1, v1.21.9.
        """
        events: list[ClusterEvent] = []
        queued = self.pods.get(pod.key)
        if self.rules.queueing_hints:
            events = pod_scheduling_properties_change(pod, old)
            if queued is not None and queued.where == IN_FLIGHT:
                for event in events:
                    self._in_flight.note(event, old, pod)
                return
        if queued is None or queued.where == IN_FLIGHT:
            # In no queue: without hints a pod in flight is queued a second time, and the first entry lapses.
            self.add(pod)
            return
        queued.info = renewed(queued.info, pod, old)
        if self.nominator.node_of or pod.nominated_node:
            self.nominator.update(old, queued.info)
        if queued.where in (ACTIVE, BACKOFF):
            return
        if self.rules.queueing_hints:
            for event in events:
                worth = self.is_worth_requeuing(queued, event, old, pod)
                if self._requeue(queued, worth) in (ACTIVE, BACKOFF):
                    if queued.where == ACTIVE or self.rules.pop_from_backoff:
                        break
            return
        if updated:
            if self.backoff.is_on(queued):
                self._move_to_backoff(queued)
            else:
                self._move_to_active(queued)

    # -- PreEnqueue -----------------------------------------------------------------------------------------------

    def _run_pre_enqueue(self, queued: QueuedPod) -> None:
        """Source: scheduling_queue.go:runPreEnqueuePlugins, v1.34.1."""
        if scheduling_gates.gated(queued.pod):
            queued.gate = scheduling_gates.NAME
        elif queued.key in self.preempting:
            queued.gate = PREEMPTION
        else:
            queued.gate = ""
            return
        queued.plugins[queued.gate] = None

    def _move_to_active(self, queued: QueuedPod, *, from_backoff: bool = False) -> bool:
        """Source: scheduling_queue.go:moveToActiveQ, v1.34.1."""
        if not (from_backoff and self.rules.pop_from_backoff):
            if self.preempting or queued.info.pod.spec.scheduling_gates:
                self._run_pre_enqueue(queued)
            else:
                queued.gate = ""
        if queued.gate:
            self._to_unschedulable(queued)
            return False
        self._to_active(queued)
        return True

    def _move_to_backoff(self, queued: QueuedPod) -> bool:
        """Source: scheduling_queue.go:moveToBackoffQ, v1.34.1."""
        if self.rules.pop_from_backoff:
            self._run_pre_enqueue(queued)
            if queued.gate:
                self._to_unschedulable(queued)
                return False
        self._to_backoff(queued)
        return True

    # -- popping --------------------------------------------------------------------------------------------------

    def pop(self) -> QueuedPod | None:
        """The next pod to try, now in flight; None if none is due.

        Source: active_queue.go:unlockedPop, v1.34.1.
        """
        queued: QueuedPod | None = None
        active = self._active
        while active and queued is None:
            _, _, ticket, candidate = heappop(active)
            if candidate.ticket == ticket:
                queued = candidate
        if queued is None and self.rules.pop_from_backoff:
            queued = self._head(self._backoff)
            if queued is not None:
                heappop(self._backoff)
        if queued is None:
            return None
        if queued.where == ACTIVE:
            self.active_count -= 1
        else:
            self.backoff_count -= 1
        queued.ticket = 0
        queued.attempts += 1
        self._in_flight.add(queued)
        self.scheduling_cycle += 1
        if self.rules.errors_to_backoff:
            queued.plugins = {}
        queued.gate = ""
        return queued

    def has_due(self) -> bool:
        """Whether :meth:`pop` would give a pod."""
        return self.active_count > 0 or (self.rules.pop_from_backoff and self._head(self._backoff) is not None)

    def done(self, queued: QueuedPod) -> None:
        """The attempt is over and the pod does not come back."""
        self._in_flight.done(queued)

    def drop(self, queued: QueuedPod) -> None:
        """Forget a pod that was in flight: it is bound or gone."""
        self._in_flight.done(queued)
        if self.pods.get(queued.key) is queued:
            del self.pods[queued.key]

    def return_in_flight(self, queued: QueuedPod) -> None:
        """A pod whose attempt had ended well is in flight again: its binding failed."""
        self.pods[queued.key] = queued
        self._in_flight.add(queued)

    def add_unschedulable_if_not_present(self, queued: QueuedPod, pod: Pod) -> None:
        """A failed attempt: back to the queue, at once to backoffQ if something happened meanwhile that may help.

        Source: scheduling_queue.go:AddUnschedulableIfNotPresent, addUnschedulableWithoutQueueingHint, v1.34.1;
        scheduling_queue.go:AddUnschedulableIfNotPresent, v1.21.9.
        """
        if queued.info.pod is not pod or queued.info.labels is not pod.labels or queued.info.facts.spec is not pod.spec:
            queued.info = PodInfo(pod)
        if queued.plugins:
            queued.rejections += 1
            queued.errors = 0
        else:
            queued.errors += 1
        queued.since = self.now()
        queued.backoff_until = None
        if self.rules.queueing_hints:
            flight = self._in_flight
            worth = not queued.plugins
            if not worth and flight.log[-1] is not queued:
                for event, old, new in flight.events_since(queued):
                    if self.is_worth_requeuing(queued, event, old, new):
                        worth = True
                        break
            flight.done(queued)
            if worth or queued.gate:
                self._requeue(queued, worth)
            else:
                # _to_unschedulable, written out for a pod that is nowhere
                self._tickets += 1
                queued.ticket = self._tickets
                queued.where = UNSCHEDULABLE
                self.unschedulable[queued.key] = queued
            return
        moved = self.move_request_cycle >= self.scheduling_cycle
        self.done(queued)
        if moved or (self.rules.errors_to_backoff and not queued.plugins):
            self._move_to_backoff(queued)
        else:
            self._to_unschedulable(queued)

    # -- events ---------------------------------------------------------------------------------------------------

    def is_worth_requeuing(self, queued: QueuedPod, event: ClusterEvent, old: Any, new: Any) -> bool:
        """Whether a plugin that rejected the pod says that the event may help.

        Source: scheduling_queue.go:isPodWorthRequeuing, v1.34.1; podMatchesEvent, v1.21.9.
        """
        plugins = queued.plugins
        if not plugins:
            return True
        if event.resource == WILDCARD:
            return new is None or new.key == queued.key
        pod = queued.info.pod
        profile = self.profiles.get(pod.spec.scheduler_name)
        if profile is None:
            return True
        hinted = self.rules.queueing_hints
        for name, hint in profile.hints(event):  # noqa: SIM110 - half the cost of a generator
            if name in plugins and (not hinted or hint(self.handle, pod, old, new)):
                return True
        return False

    def is_event_of_interest(self, event: ClusterEvent) -> bool:
        """Whether any plugin registered for the event; then (1.21) every event counts.

        Source: scheduling_queue.go:isEventOfInterest, v1.34.1.
        """
        if event.resource == WILDCARD or not self.rules.queueing_hints:
            return True
        found = self._interest.get(event)
        if found is None:
            found = self._interest[event] = any(profile.hints(event) for profile in self.profiles.values())
        return found

    def move_all(
        self,
        event: ClusterEvent,
        old: Any = None,
        new: Any = None,
        pre_check: Callable[[QueuedPod], bool] | None = None,
    ) -> None:
        """An event: each unschedulable pod that it concerns moves to activeQ, or to backoffQ if still backing off.

        Source: scheduling_queue.go:MoveAllToActiveOrBackoffQueue, movePodsToActiveOrBackoffQueue, v1.34.1, v1.21.9.
        """
        if self.rules.queueing_hints and not (self.unschedulable or self.gated or self.in_flight):
            return
        if not self.is_event_of_interest(event):
            return
        waiting: list[QueuedPod] = []
        if self.unschedulable:
            waiting.extend(self.unschedulable.values())
        if self.gated:
            waiting.extend(self.gated.values())
        if waiting:
            if pre_check is not None:
                waiting = [queued for queued in waiting if pre_check(queued)]
            self._move(waiting, event, old, new)
        self._note(event, old, new)

    def move_with_cross_topology_term(self, pod: Pod, event: ClusterEvent, old: Pod | None) -> None:
        """Without hints: a placed pod came or changed, which only moves pods with a required affinity term that
        matches it (from 1.22 also those that PodTopologySpread rejected).

        Source: scheduling_queue.go:AssignedPodAdded, getUnschedulablePodsWithCrossTopologyTerm, v1.34.1;
        getUnschedulablePodsWithMatchingAffinityTerm, v1.21.9.
        """
        if self.unschedulable:
            labels = self.handle.listers.namespace_labels(pod.namespace)
            spread = self.rules.events_by_plugin
            concerned = []
            for queued in self.unschedulable.values():
                if spread and "PodTopologySpread" in queued.plugins and queued.pod.namespace == pod.namespace:
                    concerned.append(queued)
                    continue
                terms = facts_of(queued.pod.spec).terms(queued.pod.namespace).affinity
                if any(term.matches(pod.namespace, pod.labels, labels) for term in terms):
                    concerned.append(queued)
            self._move(concerned, event, old, pod)
        self._note(event, old, pod)

    def _move(self, waiting: Iterable[QueuedPod], event: ClusterEvent, old: Any, new: Any) -> None:
        # of a node, pods of one template that the same plugins rejected think alike
        alike: dict[Any, bool] = {}
        of_node = event.resource == NODE
        for queued in waiting:
            if queued.gate and not self._gate_hears(queued, event):
                continue
            if of_node:
                pod = queued.info.pod
                kind = (id(pod.spec), id(pod.labels), id(pod.owner), pod.namespace, *queued.plugins)
                worth = alike.get(kind)
                if worth is None:
                    worth = alike[kind] = self.is_worth_requeuing(queued, event, old, new)
            else:
                worth = self.is_worth_requeuing(queued, event, old, new)
            if worth:
                self._requeue(queued, True)

    def _gate_hears(self, queued: QueuedPod, event: ClusterEvent) -> bool:
        """Source: scheduling_queue.go:movePodsToActiveOrBackoffQueue (GatingPluginEvents), v1.34.1."""
        profile = self.profiles.get(queued.pod.spec.scheduler_name)
        return profile is not None and any(
            name == queued.gate and match_cluster_events(own, event) for name, own, _ in profile.registered
        )

    def _note(self, event: ClusterEvent, old: Any, new: Any) -> None:
        self.move_request_cycle = self.scheduling_cycle
        self._in_flight.note(event, old, new)

    def _requeue(self, queued: QueuedPod, worth: bool) -> str:
        """Source: scheduling_queue.go:requeuePodWithQueueingStrategy, v1.34.1."""
        if not worth:
            if queued.where != UNSCHEDULABLE or queued.gate:
                self._to_unschedulable(queued)
        elif self.backoff.is_on(queued):
            self._move_to_backoff(queued)
        else:
            self._move_to_active(queued)
        return queued.where

    def activate(self, key: str) -> None:
        """Force a waiting pod to activeQ, whatever its back-off.

        Source: scheduling_queue.go:Activate, v1.34.1.
        """
        queued = self.pods.get(key)
        if queued is not None and queued.where in (BACKOFF, UNSCHEDULABLE, GATED):
            self._move_to_active(queued)

    # -- flushes --------------------------------------------------------------------------------------------------

    def flush_backoff_completed(self) -> None:
        """Every second: pods whose back-off is over go to activeQ.

        Source: scheduling_queue.go:flushBackoffQCompleted, v1.34.1, v1.21.9.
        """
        due = []
        for heap in (self._backoff, self._error_backoff):
            while (queued := self._head(heap)) is not None and not self.backoff.is_on(queued):
                heappop(heap)
                self._leave(queued)
                due.append(queued)
        for queued in due:
            self._move_to_active(queued, from_backoff=True)

    def flush_unschedulable_leftover(self) -> None:
        """Every 30 s: pods that were left unschedulable for too long are tried again.

        Source: scheduling_queue.go:flushUnschedulablePodsLeftover, v1.34.1; flushUnschedulableQLeftover, v1.21.9.
        """
        now, limit = self.now(), self.rules.leftover_s
        everybody = [*self.unschedulable.values(), *self.gated.values()] if self.gated else self.unschedulable.values()
        waiting = [queued for queued in everybody if round(now - queued.since, 9) > limit]
        if waiting:
            event = UNSCHEDULABLE_TIMEOUT
            self._move(waiting, event, None, None)
            self._note(event, None, None)

    def next_backoff_end(self) -> float | None:
        """When the first back-off ends; None if nobody backs off."""
        ends = [self.backoff.ends(q) for heap in (self._backoff, self._error_backoff) if (q := self._head(heap))]
        return min(ends) if ends else None

    def oldest_unschedulable_since(self) -> float | None:
        """The timestamp of the pod that has waited longest; None if none waits."""
        for queued in self.unschedulable.values():
            return queued.since
        return None

    def active_pods(self) -> list[QueuedPod]:
        """activeQ in the order of popping."""
        return [entry[-1] for entry in sorted(self._active, key=lambda e: e[:3]) if entry[-1].ticket == entry[-2]]

    def backoff_pods(self) -> list[QueuedPod]:
        """backoffQ by expiry."""
        entries = [*self._backoff, *self._error_backoff]
        return [e[-1] for e in sorted(entries, key=lambda e: e[:4]) if e[-1].ticket == e[-2]]
