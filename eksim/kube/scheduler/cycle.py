"""The scheduling cycle: one pod is tried, and either assumed on a node or sent back to the queue.

Mimics ``schedule_one.go`` (then ``scheduler.go`` and ``core/generic_scheduler.go``) with one filter worker, so that nodes
are looked at strictly in order. Knows no store and no time but what it is handed: the caller binds, writes statuses,
records events and evicts. Called by the component and by the replay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any, Protocol

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.cache import Cache
from eksim.kube.scheduler.class_places import Verdict
from eksim.kube.scheduler.classes import ClassTable, ClassTables
from eksim.kube.scheduler.diagnosis import NO_NODES, Diagnosis, count_statuses
from eksim.kube.scheduler.framework import UNRESOLVABLE, CycleState, Framework, Handle, Status, go_list
from eksim.kube.scheduler.handlers import EventHandlers
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.nominator import Nominator
from eksim.kube.scheduler.preemption import NOT_HELPFUL, Candidate, Evaluator, Outcome
from eksim.kube.scheduler.queue import PriorityQueue
from eksim.kube.scheduler.queued_pod import INITIAL_BACKOFF_S, MAX_BACKOFF_S, QueuedPod
from eksim.kube.scheduler.sampling import MIN_FEASIBLE_NODES_TO_FIND, num_feasible_nodes_to_find
from eksim.state.objects import Pod
from eksim.versions import SchedulerRules


class Choices(Protocol):
    """What the real scheduler leaves to chance."""

    def host(self, top: Sequence[str]) -> int:
        """Which of the nodes with the highest score."""

    def offset(self, nodes: int) -> int:
        """Where preemption's search over so many nodes starts."""

    def candidate(self, nodes: Sequence[str]) -> int:
        """Which of the nodes where preemption is equally good."""


class TiedNodes(Sequence[str]):
    """The names of a verdict's best nodes, worked out only if somebody reads them."""

    def __init__(self, table: ClassTable, verdict: Verdict) -> None:
        self._table = table
        self._verdict = verdict

    def __len__(self) -> int:
        return self._verdict.count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < self._verdict.count:
            raise IndexError(index)
        return self._table.places.member(self._verdict, index).name


class Scores:
    """The scoring of one attempt: plugin → (weight, raw, normalised) per feasible node, and totals."""

    __slots__ = ("by_plugin", "top", "total")

    def __init__(self, by_plugin: dict[str, tuple[int, list[int], list[int]]], total: list[int], top: list[str]) -> None:
        self.by_plugin = by_plugin
        self.total = total
        self.top = top


class Attempt:
    """What one attempt came to. Names of nodes; ``rejected``: the nodes looked at and refused, by name.

    ``nominated``: the node that the pod is nominated to from now on; "" clears a nomination, None leaves it.
    ``message``: the FailedScheduling message, "" on success. ``scores`` only if detail was asked for.
    """

    __slots__ = (
        "candidate",
        "chosen",
        "diagnosis",
        "feasible",
        "find",
        "message",
        "next_start",
        "nodes",
        "nominated",
        "pod",
        "queued",
        "reason",
        "rejected",
        "scores",
        "start",
    )

    def __init__(self, queued: QueuedPod, start: int) -> None:
        self.queued = queued
        self.pod = queued.info.pod
        self.start = start
        self.next_start = start
        self.nodes = 0
        self.find = 0
        self.rejected: Mapping[str, Status] = {}
        self.feasible: list[NodeInfo] = []
        self.scores: Scores | None = None
        self.chosen: NodeInfo | None = None
        self.diagnosis: Diagnosis | None = None
        self.message = ""
        #: the PodScheduled condition's reason
        self.reason = "Unschedulable"
        self.nominated: str | None = None
        self.candidate: Candidate | None = None


class Refusal:
    """What an attempt came to that every node refused by its class, and the versions of what it looked at."""

    __slots__ = ("cache_version", "diagnosis", "find", "listers_version", "message", "nodes", "nominated", "pod")

    def __init__(self, pod: PodInfo, cache_version: int, listers_version: int, attempt: Attempt) -> None:
        self.pod = pod
        self.cache_version = cache_version
        self.listers_version = listers_version
        self.nodes = attempt.nodes
        self.find = attempt.find
        self.diagnosis = attempt.diagnosis
        self.message = attempt.message
        self.nominated = attempt.nominated


