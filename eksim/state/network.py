"""EC2's truth about a VPC's addresses: subnets, network interfaces (ENIs) and the instances that carry them.

A room of the store: the rows are written only by the verbs of :class:`Network`, each of which tells the store's
watchers. What ipamd believes is another table (:mod:`eksim.cni.datastore`), which may differ. An IPv4 address is an int;
an *item* of an ENI is an address, or a /28 as its first address with the bit :data:`PREFIX` set. Leaves out: security
groups, IPv6. Called by :mod:`eksim.aws.ec2` and by what a scenario breaks; which address EC2 picks is decided in
:mod:`eksim.aws.vpc`.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Protocol

from eksim.errors import BrokenInvariant
from eksim.state.changes import Verb
from eksim.state.store import Store

#: Marks an item that is a /28 instead of a single address.
PREFIX = 1 << 32
#: Addresses of a /28.
PREFIX_SIZE = 16
#: AWS keeps the first four addresses and the last one of every subnet. Source: EC2 API, CreateSubnet.
RESERVED = 5

_FULL = 0xFFFF
NEVER = float("inf")


class Subnet:
    """One subnet as an address space. ``blocks`` holds, per aligned /28, a 16-bit mask of the addresses in use.

    ``free`` counts single free addresses, ``free_blocks`` the /28s that are wholly free; ``tags`` its EC2 tags.
    ``next_address`` and ``next_block`` are the placement's cursors (offset, block index); ``taken`` the addresses that
    others hold, in the order of taking.
    """

    __slots__ = (
        "base",
        "blocks",
        "cidr",
        "free",
        "free_blocks",
        "id",
        "next_address",
        "next_block",
        "size",
        "tags",
        "taken",
        "vpc",
        "zone",
    )

    def __init__(
        self,
        id: str,
        base: int,
        prefix_length: int,
        *,
        zone: str = "",
        vpc: str = "vpc",
        tags: dict[str, str] | None = None,
    ) -> None:
        size = 1 << (32 - prefix_length)
        self.id = id
        self.base = base
        self.size = size
        self.cidr = f"{format_address(base)}/{prefix_length}"
        self.zone = zone
        self.vpc = vpc
        self.tags: dict[str, str] = tags or {}
        self.blocks = array("H", bytes(size // 8))
        self.free = size
        self.free_blocks = size // PREFIX_SIZE
        self.next_address = 4
        self.next_block = size // PREFIX_SIZE - 1
        self.taken: list[int] = []
        for offset in (0, 1, 2, 3, size - 1):
            self._use(offset)

    def __repr__(self) -> str:
        return f"<Subnet {self.id} {self.cidr} {self.free} free>"

    @property
    def name(self) -> str:
        """Its id, as tables call it."""
        return self.id

    @property
    def used(self) -> int:
        """Addresses that somebody holds, AWS's own five left out."""
        return self.size - RESERVED - self.free

    def contains(self, address: int) -> bool:
        """Whether the address lies in the subnet, reserved ones included."""
        return 0 <= address - self.base < self.size

    def is_free(self, offset: int) -> bool:
        """Whether the address ``base + offset`` is neither reserved nor in use."""
        return not self.blocks[offset >> 4] >> (offset & 15) & 1

    # Only Network's verbs call what follows.

    def _use(self, offset: int) -> None:
        block = offset >> 4
        mask = self.blocks[block]
        if mask == 0:
            self.free_blocks -= 1
        self.blocks[block] = mask | 1 << (offset & 15)
        self.free -= 1

    def _give_back(self, offset: int) -> None:
        block = offset >> 4
        bit = 1 << (offset & 15)
        if not self.blocks[block] & bit:
            raise BrokenInvariant(f"{format_address(self.base + offset)} of {self.id} is given back but not in use")
        mask = self.blocks[block] & ~bit
        self.blocks[block] = mask
        if mask == 0:
            self.free_blocks += 1
        self.free += 1

    def _use_block(self, block: int) -> None:
        self.blocks[block] = _FULL
        self.free_blocks -= 1
        self.free -= PREFIX_SIZE

    def _give_back_block(self, block: int) -> None:
        if self.blocks[block] != _FULL:
            raise BrokenInvariant(f"block {block} of {self.id} is given back but not in use")
        self.blocks[block] = 0
        self.free_blocks += 1
        self.free += PREFIX_SIZE


