"""DefaultPreemption: which lower-priority pods would have to go so that a pod fits, and on which node it hurts least.

Mimics ``framework/preemption/preemption.go`` and ``plugins/defaultpreemption/default_preemption.go`` (then: the latter
alone). Decides only; the evictions are the caller's. Leaves out extenders. Called by the cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from eksim.kube.scheduler.framework import (
    UNRESOLVABLE,
    UNSCHEDULABLE,
    CycleState,
    Framework,
    Status,
)
from eksim.kube.scheduler.go_sort import sort_slice
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.nominator import Nominator
from eksim.state.objects import ApiObject
from eksim.state.selectors import LabelSelector

NAME: Final = "DefaultPreemption"
NO_VICTIMS: Final = Status(NAME, UNRESOLVABLE, ("No preemption victims found for incoming pod",))
NOT_HELPFUL: Final = Status(NAME, UNRESOLVABLE, ("Preemption is not helpful for scheduling",))
NEVER: Final = "not eligible due to preemptionPolicy=Never."
TERMINATING: Final = "not eligible due to a terminating pod on the nominated node."


class Candidate:
    """A node where preemption would make room, and its victims, the most important first."""

    __slots__ = ("node", "pdb_violations", "victims")

    def __init__(self, node: str, victims: list[PodInfo], pdb_violations: int) -> None:
        self.node = node
        self.victims = victims
        self.pdb_violations = pdb_violations


class Outcome:
    """What PostFilter found. ``nominated``: the node; "" clears a nomination, None leaves it; ``message``: why not."""

    __slots__ = ("candidate", "message", "nominated", "statuses")

    def __init__(
        self,
        nominated: str | None = None,
        candidate: Candidate | None = None,
        message: str = "",
        statuses: Mapping[str, Status] | None = None,
    ) -> None:
        self.nominated = nominated
        self.candidate = candidate
        self.message = message
        self.statuses: Mapping[str, Status] = statuses or {}


def more_important_pod(pod: PodInfo, other: PodInfo) -> bool:
    """Higher priority, then earlier start. A pod without a start counts as started at the moment of asking, so of two
    such pods the first asked about is the earlier one.

    Source: kubernetes/pkg/scheduler/util/utils.go:MoreImportantPod, v1.34.1.
    """
    if pod.priority != other.priority:
        return pod.priority > other.priority
    if pod.start_s is None:
        return other.start_s is None
    return other.start_s is None or pod.start_s < other.start_s


def sort_by_importance(pods: list[PodInfo]) -> None:
    """Most important first, as Go sorts: pods that are equally important do not keep their order if there are more than
    12, and pods without a start, each of which seems earlier than the one asked about later, come out backwards.

    Source: default_preemption.go:SelectVictimsOnNode, v1.34.1.
    """
    sort_slice(pods, more_important_pod)


def earliest_pod_start_time(victims: Sequence[PodInfo]) -> float:
    """The earliest start among the victims of the highest priority; infinity: "now".

    Source: kubernetes/pkg/scheduler/util/utils.go:GetEarliestPodStartTime, v1.34.1.
    """
    highest = max(pod.priority for pod in victims)
    return min(float("inf") if p.start_s is None else p.start_s for p in victims if p.priority == highest)


def filter_pods_with_pdb_violation(
    pods: Sequence[PodInfo], budgets: Sequence[ApiObject]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """(pods whose eviction would break a budget, the others), each in the order given.

    Source: kubernetes/pkg/scheduler/framework/plugins/defaultpreemption/default_preemption.go:
    filterPodsWithPDBViolation, v1.34.1.
    """
    if not budgets:
        return [], list(pods)
    allowed = [int(budget.status.get("disruptionsAllowed") or 0) for budget in budgets]
    selectors = [LabelSelector.parse(budget.spec.get("selector")) for budget in budgets]
    violating: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        violated = False
        if pod.labels:
            for i, budget in enumerate(budgets):
                selector = selectors[i]
                if budget.namespace != pod.namespace or selector.empty or not selector.matches(pod.labels):
                    continue
                if pod.pod.name in (budget.status.get("disruptedPods") or {}):
                    continue
                allowed[i] -= 1
                if allowed[i] < 0:
                    violated = True
        (violating if violated else others).append(pod)
    return violating, others


def calculate_num_candidates(nodes: int, percentage: int, absolute: int) -> int:
    """How many candidates are enough.

    Source: default_preemption.go:calculateNumCandidates, v1.34.1.
    """
    return min(max(nodes * percentage // 100, absolute), nodes)


def select_victims_on_node(
    framework: Framework,
    state: CycleState,
    pod: PodInfo,
    node: NodeInfo,
    nominated: Sequence[PodInfo],
    budgets: Sequence[ApiObject],
) -> Candidate | Status:
    """The victims on one node (a clone, with a cloned state), or why preemption cannot help there.

    Source: default_preemption.go:SelectVictimsOnNode, v1.34.1; selectVictimsOnNode, v1.21.9.
    """
    potential = [other for other in node.pods if other.priority < pod.priority]
    for other in potential:
        node.remove_pod(other)
        framework.run_remove_pod(state, pod, other, node)
    if not potential:
        return NO_VICTIMS
    status = framework.run_filters_with_nominated(state, pod, node, nominated)
    if status is not None:
        return status
    sort_by_importance(potential)
    violating, others = filter_pods_with_pdb_violation(potential, budgets)
    victims: list[PodInfo] = []

    def reprieve(other: PodInfo) -> bool:
        node.add_pod(other)
        framework.run_add_pod(state, pod, other, node)
        if framework.run_filters_with_nominated(state, pod, node, nominated) is None:
            return True
        node.remove_pod(other)
        framework.run_remove_pod(state, pod, other, node)
        victims.append(other)
        return False

    violations = sum(not reprieve(other) for other in violating)
    for other in others:
        reprieve(other)
    if violating and others and framework.rules.prefilter_skip:
        sort_by_importance(victims)
    return Candidate(node.name, victims, violations)


def pick_one_node(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that are best by every criterion; the real code takes any of them.

    Source: kubernetes/pkg/scheduler/framework/preemption/preemption.go:pickOneNodeForPreemption, v1.34.1.
    """
    criteria: tuple[Callable[[Candidate], float], ...] = (
        lambda c: c.pdb_violations,
        lambda c: c.victims[0].priority,
        lambda c: sum(victim.priority + 2**31 for victim in c.victims),
        lambda c: len(c.victims),
        lambda c: -earliest_pod_start_time(c.victims),
    )
    left = list(candidates)
    for criterion in criteria:
        if len(left) == 1:
            break
        values = [criterion(candidate) for candidate in left]
        best = min(values)
        left = [candidate for candidate, value in zip(left, values, strict=True) if value == best]
    return left