class Scheduler:
    """Cache, queue and profiles of one kube-scheduler.

    ``alive(key)``: the pod as the API server has it, or None; ``now``: seconds; ``choices``: see :class:`Choices`;
    ``backoff_limits``: the first and the longest back-off, in seconds.
    """

    def __init__(
        self,
        rules: SchedulerRules,
        profiles: dict[str, Framework],
        listers: Listers,
        *,
        now: Callable[[], float],
        alive: Callable[[str], Pod | None],
        choices: Choices,
        backoff_limits: tuple[float, float] = (INITIAL_BACKOFF_S, MAX_BACKOFF_S),
    ) -> None:
        self.rules = rules
        self.profiles = profiles
        self.cache = Cache(rules)
        self.handle = Handle(self.cache, listers, rules)
        self.nominator = Nominator(alive, checks_bound=rules.queueing_hints)
        self.queue = PriorityQueue(rules, now, self.handle, profiles, self.nominator, backoff_limits)
        self.handlers = EventHandlers(rules, self.cache, self.queue)
        self.alive = alive
        self.choices = choices
        self.evaluator = Evaluator(self.nominator, listers.budgets, choices.offset, choices.candidate)
        self.tables = ClassTables(self.handle)
        self.next_start_node_index = 0

    # -- the story ------------------------------------------------------------------------------------------------

    def schedule_one(self, *, detail: bool = False) -> Attempt | None:
        """Try the next pod; None if none is due.

        Source: kubernetes/pkg/scheduler/schedule_one.go:ScheduleOne, v1.34.1.
        """
        attempt = self.begin(detail=detail)
        if attempt is not None:
            self.finish(attempt)
        return attempt

    def begin(self, *, detail: bool = False) -> Attempt | None:
        """Pop the next pod and decide about it; nothing is assumed or requeued yet."""
        while (queued := self.queue.pop()) is not None:
            framework = self.profiles.get(queued.info.pod.spec.scheduler_name)
            if framework is None or queued.key in self.cache.assumed:
                self.queue.drop(queued)
                continue
            return self.schedule_pod(framework, queued, detail=detail)
        return None

    def finish(self, attempt: Attempt) -> None:
        """Assume the pod on the chosen node, or handle the failure."""
        if attempt.chosen is not None:
            self.assume(attempt.queued, attempt.chosen.name)
        else:
            self.handle_scheduling_failure(attempt)

    def assume(self, queued: QueuedPod, node: str) -> None:
        """Source: schedule_one.go:assume, v1.34.1. The pod's part in the queue is over."""
        self.cache.assume_pod(queued.info, node)
        if self.nominator.node_of:
            self.nominator.delete(queued.key)
        self.queue.drop(queued)

    def handle_scheduling_failure(self, attempt: Attempt) -> None:
        """Back to the queue, with the nomination that came of it.

        Source: schedule_one.go:handleSchedulingFailure, v1.34.1; scheduler.go:recordSchedulingFailure, v1.21.9.
        """
        queued, queue = attempt.queued, self.queue
        if attempt.diagnosis is not None:
            queued.plugins = dict(attempt.diagnosis.plugins)
            queued.diagnosis = attempt.diagnosis
        alive = self.alive(queued.key)
        if alive is None or alive.node:
            queue.drop(queued)
        elif queue.pods.get(queued.key) is not queued:
            queue.done(queued)
        else:
            queue.add_unschedulable_if_not_present(queued, alive)
        nominated = attempt.nominated if self.rules.postfilter_message else attempt.nominated or None
        if nominated or self.nominator.node_of or queued.info.pod.nominated_node:
            self.nominator.add(queued.info, nominated)

    def handle_binding_failure(self, queued: QueuedPod) -> None:
        """The binding failed: the assumption is taken back, and the pod returns as an error.

        Source: schedule_one.go:handleBindingCycleError, v1.34.1; scheduler.go:scheduleOne, v1.21.9.
        """
        assumed = self.cache.assumed.get(queued.key)
        self.cache.forget_pod(queued.key)
        if self.rules.events_by_plugin:
            # hints are asked about the pod as it was assumed: on its node
            gone = copy(queued.pod)
            gone.node = gone.node or (assumed.node if assumed is not None else "")
            self.queue.move_all(ev.ASSIGNED_POD_DELETE, gone, None)
        alive = self.alive(queued.key)
        if alive is not None and not alive.node and queued.key not in self.queue.pods:
            queued.plugins = {}
            self.queue.return_in_flight(queued)
            queued.info = PodInfo(alive)
            self.queue.add_unschedulable_if_not_present(queued, alive)

    # -- one pod --------------------------------------------------------------------------------------------------

    def schedule_pod(self, framework: Framework, queued: QueuedPod, *, detail: bool) -> Attempt:
        """Filter, score, choose; without a feasible node, see whether preemption helps.

        Source: schedule_one.go:schedulePod, schedulingCycle, v1.34.1; generic_scheduler.go:Schedule, v1.21.9.
        """
        if queued.refusal is not None and not detail:
            known = self._refused_again(queued)
            if known is not None:
                return known
        attempt = Attempt(queued, self.next_start_node_index)
        cache = self.cache
        order = cache.update_snapshot() if cache.tree_changed or cache.images_to_count else cache.order
        attempt.nodes = nodes = len(order)
        if not order:
            attempt.message = NO_NODES
            attempt.nominated = "" if self.rules.postfilter_message else None
            return attempt
        attempt.find = nodes
        if nodes >= MIN_FEASIBLE_NODES_TO_FIND:
            attempt.find = num_feasible_nodes_to_find(nodes, framework.percentage_of_nodes_to_score)
        pod = queued.info
        if not detail and self._schedule_by_classes(framework, pod, attempt):
            if attempt.chosen is None:
                queued.refusal = Refusal(pod, self.cache.version, self.handle.listers.version, attempt)
            return attempt
        state = CycleState(self.handle)
        diagnosis = attempt.diagnosis = Diagnosis(nodes)
        self._find_nodes_that_fit_pod(framework, state, pod, attempt, diagnosis)
        attempt.next_start = self.next_start_node_index
        feasible = attempt.feasible
        if not feasible:
            self._post_filter(framework, state, pod, attempt, diagnosis)
        elif len(feasible) == 1:
            attempt.chosen = feasible[0]
        else:
            total, by_plugin = framework.run_scores(state, pod, feasible)
            highest = max(total)
            top = [i for i, score in enumerate(total) if score == highest]
            names = [feasible[i].name for i in top]
            attempt.chosen = feasible[top[self.choices.host(names) if len(top) > 1 else 0]]
            if detail:
                attempt.scores = Scores(by_plugin, total, names)
        return attempt

    def _refused_again(self, queued: QueuedPod) -> Attempt | None:
        """An attempt that can only come to what the last one came to: nothing that it looked at has changed."""
        known: Refusal = queued.refusal
        if (
            known.cache_version != self.cache.version
            or known.pod is not queued.info
            or known.listers_version != self.handle.listers.version
            or self.nominator.by_node
            or known.pod.pod.nominated_node
        ):
            queued.refusal = None
            return None
        attempt = Attempt(queued, self.next_start_node_index)
        attempt.nodes = known.nodes
        attempt.find = known.find
        attempt.diagnosis = known.diagnosis
        attempt.message = known.message
        attempt.nominated = known.nominated
        return attempt

    def class_table(self, framework: Framework, pod: PodInfo) -> ClassTable | None:
        """The node classes for the pod, if they can stand for the nodes: not while nominations are about, nor for a
        pod that fits nowhere where preemption has something to look at."""
        if self.nominator.by_node or pod.pod.nominated_node:
            return None
        table = self.tables.table_for(framework, pod)
        if table is not None and not table.feasible and framework.preempts:
            priority = pod.priority
            for other in self.cache.priorities:
                if other < priority and pod.facts.spec.preemption_policy != "Never":
                    return None
        return table

    def _schedule_by_classes(self, framework: Framework, pod: PodInfo, attempt: Attempt) -> bool:
        table = self.class_table(framework, pod)
        if table is None:
            return False
        if not table.feasible:
            attempt.diagnosis, attempt.message, attempt.nominated = table.refusal(framework.claims)
            return True
        verdict = table.verdict(attempt.start, attempt.find)
        attempt.next_start = self.next_start_node_index = (attempt.start + verdict.evaluated) % attempt.nodes
        index = 0
        if verdict.count > 1:
            index = self.choices.host(TiedNodes(table, verdict))
        attempt.chosen = table.places.member(verdict, index)
        return True

    def _find_nodes_that_fit_pod(
        self, framework: Framework, state: CycleState, pod: PodInfo, attempt: Attempt, diagnosis: Diagnosis
    ) -> None:
        """Source: schedule_one.go:findNodesThatFitPod, v1.34.1; generic_scheduler.go, v1.21.9."""
        rules, order = self.rules, self.cache.order
        statuses: dict[str, Status] = {}
        attempt.rejected = statuses
        names, rejection, narrowing = framework.run_pre_filter(state, pod)
        diagnosis.plugins = dict(narrowing)
        if rejection is not None:
            if rejection.plugin:
                diagnosis.plugins[rejection.plugin] = None
            if rules.prefilter_nodes:
                diagnosis.absent = rejection
                diagnosis.pre_filter_message = ", ".join(rejection.reasons)
            else:
                statuses.update((node.name, rejection) for node in order)
            return
        nominated = pod.pod.nominated_node
        if nominated and rules.prefer_nominated:
            node = self.cache.snapshot.get(nominated)
            if node is not None:
                self._find_nodes_that_pass_filters(framework, state, pod, attempt, diagnosis, [node], statuses)
                if attempt.feasible:
                    return
        nodes = order
        if names is not None:
            nodes = [self.cache.snapshot[name] for name in sorted(names) if name in self.cache.snapshot]
            # The set of rejecting plugins is one with the narrowing ones: what refused the nominated node is in it.
            text = f"node(s) didn't satisfy plugin(s) {go_list(diagnosis.plugins)}"
            diagnosis.absent = Status("", UNRESOLVABLE, (text,))
        if nodes:
            self._find_nodes_that_pass_filters(framework, state, pod, attempt, diagnosis, nodes, statuses)
        processed = len(attempt.feasible) + len(statuses)
        self.next_start_node_index = (self.next_start_node_index + processed) % len(order)

    def _find_nodes_that_pass_filters(
        self,
        framework: Framework,
        state: CycleState,
        pod: PodInfo,
        attempt: Attempt,
        diagnosis: Diagnosis,
        nodes: Sequence[NodeInfo],
        statuses: dict[str, Status],
    ) -> None:
        """Source: schedule_one.go:findNodesThatPassFilters, v1.34.1; generic_scheduler.go, v1.21.9."""
        count = len(nodes)
        enough = num_feasible_nodes_to_find(count, framework.percentage_of_nodes_to_score)
        if not framework.score_plugins and self.rules.postfilter_message:
            enough = 1
        feasible: list[NodeInfo] = []
        start = self.next_start_node_index
        nominations = self.nominator.by_node
        for i in range(count):
            node = nodes[(start + i) % count]
            if node.name in nominations:
                nominated = self.nominator.pods_for_node(node.name)
                status = framework.run_filters_with_nominated(state, pod, node, nominated)
            else:
                status = framework.run_filters(state, pod, node)
            if status is not None:
                statuses[node.name] = status
                diagnosis.plugins[status.plugin] = None
            elif len(feasible) == enough:
                # The one more that ends the search: dropped, and not counted.
                break
            else:
                feasible.append(node)
        attempt.feasible = feasible

    def _post_filter(
        self, framework: Framework, state: CycleState, pod: PodInfo, attempt: Attempt, diagnosis: Diagnosis
    ) -> None:
        """Source: schedule_one.go:schedulingCycle; framework/runtime/framework.go:RunPostFilterPlugins, v1.34.1."""
        statuses = attempt.rejected
        diagnosis.counts = count_statuses(statuses.values())
        diagnosis.absent_count = attempt.nodes - len(statuses)
        if framework.preempts:
            absent = diagnosis.absent
            if absent is None and self.rules.postfilter_message:
                absent = NOT_HELPFUL
            outcome = self.evaluator.preempt(
                framework, state, pod, self.cache.order, self.cache.snapshot, statuses, absent
            )
            self._note_preemption(attempt, diagnosis, outcome)
        attempt.message = diagnosis.message(self.rules, claims=framework.claims)

    @staticmethod
    def _note_preemption(attempt: Attempt, diagnosis: Diagnosis, outcome: Outcome) -> None:
        attempt.nominated = outcome.nominated
        attempt.candidate = outcome.candidate
        diagnosis.preempted = outcome.candidate is not None
        if outcome.message:
            diagnosis.preemption_message = outcome.message
        elif outcome.candidate is None:
            found = count_statuses(outcome.statuses.values())
            left = attempt.nodes - len(outcome.statuses)
            diagnosis.preemption_counts = [*found, (NOT_HELPFUL, left)] if left else found
