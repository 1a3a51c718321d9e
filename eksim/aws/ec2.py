"""EC2 as ipamd calls it: network interfaces and their addresses, with latencies, limits, throttling and refusals.

Every call is a generator to ``yield from`` inside a process: it takes its latency, then has its effect at once and
wholly or not at all, and returns a value or :class:`~eksim.errors.Refused`. Each request is told to the store as a
:class:`Call`. What others do to the VPC behind ipamd's back is at the end. Leaves out: RunInstances' own latency,
security groups, permissions, other accounts. Called by :mod:`eksim.cni.awsutils` and a scenario's steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from eksim.aws.faults import MESSAGES, Faults
from eksim.aws.metadata import MetadataLag
from eksim.aws.throttle import Throttle
from eksim.aws.vpc import Scattered, scattered_addresses
from eksim.engine.clock import NETWORK, Clock
from eksim.engine.latency import DEFAULTS
from eksim.engine.streams import NO_LATENCY, Latency, Streams, sampler
from eksim.errors import Refused
from eksim.names import eni_id
from eksim.state.changes import Verb
from eksim.state.network import PREFIX, Eni, Instance, Network, Placement, Subnet
from eksim.state.store import Store

T = TypeVar("T")
Request = Generator[Any, Any, T | Refused]

NOT_FOUND = "InvalidNetworkInterfaceID.NotFound"
INSUFFICIENT_ADDRESSES = Refused(
    "InsufficientFreeAddressesInSubnet", MESSAGES["InsufficientFreeAddressesInSubnet"]
)
INSUFFICIENT_BLOCKS = Refused("InsufficientCidrBlocks", MESSAGES["InsufficientCidrBlocks"])
#: What CreateNetworkInterface says of a subnet without a free /28. Source: amazon-vpc-cni-k8s issue #3105.
NO_BLOCK_AT_CREATE = Refused("InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefixes")
ADDRESS_LIMIT = Refused("PrivateIpAddressLimitExceeded", MESSAGES["PrivateIpAddressLimitExceeded"])
THROTTLED = Refused("RequestLimitExceeded", MESSAGES["RequestLimitExceeded"])

#: Device indexes that a card can have. Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go (maxENIs), v1.23.1.
MAX_DEVICES = 100


class Call:
    """One finished request. ``error`` is EC2's code, "" if it worked; ``count`` how many were asked for.

    ``items``: the addresses and prefixes given or taken; ``device`` −1 where unknown; ``background``: not ipamd's loop.
    """

    __slots__ = ("api", "background", "count", "device", "end_s", "error", "items", "node", "start_s", "subnet")

    def __init__(self, api: str, node: str, start_s: float, count: int = 0, device: int = -1) -> None:
        self.api = api
        self.node = node
        self.start_s = start_s
        self.end_s = start_s
        self.count = count
        self.device = device
        self.subnet = ""
        self.items: Sequence[int] = ()
        self.error = ""
        self.background = False

    def __repr__(self) -> str:
        return f"<Call {self.api} of {self.node} at {self.start_s} {self.error}>"


def not_found(eni: str) -> Refused:
    """EC2's answer about an ENI that does not exist."""
    return Refused(NOT_FOUND, f"The networkInterface ID '{eni}' does not exist")


