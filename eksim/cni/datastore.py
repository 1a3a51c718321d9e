"""ipamd's datastore of one node: what it believes its ENIs to hold, and which pod sandbox has which address.

Mimics pkg/ipamd/datastore/data_store.go of the VPC CNI. Addresses are ints, a /28 is its first address with the bit
``PREFIX`` (see :mod:`eksim.state.network`); detail exists only for addresses that were ever used. Leaves out: IPv6,
several network cards (one datastore stands for card 0). Called by ipamd only, which tells the store of each change.
"""

from __future__ import annotations

from typing import NamedTuple

from eksim.cni.eni import EPSILON_S, DatastoreEni, PrefixUse
from eksim.cni.gomap import GoMap, MapOrder
from eksim.errors import Refused
from eksim.state.network import PREFIX, PREFIX_SIZE
from eksim.versions import CniRules


class PoolStats(NamedTuple):
    """ipamd's statistics. ``prefixes`` is the code's own counter, ``free_prefixes`` those without a pod."""

    total: int
    assigned: int
    prefixes: int
    free_prefixes: int

    @property
    def available(self) -> int:
        """Unassigned addresses; cooling ones count.

        Source: data_store.go:AvailableAddresses, v1.23.1.
        """
        return self.total - self.assigned


class Datastore:
    """The pool of one node. ENIs are kept by number in ``pool`` (a Go map's keys must be ints) and by id in ``enis``."""

    __slots__ = (
        "_ids",
        "_next",
        "_order",
        "by_key",
        "cooldown_s",
        "enis",
        "node",
        "pool",
        "prefix_counter",
        "prefix_mode",
        "rules",
        "version",
    )

    def __init__(self, node: str, prefix_mode: bool, cooldown_s: float, rules: CniRules, order: MapOrder) -> None:
        self.node = node
        self.prefix_mode = prefix_mode
        self.cooldown_s = cooldown_s
        self.rules = rules
        self._order = order
        self.enis: dict[str, DatastoreEni] = {}
        self.pool = GoMap()
        self._ids: dict[int, DatastoreEni] = {}
        self._next = 0
        #: sandbox key → (address, ENI)
        self.by_key: dict[str, tuple[int, DatastoreEni]] = {}
        #: TotalPrefixes, lowered and raised exactly where the real code does so
        self.prefix_counter = 0
        #: rises with every change
        self.version = 0

    # -- ENIs and what they hold --------------------------------------------------------------------------------

    def add_eni(
        self, id: str, device: int, subnet: str, now: float, *, primary: bool, trunk: bool = False, efa: bool = False
    ) -> DatastoreEni:
        """The ENI, new or known. Source: data_store.go:AddENI, v1.23.1."""
        known = self.enis.get(id)
        if known is not None:
            return known
        eni = DatastoreEni(id, device, subnet, now, primary=primary, trunk=trunk, efa=efa)
        self.enis[id] = eni
        self._ids[self._next] = eni
        self._order.add(self.pool, self._next)
        self._next += 1
        self.version += 1
        return eni

    def add_cidr(self, eni: DatastoreEni, item: int) -> None:
        """Nothing happens if it is there already. Source: data_store.go:AddIPv4CidrToStore, v1.23.1."""
        if item in eni.cidrs:
            return
        self._order.add(eni.cidrs, item)
        if item >= PREFIX:
            eni.prefixes += 1
            self.prefix_counter += 1
        self.version += 1

    def del_cidr(self, eni: DatastoreEni, item: int) -> None:
        """Forget an item, pods or not (whoever asks has looked). Source: data_store.go:DelIPv4CidrFromStore, v1.23.1."""
        self._forget_item(eni, item)
        if item >= PREFIX:
            self.prefix_counter -= 1

    def _forget_item(self, eni: DatastoreEni, item: int) -> None:
        if item >= PREFIX:
            base = item ^ PREFIX
            use = eni.uses.pop(base, None)
            if use is not None:
                for offset in use.entries:
                    self._forget_address(eni, base + offset, secondary=False)
                if use.assigned:
                    eni.used_prefixes -= 1
            eni.prefixes -= 1
        else:
            self._forget_address(eni, item, secondary=True)
        eni.cidrs.remove(item)
        self.version += 1

    def _forget_address(self, eni: DatastoreEni, address: int, *, secondary: bool) -> None:
        eni.released.pop(address, None)
        key = eni.assigned.pop(address, None)
        if key is not None:
            del self.by_key[key]
            if secondary:
                eni.assigned_addresses -= 1

    def deallocate_empty_cidr(self, eni: DatastoreEni, item: int) -> bool:
        """An item of an excluded ENI that has no pod leaves its map; the counter of prefixes is not lowered.

        Source: data_store.go:deallocateEmptyCIDR, v1.23.1.
        """
        if self.enis.get(eni.id) is not eni or not eni.excluded or item not in eni.cidrs or not eni.is_unused(item):
            return False
        self._forget_item(eni, item)
        return True

    def remove_eni(self, eni: DatastoreEni) -> None:
        """Forget an ENI by force. With pods on it the real code lowers the prefix counter twice; so does this.

        Source: data_store.go:RemoveENIFromDataStore, v1.9.0 and v1.23.1.
        """
        self.prefix_counter -= eni.prefixes * (2 if eni.assigned else 1)
        for key in eni.assigned.values():
            del self.by_key[key]
        self._drop(eni)

    def remove_unused_eni(self, eni: DatastoreEni) -> None:
        """Forget an ENI that was found deletable. Source: data_store.go:RemoveUnusedENIFromStore, v1.23.1."""
        self.prefix_counter -= eni.prefixes
        self._drop(eni)

    def _drop(self, eni: DatastoreEni) -> None:
        del self.enis[eni.id]
        number = next(n for n, held in self._ids.items() if held is eni)
        del self._ids[number]
        self.pool.remove(number)
        self.version += 1

    # -- pods ---------------------------------------------------------------------------------------------------

    def assign(self, key: str, now: float) -> tuple[int, DatastoreEni] | None:
        """An address for the sandbox, the same again if it has one; None: ``no available IP/Prefix addresses``.

        ENIs and, within them, items are visited in map order; excluded ENIs and the other mode's items are skipped.
        Source: data_store.go:AssignPodIPv4Address, v1.23.1.
        """
        held = self.by_key.get(key)
        if held is not None:
            return held
        if self.prefix_mode:
            candidates = [
                n for n, eni in self._ids.items() if not eni.excluded and eni.total(True) > eni.assigned_in(True)
            ]
        else:
            candidates = [
                n
                for n, eni in self._ids.items()
                if eni.cidrs.count - eni.prefixes > eni.assigned_addresses and not eni.excluded
            ]
        if not candidates:
            return None
        walk = candidates if len(candidates) == 1 else self._order.walk("assign-eni", self.pool, self.node)
        for number in walk:
            if number not in candidates:
                continue
            eni = self._ids[number]
            address = self._take_prefix_address(eni, now) if self.prefix_mode else self._take_address(eni, now)
            if address is None:
                continue
            eni.released.pop(address, None)
            eni.assigned[address] = key
            self.by_key[key] = found = (address, eni)
            self.version += 1
            return found
        return None

    def _take_address(self, eni: DatastoreEni, now: float) -> int | None:
        assigned, released, limit = eni.assigned, eni.released, self.cooldown_s + EPSILON_S
        free = [
            item
            for item in eni.cidrs.slots
            if item is not None
            and item not in assigned
            and item < PREFIX
            and not (item in released and now - released[item] <= limit)
        ]
        if not free:
            return None
        eni.assigned_addresses += 1
        if len(free) == 1:
            return free[0]
        return next(item for item in self._order.walk("assign-cidr", eni.cidrs, self.node) if item in free)

    def _take_prefix_address(self, eni: DatastoreEni, now: float) -> int | None:
        full = [
            item
            for item in eni.cidrs
            if item >= PREFIX and (item ^ PREFIX not in eni.uses or eni.uses[item ^ PREFIX].assigned < PREFIX_SIZE)
        ]
        if not full:
            return None
        walk = full if len(full) == 1 else self._order.walk("assign-cidr", eni.cidrs, self.node)
        for item in walk:
            if item not in full:
                continue
            base = item ^ PREFIX
            offset = self._unused_offset(eni, base, now)
            if offset is None:
                continue
            use = eni.uses.get(base)
            if use is None:
                use = eni.uses[base] = PrefixUse()
            self._order.add(use.entries, offset)
            if use.assigned == 0:
                eni.used_prefixes += 1
            use.assigned += 1
            return base + offset
        return None

    def _unused_offset(self, eni: DatastoreEni, base: int, now: float) -> int | None:
        """Entries past their cool-down are all dropped and one of them is given out; else the lowest without an entry.

        Source: data_store.go:getUnusedIP, v1.23.1.
        """
        use = eni.uses.get(base)
        if use is None:
            return 0
        released, limit = eni.released, self.cooldown_s + EPSILON_S
        cooled = [o for o in use.entries if base + o in released and now - released[base + o] > limit]
        if cooled:
            first = cooled[0]
            if len(cooled) > 1:
                first = next(o for o in self._order.walk("assign-entry", use.entries, self.node) if o in cooled)
            for offset in cooled:
                use.entries.remove(offset)
                del released[base + offset]
            return first
        if use.entries.count == PREFIX_SIZE:
            return None
        return next(offset for offset in range(PREFIX_SIZE) if offset not in use.entries)

    def unassign(self, key: str, now: float) -> tuple[int, DatastoreEni] | None:
        """The sandbox's address cools from now on; None: ``datastore: unknown pod``.

        Source: data_store.go:UnassignPodIPAddress, v1.23.1.
        """
        held = self.by_key.pop(key, None)
        if held is None:
            return None
        address, eni = held
        del eni.assigned[address]
        eni.released[address] = now
        if address in eni.cidrs:
            eni.assigned_addresses -= 1
        else:
            use = eni.uses[address & ~15]
            use.assigned -= 1
            if use.assigned == 0:
                eni.used_prefixes -= 1
        self.version += 1
        return held

    def item_of(self, address: int, eni: DatastoreEni) -> int:
        """The item that holds the address on that ENI."""
        return address if address in eni.cidrs else (address & ~15) | PREFIX

    def restore(self, key: str, address: int) -> Refused | None:
        """An assignment that the checkpoint (or the runtime) knows; dropped if the address is on no ENI.

        Stale metadata may have put an address on two ENIs: the first in map order has it. An address that an earlier
        entry has taken there ends the start (up to v1.8 in a panic).
        Source: data_store.go:ReadBackingStore, v1.23.1, v1.9.0 and v1.7.5; ReadAllDataStores, v1.23.1.
        """
        base = address & ~15
        holders = {
            n: eni for n, eni in self._ids.items() if address in eni.cidrs or base | PREFIX in eni.cidrs
        }
        if not holders:
            return None
        first = next(iter(holders))
        if len(holders) > 1:
            first = next(n for n in self._order.walk("restore-eni", self.pool, self.node) if n in holders)
        eni = holders[first]
        if address in eni.assigned:
            if not self.rules.prefix_delegation:
                return Refused("", "addr already assigned")
            text = "datastore: IP already in data store"
            return Refused("", f"Error while reading datastore: {text}" if self.rules.several_cards else text)
        if address in eni.cidrs:
            eni.assigned_addresses += 1
        else:
            use = eni.uses.setdefault(base, PrefixUse())
            self._order.add(use.entries, address & 15)
            if use.assigned == 0:
                eni.used_prefixes += 1
            use.assigned += 1
        eni.assigned[address] = key
        self.by_key[key] = (address, eni)
        self.version += 1
        return None

    # -- statistics and searches --------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The pool's numbers: only this mode's addresses count, and excluded ENIs count only in the prefixes.

        Source: data_store.go:GetIPStats, GetFreePrefixes, v1.23.1.
        """
        total = assigned = free = 0
        mode = self.prefix_mode
        for eni in self.enis.values():
            free += eni.prefixes - eni.used_prefixes
            if eni.excluded:
                continue
            # eni.total and eni.assigned_in, written out: this is asked after every pod
            if mode:
                total += eni.prefixes * PREFIX_SIZE
                assigned += len(eni.assigned) - eni.assigned_addresses
            else:
                total += eni.cidrs.count - eni.prefixes
                assigned += eni.assigned_addresses
        return PoolStats(total, assigned, self.prefix_counter, free)

    def cooling(self, now: float) -> int:
        """Addresses of this mode that cool, excluded ENIs left out."""
        return sum(
            eni.cooling(now, self.cooldown_s, self.prefix_mode) for eni in self.enis.values() if not eni.excluded
        )

    def freeable_cidrs(self, eni: DatastoreEni) -> list[int]:
        """Items without a pod, of both kinds, cooling or not. Source: data_store.go:FindFreeableCidrs, v1.23.1."""
        return [item for item in eni.cidrs if eni.is_unused(item)]

    def unused_of_kind(self, eni: DatastoreEni, *, prefixes: bool) -> list[int]:
        """Items of one kind without a pod. Source: data_store.go:FreeableIPs, FreeablePrefixes, v1.23.1."""
        return [item for item in eni.cidrs if (item >= PREFIX) == prefixes and eni.is_unused(item)]

    def is_item_unused(self, eni: DatastoreEni, address: int) -> bool:
        """Whether the item that holds the address has no pod."""
        return eni.is_unused(self.item_of(address, eni))

    def has_trunk(self) -> bool:
        """Whether a trunk ENI is attached. Source: data_store.go:GetTrunkENI, v1.23.1."""
        return any(eni.trunk for eni in self.enis.values())

    def allocatable_enis(self, max_per_eni: int, skip_primary: bool) -> list[DatastoreEni]:
        """ENIs with room for more items, in map order.

        Source: data_store.go:GetAllocatableENIs, v1.23.1; GetENINeedsIP, v1.16.4 and v1.9.0.
        """
        skip_trunk = self.rules.skips_trunk
        found = {
            n: eni
            for n, eni in self._ids.items()
            if not (skip_primary and eni.primary)
            and not (skip_trunk and eni.trunk)
            and not eni.excluded
            and eni.cidrs.count < max_per_eni
        }
        if len(found) < 2:
            return list(found.values())
        return [found[n] for n in self._order.walk("allocatable", self.pool, self.node) if n in found]

    def has_allocatable_eni(self, max_per_eni: int, skip_primary: bool) -> bool:
        """Whether :meth:`allocatable_enis` would find any."""
        skip_trunk = self.rules.skips_trunk
        for eni in self.enis.values():
            if eni.cidrs.count < max_per_eni and not eni.excluded:
                if not (skip_primary and eni.primary) and not (skip_trunk and eni.trunk):
                    return True
        return False

    def walk_enis(self, what: str) -> list[DatastoreEni]:
        """All ENIs in the order of a walk over a copy (GetENIInfos); no draw where order cannot matter."""
        if len(self._ids) < 2:
            return list(self._ids.values())
        return [self._ids[n] for n in self._order.walk_copy(what, self.pool, self.node)]

    def walk_cidrs(self, what: str, eni: DatastoreEni, items: list[int]) -> list[int]:
        """Some items of the ENI in map order."""
        if len(items) < 2:
            return items
        wanted = dict.fromkeys(items)
        return [item for item in self._order.walk(what, eni.cidrs, self.node) if item in wanted]

    def deletable_enis(
        self, now: float, warm_ip: int, minimum_ip: int, warm_prefix: int, *, ever: bool = False
    ) -> list[DatastoreEni]:
        """ENIs that may be freed now; with ``ever``, that will be allowed once they are old and cool enough.

        Source: data_store.go:getDeletableENI, isRequiredForWarmIPTarget, isRequiredForMinimumIPTarget,
        isRequiredForWarmPrefixTarget, v1.23.1.
        """
        found = []
        for eni in self.enis.values():
            if eni.primary or eni.trunk or eni.efa or eni.assigned:
                continue
            if not ever and (eni.is_too_young(now) or eni.cool_after_s(self.cooldown_s) + EPSILON_S >= now):
                continue
            if warm_ip and self._others(eni, "warm") < self._rounded(warm_ip):
                continue
            if minimum_ip and self._others(eni, "total") < self._rounded(minimum_ip):
                continue
            if self.prefix_mode and warm_prefix and self._others(eni, "unused") < warm_prefix:
                continue
            found.append(eni)
        return found

    def _rounded(self, target: int) -> int:
        return -(-target // PREFIX_SIZE) * PREFIX_SIZE if self.prefix_mode else target

    def _others(self, eni: DatastoreEni, what: str) -> int:
        mode = self.prefix_mode
        count = 0
        for other in self.enis.values():
            if other is eni or other.excluded:
                continue
            if what == "unused":  # either kind: leftover addresses count as free prefixes
                secondaries = other.cidrs.count - other.prefixes
                count += other.prefixes - other.used_prefixes + secondaries - other.assigned_addresses
            else:
                count += other.total(mode) - (other.assigned_in(mode) if what == "warm" else 0)
        return count

    def deletable_eni(self, now: float, warm_ip: int, minimum_ip: int, warm_prefix: int) -> DatastoreEni | None:
        """The first that may be freed, in map order."""
        found = self.deletable_enis(now, warm_ip, minimum_ip, warm_prefix)
        if len(found) < 2:
            return found[0] if found else None
        walk = self._order.walk("free-eni", self.pool, self.node)
        return next(self._ids[n] for n in walk if self._ids[n] in found)

    def freeable_eni_exists(self) -> bool:
        """Whether any ENI but the primary, a trunk or an EFA has no pods; age and cooling play no part.

        Source: data_store.go:CheckFreeableENIexists, v1.23.1.
        """
        return any(
            not (eni.primary or eni.trunk or eni.efa or eni.assigned) for eni in self.enis.values()
        )

    def id_of(self, number: int) -> str:
        """The ENI's id for a key of ``pool``, which a replay needs to find recorded choices."""
        return self._ids[number].id
