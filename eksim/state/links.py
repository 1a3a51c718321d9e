"""The network interfaces of each node as ``ip link`` lists them: ethN with the ENIs, eni… with the pods' sandboxes.

Hears of ENIs and addresses from the store; indices rise and are never used again, as in the kernel.
"""

from __future__ import annotations

from typing import Any

from eksim.names import host_veth_name
from eksim.state.changes import Verb
from eksim.state.store import Store


class Links:
    """node name → interface name → index; in order of creation."""

    def __init__(self, store: Store) -> None:
        self._links: dict[str, dict[str, int]] = {}
        self._next: dict[str, int] = {}
        #: ENI id → (node, interface name), while attached
        self._devices: dict[str, tuple[str, str]] = {}
        store.watch(Verb.ENI_ATTACHED, self._attached)
        store.watch(Verb.ENI_DETACHED, self._detached)
        store.watch(Verb.ADDRESS_ASSIGNED, self._assigned)
        store.watch(Verb.ADDRESS_RELEASED, self._released)
        store.watch(Verb.NODE_DELETED, self._node_deleted)

    def _attached(self, eni: Any, _: Any) -> None:
        self._devices[eni.id] = (eni.node, eni.device_name)
        self._add(eni.node, eni.device_name)

    def _detached(self, eni: Any, _: Any) -> None:
        found = self._devices.pop(eni.id, None)
        if found is not None:
            self._remove(*found)

    def _assigned(self, node: str, detail: Any) -> None:
        self._add(node, host_veth_name(detail.namespace, detail.pod))

    def _released(self, node: str, detail: Any) -> None:
        self._remove(node, host_veth_name(detail.namespace, detail.pod))

    def _node_deleted(self, node: Any, _: Any) -> None:
        self._links.pop(node.name, None)

    def _add(self, node: str, name: str) -> None:
        index = self._next.get(node, 2)
        self._next[node] = index + 1
        self._links.setdefault(node, {})[name] = index

    def _remove(self, node: str, name: str) -> None:
        self._links.get(node, {}).pop(name, None)

    def of(self, node: str) -> dict[str, int]:
        """Interface names of a node with their indices."""
        return self._links.get(node, {})