class Ec2:
    """The service. ``latencies`` by name (``ec2/<API>``, ``ec2/detach``, ``metadata/…``); missing ones are zero."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        network: Network,
        streams: Streams,
        latencies: dict[str, Latency] | None = None,
        *,
        placement: Placement | None = None,
        lag: MetadataLag | None = None,
        throttled: bool = True,
        no_block_at_create: Refused = NO_BLOCK_AT_CREATE,
        new_eni_id: Callable[[], str] | None = None,
    ) -> None:
        latencies = DEFAULTS if latencies is None else latencies
        self.clock = clock
        self.store = store
        self.network = network
        self.latencies = latencies
        self.faults = Faults(streams["ec2/faults"])
        self.throttle = Throttle() if throttled else None
        self.placement: Placement = placement or Scattered(streams["ec2/placement"])
        address_lag = latencies.get("metadata/address", NO_LATENCY)
        self.lag = lag or MetadataLag(
            streams["ec2/metadata"], latencies.get("metadata/eni", NO_LATENCY), address_lag, address_lag
        )
        self._no_block_at_create = no_block_at_create
        self._latency_stream = streams["ec2/latency"]
        #: API → what draws the latency of a call
        self._draws: dict[str, Callable[[], float]] = {}
        self._others = streams["ec2/others"]
        names = streams["names/eni"]
        self._new_eni_id = new_eni_id or (lambda: eni_id(names))

    # -- instances ----------------------------------------------------------------------------------------------

    def launch_instance(
        self,
        node: str,
        instance_id: str,
        subnet: Subnet,
        *,
        type: str = "",
        max_enis: int,
        ipv4_per_eni: int,
        nitro: bool = True,
        trunking: bool = True,
        address: int | None = None,
    ) -> Instance | Refused:
        """RunInstances has come to running: the instance with its first ENI (eth0), in this instant.

        ``address``: the node's own address, if it must be a certain one (it must be free).
        """
        if subnet.free < 1:
            return INSUFFICIENT_ADDRESSES
        network = self.network
        instance = Instance(node, instance_id, type, max_enis, ipv4_per_eni, subnet, nitro=nitro)
        instance.trunking = trunking
        network.add_instance(instance)
        eni = network.create_eni(self._new_eni_id(), subnet, self.placement, address=address)
        instance.primary = eni
        network.attach_eni(eni, instance, 0)
        return instance

    def terminate_instance(self, node: str) -> None:
        """The instance goes, and its ENIs with it."""
        instance = self.network.instances.get(node)
        if instance is not None:
            self.network.remove_instance(instance)

    # -- the calls ----------------------------------------------------------------------------------------------

    def describe_subnets(self, caller: Instance) -> Request[list[Subnet]]:
        """DescribeSubnets with the filters vpc-id and availability-zone: those of the caller's subnet."""
        own = caller.subnet
        return self._call(
            Call("DescribeSubnets", caller.node, self.clock.now),
            "",
            lambda: [s for s in self.network.subnets.values() if s.vpc == own.vpc and s.zone == own.zone],
        )

    def describe_instances(self, caller: Instance) -> Request[list[int]]:
        """DescribeInstances of the caller: the device indexes in use."""
        return self._call(
            Call("DescribeInstances", caller.node, self.clock.now), caller.subnet.id, lambda: list(caller.enis)
        )

    def describe_network_interfaces(self, caller: Instance, ids: Sequence[str]) -> Request[list[Eni]]:
        """DescribeNetworkInterfaces by ids; refused if one of them does not exist."""

        def do() -> list[Eni] | Refused:
            enis = self.network.enis
            for id in ids:
                if id not in enis:
                    return not_found(id)
            return [enis[id] for id in ids]

        return self._call(
            Call("DescribeNetworkInterfaces", caller.node, self.clock.now, count=len(ids)), caller.subnet.id, do
        )

    def describe_available_interfaces(self, caller: Instance, tag: str) -> Request[list[Eni]]:
        """DescribeNetworkInterfaces with the filters status=available, vpc-id and tag-key."""
        call = Call("DescribeNetworkInterfaces", caller.node, self.clock.now)
        call.background = True
        vpc = caller.subnet.vpc

        def do() -> list[Eni]:
            found = [e for e in self.network.detached.values() if e.subnet.vpc == vpc and tag in e.tags]
            call.count = len(found)
            return found

        return self._call(call, caller.subnet.id, do)

    def create_network_interface(
        self,
        caller: Instance,
        subnet: Subnet,
        tags: dict[str, str],
        description: str,
        addresses: int = 0,
        prefixes: int = 0,
    ) -> Request[Eni]:
        """CreateNetworkInterface with so many secondary addresses or prefixes, all or nothing.

        The ENI's own address is taken first, then the addresses or blocks.
        """
        call = Call("CreateNetworkInterface", caller.node, self.clock.now, count=addresses + prefixes)
        call.subnet = subnet.id

        def do() -> Eni | Refused:
            if subnet.free < 1 + addresses + prefixes * 16:
                # Addresses are looked at before blocks only as far as single ones are asked for.
                if subnet.free < 1 + addresses:
                    return INSUFFICIENT_ADDRESSES
                return self._no_block_at_create
            network = self.network
            eni = network.create_eni(self._new_eni_id(), subnet, self.placement)
            if prefixes > subnet.free_blocks:
                network.delete_eni(eni)
                return self._no_block_at_create
            eni.description = description
            eni.tags = tags
            if addresses or prefixes:
                call.items = network.give(eni, self.placement, addresses, prefixes)
            return eni

        return self._call(call, subnet.id, do)

    def attach_network_interface(self, caller: Instance, eni_id: str, device: int) -> Request[Eni]:
        """AttachNetworkInterface; refused beyond the instance's limit, detaching ENIs counted."""

        def do() -> Eni | Refused:
            eni = self.network.enis.get(eni_id)
            if eni is None:
                return not_found(eni_id)
            if self.network.instances.get(caller.node) is not caller:
                return Refused("InvalidInstanceID.NotFound", f"The instance ID '{caller.id}' does not exist")
            if len(caller.enis) >= caller.max_enis:
                return Refused(
                    "AttachmentLimitExceeded", f"Interface count {caller.max_enis + 1} exceeds the limit for {caller.type}"
                )
            if device in caller.enis:
                return Refused(
                    "InvalidParameterValue",
                    f"Instance '{caller.id}' already has an interface attached at device index '{device}'.",
                )
            self.network.attach_eni(eni, caller, device)
            self.lag.on_attach(eni, self.clock.now)
            return eni

        return self._call(
            Call("AttachNetworkInterface", caller.node, self.clock.now, device=device), caller.subnet.id, do
        )

    def modify_network_interface_attribute(self, caller: Instance, eni_id: str) -> Request[None]:
        """ModifyNetworkInterfaceAttribute: delete-on-termination, or security groups; nothing here reads either."""
        return self._call(
            Call("ModifyNetworkInterfaceAttribute", caller.node, self.clock.now),
            self._subnet_of(eni_id),
            lambda: None if eni_id in self.network.enis else not_found(eni_id),
        )

    def create_tags(self, caller: Instance, eni_id: str, tags: dict[str, str]) -> Request[None]:
        """CreateTags on an ENI."""

        def do() -> Refused | None:
            eni = self.network.enis.get(eni_id)
            if eni is None:
                return not_found(eni_id)
            self.network.tag_eni(eni, tags)
            return None

        return self._call(Call("CreateTags", caller.node, self.clock.now), self._subnet_of(eni_id), do)

    def assign_private_ip_addresses(
        self, caller: Instance, eni_id: str, n: int, *, prefixes: bool = False
    ) -> Request[list[int]]:
        """AssignPrivateIpAddresses: ``n`` addresses or /28s, all or nothing; returns the items."""
        call = Call("AssignPrivateIpAddresses", caller.node, self.clock.now, n, self._device_of(eni_id))

        def do() -> list[int] | Refused:
            eni = self.network.enis.get(eni_id)
            if eni is None:
                return not_found(eni_id)
            if 1 + len(eni.items) + n > caller.ipv4_per_eni:
                return ADDRESS_LIMIT
            subnet = eni.subnet
            if prefixes:
                if subnet.free_blocks < n:
                    return INSUFFICIENT_BLOCKS
                items = self.network.give(eni, self.placement, prefixes=n)
            else:
                if subnet.free < n:
                    return INSUFFICIENT_ADDRESSES
                items = self.network.give(eni, self.placement, addresses=n)
            call.items = items
            if eni.instance is not None:
                self.lag.on_assign(eni, items, self.clock.now)
            return items

        return self._call(call, self._subnet_of(eni_id), do)

    def unassign_private_ip_addresses(self, caller: Instance, eni_id: str, items: Sequence[int]) -> Request[None]:
        """UnassignPrivateIpAddresses, all or nothing: refused if one of the items is not on the ENI."""
        call = Call(
            "UnassignPrivateIpAddresses", caller.node, self.clock.now, len(items), self._device_of(eni_id)
        )
        call.items = items

        def do() -> Refused | None:
            eni = self.network.enis.get(eni_id)
            if eni is None:
                return not_found(eni_id)
            if any(item not in eni.items for item in items):
                return Refused("InvalidParameterValue", "Some of the addresses are not assigned to the interface")
            self._take_back(eni, list(items))
            return None

        return self._call(call, self._subnet_of(eni_id), do)

    def detach_network_interface(self, caller: Instance, eni_id: str) -> Request[None]:
        """DetachNetworkInterface: asynchronous; until it is done the ENI still counts as attached."""

        def do() -> Refused | None:
            eni = self.network.enis.get(eni_id)
            if eni is None or eni.instance is None:
                return Refused("InvalidAttachmentID.NotFound", "The attachment does not exist")
            delay = self.latencies.get("ec2/detach", NO_LATENCY).draw(self._latency_stream)
            if delay > 0:
                if eni.detaching_s < 0:
                    self.network.begin_detach(eni, self.clock.now + delay)
                    self.clock.call_after(delay, NETWORK, self._finish_detach, eni)
            else:
                self._finish_detach(eni)
            return None

        return self._call(
            Call("DetachNetworkInterface", caller.node, self.clock.now, device=self._device_of(eni_id)),
            self._subnet_of(eni_id),
            do,
        )

    def delete_network_interface(self, caller: Instance, eni_id: str) -> Request[None]:
        """DeleteNetworkInterface; refused while it is attached."""

        def do() -> Refused | None:
            eni = self.network.enis.get(eni_id)
            if eni is None:
                return not_found(eni_id)
            if eni.instance is not None:
                return Refused("InvalidParameterValue", f"Network interface '{eni_id}' is currently in use.")
            self.network.delete_eni(eni)
            return None

        return self._call(
            Call("DeleteNetworkInterface", caller.node, self.clock.now), self._subnet_of(eni_id), do
        )

    # -- what others do -----------------------------------------------------------------------------------------

    def take_addresses(self, subnet: Subnet, n: int, *, offsets: Sequence[int] | None = None) -> int:
        """Others take ``n`` free addresses, scattered, or those at ``offsets``; returns how many there were."""
        chosen = scattered_addresses(subnet, n, self._others) if offsets is None else list(offsets)
        self.network.occupy(subnet, chosen)
        return len(chosen)

    def release_addresses(self, subnet: Subnet, n: int) -> int:
        """Others give back ``n`` addresses, the last taken first; returns how many there were."""
        return self.network.vacate(subnet, n)

    def lose_eni(self, instance: Instance, device: int) -> bool:
        """Somebody detaches and deletes an ENI that pods may use; False if there is none in that slot."""
        eni = instance.enis.get(device)
        if eni is None:
            return False
        self._finish_detach(eni)
        self.network.delete_eni(eni)
        return True

    def detach_eni(self, instance: Instance, device: int) -> bool:
        """Somebody detaches an ENI and keeps it; False if there is none in that slot."""
        eni = instance.enis.get(device)
        if eni is None:
            return False
        self._finish_detach(eni)
        return True

    def lose_items(self, instance: Instance, device: int, n: int, *, prefixes: bool = False) -> list[int] | None:
        """Somebody unassigns the ``n`` highest addresses (or /28s) of an ENI; None if there is no such ENI."""
        eni = instance.enis.get(device)
        if eni is None:
            return None
        kind = [item for item in eni.items if (item >= PREFIX) == prefixes]
        lost = sorted(kind, reverse=True)[:n]
        if lost:
            self._take_back(eni, lost)
        return lost

    def add_items(self, instance: Instance, device: int, n: int, *, prefixes: bool = False) -> list[int] | None:
        """Somebody assigns addresses (or /28s) to an ENI; None if there is no such ENI or no room."""
        eni = instance.enis.get(device)
        if eni is None or 1 + len(eni.items) + n > instance.ipv4_per_eni:
            return None
        if (eni.subnet.free_blocks if prefixes else eni.subnet.free) < n:
            return None
        items = self.network.give(eni, self.placement, *((0, n) if prefixes else (n, 0)))
        self.lag.on_assign(eni, items, self.clock.now)
        return items

    def attach_foreign_eni(
        self,
        instance: Instance,
        subnet: Subnet,
        *,
        addresses: int = 0,
        prefixes: int = 0,
        tags: dict[str, str] | None = None,
        type: str = "interface",
    ) -> Eni | None:
        """Somebody else creates an ENI with addresses or /28s, all or nothing, and attaches it to the instance.

        None if no slot is free, the subnet is short, or the ENI holds more than one of the type may (assumption: EC2
        refuses such an attachment).
        """
        if len(instance.enis) >= instance.max_enis or 1 + addresses + prefixes > instance.ipv4_per_eni:
            return None
        if subnet.free < 1 + addresses:
            return None
        network = self.network
        device = free_device(list(instance.enis))
        eni = network.create_eni(self._new_eni_id(), subnet, self.placement)
        if addresses:
            network.give(eni, self.placement, addresses)
        if prefixes > subnet.free_blocks:
            network.delete_eni(eni)
            return None
        if prefixes:
            network.give(eni, self.placement, prefixes=prefixes)
        eni.tags = tags or {}
        eni.type = type
        self.network.attach_eni(eni, instance, device)
        self.lag.on_attach(eni, self.clock.now)
        return eni

    # -- inside -------------------------------------------------------------------------------------------------

    def _call(self, call: Call, subnet: str, do: Callable[[], T | Refused]) -> Request[T]:
        """Take the latency, then refuse or do; tell the store."""
        now = self.clock.now
        fault = self.faults.strikes(call.api, call.node, subnet, now)
        refused = None if fault is None else fault.refusal
        if refused is None and self.throttle is not None and self.throttle.refuses(call.api, now):
            refused = THROTTLED
        if refused is not None and (fault is None or not fault.lasting) and call.node in self.network.instances:
            self.network.instances[call.node].passing_refusals += 1
        draw = self._draws.get(call.api)
        if draw is None:
            draw = self._draws[call.api] = sampler(
                self.latencies.get("ec2/" + call.api, NO_LATENCY), self._latency_stream
            )
        delay = draw()
        if delay > 0:
            try:
                yield self.clock.sleep_until(now + delay)
            except GeneratorExit:
                # the daemon died; EC2 has the request and does it all the same
                self.clock.arm(now + delay, NETWORK, self._do_anyway, call, refused, do)
                raise
        return self._do(call, refused, do)

    def _do_anyway(self, call: Call, refused: Refused | None, do: Callable[[], Any]) -> None:
        self._do(call, refused, do)

    def _do(self, call: Call, refused: Refused | None, do: Callable[[], T | Refused]) -> T | Refused:
        result = do() if refused is None else refused
        call.end_s = self.clock.now
        if isinstance(result, Refused):
            call.error = result.code
        self.store.emit(Verb.EC2_CALL, call)
        return result

    def _take_back(self, eni: Eni, items: list[int]) -> None:
        if eni.instance is not None:
            self.lag.on_take_back(eni, items, self.clock.now)
        self.network.take_back(eni, items)

    def _finish_detach(self, eni: Eni) -> None:
        if eni.instance is not None:
            self.lag.on_detach(eni, eni.instance, self.clock.now)
            self.network.detach_eni(eni)

    def _device_of(self, eni_id: str) -> int:
        eni = self.network.enis.get(eni_id)
        return -1 if eni is None or eni.instance is None else eni.device

    def _subnet_of(self, eni_id: str) -> str:
        eni = self.network.enis.get(eni_id)
        return "" if eni is None else eni.subnet.id


def free_device(used: Sequence[int]) -> int:
    """The lowest device index that is not in use.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:awsGetFreeDeviceNumber, v1.23.1.
    """
    return next(device for device in range(MAX_DEVICES) if device not in used)
