"""A pod in the scheduling queue, its back-off, and the record of what happened while it was tried. Called by ``queue``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from eksim.kube.scheduler.events import ClusterEvent
from eksim.kube.scheduler.nodeinfo import PodInfo
from eksim.state.objects import Pod
from eksim.versions import SchedulerRules

INITIAL_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 10.0

ACTIVE: Final = "active"
BACKOFF: Final = "backoff"
UNSCHEDULABLE: Final = "unschedulable"
GATED: Final = "gated"
IN_FLIGHT: Final = "in flight"

#: an event with the object before and after
Event = tuple[ClusterEvent, Any, Any]


class QueuedPod:
    """A pending pod in the queue, or in flight. ``since``: its timestamp in the queue; ``plugins``: what rejected it."""

    __slots__ = (
        "attempts",
        "backoff_until",
        "diagnosis",
        "errors",
        "gate",
        "info",
        "key",
        "plugins",
        "refusal",
        "rejections",
        "since",
        "ticket",
        "where",
    )

    def __init__(self, info: PodInfo, now: float) -> None:
        self.info = info
        self.key = info.key
        self.since = now
        self.attempts = 0
        #: attempts that plugins rejected, and errors since the last of those
        self.rejections = 0
        self.errors = 0
        self.plugins: dict[str, None] = {}
        #: the plugin that keeps it out of activeQ
        self.gate = ""
        #: when its back-off ends; None: not reckoned yet
        self.backoff_until: float | None = None
        self.where = ""
        #: marks the one entry in a heap that counts
        self.ticket = 0
        self.diagnosis: Any = None
        #: what every node said last time, which holds as long as none changes
        self.refusal: Any = None

    @property
    def pod(self) -> Pod:
        """The pod as last heard of."""
        return self.info.pod

    def __repr__(self) -> str:
        return f"<QueuedPod {self.key} {self.where}>"


def calculate_backoff_duration(count: int, initial_s: float = INITIAL_BACKOFF_S, max_s: float = MAX_BACKOFF_S) -> float:
    """1 s · 2^(n−1), at most 10 s (or what the configuration says); none for n = 0.

    Source: kubernetes/pkg/scheduler/backend/queue/backoff_queue.go:calculateBackoffDuration, v1.34.1.
    """
    if count <= 0:
        return 0.0
    return min(initial_s * 2.0 ** min(count - 1, 64), max_s)


class Backoff:
    """How long pods wait after a failed attempt. ``now`` gives the time; ``limits``: the first and the longest wait."""

    def __init__(
        self,
        rules: SchedulerRules,
        now: Callable[[], float],
        limits: tuple[float, float] = (INITIAL_BACKOFF_S, MAX_BACKOFF_S),
    ) -> None:
        self.rules = rules
        self._initial_s, self._max_s = limits
        self.now = now

    def align_to_window(self, when: float) -> float:
        """Cut to the whole second where back-off has windows.

        Source: backoff_queue.go:alignToWindow, v1.34.1.
        """
        return float(math.floor(when)) if self.rules.backoff_windows else when

    def ends(self, queued: QueuedPod) -> float:
        """When the pod's back-off ends; minus infinity without one.

        Source: backoff_queue.go:getBackoffTime, v1.34.1; scheduling_queue.go:getBackoffTime, v1.21.9.
        """
        until = queued.backoff_until
        if until is None:
            if self.rules.backoff_by_rejections:
                count = queued.errors or queued.rejections
                if count == 0:
                    return -math.inf
            else:
                count = max(queued.attempts, 1)
            until = self.align_to_window(round(queued.since + calculate_backoff_duration(count, self._initial_s, self._max_s), 9))
            queued.backoff_until = until
        return until

    def is_on(self, queued: QueuedPod) -> bool:
        """Whether the pod still has to wait; with windows, all through the window in which it ends.

        Source: backoff_queue.go:isPodBackingoff, v1.34.1; scheduling_queue.go:isPodBackingoff, v1.21.9.
        """
        until = self.ends(queued)
        return until >= self.align_to_window(self.now()) if self.rules.backoff_windows else until > self.now()


class InFlight:
    """The pods being tried, and (with hints) the events heard since the oldest of them was popped, in order."""

    def __init__(self, rules: SchedulerRules) -> None:
        self.pods: dict[str, QueuedPod] = {}
        self._hints = rules.queueing_hints
        #: those pods and the events, in the order in which they came
        self.log: list[QueuedPod | Event] = []

    def add(self, queued: QueuedPod) -> None:
        """The pod is tried from now on."""
        queued.where = IN_FLIGHT
        self.pods[queued.key] = queued
        if self._hints:
            self.log.append(queued)

    def done(self, queued: QueuedPod) -> None:
        """The attempt is over; events kept for it are dropped.

        Source: active_queue.go:done, v1.34.1.
        """
        if self.pods.pop(queued.key, None) is None:
            return
        queued.where = ""
        log = self.log
        if not self.pods:
            log.clear()
        elif log:
            log.remove(queued)
            keep = 0
            while keep < len(log) and not isinstance(log[keep], QueuedPod):
                keep += 1
            del log[:keep]

    def note(self, event: ClusterEvent, old: Any, new: Any) -> None:
        """Keep an event for those in flight."""
        if self.pods and self._hints:
            self.log.append((event, old, new))

    def events_since(self, queued: QueuedPod) -> list[Event]:
        """What happened since the pod was popped.

        Source: active_queue.go:clusterEventsForPod, v1.34.1.
        """
        log = self.log
        start = log.index(queued) + 1
        return [entry for entry in log[start:] if not isinstance(entry, QueuedPod)]
