"""What a Deployment's sync works on: the spec read once, and copies that do not change with what the sync writes.

The real controller deep-copies objects from its cache; here a view holds references to parts that the store replaces
and never changes in place. Called by :mod:`eksim.kube.controllers.deployment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eksim.kube.controllers.deployment_rules import (
    MAX_INT32,
    get_condition,
    max_unavailable,
    resolve_fenceposts,
    revision_of,
    whole_second,
)
from eksim.kube.controllers.informers import Templates
from eksim.state.objects import ApiObject

Json = dict[str, Any]


class DeploymentSpec:
    """A Deployment's spec with its fenceposts resolved. ``deadline_s``, ``history_limit``: None if there is none."""

    __slots__ = (
        "_last",
        "_selector",
        "deadline_s",
        "history_limit",
        "max_unavailable",
        "min_ready_s",
        "paused",
        "replicas",
        "rolling",
        "selector_manifest",
        "source",
        "surge",
        "template",
    )

    def __init__(self, spec: Json, templates: Templates) -> None:
        self.source = spec
        replicas = spec.get("replicas")
        self.replicas: int = 1 if replicas is None else replicas
        strategy = spec.get("strategy") or {}
        self.rolling = (strategy.get("type") or "RollingUpdate") == "RollingUpdate"
        self.surge = self.max_unavailable = 0
        if self.rolling:
            rolling = strategy.get("rollingUpdate") or {}
            self.surge, unavailable = resolve_fenceposts(
                rolling.get("maxSurge", "25%"), rolling.get("maxUnavailable", "25%"), self.replicas
            )
            self.max_unavailable = max_unavailable(unavailable, self.replicas)
        self.paused = bool(spec.get("paused"))
        self.min_ready_s: int = spec.get("minReadySeconds") or 0
        deadline = spec.get("progressDeadlineSeconds", 600)
        self.deadline_s: int | None = None if deadline is None or deadline == MAX_INT32 else deadline
        limit = spec.get("revisionHistoryLimit", 10)
        self.history_limit: int | None = None if limit is None or limit == MAX_INT32 else limit
        self.template: Json = spec.get("template") or {}
        self.selector_manifest: Json = spec.get("selector") or {}
        self._selector = templates.selector(spec.get("selector"))
        self._last: tuple[Mapping[str, str] | None, bool] = (None, False)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether the selector matches; an empty one matches nothing here."""
        last, found = self._last
        if last is not labels:
            found = not self._selector.empty and self._selector.matches(labels)
            self._last = (labels, found)
        return found


class DeploymentView:
    """The Deployment as read at the start of a sync; ``status``, ``conditions`` and ``annotations`` are the sync's own.

    ``status`` is what was read or last computed; :meth:`full_status` is what a write sends.
    """

    __slots__ = ("annotations", "collision_count", "conditions", "obj", "spec", "status", "version", "wrote")

    def __init__(self, obj: ApiObject, spec: DeploymentSpec) -> None:
        self.obj = obj
        self.spec = spec
        self.version = obj.resource_version
        self.status: Json = obj.status
        self.conditions: list[Json] = obj.status.get("conditions") or []
        self.collision_count: int | None = obj.status.get("collisionCount")
        self.annotations = obj.annotations
        #: whether this sync has written anything
        self.wrote = False

    def take(self, status: Json) -> None:
        """The sync's new status, to be written."""
        self.status = status
        self.conditions = status["conditions"]

    def full_status(self) -> Json:
        """The status with the conditions and the collision count of this sync."""
        status = self.status
        if status.get("collisionCount") == self.collision_count and status.get("conditions", []) is self.conditions:
            return status
        status = {**status, "conditions": self.conditions}
        if not self.conditions:
            del status["conditions"]
        if self.collision_count is not None:
            status["collisionCount"] = self.collision_count
        return status


class ReplicaSetView:
    """A ReplicaSet as read at one version."""

    __slots__ = (
        "actual",
        "annotations",
        "available",
        "created_s",
        "failure",
        "generation",
        "min_ready_s",
        "name",
        "obj",
        "observed_generation",
        "ready",
        "replicas",
        "revision",
        "spec",
        "template",
        "uid",
        "version",
    )

    def __init__(self, obj: ApiObject) -> None:
        self.obj = obj
        self.uid = obj.uid
        self.name = obj.name
        self.version = obj.resource_version
        self.created_s = whole_second(obj.created_s)
        self.generation = obj.generation
        self.annotations = obj.annotations
        self.revision = revision_of(obj.annotations)
        spec = self.spec = obj.spec
        replicas = spec.get("replicas")
        self.replicas: int = 1 if replicas is None else replicas
        self.min_ready_s: int = spec.get("minReadySeconds") or 0
        self.template: Json = spec.get("template") or {}
        status = obj.status
        self.actual: int = status.get("replicas", 0)
        self.ready: int = status.get("readyReplicas", 0)
        self.available: int = status.get("availableReplicas", 0)
        self.observed_generation: int = status.get("observedGeneration", 0)
        self.failure = get_condition(status.get("conditions") or (), "ReplicaFailure")

    def by_creation(self) -> tuple[float, str]:
        """Order by creation time (whole seconds), then name."""
        return (self.created_s, self.name)
