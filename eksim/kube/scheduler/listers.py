"""The objects of the cluster that rules look up: Services, owners of pods, budgets, namespaces.

Mimics the informers' listers. The simulation hands its store over, which has just these two methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from eksim.state.objects import ApiObject


class ObjectSource(Protocol):
    """Where the objects are: the store."""

    def list(self, kind: str, namespace: str | None = None) -> Iterable[ApiObject]:
        """Objects of a kind, in the order of creation."""

    def get(self, kind: str, key: str) -> ApiObject | None:
        """One object by ``namespace/name``."""


class Listers:
    """Look-ups for the plugins. ``budgets_count``: whether PodDisruptionBudgets are seen at all."""

    __slots__ = ("budgets_count", "source", "version")

    def __init__(self, source: ObjectSource, *, budgets_count: bool = True) -> None:
        self.source = source
        self.budgets_count = budgets_count
        #: raised by whoever hears that Services, owners or namespaces changed
        self.version = 0

    def in_namespace(self, kind: str, namespace: str) -> Iterable[ApiObject]:
        """Objects of a kind in a namespace."""
        return self.source.list(kind, namespace)

    def get(self, kind: str, namespace: str, name: str) -> ApiObject | None:
        """One object."""
        return self.source.get(kind, f"{namespace}/{name}")

    def budgets(self) -> list[ApiObject]:
        """All PodDisruptionBudgets."""
        return list(self.source.list("PodDisruptionBudget")) if self.budgets_count else []

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """A namespace's labels; one that was never created as an object has the label every namespace has.

        Source: kubernetes/pkg/scheduler/framework/plugins/interpodaffinity/plugin.go:GetNamespaceLabelsSnapshot.
        """
        found = self.source.get("Namespace", f"/{name}") or self.source.get("Namespace", name)
        return found.labels if found is not None else {"kubernetes.io/metadata.name": name}
