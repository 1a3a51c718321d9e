"""NodeResourcesFit: is there room for the pod, and how full would the node be.

Mimics ``plugins/noderesources/fit.go`` with its three scoring strategies, which up to 1.21 were plugins of their own
(NodeResourcesLeastAllocated, NodeResourcesMostAllocated, RequestedToCapacityRatio).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.facts import SpecFacts, facts_of, is_extended_resource_name, is_scalar_resource_name
from eksim.kube.scheduler.framework import (
    MAX_NODE_SCORE,
    UNRESOLVABLE,
    UNSCHEDULABLE,
    CycleState,
    Handle,
    Hint,
    Plugin,
    Status,
)
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins.resource_scorers import (
    ResourceScorer,
    least_requested_score,
    weighted_mean,
    weighted_mean_rounded,
)
from eksim.state.objects import Node, Pod
from eksim.versions import SchedulerRules

NAME: Final = "NodeResourcesFit"
TOO_MANY_PODS: Final = "Too many pods"
REJECTED_PODS: Final = Status(NAME, UNSCHEDULABLE, (TOO_MANY_PODS,))
DEFAULT_RESOURCES: Final = (("cpu", 1), ("memory", 1))


def fits_request(
    facts: SpecFacts,
    node: NodeInfo,
    rules: SchedulerRules,
    ignored: frozenset[str] = frozenset(),
    ignored_groups: frozenset[str] = frozenset(),
) -> tuple[tuple[str, ...], bool]:
    """(every reason why the pod does not fit, whether the node as a whole is too small).

    The pods number first, then cpu, memory, ephemeral storage, extended resources. Source:
    kubernetes/pkg/scheduler/framework/plugins/noderesources/fit.go:fitsRequest, v1.34.1, v1.21.9.
    """
    reasons: list[str] = []
    too_small = False
    if len(node.pods) + 1 > node.alloc_pods:
        reasons.append(TOO_MANY_PODS)
    if facts.requests_nothing:
        return tuple(reasons), False
    zero_counts = not rules.zero_request_never_short
    for wanted, used, capacity, reason in (
        (facts.cpu, node.cpu, node.alloc_cpu, "Insufficient cpu"),
        (facts.memory, node.memory, node.alloc_memory, "Insufficient memory"),
        (facts.ephemeral, node.ephemeral, node.alloc_ephemeral, "Insufficient ephemeral-storage"),
    ):
        if wanted > capacity - used and (wanted > 0 or zero_counts):
            reasons.append(reason)
            too_small = too_small or wanted > capacity
    for name, wanted in facts.scalars:
        if wanted == 0 and not zero_counts:
            continue
        if (ignored or ignored_groups) and is_extended_resource_name(name):
            if name in ignored or name.split("/")[0] in ignored_groups:
                continue
        capacity = node.alloc_scalars.get(name, 0)
        if wanted > capacity - node.scalars.get(name, 0):
            reasons.append(f"Insufficient {name}")
            too_small = too_small or wanted > capacity
    return tuple(reasons), too_small


class ResourceAllocation(Plugin):
    """What the scoring plugins share: the figures of each configured resource."""

    score_by_pods = True

    def __init__(
        self, scorer: ResourceScorer = least_requested_score, resources: Sequence[tuple[str, int]] = DEFAULT_RESOURCES,
        *, rounded: bool = False,
    ) -> None:  # fmt: skip
        self.scorer = scorer
        self.resources = tuple(resources)
        self.mean = weighted_mean_rounded if rounded else weighted_mean
        self._usual = scorer is least_requested_score and self.resources == DEFAULT_RESOURCES and not rounded

    def plain_figures(self, rules: SchedulerRules, facts: SpecFacts) -> bool:
        """With the default resources; up to 1.27 also other resources may be short for a pod that asks for none."""
        return self.resources == DEFAULT_RESOURCES and (rules.zero_request_never_short or facts.requests_nothing)

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: kubernetes/pkg/scheduler/framework/plugins/noderesources/resource_allocation.go:score,
        calculateResourceAllocatableRequest, v1.34.1, v1.21.9."""
        facts = pod.facts
        if self._usual and node.alloc_cpu and node.alloc_memory:
            # The default, written out: it is scored for every node and pod.
            cpu, memory = node.alloc_cpu, node.alloc_memory
            free_cpu = cpu - node.nonzero_cpu - facts.score_cpu
            free_memory = memory - node.nonzero_memory - facts.score_memory
            cpu_score = free_cpu * MAX_NODE_SCORE // cpu if free_cpu > 0 else 0
            return (cpu_score + (free_memory * MAX_NODE_SCORE // memory if free_memory > 0 else 0)) // 2
        left_out = state.handle.rules.zero_allocatable_left_out
        scores = []
        for name, weight in self.resources:
            if name == "cpu":
                capacity, requested = node.alloc_cpu, node.nonzero_cpu + facts.score_cpu
            elif name == "memory":
                capacity, requested = node.alloc_memory, node.nonzero_memory + facts.score_memory
            else:
                capacity, requested = other_resource(facts, node, name, skip_unrequested=left_out)
            if capacity or not left_out:
                scores.append((self.scorer(requested, capacity), weight))
        return self.mean(scores)


def other_resource(facts: SpecFacts, node: NodeInfo, name: str, *, skip_unrequested: bool) -> tuple[int, int]:
    """(allocatable, requested with the pod) of a resource other than cpu and memory; (0, 0): does not count."""
    if name == "ephemeral-storage":
        return node.alloc_ephemeral, node.ephemeral + facts.ephemeral
    if not is_scalar_resource_name(name):
        return 0, 0
    wanted = dict(facts.scalars).get(name, 0)
    if not wanted and skip_unrequested:
        return 0, 0
    return node.alloc_scalars.get(name, 0), node.scalars.get(name, 0) + wanted


class NodeResourcesFit(ResourceAllocation):
    """Rejects nodes without room; today it also scores."""

    name = NAME
    filter_by_pods = True

    def __init__(
        self,
        scorer: ResourceScorer = least_requested_score,
        resources: Sequence[tuple[str, int]] = DEFAULT_RESOURCES,
        *,
        rounded: bool = False,
        ignored: Iterable[str] = (),
        ignored_groups: Iterable[str] = (),
    ) -> None:
        super().__init__(scorer, resources, rounded=rounded)
        self.ignored = frozenset(ignored)
        self.ignored_groups = frozenset(ignored_groups)

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: fit.go:Filter, v1.34.1."""
        facts = pod.facts
        if facts.requests_nothing:
            return REJECTED_PODS if len(node.pods) >= node.alloc_pods else None
        rules = state.handle.rules
        if not facts.uncommon and rules.zero_request_never_short and len(node.pods) < node.alloc_pods:
            # The usual case, written out: nothing but cpu and memory, and there is room.
            if not (facts.cpu and facts.cpu > node.alloc_cpu - node.cpu) and not (
                facts.memory and facts.memory > node.alloc_memory - node.memory
            ):
                return None
        reasons, too_small = fits_request(facts, node, rules, self.ignored, self.ignored_groups)
        if not reasons:
            return None
        return Status(NAME, UNRESOLVABLE if too_small and rules.fit_unresolvable else UNSCHEDULABLE, reasons)

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: fit.go:EventsToRegister, v1.34.1, v1.21.9."""
        pod_action = ev.DELETE | ev.POD_SCALE_DOWN if rules.queueing_hints else ev.DELETE
        node_action = ev.ADD | ev.NODE_ALLOCATABLE
        if rules.events_by_plugin and not rules.queueing_hints:
            node_action |= ev.NODE_TAINT | ev.NODE_LABEL
        return [
            (ClusterEvent(ev.POD, pod_action), is_schedulable_after_pod_event),
            (ClusterEvent(ev.NODE, node_action), is_schedulable_after_node_change),
        ]


def is_schedulable_after_pod_event(handle: Handle, pod: Pod, old: Pod, new: Pod | None) -> bool:
    """A placed (or nominated) pod went, or one shrank what this pod asks for.

    Source: fit.go:isSchedulableAfterPodEvent, isSchedulableAfterPodScaleDown, v1.34.1.
    """
    if new is None:
        return bool(old.node or old.nominated_node)
    if new.key == pod.key:
        return True
    if not new.node:
        return False
    before, after = old.spec.requests, new.spec.requests
    return any(
        amount and before.get(name, 0) > after.get(name, 0) for name, amount in pod.spec.requests.items()
    )


def is_schedulable_after_node_change(handle: Handle, pod: Pod, old: Node | None, new: Node) -> bool:
    """The empty node would hold the pod, and (for a change) something the pod needs grew.

    Source: fit.go:isSchedulableAfterNodeChange, isFit, haveAnyRequestedResourcesIncreased, v1.34.1.
    """
    facts = facts_of(pod.spec)
    empty = NodeInfo(new.name)
    empty.set_node(new)
    if fits_request(facts, empty, handle.rules)[0]:
        return False
    if old is None:
        return True
    if new.allocatable.get("pods", 0) > old.allocatable.get("pods", 0):
        return True
    if facts.requests_nothing:
        return False
    wanted = (("cpu", facts.cpu), ("memory", facts.memory), ("ephemeral-storage", facts.ephemeral), *facts.scalars)
    return any(
        amount and new.allocatable.get(name, 0) > old.allocatable.get(name, 0) for name, amount in wanted
    )


class NodeResourcesLeastAllocated(ResourceAllocation):
    """Up to 1.21: the emptiest node."""

    name = "NodeResourcesLeastAllocated"


class NodeResourcesMostAllocated(ResourceAllocation):
    """Up to 1.21: the fullest node."""

    name = "NodeResourcesMostAllocated"


class RequestedToCapacityRatio(ResourceAllocation):
    """Up to 1.21: a shape over utilization."""

    name = "RequestedToCapacityRatio"
