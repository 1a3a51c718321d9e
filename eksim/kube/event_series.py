"""The new (events.k8s.io/v1) recorder: series, rarely written.

Mimics client-go's ``tools/events``: the second event of a kind makes a series, the following ones change memory only,
until the half-hourly refresh or the end of the series. kube-scheduler writes through it today. Called by whoever holds a
recorder.
"""

from __future__ import annotations

from collections.abc import Callable

from eksim.engine.clock import OBSERVER, Clock, Grid
from eksim.errors import Refused
from eksim.kube.event_correlator import Calendar, event_name
from eksim.kube.event_objects import (
    MAX_TRIES_PER_EVENT,
    NO_REFERENCE,
    RETRY_S,
    UNREACHABLE,
    EventSink,
    ObjectReference,
    StoredEvent,
    reference_to,
)
from eksim.state.objects import ApiObject, Node, Pod
from eksim.versions import ControllerRules

#: Periods of the recorder's two loops, both from its start.
#: Source: kubernetes/staging/src/k8s.io/client-go/tools/events/event_broadcaster.go, v1.34.1.
FINISH_S = 360.0
REFRESH_S = 1800.0
FINISH_NS = 360_000_000_000

_Key = tuple[str, str, str, ObjectReference, ObjectReference]


class CachedEvent:
    """An event that the recorder remembers. ``time_ns``, ``last_ns``: its own time and that of the last repetition."""

    __slots__ = ("count", "event", "last_ns", "time_ns")

    def __init__(self, event: StoredEvent, time_ns: int) -> None:
        self.event = event
        self.time_ns = time_ns
        self.count = 0
        self.last_ns = 0


