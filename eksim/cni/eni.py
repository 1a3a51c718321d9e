"""One ENI of ipamd's datastore: the items it is believed to hold, and what its addresses went through.

Mimics the types ENI, CidrInfo and AddressInfo of pkg/ipamd/datastore/data_store.go, without an object per address: an
address that was never used has no entry anywhere. Called by :mod:`eksim.cni.datastore`.
"""

from __future__ import annotations

from eksim.cni.gomap import GoMap
from eksim.state.network import PREFIX, PREFIX_SIZE

#: Youngest age, seconds, at which an ENI may be freed. Source: data_store.go (minENILifeTime), v1.23.1.
MIN_ENI_LIFETIME_S = 60.0
#: Times are compared as if they were whole microseconds: floats that should be equal differ by far less.
EPSILON_S = 5e-7
NEVER = float("-inf")


class PrefixUse:
    """The addresses of a /28 that were ever used, by the last four bits; made when the first is."""

    __slots__ = ("assigned", "entries")

    def __init__(self) -> None:
        self.entries = GoMap()
        self.assigned = 0


class DatastoreEni:
    """An ENI in the datastore. ``cidrs``: its items. ``assigned``: address → sandbox key; ``released``: when an address
    that was used before lost its pod (seconds)."""

    __slots__ = (
        "assigned",
        "assigned_addresses",
        "cidrs",
        "created_s",
        "device",
        "efa",
        "excluded",
        "id",
        "prefixes",
        "primary",
        "released",
        "subnet",
        "trunk",
        "used_prefixes",
        "uses",
    )

    def __init__(
        self, id: str, device: int, subnet: str, created_s: float, *, primary: bool, trunk: bool, efa: bool
    ) -> None:
        self.id = id
        self.device = device
        self.subnet = subnet
        self.created_s = created_s
        self.primary = primary
        self.trunk = trunk
        self.efa = efa
        self.excluded = False
        self.cidrs = GoMap()
        #: how many of ``cidrs`` are /28s, and how many of those have a pod
        self.prefixes = 0
        self.used_prefixes = 0
        self.assigned: dict[int, str] = {}
        #: how many of ``assigned`` are secondary addresses (the others lie in a /28)
        self.assigned_addresses = 0
        self.released: dict[int, float] = {}
        #: first address of a /28 → its use
        self.uses: dict[int, PrefixUse] = {}

    def __repr__(self) -> str:
        return f"<DatastoreEni {self.id} eth{self.device}>"

    def total(self, prefix_mode: bool) -> int:
        """Addresses that pods may get in this mode."""
        return self.prefixes * PREFIX_SIZE if prefix_mode else self.cidrs.count - self.prefixes

    def assigned_in(self, prefix_mode: bool) -> int:
        """Pods on addresses of this mode."""
        return len(self.assigned) - self.assigned_addresses if prefix_mode else self.assigned_addresses

    def is_unused(self, item: int) -> bool:
        """No pod on the item (cooling does not count)."""
        if item < PREFIX:
            return item not in self.assigned
        use = self.uses.get(item ^ PREFIX)
        return use is None or use.assigned == 0

    def cooling(self, now: float, cooldown_s: float, prefix_mode: bool | None = None) -> int:
        """How many addresses cool: of one mode, or of both."""
        limit = cooldown_s + EPSILON_S
        count = 0
        for address, released_s in self.released.items():
            if now - released_s <= limit:
                if prefix_mode is None or prefix_mode == ((address & ~15) in self.uses and address not in self.cidrs):
                    count += 1
        return count

    def cool_after_s(self, cooldown_s: float) -> float:
        """Until when (inclusive) an address of the ENI cools; minus infinity if none was ever released."""
        return max(self.released.values(), default=NEVER) + cooldown_s

    def is_too_young(self, now: float) -> bool:
        """Less than a minute in the datastore; at exactly 60 s it may go. Source: data_store.go:isTooYoung, v1.23.1."""
        return now - self.created_s < MIN_ENI_LIFETIME_S - EPSILON_S
