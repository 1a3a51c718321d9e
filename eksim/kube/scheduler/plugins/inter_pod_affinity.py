"""InterPodAffinity: pods that want to be, or must not be, near other pods.

Mimics ``plugins/interpodaffinity``: filtering.go, scoring.go, plugin.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.facts import AffinityTerm, Terms, facts_of, pod_matches_all_terms
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
from eksim.state.objects import Node, Pod
from eksim.versions import SchedulerRules

NAME: Final = "InterPodAffinity"
SCORE: Final = "InterPodAffinity/score"
GENERAL: Final = "node(s) didn't match pod affinity/anti-affinity rules"
REASONS: Final = {
    "affinity": (UNRESOLVABLE, "node(s) didn't match pod affinity rules"),
    "anti": (UNSCHEDULABLE, "node(s) didn't match pod anti-affinity rules"),
    "existing": (UNSCHEDULABLE, "node(s) didn't satisfy existing pods anti-affinity rules"),
}
TODAY: Final = {kind: Status(NAME, code, (reason,)) for kind, (code, reason) in REASONS.items()}
THEN: Final = {kind: Status(NAME, code, (GENERAL, reason)) for kind, (code, reason) in REASONS.items()}

Pair = tuple[str, str]
Counts = dict[Pair, int]


def _update(counts: Counts, node: NodeInfo, key: str, delta: int) -> None:
    value = node.labels.get(key)
    if value is not None:
        pair = (key, value)
        count = counts.get(pair, 0) + delta
        if count:
            counts[pair] = count
        else:
            counts.pop(pair, None)


class Near:
    """One pod's matches: (topology key, value) → how many terms of existing pods, or existing pods, match.

    Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/filtering.go:preFilterState, v1.34.1.
    """

    __slots__ = ("affinity", "anti", "existing", "handle", "namespace_labels", "pod", "terms")

    def __init__(self, handle: Handle, pod: PodInfo, terms: Terms, namespace_labels: Mapping[str, str]) -> None:
        self.handle = handle
        self.pod = pod
        self.terms = terms
        self.namespace_labels = namespace_labels
        self.existing: Counts = {}
        self.affinity: Counts = {}
        self.anti: Counts = {}

    def clone(self) -> Near:
        """A copy to suppose things in."""
        copy = Near(self.handle, self.pod, self.terms, self.namespace_labels)
        copy.existing, copy.affinity, copy.anti = dict(self.existing), dict(self.affinity), dict(self.anti)
        return copy

    def existing_terms(self, other: PodInfo, node: NodeInfo, delta: int) -> None:
        """Count the other pod's required anti-affinity terms that match this pod."""
        for term in other.facts.terms(other.namespace).anti:
            if term.matches(self.pod.namespace, self.pod.labels, self.namespace_labels):
                _update(self.existing, node, term.topology_key, delta)

    def own_terms(self, other: PodInfo, node: NodeInfo, delta: int) -> None:
        """Count the other pod where this pod's required terms match it; for affinity only if all do."""
        terms = self.terms
        labels = self.handle.listers.namespace_labels(other.namespace)
        if terms.affinity and _matches_all(terms.affinity, other, labels):
            for term in terms.affinity:
                _update(self.affinity, node, term.topology_key, delta)
        for term in terms.anti:
            if term.matches_for_incoming(other.namespace, other.labels, labels):
                _update(self.anti, node, term.topology_key, delta)


def _matches_all(terms: tuple[AffinityTerm, ...], other: PodInfo, labels: Mapping[str, str]) -> bool:
    for term in terms:
        if not term.matches_for_incoming(other.namespace, other.labels, labels):
            return False
    return bool(terms)


class Weights:
    """(topology key → value → weight) for scoring one pod."""

    __slots__ = ("by_key",)

    def __init__(self) -> None:
        self.by_key: dict[str, dict[str, int]] = {}

    def add(self, node: NodeInfo, key: str, weight: int) -> None:
        """Count a term that matched on a node."""
        value = node.labels.get(key)
        if value is not None:
            values = self.by_key.setdefault(key, {})
            values[value] = values.get(value, 0) + weight


