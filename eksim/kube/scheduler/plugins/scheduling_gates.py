"""SchedulingGates: a pod with gates is not tried.

Mimics ``plugins/schedulinggates/scheduling_gates.go``; the queue asks :func:`gated`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.framework import Handle, Hint, Plugin
from eksim.state.objects import Pod
from eksim.versions import SchedulerRules

NAME: Final = "SchedulingGates"


def gated(pod: Pod) -> bool:
    """Whether gates keep the pod out of activeQ.

    Source: kubernetes/pkg/scheduler/framework/plugins/schedulinggates/scheduling_gates.go:PreEnqueue, v1.34.1.
    """
    return bool(pod.spec.scheduling_gates)


class SchedulingGates(Plugin):
    """Registers for the moment when the last gate goes."""

    name = NAME

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """Source: scheduling_gates.go:EventsToRegister, v1.34.1."""
        if not rules.queueing_hints:
            return []
        return [(ClusterEvent(ev.POD, ev.POD_GATES_ELIMINATED), is_schedulable_after_gates_eliminated)]


def is_schedulable_after_gates_eliminated(handle: Handle, pod: Pod, old: Pod, new: Pod) -> bool:
    """The gates were this pod's own.

    Source: scheduling_gates.go:isSchedulableAfterUpdatePodSchedulingGatesEliminated, v1.34.1.
    """
    return pod.key == new.key
