"""NodeUnschedulable: a cordoned node takes only pods that tolerate it.

Mimics ``plugins/nodeunschedulable/node_unschedulable.go``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import UNRESOLVABLE, CycleState, Handle, Hint, Plugin, Status
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.state.objects import Node, Pod, Taint
from eksim.state.podspec import tolerates
from eksim.versions import SchedulerRules

NAME: Final = "NodeUnschedulable"
UNSCHEDULABLE_TAINT: Final = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
REJECTED: Final = Status(NAME, UNRESOLVABLE, ("node(s) were unschedulable",))


class NodeUnschedulable(Plugin):
    """Rejects cordoned nodes."""

    name = NAME

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: kubernetes/pkg/scheduler/framework/plugins/nodeunschedulable/node_unschedulable.go:Filter, v1.34.1."""
        assert node.node is not None
        if node.node.unschedulable and not tolerates(pod.facts.spec.tolerations, UNSCHEDULABLE_TAINT):
            return REJECTED
        return None

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: node_unschedulable.go:EventsToRegister, v1.34.1."""
        if not rules.queueing_hints:
            return [(ClusterEvent(ev.NODE, ev.ADD | ev.NODE_TAINT), is_schedulable_after_node_change)]
        return [
            (ClusterEvent(ev.NODE, ev.ADD | ev.NODE_TAINT), is_schedulable_after_node_change),
            (ClusterEvent(ev.POD, ev.POD_TOLERATION), is_schedulable_after_toleration_change),
        ]


def is_schedulable_after_node_change(handle: Handle, pod: Pod, old: Node | None, new: Node) -> bool:
    """A schedulable node comes, or one is uncordoned.

    Source: node_unschedulable.go:isSchedulableAfterNodeChange, v1.34.1.
    """
    return not new.unschedulable and (old is None or old.unschedulable)


def is_schedulable_after_toleration_change(handle: Handle, pod: Pod, old: Pod, new: Pod) -> bool:
    """The pod itself now tolerates cordoned nodes.

    Source: node_unschedulable.go:isSchedulableAfterPodTolerationChange, v1.34.1.
    """
    return pod.key == new.key and tolerates(new.spec.tolerations, UNSCHEDULABLE_TAINT)