def pod_eligible_to_preempt_others(
    framework: Framework, pod: PodInfo, nominated_node: str, status: Status | None, nodes: Mapping[str, NodeInfo]
) -> str:
    """Why the pod may not preempt; "" if it may. ``status``: the nominated node's.

    Source: default_preemption.go:PodEligibleToPreemptOthers, v1.34.1, v1.21.9.
    """
    if pod.facts.spec.preemption_policy == "Never":
        return NEVER
    if nominated_node:
        if status is not None and status.code == UNRESOLVABLE:
            return ""
        node = nodes.get(nominated_node)
        if node is not None:
            by_disruption = framework.rules.eligible_by_disruption
            for other in node.pods:
                if other.priority < pod.priority and other.terminating and (other.preempted or not by_disruption):
                    return TERMINATING
    return ""


class Evaluator:
    """Preemption for one scheduler. ``offset(n)`` draws where the search over n nodes starts; ``choose(nodes)`` one
    of the equally good nodes."""

    def __init__(
        self,
        nominator: Nominator,
        budgets: Callable[[], Sequence[ApiObject]],
        offset: Callable[[int], int],
        choose: Callable[[Sequence[str]], int],
    ) -> None:
        self.nominator = nominator
        self.budgets = budgets
        self.offset = offset
        self.choose = choose

    def preempt(
        self,
        framework: Framework,
        state: CycleState,
        pod: PodInfo,
        order: Sequence[NodeInfo],
        nodes: Mapping[str, NodeInfo],
        statuses: Mapping[str, Status],
        absent: Status | None,
    ) -> Outcome:
        """Find a node and victims for a pod that fitted nowhere. ``absent``: the status of nodes not looked at.

        Source: preemption.go:Preempt, findCandidates, v1.34.1; default_preemption.go:preempt, FindCandidates, v1.21.9.
        """
        today = framework.rules.postfilter_message
        nominated_node = pod.pod.nominated_node
        status = statuses.get(nominated_node, absent) if nominated_node else None
        why_not = pod_eligible_to_preempt_others(framework, pod, nominated_node, status, nodes)
        if why_not:
            return Outcome(message=why_not)
        potential = [node for node in order if self._might_help(statuses.get(node.name, absent), today)]
        if not potential:
            return Outcome("", message="", statuses={})
        candidates, found = self._dry_run(framework, state, pod, potential)
        if not candidates:
            return Outcome("" if today else None, statuses=found)
        best = pick_one_node(candidates)
        choice = best[self.choose([c.node for c in best])] if len(best) > 1 else best[0]
        return Outcome(choice.node, choice)

    @staticmethod
    def _might_help(status: Status | None, today: bool) -> bool:
        """Today nodes with status U; then all without status UU."""
        if status is None:
            return not today
        return status.code == UNSCHEDULABLE if today else status.code != UNRESOLVABLE

    def _dry_run(
        self, framework: Framework, state: CycleState, pod: PodInfo, potential: Sequence[NodeInfo]
    ) -> tuple[list[Candidate], dict[str, Status]]:
        """Source: preemption.go:DryRunPreemption, v1.34.1."""
        budgets = self.budgets()
        count = len(potential)
        enough = calculate_num_candidates(
            count, framework.min_candidate_percentage, framework.min_candidate_absolute
        )
        offset = self.offset(count) if enough < count else 0
        sound: list[Candidate] = []
        violating: list[Candidate] = []
        statuses: dict[str, Status] = {}
        for i in range(count):
            node = potential[(offset + i) % count]
            if not any(other.priority < pod.priority for other in node.pods):
                statuses[node.name] = NO_VICTIMS
                continue
            found = select_victims_on_node(
                framework, state.clone(), pod, node.clone(), self.nominator.pods_for_node(node.name), budgets
            )
            if isinstance(found, Status):
                statuses[node.name] = found
                continue
            (violating if found.pdb_violations else sound).append(found)
            if sound and len(sound) + len(violating) >= enough:
                break
        return sound[:enough] + violating[:enough], statuses


