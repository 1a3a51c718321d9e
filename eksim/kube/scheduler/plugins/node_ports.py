"""NodePorts: two pods cannot have the same host port on one node.

Mimics ``plugins/nodeports/node_ports.go``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.facts import SpecFacts
from eksim.kube.scheduler.framework import (
    SKIP,
    UNSCHEDULABLE,
    CycleState,
    Handle,
    Hint,
    Plugin,
    Status,
    always,
)
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo, ports_conflict
from eksim.state.objects import Pod
from eksim.state.podspec import HostPort
from eksim.versions import SchedulerRules

NAME: Final = "NodePorts"
REJECTED: Final = Status(NAME, UNSCHEDULABLE, ("node(s) didn't have free ports for the requested pod ports",))


def fits_ports(wanted: Iterable[HostPort], used: dict[HostPort, None]) -> bool:
    """Source: kubernetes/pkg/scheduler/framework/plugins/nodeports/node_ports.go:fitsPorts, v1.34.1."""
    return not any(ports_conflict(used, port) for port in wanted)


class NodePorts(Plugin):
    """Rejects nodes where a wanted host port is taken."""

    name = NAME
    filter_by_pods = True

    def plain_figures(self, rules: SchedulerRules, facts: SpecFacts) -> bool:
        """For a pod without host ports."""
        return not facts.host_ports

    def pre_filter(self, state: CycleState, pod: PodInfo) -> Status | frozenset[str] | None:
        """Source: node_ports.go:PreFilter, v1.34.1."""
        return SKIP if state.handle.rules.prefilter_skip and not pod.facts.host_ports else None

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """Source: node_ports.go:Filter, v1.34.1."""
        wanted = pod.facts.host_ports
        if not wanted or not node.ports or fits_ports(wanted, node.ports):
            return None
        return REJECTED

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: node_ports.go:EventsToRegister, v1.34.1."""
        action = ev.ADD if rules.queueing_hints else ev.ADD | ev.NODE_TAINT
        return [
            (ClusterEvent(ev.POD, ev.DELETE), is_schedulable_after_pod_deleted),
            (ClusterEvent(ev.NODE, action), always),
        ]


def is_schedulable_after_pod_deleted(handle: Handle, pod: Pod, old: Pod, new: Pod | None) -> bool:
    """The deleted pod held a host port that this one wants.

    Source: node_ports.go:isSchedulableAfterPodDeleted, v1.34.1.
    """
    if not old.node and not old.nominated_node:
        return False
    return not fits_ports(pod.spec.host_ports, dict.fromkeys(old.spec.host_ports))