class InterPodAffinity(Plugin):
    """Required terms filter, preferred ones score."""

    name = NAME
    filter_by_pods = True
    score_by_pods = True
    local_score = False

    def __init__(self, hard_pod_affinity_weight: int = 1, *, ignore_preferred_of_existing: bool = False) -> None:
        self.hard_pod_affinity_weight = hard_pod_affinity_weight
        self.ignore_preferred_of_existing = ignore_preferred_of_existing

    # -- filtering ------------------------------------------------------------------------------------------------

    def pre_filter(self, state: CycleState, pod: PodInfo) -> Status | frozenset[str] | None:
        """Source: filtering.go:PreFilter, v1.34.1."""
        handle = state.handle
        terms = pod.facts.terms(pod.namespace)
        near = Near(handle, pod, terms, handle.listers.namespace_labels(pod.namespace))
        for node in handle.cache.have_pods_with_required_anti_affinity():
            for other in node.with_required_anti:
                near.existing_terms(other, node, 1)
        if terms.affinity or terms.anti:
            for node in handle.cache.order:
                for other in node.pods:
                    near.own_terms(other, node, 1)
        elif not near.existing and handle.rules.prefilter_skip:
            return SKIP
        state.data[NAME] = near
        return None

    def add_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """Source: filtering.go:AddPod, updateWithPod, v1.34.1."""
        near: Near = state.data[NAME]
        near.existing_terms(other, node, 1)
        near.own_terms(other, node, 1)

    def remove_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """Source: filtering.go:RemovePod, updateWithPod, v1.34.1."""
        near: Near = state.data[NAME]
        near.existing_terms(other, node, -1)
        near.own_terms(other, node, -1)

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: filtering.go:Filter, satisfyPodAffinity, satisfyPodAntiAffinity,
        satisfyExistingPodsAntiAffinity, v1.34.1."""
        near: Near = state.data[NAME]
        labels = node.labels
        statuses = THEN if state.handle.rules.affinity_two_reasons else TODAY
        if near.terms.affinity and not self._satisfies_affinity(near, labels):
            return statuses["affinity"]
        if near.anti:
            for term in near.terms.anti:
                value = labels.get(term.topology_key)
                if value is not None and near.anti.get((term.topology_key, value), 0) > 0:
                    return statuses["anti"]
        for (key, value), count in near.existing.items():
            if count > 0 and labels.get(key) == value:
                return statuses["existing"]
        return None

    @staticmethod
    def _satisfies_affinity(near: Near, labels: Mapping[str, str]) -> bool:
        pods_exist = True
        for term in near.terms.affinity:
            value = labels.get(term.topology_key)
            if value is None:
                return False
            if near.affinity.get((term.topology_key, value), 0) <= 0:
                pods_exist = False
        if pods_exist:
            return True
        # The first pod of a group that wants to be together may go anywhere where the keys exist.
        return not near.affinity and _matches_all(near.terms.affinity, near.pod, near.namespace_labels)

    # -- scoring --------------------------------------------------------------------------------------------------

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Status | None:
        """Source: scoring.go:PreScore, processExistingPod, v1.34.1."""
        handle = state.handle
        terms = pod.facts.terms(pod.namespace)
        own = bool(terms.preferred or terms.preferred_anti)
        weights = Weights()
        state.data[SCORE] = weights
        skips = handle.rules.spread_and_interpod_skip
        if self.ignore_preferred_of_existing and not own:
            return SKIP if skips else None
        labels = handle.listers.namespace_labels(pod.namespace)
        for node in handle.cache.order if own else handle.cache.have_pods_with_affinity():
            for other in node.pods if own else node.with_affinity:
                if own:
                    other_labels = handle.listers.namespace_labels(other.namespace)
                    for term in terms.preferred:
                        if term.matches_for_incoming(other.namespace, other.labels, other_labels):
                            weights.add(node, term.topology_key, term.weight)
                    for term in terms.preferred_anti:
                        if term.matches_for_incoming(other.namespace, other.labels, other_labels):
                            weights.add(node, term.topology_key, -term.weight)
                if other.facts.has_affinity:
                    theirs = other.facts.terms(other.namespace)
                    if self.hard_pod_affinity_weight > 0:
                        for term in theirs.affinity:
                            if term.matches(pod.namespace, pod.labels, labels):
                                weights.add(node, term.topology_key, self.hard_pod_affinity_weight)
                    for term in theirs.preferred:
                        if term.matches(pod.namespace, pod.labels, labels):
                            weights.add(node, term.topology_key, term.weight)
                    for term in theirs.preferred_anti:
                        if term.matches(pod.namespace, pod.labels, labels):
                            weights.add(node, term.topology_key, -term.weight)
        return SKIP if skips and not weights.by_key else None

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: scoring.go:Score, v1.34.1."""
        weights: Weights = state.data[SCORE]
        score = 0
        for key, values in weights.by_key.items():
            value = node.labels.get(key)
            if value is not None:
                score += values.get(value, 0)
        return score

    def normalize(self, state: CycleState, scores: list[int], nodes: Sequence[NodeInfo]) -> None:
        """Between the lowest (0) and the highest (100), the division first.

        Source: scoring.go:NormalizeScore, v1.34.1.
        """
        weights: Weights = state.data[SCORE]
        if not weights.by_key:
            return
        lowest, highest = min(scores), max(scores)
        span = highest - lowest
        for i, score in enumerate(scores):
            scores[i] = int(float(MAX_NODE_SCORE) * ((score - lowest) / span)) if span > 0 else 0

    # -- queueing -------------------------------------------------------------------------------------------------

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: plugin.go:EventsToRegister, v1.34.1."""
        node_action = ev.ADD | ev.NODE_LABEL if rules.queueing_hints else ev.ADD | ev.NODE_LABEL | ev.NODE_TAINT
        return [
            (ClusterEvent(ev.POD, ev.ADD | ev.POD_LABEL | ev.DELETE), is_schedulable_after_pod_change),
            (ClusterEvent(ev.NODE, node_action), is_schedulable_after_node_change),
        ]


def is_schedulable_after_pod_change(handle: Handle, pod: Pod, old: Pod | None, new: Pod | None) -> bool:
    """A pod comes that all affinity terms match, goes that all anti-affinity terms matched, or is relabelled so.

    Namespace selectors are tested against no labels, as the real code does. Source: plugin.go:
    isSchedulableAfterPodChange, v1.34.1.
    """
    if (new is not None and not new.node) or (old is not None and not old.node):
        return False
    terms = facts_of(pod.spec).terms(pod.namespace)
    if new is not None and old is not None:
        if not pod_matches_all_terms(terms.affinity, old, {}) and pod_matches_all_terms(terms.affinity, new, {}):
            return True
        return pod_matches_all_terms(terms.anti, old, {}) and not pod_matches_all_terms(terms.anti, new, {})
    if new is not None:
        return pod_matches_all_terms(terms.affinity, new, {})
    assert old is not None
    return pod_matches_all_terms(terms.anti, old, {})


def is_schedulable_after_node_change(handle: Handle, pod: Pod, old: Node | None, new: Node) -> bool:
    """A node brings a topology key that matters, or changes one.

    Source: plugin.go:isSchedulableAfterNodeChange, v1.34.1.
    """
    terms = facts_of(pod.spec).terms(pod.namespace)
    for term in terms.affinity:
        value = new.labels.get(term.topology_key)
        if old is None:
            if value is not None:
                return True
        elif value is not None and old.labels.get(term.topology_key) != value:
            return True
    for term in terms.anti:
        if old is None:
            return True
        before = old.labels.get(term.topology_key)
        if before is not None and new.labels.get(term.topology_key) != before:
            return True
    return False
