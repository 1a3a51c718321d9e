"""What the API server holds: pods and nodes as slotted rows of their own, everything else as whole objects.

Only the store's verbs write to these; a component that holds one must treat it as read-only. Fields that are dicts,
lists or tuples are replaced by the verbs, never changed in place, so a shallow copy (:func:`snapshot`) is a faithful
picture of a moment.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from eksim.state.podspec import PodSpec

Json = dict[str, Any]
T = TypeVar("T")


def snapshot(obj: T) -> T:
    """A shallow copy: the object as it is now, untouched by later verbs."""
    copier = _COPIERS.get(type(obj))
    return copy.copy(obj) if copier is None else copier(obj)


def _make_copier(kind: type) -> Callable[[Any], Any]:
    """Slot by slot, written out once per class: ten times as fast as ``copy.copy``, and verbs copy a lot."""
    names = kind.__slots__  # type: ignore[attr-defined]
    lines = ["def copier(old, new_object=object.__new__, kind=kind):", "    new = new_object(kind)"]
    lines += [f"    new.{name} = old.{name}" for name in names]
    space: dict[str, Any] = {"kind": kind}
    exec("\n".join([*lines, "    return new"]), space)
    return space["copier"]  # type: ignore[no-any-return]


_COPIERS: dict[type, Callable[[Any], Any]] = {}


class Owner:
    """The controlling owner of an object (``metadata.ownerReferences`` with ``controller: true``)."""

    __slots__ = ("api_version", "kind", "name", "uid")

    def __init__(self, kind: str, name: str, uid: str, api_version: str = "apps/v1") -> None:
        self.kind = kind
        self.name = name
        self.uid = uid
        self.api_version = api_version


class Condition:
    """One entry of ``status.conditions``; times in seconds since the start, ``None``: never."""

    __slots__ = ("last_transition_s", "last_update_s", "message", "reason", "status", "type")

    def __init__(
        self,
        type: str,
        status: str,
        reason: str = "",
        message: str = "",
        last_transition_s: float | None = None,
        last_update_s: float | None = None,
    ) -> None:
        self.type = type
        self.status = status
        self.reason = reason
        self.message = message
        self.last_transition_s = last_transition_s
        self.last_update_s = last_update_s


class Pod:
    """A pod as the API server stores it. ``spec`` is shared by all pods made from one template.

    ``node`` is the node's name ("" while unbound). ``deletion_s``: when the deletion began (None: not deleting);
    ``grace_s``: its grace period, so ``metadata.deletionTimestamp`` is ``deletion_s + grace_s``. ``waiting``: the
    containers' waiting reason (``ContainerCreating``, …; "" when running or before the kubelet's first status).
    ``ready`` with ``ready_s`` (when it last became so) is the Ready condition. ``scheduled`` holds the PodScheduled
    condition; other conditions stand in ``conditions`` by type.
    """

    __slots__ = (
        "annotations",
        "bound_s",
        "conditions",
        "created_s",
        "deletion_s",
        "finished_s",
        "grace_s",
        "host_ip",
        "ip",
        "key",
        "labels",
        "name",
        "namespace",
        "node",
        "nominated_node",
        "owner",
        "phase",
        "ready",
        "ready_s",
        "reason",
        "resource_version",
        "restarts",
        "scheduled",
        "spec",
        "started_s",
        "status_message",
        "uid",
        "waiting",
    )

    def __init__(
        self,
        namespace: str,
        name: str,
        spec: PodSpec,
        labels: dict[str, str],
        *,
        uid: str = "",
        annotations: dict[str, str] | None = None,
        owner: Owner | None = None,
        node: str = "",
        created_s: float = 0.0,
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.key = f"{namespace}/{name}"
        self.uid = uid
        self.spec = spec
        self.labels = labels
        self.annotations: dict[str, str] = annotations or {}
        self.owner = owner
        self.node = node
        self.nominated_node = ""
        self.phase = "Pending"
        self.reason = ""
        self.status_message = ""
        self.waiting = ""
        self.ip = ""
        self.host_ip = ""
        self.ready = False
        self.ready_s: float | None = None
        self.restarts = 0
        self.scheduled: Condition | None = None
        self.conditions: dict[str, Condition] = {}
        self.created_s = created_s
        self.bound_s: float | None = None
        self.started_s: float | None = None
        self.finished_s: float | None = None
        self.deletion_s: float | None = None
        self.grace_s = 0.0
        self.resource_version = 0

    def __repr__(self) -> str:
        return f"<Pod {self.key} {self.phase} on {self.node or '-'}>"


class Taint:
    """A node's taint."""

    __slots__ = ("effect", "key", "value")

    def __init__(self, key: str, value: str = "", effect: str = "NoSchedule") -> None:
        self.key = key
        self.value = value
        self.effect = effect

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Taint)
            and self.key == other.key
            and self.value == other.value
            and self.effect == other.effect
        )

    def __hash__(self) -> int:
        return hash((self.key, self.value, self.effect))


