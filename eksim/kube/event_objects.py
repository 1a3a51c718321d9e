"""Events as the API server stores them, and the references they carry.

All Events are stored as core/v1 objects; ``events.k8s.io/v1`` is another face of the same object. Called by the
recorders, and read by views and records.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from eksim.errors import Refused
from eksim.state.objects import ApiObject, Node, Pod


class ObjectReference(NamedTuple):
    """``involvedObject``: which object, in which version, an event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str
    resource_version: str = ""
    field_path: str = ""


NO_REFERENCE = ObjectReference("", "", "", "", "")


def reference_to(obj: Pod | Node | ApiObject, component: str = "", field_path: str = "") -> ObjectReference:
    """The reference that ``component`` writes. The kubelet refers to its node by name only, with the name as uid.

    Source: kubernetes/staging/src/k8s.io/client-go/tools/reference/ref.go:GetReference, v1.34.1.
    """
    if type(obj) is Pod:
        return ObjectReference("Pod", obj.namespace, obj.name, obj.uid, "v1", str(obj.resource_version), field_path)
    if isinstance(obj, Node):
        if component == "kubelet":
            return ObjectReference("Node", "", obj.name, obj.name, "")
        return ObjectReference("Node", "", obj.name, obj.uid, "v1", str(obj.resource_version))
    assert isinstance(obj, ApiObject)
    return ObjectReference(
        obj.kind, obj.namespace, obj.name, obj.uid, obj.api_version, str(obj.resource_version), field_path
    )


class StoredEvent:
    """An Event. Replaced as a whole by every write, never changed in place.

    Times are seconds since the start; ``first_s`` and ``last_s`` whole seconds, ``event_time_s`` and ``series_last_s``
    to the microsecond; None: not set. An event of the series recorder has count 0 and, until it repeats, series_count 0.
    """

    __slots__ = (
        "action",
        "component",
        "count",
        "event_time_s",
        "expires_s",
        "first_s",
        "host",
        "involved",
        "last_s",
        "message",
        "name",
        "namespace",
        "reason",
        "related",
        "reporting_component",
        "reporting_instance",
        "resource_version",
        "series_count",
        "series_last_s",
        "type",
    )

    def __init__(
        self,
        name: str,
        namespace: str,
        involved: ObjectReference,
        type: str,
        reason: str,
        message: str,
    ) -> None:
        self.name = name
        self.namespace = namespace
        self.involved = involved
        self.type = type
        self.reason = reason
        self.message = message
        self.count = 0
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.event_time_s: float | None = None
        self.series_count = 0
        self.series_last_s: float | None = None
        self.action = ""
        self.related: ObjectReference | None = None
        #: ``source.component`` and ``source.host``
        self.component = ""
        self.host = ""
        self.reporting_component = ""
        self.reporting_instance = ""
        self.resource_version = 0
        self.expires_s = 0.0

    @property
    def key(self) -> str:
        """``namespace/name`` of the event itself."""
        return f"{self.namespace}/{self.name}"

    @property
    def involved_kind(self) -> str:
        """Kind of the object that it is about."""
        return self.involved.kind

    @property
    def involved_namespace(self) -> str:
        """Namespace of the object that it is about ("" for a node)."""
        return self.involved.namespace

    @property
    def involved_name(self) -> str:
        """Name of the object that it is about."""
        return self.involved.name

    @property
    def field_path(self) -> str:
        """``spec.containers{name}`` for a container's event."""
        return self.involved.field_path

    @property
    def object(self) -> str:
        """``kind/namespace/name`` of the object that it is about, kind in lower case; a node without namespace."""
        involved = self.involved
        if involved.namespace:
            return f"{involved.kind.lower()}/{involved.namespace}/{involved.name}"
        return f"{involved.kind.lower()}/{involved.name}"

    @property
    def source(self) -> str:
        """Who reported it, whichever face the event was written through."""
        return self.component or self.reporting_component

    @property
    def times(self) -> int:
        """How often it happened as far as the stored event tells."""
        return self.series_count or self.count or 1

    def replaced(self, **fields: Any) -> StoredEvent:
        """A copy with other fields."""
        out = StoredEvent(self.name, self.namespace, self.involved, self.type, self.reason, self.message)
        out.count = self.count
        out.first_s = self.first_s
        out.last_s = self.last_s
        out.event_time_s = self.event_time_s
        out.series_count = self.series_count
        out.series_last_s = self.series_last_s
        out.action = self.action
        out.related = self.related
        out.component = self.component
        out.host = self.host
        out.reporting_component = self.reporting_component
        out.reporting_instance = self.reporting_instance
        out.resource_version = self.resource_version
        out.expires_s = self.expires_s
        for name, value in fields.items():
            setattr(out, name, value)
        return out

    def __repr__(self) -> str:
        return f"<Event {self.key} {self.reason} x{self.times}>"


class EventSink(Protocol):
    """The API server's events as a recorder sees them. An answer with code ``Unreachable`` is no answer at all."""

    def create(self, event: StoredEvent) -> StoredEvent | Refused:
        """POST."""

    def patch(self, event: StoredEvent, fields: dict[str, Any]) -> StoredEvent | Refused:
        """PATCH of the event of that name with ``fields`` (attributes of :class:`StoredEvent`)."""


UNREACHABLE = "Unreachable"

#: Tries for one event, and the pause between them.
#: Source: kubernetes/staging/src/k8s.io/client-go/tools/record/event.go, tools/events/event_broadcaster.go, v1.34.1.
MAX_TRIES_PER_EVENT = 12
RETRY_S = 10.0
