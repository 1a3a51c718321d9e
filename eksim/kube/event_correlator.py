"""The classic (core/v1) recorder: aggregation, counting, spam filter.

Mimics client-go's ``tools/record``: one broadcaster for each component, which writes its events one after another and
holds them while the API server does not answer. Called by whoever holds a recorder.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from eksim.engine.clock import OBSERVER, Clock
from eksim.errors import Refused
from eksim.kube.event_objects import (
    MAX_TRIES_PER_EVENT,
    RETRY_S,
    UNREACHABLE,
    EventSink,
    ObjectReference,
    StoredEvent,
    reference_to,
)
from eksim.names import is_dns_subdomain
from eksim.state.objects import ApiObject, Node, Pod
from eksim.versions import ControllerRules

K = TypeVar("K")
V = TypeVar("V")

#: Events that wait in the broadcaster; more are dropped.
MAX_QUEUED_EVENTS = 1000


class CorrelatorOptions(NamedTuple):
    """``burst``, ``qps``: the spam filter's bucket (events, events a second); ``max_events``: distinct messages from
    which on a group is combined; ``max_interval_s``: after a longer pause a group starts anew; ``lru_cache_size``: keys
    that each step remembers.

    Source: kubernetes/staging/src/k8s.io/client-go/tools/record/events_cache.go, v1.34.1.
    """

    burst: int = 25
    qps: float = 1.0 / 300.0
    max_events: int = 10
    max_interval_s: int = 600
    lru_cache_size: int = 4096


class Source(NamedTuple):
    """``source``: component and, for kubelets and kube-proxies, the host."""

    component: str
    host: str = ""


class _Lru(OrderedDict[K, V], Generic[K, V]):
    """groupcache's LRU: reading and writing make a key the newest."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def look(self, key: K) -> V | None:
        value = self.get(key)
        if value is not None:
            self.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > self._size:
            self.popitem(last=False)


class _Group:
    """Similar events: when the last one came, and the distinct messages (a dict as an ordered set)."""

    __slots__ = ("last_ns", "messages")

    def __init__(self) -> None:
        self.last_ns = 0
        self.messages: dict[str, None] = {}


#: What the counter knows of an event: occurrences, whole second of the first, name.
_Seen = tuple[int, float | None, str]


class _Bucket:
    """golang.org/x/time/rate's limiter, asked without waiting: only what is allowed takes a token."""

    __slots__ = ("last_ns", "tokens")

    def __init__(self, burst: int, now_ns: int) -> None:
        self.tokens = float(burst)
        self.last_ns = now_ns

    def accept(self, now_ns: int, qps: float, burst: int) -> bool:
        tokens = min(float(burst), self.tokens + (now_ns - self.last_ns) / 1e9 * qps) - 1.0
        if tokens < 0 and int(-tokens / qps * 1e9) > 0:
            return False
        self.tokens, self.last_ns = tokens, now_ns
        return True


#: What became of an event on its way through the correlator, for looking at: (held back, combined, occurrences, messages
#: known in its group, message forgotten).
Observation = tuple[bool, bool, int, int, str | None]


