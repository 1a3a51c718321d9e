"""Cluster events that may make a Pending pod schedulable, and which of them an update amounts to.

Mimics ``framework/events.go`` and ``framework/types.go:MatchClusterEvents``; leaves out volumes and resource claims.
Called by the event handlers and by the plugins that register for events.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from eksim.state.objects import Condition, Node, Pod

# Action types, as bits in the order of kube-scheduler/framework/types.go (v1.34.1): matching compares them as numbers.
ADD: Final = 1 << 0
DELETE: Final = 1 << 1
NODE_ALLOCATABLE: Final = 1 << 2
NODE_LABEL: Final = 1 << 3
NODE_TAINT: Final = 1 << 4
NODE_CONDITION: Final = 1 << 5
NODE_ANNOTATION: Final = 1 << 6
POD_LABEL: Final = 1 << 7
POD_SCALE_DOWN: Final = 1 << 8
POD_TOLERATION: Final = 1 << 9
POD_GATES_ELIMINATED: Final = 1 << 10
POD_CLAIM: Final = 1 << 11
UPDATE: Final = (1 << 12) - (1 << 2)
ALL: Final = (1 << 13) - 1

# Resources. Plugins register POD; what comes is one of the two kinds of it.
POD: Final = "Pod"
NODE: Final = "Node"
ASSIGNED_POD: Final = "AssignedPod"
UNSCHEDULED_POD: Final = "UnschedulablePod"
SERVICE: Final = "Service"
WILDCARD: Final = "*"


class ClusterEvent(NamedTuple):
    """Something that happened to a kind of object."""

    resource: str
    action: int


ASSIGNED_POD_ADD: Final = ClusterEvent(ASSIGNED_POD, ADD)
ASSIGNED_POD_UPDATE: Final = ClusterEvent(ASSIGNED_POD, UPDATE)
ASSIGNED_POD_DELETE: Final = ClusterEvent(ASSIGNED_POD, DELETE)
NODE_ADD: Final = ClusterEvent(NODE, ADD)
NODE_CONDITION_CHANGE: Final = ClusterEvent(NODE, NODE_CONDITION)
NODE_DELETE: Final = ClusterEvent(NODE, DELETE)
SERVICE_CHANGE: Final = ClusterEvent(SERVICE, UPDATE)
UNSCHEDULABLE_TIMEOUT: Final = ClusterEvent(WILDCARD, ALL)
FORCE_ACTIVATE: Final = ClusterEvent(WILDCARD, ALL)


_JUST_UPDATED: Final = {
    resource: [ClusterEvent(resource, UPDATE)] for resource in (ASSIGNED_POD, UNSCHEDULED_POD)
}


def match_cluster_events(registered: ClusterEvent, incoming: ClusterEvent) -> bool:
    """Whether a plugin that registered for one hears of the other: the incoming action may not be the wider one.

    Source: kubernetes/pkg/scheduler/framework/types.go:MatchClusterEvents, v1.34.1.
    """
    if registered.resource == WILDCARD:
        return True
    same = registered.resource == incoming.resource or (
        registered.resource == POD and incoming.resource in (ASSIGNED_POD, UNSCHEDULED_POD)
    )
    return same and bool(registered.action & incoming.action) and incoming.action <= registered.action


def condition_statuses(conditions: dict[str, Condition]) -> dict[str, str]:
    """Type → status: all that counts of a node's conditions; a heartbeat changes none of it."""
    return {name: condition.status for name, condition in conditions.items()}


def node_scheduling_properties_change(new: Node, old: Node, *, taints_differ: bool | None = None) -> list[ClusterEvent]:
    """All kinds of change that an update of a node amounts to; none for a heartbeat.

    ``taints_differ`` overrides the comparison of taints. Source: kubernetes/pkg/scheduler/framework/events.go:
    NodeSchedulingPropertiesChange, v1.34.1 (then: eventhandlers.go:nodeSchedulingPropertiesChange takes the first and
    knows no annotations).
    """
    found = []
    if old.unschedulable and not new.unschedulable:
        found.append(ClusterEvent(NODE, NODE_TAINT))
    if old.allocatable != new.allocatable:
        found.append(ClusterEvent(NODE, NODE_ALLOCATABLE))
    if old.labels != new.labels:
        found.append(ClusterEvent(NODE, NODE_LABEL))
    if old.taints != new.taints if taints_differ is None else taints_differ:
        found.append(ClusterEvent(NODE, NODE_TAINT))
    if old.conditions is not new.conditions or old.ready != new.ready:
        if condition_statuses(old.conditions) != condition_statuses(new.conditions) or old.ready != new.ready:
            found.append(ClusterEvent(NODE, NODE_CONDITION))
    if old.annotations != new.annotations:
        found.append(ClusterEvent(NODE, NODE_ANNOTATION))
    return found


def pod_scheduling_properties_change(new: Pod, old: Pod) -> list[ClusterEvent]:
    """The kinds of change that an update of a pod amounts to; the general Update if none.

    Source: kubernetes/pkg/scheduler/framework/events.go:PodSchedulingPropertiesChange, v1.34.1.
    """
    resource = ASSIGNED_POD if new.node else UNSCHEDULED_POD
    if new.labels is old.labels and new.spec is old.spec:
        return _JUST_UPDATED[resource]
    found = []
    if new.labels != old.labels:
        found.append(ClusterEvent(resource, POD_LABEL))
    if new.spec is not old.spec:
        before, after = old.spec.requests, new.spec.requests
        if any(name not in after or amount > after[name] for name, amount in before.items()):
            found.append(ClusterEvent(resource, POD_SCALE_DOWN))
        if old.spec.scheduling_gates and not new.spec.scheduling_gates:
            found.append(ClusterEvent(resource, POD_GATES_ELIMINATED))
        if len(new.spec.tolerations) != len(old.spec.tolerations):
            found.append(ClusterEvent(resource, POD_TOLERATION))
    return found or _JUST_UPDATED[resource]
