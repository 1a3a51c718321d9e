"""Why a pod fitted nowhere, and how the scheduler says so.

Mimics ``framework/types.go`` (Diagnosis, FitError). Counts per status first; the words are put together here, at the
edge. Called by the cycle and by the views that explain a Pending pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from eksim.kube.scheduler.framework import Status
from eksim.versions import SchedulerRules

NO_NODES = "no nodes available to schedule pods"
NO_CLAIMS = "no new claims to deallocate"


class Diagnosis:
    """``counts``: how many nodes have which status; ``absent``: nodes not looked at stand for that many more.

    ``preemption_counts``: the same for preemption's look; ``preemption_message`` if it did not even look.
    """

    __slots__ = ("absent", "absent_count", "counts", "nodes", "plugins", "pre_filter_message", "preempted",
                 "preemption_counts", "preemption_message")  # fmt: skip

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.counts: list[tuple[Status, int]] = []
        self.absent: Status | None = None
        self.absent_count = 0
        self.plugins: dict[str, None] = {}
        self.pre_filter_message = ""
        self.preemption_counts: list[tuple[Status, int]] | None = None
        self.preemption_message = ""
        #: preemption made room, so PostFilter says nothing
        self.preempted = False

    def reasons(self) -> dict[str, int]:
        """Reason → number of nodes, explicit ones and those not looked at."""
        reasons: dict[str, int] = {}
        for status, count in self.counts:
            for reason in status.reasons:
                reasons[reason] = reasons.get(reason, 0) + count
        if self.absent is not None and self.absent_count:
            for reason in self.absent.reasons:
                reasons[reason] = reasons.get(reason, 0) + self.absent_count
        return reasons

    def message(self, rules: SchedulerRules, *, claims: bool) -> str:
        """The FailedScheduling message. ``claims``: DynamicResources takes part.

        Source: kubernetes/pkg/scheduler/framework/types.go:FitError.Error, v1.34.1, v1.21.9;
        framework/preemption/preemption.go:Preempt.
        """
        text = fit_error(self.nodes, self.pre_filter_message, self.reasons(), rules)
        if not rules.postfilter_message or self.preempted:
            return text
        said = [NO_CLAIMS] if claims else []
        if self.preemption_message:
            said.append(f"preemption: {self.preemption_message}")
        elif self.preemption_counts is not None:
            reasons: dict[str, int] = {}
            for status, count in self.preemption_counts:
                for reason in status.reasons:
                    reasons[reason] = reasons.get(reason, 0) + count
            said.append("preemption: " + fit_error(self.nodes, "", reasons, rules))
        return f"{text} {', '.join(said)}" if said else text


def fit_error(nodes: int, pre_filter_message: str, reasons: Mapping[str, int], rules: SchedulerRules) -> str:
    """``0/N nodes are available: …`` with the reasons sorted as strings."""
    text = f"0/{nodes} nodes are available:"
    if pre_filter_message and rules.prefilter_nodes:
        return f"{text} {pre_filter_message}."
    counted = sorted(f"{count} {reason}" for reason, count in reasons.items())
    if counted or not rules.postfilter_message:
        text += f" {', '.join(counted)}."
    return text


def count_statuses(statuses: Iterable[Status]) -> list[tuple[Status, int]]:
    """Equal statuses counted together."""
    found: dict[tuple[str, str, tuple[str, ...]], list[Status]] = {}
    for status in statuses:
        found.setdefault((status.plugin, status.code, status.reasons), []).append(status)
    return [(same[0], len(same)) for same in found.values()]
