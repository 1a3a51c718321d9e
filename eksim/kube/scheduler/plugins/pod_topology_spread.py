"""PodTopologySpread: matching pods spread over the values of a node label.

Mimics ``plugins/podtopologyspread`` (filtering.go, scoring.go, common.go, plugin.go) and ``plugins/helper/spread.go``.
Pods are counted by the cache's counters, not by looking at each pod.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import (
    MAX_NODE_SCORE,
    SKIP,
    UNRESOLVABLE,
    UNSCHEDULABLE,
    CycleState,
    Handle,
    Hint,
    Plugin,
    Status,
)
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins.node_affinity import required_node_affinity_matches
from eksim.kube.scheduler.plugins.taint_toleration import find_untolerated_taint
from eksim.state.affinity import TopologySpreadConstraint
from eksim.state.objects import Node, Pod
from eksim.state.selectors import EVERYTHING, LabelSelector, Requirement
from eksim.versions import SchedulerRules

NAME: Final = "PodTopologySpread"
SCORE: Final = "PodTopologySpread/score"
HOSTNAME: Final = "kubernetes.io/hostname"
ZONE: Final = "topology.kubernetes.io/zone"
SKEWED: Final = Status(NAME, UNSCHEDULABLE, ("node(s) didn't match pod topology spread constraints",))
NO_LABEL: Final = Status(
    NAME, UNRESOLVABLE, ("node(s) didn't match pod topology spread constraints (missing required label)",)
)
SYSTEM_DEFAULTS: Final = (
    TopologySpreadConstraint(3, HOSTNAME, False, EVERYTHING),
    TopologySpreadConstraint(5, ZONE, False, EVERYTHING),
)


class Constraint:
    """A constraint as one pod has it: the release's defaults applied, its own label values in the selector."""

    __slots__ = ("honor_affinity", "honor_taints", "key", "max_skew", "min_domains", "selector")

    def __init__(self, written: TopologySpreadConstraint, selector: LabelSelector, rules: SchedulerRules) -> None:
        self.max_skew = written.max_skew
        self.key = written.topology_key
        self.selector = selector
        self.min_domains = written.min_domains if rules.min_domains else 1
        policies = rules.node_inclusion_policy
        self.honor_affinity = written.honor_node_affinity if policies else True
        self.honor_taints = written.honor_node_taints if policies else False

    def includes(self, pod: PodInfo, node: NodeInfo) -> bool:
        """Whether the node's pods count.

        Source: kubernetes/pkg/scheduler/framework/plugins/podtopologyspread/common.go:matchNodeInclusionPolicies,
        v1.34.1.
        """
        spec = pod.facts.spec
        if self.honor_affinity and not required_node_affinity_matches(spec, node.labels, node.name):
            return False
        if self.honor_taints:
            assert node.node is not None
            return find_untolerated_taint(node.node.taints, spec.tolerations) is None
        return True


def count_pods_match_selector(handle: Handle, node: NodeInfo, selector: LabelSelector, namespace: str) -> int:
    """The namespace's matching pods on the node that are not being deleted; today none for an empty selector.

    Source: common.go:countPodsMatchSelector, v1.34.1.
    """
    if selector.empty and handle.rules.empty_selector_counts_none:
        return 0
    return node.counts.get(handle.cache.counter(namespace, selector), 0)


def node_labels_match_spread_constraints(labels: dict[str, str], constraints: Sequence[Constraint]) -> bool:
    """Whether the node has every topology key.

    Source: common.go:nodeLabelsMatchSpreadConstraints, v1.34.1.
    """
    for constraint in constraints:  # noqa: SIM110 - half the cost of a generator
        if constraint.key not in labels:
            return False
    return True


def default_selector(handle: Handle, pod: Pod) -> LabelSelector:
    """Services that select the pod, and its controller's selector (then: of every controller that selects it).

    Source: kubernetes/pkg/scheduler/framework/plugins/helper/spread.go:DefaultSelector, v1.34.1, v1.21.9.
    """
    listers, namespace = handle.listers, pod.namespace
    merged: dict[str, str] = {}
    for service in listers.in_namespace("Service", namespace):
        selector = service.spec.get("selector")
        if selector and all(pod.labels.get(key) == value for key, value in selector.items()):
            merged.update(selector)
    added: tuple[Requirement, ...] = ()
    if handle.rules.spread_by_owner:
        owner = pod.owner
        if owner is not None and owner.kind == "ReplicationController" and owner.api_version == "v1":
            controller = listers.get("ReplicationController", namespace, owner.name)
            if controller is not None:
                merged.update(controller.spec.get("selector") or {})
        elif owner is not None and owner.kind in ("ReplicaSet", "StatefulSet") and owner.api_version == "apps/v1":
            controller = listers.get(owner.kind, namespace, owner.name)
            if controller is not None:
                added = LabelSelector.parse(controller.spec.get("selector")).requirements
    elif pod.labels:
        for controller in listers.in_namespace("ReplicationController", namespace):
            selector = controller.spec.get("selector")
            if selector and all(pod.labels.get(key) == value for key, value in selector.items()):
                merged.update(selector)
        for kind in ("ReplicaSet", "StatefulSet"):
            for controller in listers.in_namespace(kind, namespace):
                own = LabelSelector.parse(controller.spec.get("selector"))
                if not own.empty and own.matches(pod.labels):
                    added += own.requirements
    return LabelSelector.of_labels(merged).and_also(added)