class EventCorrelator:
    """Decides whether an event is new, a repetition, one of many similar, or too much.

    ``forget(messages)`` names the message that a full group forgets (the real one drops any).
    Source: kubernetes/staging/src/k8s.io/client-go/tools/record/events_cache.go:EventCorrelate, v1.34.1.
    """

    __slots__ = ("_forget", "_groups", "_options", "_qps", "_rules", "_seen", "_spam", "last")

    def __init__(
        self, options: CorrelatorOptions, rules: ControllerRules, forget: Callable[[list[str]], str]
    ) -> None:
        self._options = options
        self._rules = rules
        self._forget = forget
        # the real limiter takes a 32-bit float
        self._qps: float = struct.unpack("f", struct.pack("f", options.qps))[0]
        size = options.lru_cache_size
        self._groups: _Lru[tuple[object, ...], _Group] = _Lru(size)
        self._seen: _Lru[tuple[object, ...], _Seen] = _Lru(size)
        self._spam: _Lru[tuple[object, ...], _Bucket] = _Lru(size)
        self.last: Observation | None = None

    def correlate(
        self, event: StoredEvent, now_ns: int, now_s: float, stamp_ns: Callable[[], int]
    ) -> StoredEvent | None:
        """The event to write (count > 1: as a patch), or None if it is held back.

        ``now_s``, ``stamp_ns``: whole second and the time in the name of an event made now, for a combined one.
        """
        involved = event.involved
        source = (event.component, event.host)
        identity = involved[:5]
        group_key = (
            source,
            identity,
            event.type,
            event.reason,
            event.reporting_component,
            event.reporting_instance,
        )
        event_key = (source, identity, involved.field_path, event.type, event.reason, event.message)
        key: tuple[object, ...] = event_key
        group = self._aggregate(group_key, event.message, now_ns)
        forgotten: str | None = None
        combined = len(group.messages) >= self._options.max_events
        if combined:
            forgotten = self._forget(list(group.messages))
            del group.messages[forgotten]
            event = self._combined(event, f"{involved.name}.{stamp_ns():x}", now_s)
            key = group_key
        seen = self._seen.get(key)
        if seen is not None:
            event = event.replaced(name=seen[2], first_s=seen[1], count=seen[0] + 1)
        self._seen.put(key, (event.count, event.first_s, event.name))
        skipped = not self._accept(source, identity, event.type, now_ns)
        self.last = (skipped, combined, event.count, len(group.messages), forgotten)
        return None if skipped else event

    def _aggregate(self, key: tuple[object, ...], message: str, now_ns: int) -> _Group:
        """The event's group, with its message. Source: events_cache.go:EventAggregate."""
        group = self._groups.look(key)
        if group is None or now_ns - group.last_ns > self._options.max_interval_s * 1_000_000_000:
            group = _Group()
            self._groups.put(key, group)
        group.messages[message] = None
        group.last_ns = now_ns
        return group

    def _combined(self, event: StoredEvent, name: str, now_s: float) -> StoredEvent:
        """The event that stands for many similar ones. Nothing checks that the object's name can be part of its name."""
        return event.replaced(
            name=name,
            message="(combined from similar events): " + event.message,
            count=1,
            first_s=now_s,
            last_s=now_s,
            reporting_component="",
            reporting_instance="",
        )

    def _accept(self, source: tuple[str, str], identity: tuple[object, ...], type_: str, now_ns: int) -> bool:
        """Source: events_cache.go:EventSourceObjectSpamFilter.Filter."""
        key = (source, identity, type_ if self._rules.spam_key_has_type else "")
        bucket = self._spam.look(key)
        if bucket is None:
            bucket = _Bucket(self._options.burst, now_ns)
            self._spam.put(key, bucket)
        return bucket.accept(now_ns, self._qps, self._options.burst)

    def update_state(self, sent: StoredEvent, event: StoredEvent) -> None:
        """The server's answer is what is remembered of the event, under the answer's own reason and message.

        For an event that was not combined this is what is remembered already, unless the one that was changed is
        another: two events of one object at one instant share a name, and only the first is there.
        Source: events_cache.go:eventLogger.updateState.
        """
        if self.last is not None and not self.last[1] and sent is event:
            return
        involved = event.involved
        key = (
            (event.component, event.host),
            involved[:5],
            involved.field_path,
            event.type,
            event.reason,
            event.message,
        )
        self._seen.put(key, (event.count, event.first_s, event.name))


