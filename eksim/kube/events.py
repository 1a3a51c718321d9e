"""Events: which component records through which recorder, and the API server's room for them.

Mimics kube-apiserver's events with their hour of life (removed lazily). Components get an ``EventRecorder`` each and know
no more. Called by ``cluster.py``, which hands the recorders out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from eksim.engine.clock import Clock
from eksim.engine.streams import Stream, Streams
from eksim.errors import Refused
from eksim.kube.event_correlator import (
    Calendar,
    ClassicBroadcaster,
    CorrelatorOptions,
    EventCorrelator,
    Source,
    default_retry_at,
)
from eksim.kube.event_objects import ObjectReference, StoredEvent
from eksim.kube.event_series import SeriesBroadcaster, SeriesRecorder, default_series_retry_at
from eksim.parts import EventRecorder
from eksim.state.changes import Verb
from eksim.state.objects import ApiObject, Node, Pod
from eksim.state.store import Store
from eksim.versions import KubernetesRules

__all__ = ["EventRecorders", "EventRoom", "ObjectReference", "StoredEvent"]

#: ``--event-ttl`` of kube-apiserver: an event lives this long after its last write.
EVENT_TTL_S = 3600.0

#: 2021-08-01T00:00:00Z, when the lab was written.
DEFAULT_EPOCH_S = 1627776000.0

NOT_FOUND = Refused("NotFound", "events not found")
ALREADY_EXISTS = Refused("AlreadyExists", "events already exists")
SERIES_TOO_SHORT = Refused("Invalid", "series.count: Invalid value: should be at least 2")


class EventRoom:
    """The API server's events by ``namespace/name``, in the order in which they were first stored.

    ``validate``: refuse what the real server refuses (series of less than two).
    """

    def __init__(self, clock: Clock, store: Store, ttl_s: float = EVENT_TTL_S, *, validate: bool = True) -> None:
        self._clock = clock
        self._store = store
        self._ttl_s = ttl_s
        self._validate = validate
        self._events: dict[str, StoredEvent] = {}
        # (expiry, key) in the order of writing, which is the order of expiry
        self._expiries: deque[tuple[float, str]] = deque()

    def create(self, event: StoredEvent) -> StoredEvent | Refused:
        """POST; refused if the name is taken. The event given is the one stored."""
        self._expire()
        key = event.key
        if key in self._events:
            return ALREADY_EXISTS
        if self._validate and event.series_count == 1:
            return SERIES_TOO_SHORT
        return self._write(key, event, None)

    def patch(self, event: StoredEvent, fields: dict[str, Any]) -> StoredEvent | Refused:
        """PATCH of the stored event of that name."""
        self._expire()
        key = event.key
        stored = self._events.get(key)
        if stored is None:
            return NOT_FOUND
        if self._validate and fields.get("series_count") == 1:
            # Source: kubernetes/pkg/apis/core/validation/events.go:validateV1EventSeries, v1.21.9, v1.34.1.
            return SERIES_TOO_SHORT
        return self._write(key, stored.replaced(**fields), stored)

    def _write(self, key: str, event: StoredEvent, old: StoredEvent | None) -> StoredEvent:
        event.expires_s = self._clock.now + self._ttl_s
        event.resource_version = self._store.revision + 1
        self._events[key] = event
        self._expiries.append((event.expires_s, key))
        self._store.emit(Verb.EVENT_RECORDED, event, old)
        return event

    def _expire(self) -> None:
        now, expiries = self._clock.now, self._expiries
        while expiries and expiries[0][0] <= now:
            _, key = expiries.popleft()
            event = self._events.get(key)
            if event is not None and event.expires_s <= now:
                del self._events[key]

    def stored(self) -> list[StoredEvent]:
        """The events that are alive."""
        self._expire()
        return list(self._events.values())

    def lose(self) -> None:
        """All events are gone at once."""
        self._events.clear()
        self._expiries.clear()


class EventRecorders:
    """Hands each component its recorder: kube-scheduler the series one where the release has it, all others classic.

    ``epoch_s``: calendar time of simulated second 0 (Unix seconds); event names carry it. ``streams``: where the message
    that a full group of similar events forgets is drawn (without: the oldest).
    """

    def __init__(
        self,
        clock: Clock,
        store: Store,
        rules: KubernetesRules,
        epoch_s: float = DEFAULT_EPOCH_S,
        streams: Streams | None = None,
        ttl_s: float = EVENT_TTL_S,
        options: CorrelatorOptions | None = None,
    ) -> None:
        self._clock = clock
        self._rules = rules
        self._calendar = Calendar(clock, epoch_s, distinct=True)
        self._options = options or CorrelatorOptions()
        self._stream: Stream | None = None if streams is None else streams["events/forget"]
        self.room = EventRoom(clock, store, ttl_s)
        self._classic: dict[tuple[str, str], EventRecorder] = {}
        self._series: dict[str, EventRecorder] = {}

    def recorder(self, component: str, host: str = "") -> EventRecorder:
        """The recorder of a component (``default-scheduler``, ``kubelet`` with its node, ``replicaset-controller`` …)."""
        if component == "default-scheduler" and self._rules.events_use_series:
            return self._series_recorder(component, host)
        found = self._classic.get((component, host))
        if found is None:
            broadcaster = ClassicBroadcaster(
                self._clock,
                self._calendar,
                self.room,
                EventCorrelator(self._options, self._rules.controllers, self._forget),
                self._rules.controllers,
                default_retry_at,
            )
            found = self._classic[component, host] = broadcaster.recorder(Source(component, host))
        return found

    def _series_recorder(self, component: str, host: str) -> EventRecorder:
        found = self._series.get(component)
        if found is None:
            instance = f"{component}-{host or 'control-plane'}"
            found = self._series[component] = SeriesRecorder(
                SeriesBroadcaster(
                    self._clock,
                    self._calendar,
                    self.room,
                    self._rules.controllers,
                    component,
                    instance,
                    default_series_retry_at,
                )
            )
        return found

    def _forget(self, messages: list[str]) -> str:
        return messages[0] if self._stream is None else self._stream.choice(messages)

    def stored(self) -> list[StoredEvent]:
        """The events that are alive, in the order in which they were first stored."""
        return self.room.stored()


RecorderFor = Callable[[str], EventRecorder]


class NoRecorder:
    """A recorder that records nothing, for runs of which nobody reads the events (nothing else depends on them)."""

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
        """Forget it."""


class NoEvents:
    """In place of :class:`EventRecorders`: every component gets the recorder that records nothing."""

    def __init__(self) -> None:
        self._none = NoRecorder()

    def recorder(self, component: str, host: str = "") -> EventRecorder:
        """The recorder of a component."""
        return self._none

    def stored(self) -> list[StoredEvent]:
        """No events."""
        return []