class Spread:
    """Matching pods by domain, for filtering one pod: per constraint, value → count.

    Source: kubernetes/pkg/scheduler/framework/plugins/podtopologyspread/filtering.go:preFilterState, v1.34.1.
    """

    __slots__ = ("constraints", "counts", "lowest", "own")

    def __init__(self, constraints: tuple[Constraint, ...], counts: list[dict[str, int]], own: tuple[int, ...]) -> None:
        self.constraints = constraints
        self.counts = counts
        #: 1 where the pod matches its own constraint
        self.own = own
        self.lowest: list[int | None] = [None] * len(constraints)

    def clone(self) -> Spread:
        """A copy to suppose things in; dicts shared by constraints of one key stay shared."""
        copies = {id(counts): dict(counts) for counts in self.counts}
        return Spread(self.constraints, [copies[id(counts)] for counts in self.counts], self.own)

    def min_match_num(self, i: int, *, no_domain: int) -> int:
        """The least count of a domain; 0 with fewer than minDomains of them."""
        lowest = self.lowest[i]
        if lowest is None:
            counts = self.counts[i]
            lowest = min(counts.values()) if counts else no_domain
            if len(counts) < self.constraints[i].min_domains:
                lowest = 0
            self.lowest[i] = lowest
        return lowest


class Soft:
    """For scoring one pod: its ScheduleAnyway constraints with counts and weights.

    Source: kubernetes/pkg/scheduler/framework/plugins/podtopologyspread/scoring.go:preScoreState, v1.34.1.
    """

    __slots__ = ("constraints", "counts", "ignored", "namespace", "weights")

    def __init__(self, constraints: tuple[Constraint, ...], namespace: str) -> None:
        self.constraints = constraints
        self.namespace = namespace
        self.ignored: dict[str, None] = {}
        self.counts: list[dict[str, int]] = []
        self.weights: list[float] = []


def topology_normalizing_weight(size: int) -> float:
    """Source: scoring.go:topologyNormalizingWeight, v1.34.1."""
    return math.log(float(size + 2))


def score_for_count(count: int, max_skew: int, weight: float) -> float:
    """Source: scoring.go:scoreForCount, v1.34.1."""
    return float(count) * weight + float(max_skew - 1)


def round_half_away(value: float) -> int:
    """Go's math.Round for what is not negative."""
    return math.floor(value + 0.5)


def normalized(raw: int, lowest: int, highest: int) -> int:
    """Few matching pods: high; 100 for all where nobody matches.

    Source: scoring.go:NormalizeScore, v1.34.1.
    """
    return MAX_NODE_SCORE * (highest + lowest - raw) // highest if highest else MAX_NODE_SCORE