class Calendar:
    """Simulated seconds as the real clock shows them: nanoseconds since 1970 and whole seconds.

    ``distinct``: no two stamps are equal. Much happens at one simulated instant that takes the real components some
    microseconds each, and events are named by the nanosecond.
    """

    __slots__ = ("_clock", "_distinct", "_stamped_ns", "epoch_ns")

    def __init__(self, clock: Clock, epoch_s: float, *, distinct: bool) -> None:
        self._clock = clock
        self._distinct = distinct
        self._stamped_ns = 0
        self.epoch_ns = round(epoch_s * 1_000_000_000)

    def stamp_ns(self) -> int:
        """Nanoseconds since 1970 for a name."""
        now_ns = self.now_ns()
        if self._distinct:
            if now_ns <= self._stamped_ns:
                now_ns = self._stamped_ns + 1
            self._stamped_ns = now_ns
        return now_ns

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.epoch_ns + round(self._clock.now * 1_000_000_000)

    def whole_s(self, now_ns: int) -> float:
        """The whole second of calendar time, in seconds since the start."""
        return (now_ns // 1_000_000_000 * 1_000_000_000 - self.epoch_ns) / 1_000_000_000

    def micro_s(self, now_ns: int) -> float:
        """The microsecond, in seconds since the start."""
        return (now_ns // 1000 * 1000 - self.epoch_ns) / 1_000_000_000


def event_name(involved: ObjectReference, now_ns: int, rules: ControllerRules) -> str:
    """``<object>.<nanoseconds in hex>``; today a uuid from the same if the object's name cannot be part of a name.

    Source: kubernetes/staging/src/k8s.io/client-go/tools/internal/events:GenerateEventName, v1.34.1.
    """
    name = f"{involved.name}.{now_ns:x}"
    if rules.event_name_checked and not _can_be_part_of_a_name(involved.name):
        digits = f"{now_ns & (1 << 122) - 1:032x}"
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"
    return name


@lru_cache(maxsize=65536)
def _can_be_part_of_a_name(name: str) -> bool:
    # 16 hex digits and a dot follow
    return is_dns_subdomain(f"{name}.{'0' * 16}")


class ClassicBroadcaster:
    """Writes a component's events in order. ``retry_at(now, tries)``: when a write that got no answer is tried again."""

    __slots__ = ("_busy", "_calendar", "_clock", "_queue", "_retry_at", "_rules", "_sink", "correlator")

    def __init__(
        self,
        clock: Clock,
        calendar: Calendar,
        sink: EventSink,
        correlator: EventCorrelator,
        rules: ControllerRules,
        retry_at: Callable[[float, int], float],
    ) -> None:
        self._clock = clock
        self._calendar = calendar
        self._sink = sink
        self._rules = rules
        self._retry_at = retry_at
        self.correlator = correlator
        self._queue: deque[StoredEvent] = deque()
        self._busy = False

    def recorder(self, source: Source) -> ClassicRecorder:
        """A recorder for one source."""
        return ClassicRecorder(self, source)

    def record(
        self, source: Source, involved: ObjectReference, type: str, reason: str, message: str
    ) -> None:
        """Make an event now and write it, or queue it behind one that waits.

        Source: kubernetes/staging/src/k8s.io/client-go/tools/record/event.go:makeEvent, v1.34.1.
        """
        now_ns = self._calendar.now_ns()
        name = event_name(involved, self._calendar.stamp_ns(), self._rules)
        event = StoredEvent(name, involved.namespace or "default", involved, type, reason, message)
        event.count = 1
        event.first_s = event.last_s = self._calendar.whole_s(now_ns)
        event.component, event.host = source
        if self._rules.classic_reporting:
            event.reporting_component, event.reporting_instance = source
        if self._busy:
            if len(self._queue) < MAX_QUEUED_EVENTS:
                self._queue.append(event)
            return
        self._record_to_sink(event)

    def _record_to_sink(self, event: StoredEvent) -> None:
        """Source: event.go:recordToSink."""
        now_ns = self._calendar.now_ns()
        written = self.correlator.correlate(event, now_ns, self._calendar.whole_s(now_ns), self._calendar.stamp_ns)
        if written is not None:
            self._try(written, 0)

    def _try(self, event: StoredEvent, tries: int) -> None:
        if self._record_event(event):
            self._busy = False
        elif tries + 1 < MAX_TRIES_PER_EVENT:
            self._busy = True
            self._clock.arm(self._retry_at(self._clock.now, tries + 1), OBSERVER, self._retry, event, tries + 1)
        else:
            self._busy = False

    def _retry(self, event: StoredEvent, tries: int) -> None:
        self._try(event, tries)
        while self._queue and not self._busy:
            self._record_to_sink(self._queue.popleft())

    def _record_event(self, event: StoredEvent) -> bool:
        """Whether the event is done with: written, or refused for good.

        Source: event.go:recordEvent.
        """
        answer: StoredEvent | Refused | None = None
        if event.count > 1:
            fields: dict[str, object] = {"count": event.count, "last_s": event.last_s}
            if event.message:
                fields["message"] = event.message
            answer = self._sink.patch(event, fields)
        if answer is None or (isinstance(answer, Refused) and answer.code == "NotFound"):
            answer = self._sink.create(event)
        if isinstance(answer, Refused):
            return answer.code != UNREACHABLE
        self.correlator.update_state(event, answer)
        return True


class ClassicRecorder:
    """``parts.EventRecorder`` for one source; ``action`` and ``related`` do not exist in classic events."""

    __slots__ = ("_broadcaster", "_source")

    def __init__(self, broadcaster: ClassicBroadcaster, source: Source) -> None:
        self._broadcaster = broadcaster
        self._source = source

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
        source = self._source
        self._broadcaster.record(source, reference_to(obj, source.component, field_path), type, reason, message)


def default_retry_at(now_s: float, tries: int) -> float:
    """Without a recorded delay to follow: the first after half of its random 0 to 10 s, the others after 10 s."""
    return now_s + (RETRY_S / 2 if tries == 1 else RETRY_S)