class SeriesBroadcaster:
    """One component's recorder. ``retry_at(now, tries)`` as for the classic one; ``refresh_first(now)``: whether the
    refresh comes before the end of series where both are due at one instant (the real order is arbitrary).
    ``in_turn(series)``: the order in which a loop writes them (the real one is that of a Go map)."""

    __slots__ = (
        "_armed",
        "_calendar",
        "_clock",
        "_finish",
        "_has_series",
        "_in_turn",
        "_refresh",
        "_refresh_first",
        "_retry_at",
        "_rules",
        "_sink",
        "by",
        "cache",
        "controller",
        "instance",
    )

    def __init__(
        self,
        clock: Clock,
        calendar: Calendar,
        sink: EventSink,
        rules: ControllerRules,
        controller: str,
        instance: str,
        retry_at: Callable[[float, int], float],
        refresh_first: Callable[[float], bool] = lambda _: True,
        in_turn: Callable[[list[CachedEvent]], list[CachedEvent]] = lambda series: series,
    ) -> None:
        self._clock = clock
        self._calendar = calendar
        self._sink = sink
        self._rules = rules
        self._retry_at = retry_at
        self._refresh_first = refresh_first
        self._in_turn = in_turn
        self.controller = controller
        self.instance = instance
        self.cache: dict[_Key, CachedEvent] = {}
        #: what a call to the sink is made for: ``emit``, ``refresh`` or ``finish``
        self.by = "emit"
        self._finish = Grid(clock.now, FINISH_S)
        self._refresh = Grid(clock.now, REFRESH_S)
        self._armed: float | None = None
        self._has_series = False

    def record(
        self,
        involved: ObjectReference,
        type: str,
        reason: str,
        message: str,
        action: str,
        related: ObjectReference | None,
    ) -> None:
        """One occurrence now: a new event, the start of a series, or one more of it.

        Source: event_broadcaster.go:recordToSink.
        """
        now_ns = self._calendar.now_ns()
        key = (type, action, reason, involved, related or NO_REFERENCE)
        cached = self.cache.get(key)
        if cached is None:
            event = StoredEvent(
                event_name(involved, self._calendar.stamp_ns(), self._rules),
                involved.namespace or "default",
                involved,
                type,
                reason,
                message,
            )
            event.event_time_s = self._calendar.micro_s(now_ns)
            event.action = action
            event.related = related
            event.reporting_component = self.controller
            event.reporting_instance = self.instance
            self.cache[key] = CachedEvent(event, now_ns)
            self._arm()
            self._attempt(event, 0)
            return
        cached.last_ns = now_ns
        if cached.count:
            cached.count += 1
            return
        cached.count = 2 if self._rules.series_starts_at_two else 1
        self._has_series = True
        self._arm()
        self._attempt(self.series_of(cached), 0)

    def series_of(self, cached: CachedEvent) -> StoredEvent:
        """The event as it is to be written now."""
        return cached.event.replaced(
            series_count=cached.count, series_last_s=self._calendar.micro_s(cached.last_ns)
        )

    def _attempt(self, event: StoredEvent, tries: int) -> None:
        """Source: event_broadcaster.go:attemptRecording."""
        if self._record_event(event) is None and tries + 1 < MAX_TRIES_PER_EVENT:
            self._clock.arm(self._retry_at(self._clock.now, tries + 1), OBSERVER, self._attempt, event, tries + 1)

    def _record_event(self, event: StoredEvent) -> StoredEvent | Refused | None:
        """The server's answer; None if there was none, or if a series is there again at once after it was not.

        Source: event_broadcaster.go:recordEvent.
        """
        answer: StoredEvent | Refused | None = None
        if event.series_count:
            fields = {"series_count": event.series_count, "series_last_s": event.series_last_s}
            answer = self._sink.patch(event, fields)
        if answer is None or (isinstance(answer, Refused) and answer.code == "NotFound"):
            answer = self._sink.create(event)
        if isinstance(answer, Refused) and (
            answer.code == UNREACHABLE or (event.series_count and answer.code == "AlreadyExists")
        ):
            return None
        return answer

    # -- the two loops --------------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Come back at the next turn of a loop that may find something to do."""
        if not self.cache:
            return
        now = self._clock.now
        when = self._finish.after(now)
        if self._has_series:
            when = min(when, self._refresh.after(now))
        if self._armed is None or when < self._armed:
            self._armed = when
            self._clock.arm(when, OBSERVER, self._turn, when)

    def _turn(self, when: float) -> None:
        if when != self._armed:
            return
        self._armed = None
        refresh = self._refresh.at_or_after(when) == when
        finish = self._finish.at_or_after(when) == when
        if refresh and (not finish or self._refresh_first(when)):
            self.refresh_existing_event_series()
            refresh = False
        if finish:
            self.finish_series()
        if refresh:
            self.refresh_existing_event_series()
        self.by = "emit"
        self._arm()

    def refresh_existing_event_series(self) -> None:
        """Write every series. Source: event_broadcaster.go:refreshExistingEventSeries."""
        self.by = "refresh"
        for cached in self._in_turn([cached for cached in self.cache.values() if cached.count]):
            answer = self._record_event(self.series_of(cached))
            if isinstance(answer, StoredEvent):
                cached.event = answer

    def finish_series(self) -> None:
        """Forget what is older than six minutes, series with a last write. Source: event_broadcaster.go:finishSeries."""
        self.by = "finish"
        before = self._calendar.now_ns() - FINISH_NS
        over = [cached for cached in self.cache.values() if cached.count and cached.last_ns < before]
        gone = {id(cached) for cached in self._in_turn(over) if self._record_event(self.series_of(cached)) is not None}
        self._has_series = False
        for key, cached in list(self.cache.items()):
            if id(cached) in gone or (not cached.count and cached.time_ns < before):
                del self.cache[key]
            elif cached.count:
                self._has_series = True


class SeriesRecorder:
    """``parts.EventRecorder`` through events.k8s.io."""

    __slots__ = ("_broadcaster",)

    def __init__(self, broadcaster: SeriesBroadcaster) -> None:
        self._broadcaster = broadcaster

    def event(
        self,
        obj: Pod | Node | ApiObject,
        type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        related: Pod | None = None,
        field_path: str = "",
    ) -> None:
        """Record one occurrence now."""
        broadcaster = self._broadcaster
        broadcaster.record(
            reference_to(obj, broadcaster.controller, field_path),
            type,
            reason,
            message,
            action,
            None if related is None else reference_to(related),
        )


def default_series_retry_at(now_s: float, tries: int) -> float:
    """Without a recorded delay to follow: the middle of the random 10 to 12.5 s."""
    return now_s + RETRY_S * 1.125
