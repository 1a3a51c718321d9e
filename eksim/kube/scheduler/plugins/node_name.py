"""NodeName: a pod that asks for a node by name takes no other.

Mimics ``plugins/nodename/node_name.go``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import UNRESOLVABLE, CycleState, Hint, Plugin, Status, always
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.versions import SchedulerRules

NAME: Final = "NodeName"
REJECTED: Final = Status(NAME, UNRESOLVABLE, ("node(s) didn't match the requested node name",))


class NodeName(Plugin):
    """Rejects nodes of another name than ``spec.nodeName``."""

    name = NAME

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: kubernetes/pkg/scheduler/framework/plugins/nodename/node_name.go:Filter, v1.34.1."""
        wanted = pod.facts.spec.node_name
        return REJECTED if wanted and wanted != node.name else None

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: node_name.go:EventsToRegister, v1.34.1."""
        action = ev.ADD if rules.queueing_hints else ev.ADD | ev.NODE_TAINT
        return [(ClusterEvent(ev.NODE, action), always)]