class Eni:
    """One network interface. ``items``: its secondary addresses and prefixes in the order they were assigned.

    ``instance`` is None while it is attached to none; ``node`` and ``device`` keep what they were last. ``attached_s``: end
    of the attach call.
    ``shows`` is None while instance metadata shows the ENI as it is; else a list of [item or own address, from, until]
    (seconds) of what metadata shows when. ``detaching_s``: when a slow detach ends.
    """

    __slots__ = (
        "address",
        "attached_s",
        "created_s",
        "description",
        "detaching_s",
        "device",
        "id",
        "instance",
        "items",
        "node",
        "shows",
        "subnet",
        "tags",
        "type",
        "visible_s",
    )

    def __init__(self, id: str, subnet: Subnet, address: int, created_s: float) -> None:
        self.id = id
        self.subnet = subnet
        self.address = address
        self.items: dict[int, None] = {}
        self.instance: Instance | None = None
        self.node = ""
        self.device = -1
        self.created_s = created_s
        self.attached_s = -1.0
        self.detaching_s = -1.0
        self.visible_s = 0.0
        self.shows: list[list[float]] | None = None
        self.tags: dict[str, str] = {}
        self.description = ""
        self.type = "interface"

    def __repr__(self) -> str:
        return f"<Eni {self.id} eth{self.device}>"

    @property
    def device_name(self) -> str:
        """The interface's name on the node: ``eth1``."""
        return f"eth{self.device}"

    def all_addresses(self) -> list[int]:
        """Every address that was assigned to it, those of its /28s one by one; its own left out."""
        found: list[int] = []
        for item in self.items:
            if item >= PREFIX:
                base = item ^ PREFIX
                found += range(base, base + PREFIX_SIZE)
            else:
                found.append(item)
        return found


class Instance:
    """An EC2 instance: its limits, its subnet and the ENIs in its slots by device index.

    ``ghosts``: ENIs that are gone but that metadata still shows, with the time until when. ``ipv4_per_eni`` counts the
    ENI's own address, as AWS documents it. ``passing_refusals`` counts its calls that were refused by what passes by
    itself (throttling, a fault with an end).
    """

    __slots__ = (
        "enis",
        "ghosts",
        "id",
        "ipv4_per_eni",
        "max_enis",
        "nitro",
        "node",
        "passing_refusals",
        "primary",
        "subnet",
        "trunking",
        "type",
    )

    def __init__(
        self, node: str, id: str, type: str, max_enis: int, ipv4_per_eni: int, subnet: Subnet, *, nitro: bool = True
    ) -> None:
        self.node = node
        self.id = id
        self.type = type
        self.max_enis = max_enis
        self.ipv4_per_eni = ipv4_per_eni
        self.subnet = subnet
        self.nitro = nitro
        self.trunking = True
        self.passing_refusals = 0
        self.enis: dict[int, Eni] = {}
        self.primary: Eni
        self.ghosts: list[tuple[Eni, int, float]] | None = None

    def __repr__(self) -> str:
        return f"<Instance {self.id} {self.type} of {self.node}>"


class Placement(Protocol):
    """Which free address or /28 EC2 hands out next; the subnet has one."""

    def address(self, subnet: Subnet) -> int:
        """The offset of a free address."""
        ...

    def block(self, subnet: Subnet) -> int:
        """The index of a wholly free /28."""
        ...


