"""TaintToleration: untolerated taints reject a node or, if they only prefer, lower its score.

Mimics ``plugins/tainttoleration/taint_toleration.go``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import (
    UNRESOLVABLE,
    CycleState,
    Handle,
    Hint,
    Plugin,
    Status,
    default_normalize,
)
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.state.objects import Node, Pod, Taint
from eksim.state.podspec import Toleration, tolerates
from eksim.versions import SchedulerRules

NAME: Final = "TaintToleration"


def find_untolerated_taint(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> Taint | None:
    """The first NoSchedule or NoExecute taint that is not tolerated.

    Source: component-helpers/scheduling/corev1/helpers.go:FindMatchingUntoleratedTaint, v1.34.1.
    """
    for taint in taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return taint
    return None


class TaintToleration(Plugin):
    """Rejects for NoSchedule and NoExecute, scores PreferNoSchedule."""

    name = NAME

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: kubernetes/pkg/scheduler/framework/plugins/tainttoleration/taint_toleration.go:Filter, v1.34.1."""
        assert node.node is not None
        taints = node.node.taints
        if not taints:
            return None
        taint = find_untolerated_taint(taints, pod.facts.spec.tolerations)
        if taint is None:
            return None
        if state.handle.rules.untolerated_taint_words:
            reason = f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
        else:
            reason = f"node(s) had taint {{{taint.key}: {taint.value}}}, that the pod didn't tolerate"
        return Status(NAME, UNRESOLVABLE, (reason,))

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """The number of PreferNoSchedule taints that are not tolerated.

        Source: taint_toleration.go:countIntolerableTaintsPreferNoSchedule, v1.34.1.
        """
        assert node.node is not None
        count = 0
        for taint in node.node.taints:
            if taint.effect == "PreferNoSchedule" and not tolerates(pod.facts.prefer_tolerations, taint):
                count += 1
        return count

    def normalize(self, state: CycleState, scores: list[int], nodes: Sequence[NodeInfo]) -> None:
        """Fewest such taints: 100."""
        default_normalize(scores, reverse=True)

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: taint_toleration.go:EventsToRegister, v1.34.1."""
        if not rules.queueing_hints:
            return [(ClusterEvent(ev.NODE, ev.ADD | ev.NODE_TAINT), is_schedulable_after_node_change)]
        return [
            (ClusterEvent(ev.NODE, ev.ADD | ev.NODE_TAINT), is_schedulable_after_node_change),
            (ClusterEvent(ev.POD, ev.POD_TOLERATION), is_schedulable_after_toleration_change),
        ]


def is_schedulable_after_node_change(handle: Handle, pod: Pod, old: Node | None, new: Node) -> bool:
    """The node is tolerated now, and was not before.

    Source: taint_toleration.go:isSchedulableAfterNodeChange, v1.34.1.
    """
    tolerations = pod.spec.tolerations
    if old is not None and find_untolerated_taint(old.taints, tolerations) is None:
        return False
    return find_untolerated_taint(new.taints, tolerations) is None


def is_schedulable_after_toleration_change(handle: Handle, pod: Pod, old: Pod, new: Pod) -> bool:
    """The pod's own tolerations changed.

    Source: taint_toleration.go:isSchedulableAfterPodTolerationChange, v1.34.1.
    """
    return pod.key == new.key