class Node:
    """A node as the API server stores it.

    ``capacity`` and ``allocatable``: resource name → integer (cpu in millicores, memory and ephemeral-storage in bytes,
    the rest in units). ``images``: tuple of (names, size in bytes). ``facts``: what views print and nobody decides by
    (instance type and id, zone, versions, addresses).
    """

    __slots__ = (
        "allocatable",
        "annotations",
        "capacity",
        "conditions",
        "created_s",
        "facts",
        "images",
        "labels",
        "name",
        "ready",
        "resource_version",
        "taints",
        "uid",
        "unschedulable",
    )

    def __init__(
        self,
        name: str,
        allocatable: dict[str, int],
        *,
        capacity: dict[str, int] | None = None,
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        taints: tuple[Taint, ...] = (),
        unschedulable: bool = False,
        images: tuple[tuple[tuple[str, ...], int], ...] = (),
        uid: str = "",
        ready: bool = True,
        created_s: float = 0.0,
        facts: Json | None = None,
    ) -> None:
        self.name = name
        self.allocatable = allocatable
        self.capacity = capacity if capacity is not None else allocatable
        self.labels = labels or {}
        self.annotations = annotations or {}
        self.taints = taints
        self.unschedulable = unschedulable
        self.images = images
        self.uid = uid
        self.ready = ready
        self.conditions: dict[str, Condition] = {}
        self.created_s = created_s
        self.facts: Json = facts or {}
        self.resource_version = 0

    def __repr__(self) -> str:
        return f"<Node {self.name}>"


class ApiObject:
    """Any other object (Deployment, ReplicaSet, DaemonSet, Service, PodDisruptionBudget, …), kept whole.

    ``spec`` and ``status`` are in the manifest's own form; ``extra`` holds further top-level fields. ``generation``
    rises when the spec changes; times are seconds since the start.
    """

    __slots__ = (
        "annotations",
        "api_version",
        "created_s",
        "deletion_s",
        "extra",
        "finalizers",
        "generation",
        "key",
        "kind",
        "labels",
        "name",
        "namespace",
        "owner",
        "resource_version",
        "spec",
        "status",
        "uid",
    )

    def __init__(
        self,
        kind: str,
        namespace: str,
        name: str,
        spec: Json,
        *,
        api_version: str = "apps/v1",
        labels: dict[str, str] | None = None,
        annotations: dict[str, str] | None = None,
        owner: Owner | None = None,
        status: Json | None = None,
        uid: str = "",
        created_s: float = 0.0,
        extra: Json | None = None,
    ) -> None:
        self.kind = kind
        self.api_version = api_version
        self.namespace = namespace
        self.name = name
        self.key = f"{namespace}/{name}"
        self.uid = uid
        self.spec = spec
        self.status: Json = status or {}
        self.labels = labels or {}
        self.annotations = annotations or {}
        self.owner = owner
        self.finalizers: tuple[str, ...] = ()
        self.generation = 1
        self.resource_version = 0
        self.created_s = created_s
        self.deletion_s: float | None = None
        self.extra = extra or {}

    def __repr__(self) -> str:
        return f"<{self.kind} {self.key}>"


_COPIERS.update({kind: _make_copier(kind) for kind in (Pod, Node, ApiObject)})
#: :func:`snapshot` where the class is known
snapshot_pod: Callable[[Pod], Pod] = _COPIERS[Pod]
snapshot_node: Callable[[Node], Node] = _COPIERS[Node]
snapshot_object: Callable[[ApiObject], ApiObject] = _COPIERS[ApiObject]
