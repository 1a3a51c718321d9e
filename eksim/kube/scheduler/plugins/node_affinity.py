"""NodeAffinity: nodeSelector, required and preferred node affinity.

Mimics ``plugins/nodeaffinity/node_affinity.go``, the profile's ``addedAffinity`` included.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import (
    SKIP,
    UNRESOLVABLE,
    CycleState,
    Handle,
    Hint,
    Plugin,
    Status,
    default_normalize,
)
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.state.affinity import Affinity
from eksim.state.objects import Node, Pod
from eksim.state.podspec import PodSpec
from eksim.state.selectors import NodeSelectorTerm, node_selector_matches
from eksim.versions import SchedulerRules

NAME: Final = "NodeAffinity"
REJECTED: Final = Status(NAME, UNRESOLVABLE, ("node(s) didn't match Pod's node affinity/selector",))
ENFORCED: Final = Status(NAME, UNRESOLVABLE, ("node(s) didn't match scheduler-enforced node affinity",))
CONFLICT: Final = Status(NAME, UNRESOLVABLE, ("pod affinity terms conflict",))


def required_node_affinity_matches(spec: PodSpec, labels: Mapping[str, str], name: str) -> bool:
    """Whether a node fits the pod's nodeSelector and required node affinity.

    Source: component-helpers/scheduling/corev1/nodeaffinity/nodeaffinity.go:RequiredNodeAffinity.Match, v1.34.1.
    """
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return False
    required = spec.affinity.node_required
    return required is None or node_selector_matches(required, labels, name)


def preferred_score(
    terms: Sequence[tuple[int, NodeSelectorTerm]], labels: Mapping[str, str], name: str
) -> int:
    """Weights of the preferred terms that match; weight 0 and empty terms are dropped.

    Source: nodeaffinity.go:PreferredSchedulingTerms.Score, v1.34.1.
    """
    score = 0
    for weight, term in terms:
        if weight and not term.empty and term.matches(labels, name):
            score += weight
    return score


class NodeAffinity(Plugin):
    """Rejects nodes that do not match; prefers those that match more."""

    name = NAME

    def __init__(self, added: Mapping[str, Any] | None = None) -> None:
        affinity = Affinity.parse({"nodeAffinity": added} if added else None)
        self.added_required = affinity.node_required
        self.added_preferred = affinity.node_preferred

    def pre_filter(self, state: CycleState, pod: PodInfo) -> Status | frozenset[str] | None:
        """Narrow the nodes if every term names some by metadata.name.

        Source: kubernetes/pkg/scheduler/framework/plugins/nodeaffinity/node_affinity.go:PreFilter, v1.34.1.
        """
        rules = state.handle.rules
        spec = pod.facts.spec
        required = spec.affinity.node_required
        if required is None and self.added_required is None and not spec.node_selector:
            return SKIP if rules.prefilter_skip else None
        if not required or not rules.prefilter_nodes:
            return None
        names: frozenset[str] = frozenset()
        for term in required:
            term_names: frozenset[str] | None = None
            for field in term.fields:
                if field.key == "metadata.name" and field.operator == "In":
                    values = frozenset(field.values)
                    term_names = values if term_names is None else term_names & values
            if term_names is None:
                return None
            names |= term_names
        return names or CONFLICT

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: node_affinity.go:Filter, v1.34.1."""
        if self.added_required is not None and not node_selector_matches(self.added_required, node.labels, node.name):
            return ENFORCED
        return None if required_node_affinity_matches(pod.facts.spec, node.labels, node.name) else REJECTED

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Status | None:
        """Source: node_affinity.go:PreScore, v1.34.1."""
        if state.handle.rules.prefilter_skip and not self.added_preferred and not prefers_nodes(pod.facts.spec):
            return SKIP
        return None

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: node_affinity.go:Score, v1.34.1."""
        score = preferred_score(pod.facts.spec.affinity.node_preferred, node.labels, node.name)
        if self.added_preferred:
            score += preferred_score(self.added_preferred, node.labels, node.name)
        return score

    def normalize(self, state: CycleState, scores: list[int], nodes: Sequence[NodeInfo]) -> None:
        """The best node: 100."""
        default_normalize(scores, reverse=False)

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: node_affinity.go:EventsToRegister, v1.34.1."""
        action = ev.ADD | ev.NODE_LABEL if rules.queueing_hints else ev.ADD | ev.NODE_LABEL | ev.NODE_TAINT
        return [(ClusterEvent(ev.NODE, action), self.is_schedulable_after_node_change)]

    def is_schedulable_after_node_change(self, handle: Handle, pod: Pod, old: Node | None, new: Node) -> bool:
        """The node matches now, and did not before.

        Source: node_affinity.go:isSchedulableAfterNodeChange, v1.34.1.
        """
        if self.added_required is not None and not node_selector_matches(self.added_required, new.labels, new.name):
            return False
        if not required_node_affinity_matches(pod.spec, new.labels, new.name):
            return False
        return old is None or not required_node_affinity_matches(pod.spec, old.labels, old.name)


def prefers_nodes(spec: PodSpec) -> bool:
    """Whether the spec has preferred node affinity at all, be it an empty list of terms that all drop out."""
    node = (spec.manifest.get("affinity") or {}).get("nodeAffinity") or {}
    return node.get("preferredDuringSchedulingIgnoredDuringExecution") is not None