class Network:
    """The rows, and the verbs that change them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.subnets: dict[str, Subnet] = {}
        self.enis: dict[str, Eni] = {}
        self.instances: dict[str, Instance] = {}
        #: ENIs that are attached to nothing (the leak sweep's hunting ground), by id.
        self.detached: dict[str, Eni] = {}

    def add_subnet(self, subnet: Subnet) -> Subnet:
        """A subnet of the VPC."""
        assert subnet.id not in self.subnets, subnet.id
        self.subnets[subnet.id] = subnet
        self.store.emit(Verb.SUBNET_CHANGED, subnet)
        return subnet

    def tag_subnet(self, subnet: Subnet, tags: dict[str, str]) -> None:
        """CreateTags on a subnet; an empty value is kept as EC2 keeps it."""
        subnet.tags = {**subnet.tags, **tags}
        self.store.emit(Verb.SUBNET_CHANGED, subnet)

    def add_instance(self, instance: Instance) -> Instance:
        """RunInstances has made it; its first ENI comes with :meth:`create_eni` and :meth:`attach_eni`."""
        assert instance.node not in self.instances, instance.node
        self.instances[instance.node] = instance
        return instance

    def remove_instance(self, instance: Instance) -> None:
        """TerminateInstances: its ENIs go with it (delete-on-termination is set on all)."""
        for eni in list(instance.enis.values()):
            self.detach_eni(eni)
            self.delete_eni(eni)
        self.instances.pop(instance.node, None)

    def create_eni(
        self, id: str, subnet: Subnet, placement: Placement, *, address: int | None = None
    ) -> Eni:
        """An ENI with its own address, attached to nothing. The subnet must have a free address."""
        offset = placement.address(subnet) if address is None else address - subnet.base
        subnet._use(offset)
        eni = Eni(id, subnet, subnet.base + offset, self.store.clock.now)
        self.enis[id] = self.detached[id] = eni
        self.store.emit(Verb.SUBNET_CHANGED, subnet)
        return eni

    def delete_eni(self, eni: Eni) -> None:
        """The ENI is gone and all its addresses are free again. It must be attached to nothing."""
        assert eni.instance is None, eni
        subnet = eni.subnet
        subnet._give_back(eni.address - subnet.base)
        for item in eni.items:
            self._free(subnet, item)
        del self.enis[eni.id]
        self.detached.pop(eni.id, None)
        self.store.emit(Verb.SUBNET_CHANGED, subnet)

    def attach_eni(self, eni: Eni, instance: Instance, device: int) -> None:
        """The ENI takes the slot ``device``."""
        assert eni.instance is None and device not in instance.enis, eni
        eni.instance = instance
        eni.node = instance.node
        eni.device = device
        eni.attached_s = self.store.clock.now
        instance.enis[device] = eni
        self.detached.pop(eni.id, None)
        self.store.emit(Verb.ENI_ATTACHED, eni)

    def detach_eni(self, eni: Eni) -> None:
        """The ENI leaves its slot."""
        instance = eni.instance
        assert instance is not None, eni
        del instance.enis[eni.device]
        eni.instance = None
        eni.detaching_s = -1.0
        self.detached[eni.id] = eni
        self.store.emit(Verb.ENI_DETACHED, eni)

    def begin_detach(self, eni: Eni, until_s: float) -> None:
        """A detach that takes time has begun: until then the ENI still counts as attached."""
        eni.detaching_s = until_s

    def tag_eni(self, eni: Eni, tags: dict[str, str]) -> None:
        """CreateTags on an ENI."""
        eni.tags = {**eni.tags, **tags}

    def give(self, eni: Eni, placement: Placement, addresses: int = 0, prefixes: int = 0) -> list[int]:
        """Assign so many new addresses and prefixes of the ENI's subnet; returns the items. There must be enough."""
        subnet = eni.subnet
        items = []
        for _ in range(addresses):
            offset = placement.address(subnet)
            subnet._use(offset)
            items.append(subnet.base + offset)
        for _ in range(prefixes):
            block = placement.block(subnet)
            subnet._use_block(block)
            items.append(subnet.base + block * PREFIX_SIZE | PREFIX)
        for item in items:
            eni.items[item] = None
        self.store.emit(Verb.SUBNET_CHANGED, subnet)
        self.store.emit(Verb.ENI_ADDRESSES, eni)
        return items

    def take_back(self, eni: Eni, items: Iterable[int]) -> None:
        """The ENI loses the items; their addresses are free again."""
        for item in items:
            del eni.items[item]
            self._free(eni.subnet, item)
        self.store.emit(Verb.SUBNET_CHANGED, eni.subnet)
        self.store.emit(Verb.ENI_ADDRESSES, eni)

    def occupy(self, subnet: Subnet, offsets: Iterable[int]) -> None:
        """Others than nodes (load balancers, endpoints, the control plane) take free addresses."""
        for offset in offsets:
            assert subnet.is_free(offset), offset
            subnet._use(offset)
            subnet.taken.append(subnet.base + offset)
        self.store.emit(Verb.SUBNET_CHANGED, subnet)

    def vacate(self, subnet: Subnet, n: int) -> int:
        """Others give back ``n`` addresses, the last taken first; returns how many there were to give back."""
        n = min(n, len(subnet.taken))
        for _ in range(n):
            subnet._give_back(subnet.taken.pop() - subnet.base)
        self.store.emit(Verb.SUBNET_CHANGED, subnet)
        return n

    @staticmethod
    def _free(subnet: Subnet, item: int) -> None:
        if item >= PREFIX:
            subnet._give_back_block((item ^ PREFIX) - subnet.base >> 4)
        else:
            subnet._give_back(item - subnet.base)


def format_address(address: int) -> str:
    """``3232235777`` → ``192.168.1.1``."""
    return f"{address >> 24 & 255}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


def format_item(item: int) -> str:
    """An item as ipamd writes it: ``10.0.0.7`` or ``10.0.0.16/28``."""
    return f"{format_address(item ^ PREFIX)}/28" if item >= PREFIX else format_address(item)