class PodTopologySpread(Plugin):
    """DoNotSchedule constraints filter, ScheduleAnyway ones score."""

    name = NAME
    filter_by_pods = True
    score_by_pods = True
    local_score = False

    def __init__(self, defaults: Sequence[TopologySpreadConstraint] | None = None) -> None:
        self.system_defaulted = defaults is None
        self.defaults = SYSTEM_DEFAULTS if defaults is None else tuple(defaults)

    def constraints(self, handle: Handle, pod: Pod, *, hard: bool) -> tuple[Constraint, ...]:
        """The pod's own constraints of that kind if it has any at all; else the defaults with the default selector.

        Source: common.go:filterTopologySpreadConstraints, buildDefaultConstraints, v1.34.1.
        """
        rules = handle.rules
        written = pod.spec.topology_spread
        if written:
            found = []
            for constraint in written:
                if constraint.hard is hard:
                    selector = constraint.selector
                    if constraint.match_label_keys and rules.match_label_keys:
                        selector = selector.and_also(
                            tuple(
                                Requirement(key, "In", (pod.labels[key],))
                                for key in constraint.match_label_keys
                                if key in pod.labels
                            )
                        )
                    found.append(Constraint(constraint, selector, rules))
            return tuple(found)
        defaults = [constraint for constraint in self.defaults if constraint.hard is hard]
        if not defaults:
            return ()
        selector = default_selector(handle, pod)
        if selector.empty:
            return ()
        return tuple(Constraint(constraint, selector, rules) for constraint in defaults)

    # -- filtering ------------------------------------------------------------------------------------------------

    def pre_filter(self, state: CycleState, pod: PodInfo) -> Status | frozenset[str] | None:
        """Source: filtering.go:PreFilter, calPreFilterState, v1.34.1, v1.21.9."""
        handle = state.handle
        constraints = self.constraints(handle, pod.pod, hard=True)
        if not constraints:
            if handle.rules.prefilter_skip:
                return SKIP
            state.data[NAME] = Spread((), [], ())
            return None
        own = tuple(int(c.selector.matches(pod.labels)) for c in constraints)
        spread = state.data[NAME] = Spread(constraints, self._empty_counts(handle, constraints), own)
        counting = handle.rules.spread_counting
        policies = handle.rules.node_inclusion_policy
        order = handle.cache.order
        eligible = []
        for node in order:
            if not policies and not required_node_affinity_matches(pod.facts.spec, node.labels, node.name):
                continue
            if node_labels_match_spread_constraints(node.labels, constraints):
                eligible.append(node)
        if counting == "domains":
            for node in eligible:
                for i, constraint in enumerate(constraints):
                    spread.counts[i][node.labels[constraint.key]] = 0
            for node in order:
                for i, constraint in enumerate(constraints):
                    value = node.labels.get(constraint.key, "")
                    if value in spread.counts[i]:
                        spread.counts[i][value] += self._count(handle, node, constraint, pod)
            return None
        for node in eligible:
            found: dict[tuple[int, str], int] = {}
            for i, constraint in enumerate(constraints):
                if not policies or constraint.includes(pod, node):
                    key = (id(spread.counts[i]), node.labels[constraint.key])
                    found[key] = self._count(handle, node, constraint, pod)
            for counts in {id(c): c for c in spread.counts}.values():
                for (which, value), count in found.items():
                    if which == id(counts):
                        counts[value] = counts.get(value, 0) + count
        return None

    @staticmethod
    def _empty_counts(handle: Handle, constraints: tuple[Constraint, ...]) -> list[dict[str, int]]:
        """A dict per constraint; up to 1.31 constraints of one key share theirs."""
        if handle.rules.spread_counting == "constraint":
            return [{} for _ in constraints]
        by_key: dict[str, dict[str, int]] = {constraint.key: {} for constraint in constraints}
        return [by_key[constraint.key] for constraint in constraints]

    @staticmethod
    def _count(handle: Handle, node: NodeInfo, constraint: Constraint, pod: PodInfo) -> int:
        return count_pods_match_selector(handle, node, constraint.selector, pod.namespace)

    def add_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """Source: filtering.go:AddPod, updateWithPod, v1.34.1."""
        self._update(state, pod, other, node, 1)

    def remove_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """Source: filtering.go:RemovePod, updateWithPod, v1.34.1."""
        self._update(state, pod, other, node, -1)

    @staticmethod
    def _update(state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo, delta: int) -> None:
        spread: Spread = state.data[NAME]
        constraints, rules = spread.constraints, state.handle.rules
        if not constraints or other.namespace != pod.namespace:
            return
        if not node_labels_match_spread_constraints(node.labels, constraints):
            return
        if not rules.node_inclusion_policy and rules.spread_counting != "domains":
            if not required_node_affinity_matches(pod.facts.spec, node.labels, node.name):
                return
        for i, constraint in enumerate(constraints):
            if constraint.selector.matches(other.labels):
                if rules.node_inclusion_policy and not constraint.includes(pod, node):
                    continue
                value = node.labels[constraint.key]
                counts = spread.counts[i]
                counts[value] = counts.get(value, 0) + delta
                spread.lowest = [None] * len(constraints)

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: filtering.go:Filter, v1.34.1."""
        spread: Spread = state.data[NAME]
        for i, constraint in enumerate(spread.constraints):
            value = node.labels.get(constraint.key)
            if value is None:
                return NO_LABEL
            lowest = spread.min_match_num(i, no_domain=2**31 - 1)
            if spread.counts[i].get(value, 0) + spread.own[i] - lowest > constraint.max_skew:
                return SKEWED
        return None

    # -- scoring --------------------------------------------------------------------------------------------------

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Status | None:
        """Source: scoring.go:PreScore, initPreScoreState, v1.34.1, v1.21.9."""
        handle = state.handle
        rules = handle.rules
        constraints = self.constraints(handle, pod.pod, hard=False)
        soft = state.data[SCORE] = Soft(constraints, pod.namespace)
        if not constraints:
            return SKIP if rules.spread_and_interpod_skip else None
        require_all = self.requires_all_topologies(pod.pod)
        by_pair = rules.spread_counting != "constraint"
        soft.counts = self._empty_counts(handle, constraints)
        sizes = [0] * len(constraints)
        for node in nodes:
            if require_all and not node_labels_match_spread_constraints(node.labels, constraints):
                soft.ignored[node.name] = None
                continue
            for i, constraint in enumerate(constraints):
                if constraint.key != HOSTNAME:
                    value = node.labels.get(constraint.key, "")
                    if value not in soft.counts[i]:
                        soft.counts[i][value] = 0
                        sizes[i] += 1
        for i, constraint in enumerate(constraints):
            size = len(nodes) - len(soft.ignored) if constraint.key == HOSTNAME else sizes[i]
            soft.weights.append(topology_normalizing_weight(size))
        for node in handle.cache.order:
            if not rules.node_inclusion_policy:
                if not required_node_affinity_matches(pod.facts.spec, node.labels, node.name):
                    continue
            if require_all and not node_labels_match_spread_constraints(node.labels, constraints):
                continue
            for i, constraint in enumerate(constraints):
                if constraint.key == HOSTNAME and not by_pair:
                    continue
                counts = soft.counts[i]
                value = node.labels.get(constraint.key, "")
                if value in counts and (not rules.node_inclusion_policy or constraint.includes(pod, node)):
                    counts[value] += self._count(handle, node, constraint, pod)
        return None

    def requires_all_topologies(self, pod: Pod) -> bool:
        """Whether a node that lacks a key is ignored; not so with the system's defaults."""
        return bool(pod.spec.topology_spread) or not self.system_defaulted

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: scoring.go:Score, v1.34.1, v1.21.9."""
        soft: Soft = state.data[SCORE]
        if node.name in soft.ignored:
            return 0
        score = 0.0
        for i, constraint in enumerate(soft.constraints):
            value = node.labels.get(constraint.key)
            if value is not None:
                if constraint.key == HOSTNAME:
                    count = self._count(state.handle, node, constraint, pod)
                else:
                    count = soft.counts[i][value]
                score += score_for_count(count, constraint.max_skew, soft.weights[i])
        return round_half_away(score) if state.handle.rules.spread_rounded else int(score)

    def normalize(self, state: CycleState, scores: list[int], nodes: Sequence[NodeInfo]) -> None:
        """Source: scoring.go:NormalizeScore, v1.34.1."""
        soft: Soft = state.data[SCORE]
        counted = [score for score, node in zip(scores, nodes, strict=True) if node.name not in soft.ignored]
        lowest, highest = min(counted, default=0), max(counted, default=0)
        for i, node in enumerate(nodes):
            scores[i] = 0 if node.name in soft.ignored else normalized(scores[i], lowest, highest)

    # -- queueing -------------------------------------------------------------------------------------------------

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: plugin.go:EventsToRegister, v1.34.1."""
        pod_action = ev.ADD | ev.POD_LABEL | ev.DELETE
        if rules.queueing_hints:
            pod_action |= ev.POD_TOLERATION
        node_action = ev.ADD | ev.DELETE | ev.NODE_LABEL | ev.NODE_TAINT
        return [
            (ClusterEvent(ev.POD, pod_action), self.is_schedulable_after_pod_change),
            (ClusterEvent(ev.NODE, node_action), self.is_schedulable_after_node_change),
        ]

    def is_schedulable_after_pod_change(self, handle: Handle, pod: Pod, old: Pod | None, new: Pod | None) -> bool:
        """A counted pod comes, goes or is relabelled; the pod's own labels or tolerations change what it counts.

        Source: plugin.go:isSchedulableAfterPodChange, v1.34.1.
        """
        for other in (new, old):
            if other is not None and other.key != pod.key and not (other.node and other.namespace == pod.namespace):
                return False
        constraints = self.constraints(handle, pod, hard=True)
        if new is not None and old is not None:
            if pod.key == new.key and any(c.honor_taints for c in constraints):
                if [t.key_of() for t in new.spec.tolerations] != [t.key_of() for t in old.spec.tolerations]:
                    return True
            return new.labels != old.labels and any(
                c.selector.matches(old.labels) != c.selector.matches(new.labels) for c in constraints
            )
        other = new if new is not None else old
        assert other is not None
        return any(c.selector.matches(other.labels) for c in constraints)

    def is_schedulable_after_node_change(self, handle: Handle, pod: Pod, old: Node | None, new: Node | None) -> bool:
        """A node with the keys comes or goes, or changes their values or any taint.

        Source: plugin.go:isSchedulableAfterNodeChange, v1.34.1.
        """
        constraints = self.constraints(handle, pod, hard=True)
        before = old is not None and node_labels_match_spread_constraints(old.labels, constraints)
        after = new is not None and node_labels_match_spread_constraints(new.labels, constraints)
        if old is None or new is None:
            return before or after
        if before != after:
            return True
        return after and (
            any(old.labels.get(c.key) != new.labels.get(c.key) for c in constraints) or old.taints != new.taints
        )
