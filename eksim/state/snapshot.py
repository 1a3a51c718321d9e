"""One reading face for views: what the cluster looks like at a moment.

Made from the live store now; a log read at time T will offer the same face, so views never know which it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from eksim.state.objects import ApiObject, Node, Pod
from eksim.state.store import Store


@dataclass(frozen=True, slots=True)
class Usage:
    """What the network could give at most: per node addresses by its ENI limit, and free addresses per subnet.

    ``refused``: node → EC2's error code, where the last call for more addresses was refused.
    """

    address_limit: dict[str, int] = field(default_factory=dict)
    subnet_free: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Snapshot:
    """``now_s``: simulated seconds; ``epoch_s``: calendar time (Unix seconds) of simulated second 0; ``minor``: release.

    ``links``: node name → interface names in order of creation; ``diagnoses``: pod key → last scheduling verdict.
    """

    store: Store
    now_s: float
    epoch_s: float
    kubernetes_version: str
    minor: int
    events: list[Any] = field(default_factory=list)
    links: dict[str, list[str]] = field(default_factory=dict)

    def pods(self, namespace: str | None = None) -> list[Pod]:
        """Pods by namespace, then name, as the API server lists them."""
        found = [p for p in self.store.pods.values() if namespace is None or p.namespace == namespace]
        return sorted(found, key=lambda p: (p.namespace, p.name))

    def nodes(self) -> list[Node]:
        """Nodes by name."""
        return sorted(self.store.nodes.values(), key=lambda n: n.name)

    def objects(self, kind: str, namespace: str | None = None) -> list[ApiObject]:
        """Objects of a kind by namespace, then name."""
        found = [o for o in self.store.list(kind) if namespace is None or o.namespace == namespace]
        return sorted(found, key=lambda o: (o.namespace, o.name))

    def events_of(self, namespace: str, name: str) -> list[Any]:
        """Events about the object of that name, in the order they were first stored."""
        return [e for e in self.events if e.involved_namespace == namespace and e.involved_name == name]
