"""EC2: subnets as address spaces, limits and refusals, latencies, faults, throttling, late metadata."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eksim.aws.ec2 import Call, Ec2
from eksim.aws.faults import Fault
from eksim.aws.metadata import MetadataLag, attached_enis, last_change_s
from eksim.aws.throttle import Throttle
from eksim.aws.vpc import Scattered, Sequential, parse_address, parse_cidr
from eksim.engine.clock import Clock
from eksim.engine.streams import Latency, Streams
from eksim.errors import InputError, Refused
from eksim.state.changes import Verb
from eksim.state.network import PREFIX, Instance, Network, Subnet, format_address, format_item
from eksim.state.store import Store

BASE = 10 << 24


class World:
    """A VPC with one subnet and one instance; calls are run to their end."""

    def __init__(self, prefix_length: int = 24, latencies: dict[str, Latency] | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.network = Network(self.store)
        options.setdefault("placement", Sequential())
        self.ec2 = Ec2(self.clock, self.store, self.network, Streams(1), latencies or {}, **options)
        self.subnet = self.network.add_subnet(Subnet("a", BASE, prefix_length, zone="z"))
        self.calls: list[Call] = []
        self.store.watch(Verb.EC2_CALL, lambda call, _: self.calls.append(call))
        node = self.ec2.launch_instance("n", "i-1", self.subnet, type="t3.medium", max_enis=3, ipv4_per_eni=6)
        assert isinstance(node, Instance)
        self.node = node

    def run(self, request: Any) -> Any:
        process = self.clock.process(request)
        while not process.processed:
            assert self.clock.run_instant()
        return process.value

    def assign(self, n: int, prefixes: bool = False) -> Any:
        return self.run(
            self.ec2.assign_private_ip_addresses(self.node, self.node.primary.id, n, prefixes=prefixes)
        )

    def create(self, addresses: int = 0, prefixes: int = 0) -> Any:
        return self.run(self.ec2.create_network_interface(self.node, self.subnet, {}, "", addresses, prefixes))


def code(answer: Any) -> str:
    assert isinstance(answer, Refused), answer
    return answer.code


@pytest.mark.parametrize(("length", "free", "blocks"), [(28, 11, 0), (27, 27, 0), (26, 59, 2), (24, 251, 14), (16, 65531, 4094)])
def test_aws_keeps_five_addresses(length: int, free: int, blocks: int) -> None:
    subnet = Subnet("a", BASE, length)
    assert (subnet.free, subnet.free_blocks, subnet.used) == (free, blocks, 0)


@pytest.mark.parametrize("text", ["10.0.0.0/29", "10.0.0.0/15", "10.0.0.1/24", "10.0.0.0", "x/24", ""])
def test_a_cidr_that_is_no_subnet_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_cidr(text)


def test_addresses_are_read_and_printed() -> None:
    assert parse_cidr("192.168.1.0/24") == (parse_address("192.168.1.0"), 24)
    assert format_address(parse_address("192.168.1.90")) == "192.168.1.90"
    assert format_item(BASE | PREFIX) == "10.0.0.0/28"
    with pytest.raises(InputError):
        parse_address("192.168.1")


def test_assign_is_all_or_nothing_and_bounded_by_the_type() -> None:
    world = World(28)
    assert world.assign(4) == [BASE + 5, BASE + 6, BASE + 7, BASE + 8]
    assert code(world.assign(2)) == "PrivateIpAddressLimitExceeded"
    world.ec2.take_addresses(world.subnet, 6, offsets=[9, 10, 11, 12, 13, 14])
    assert code(world.assign(1)) == "InsufficientFreeAddressesInSubnet"
    assert world.subnet.free == 0


def test_a_prefix_needs_an_aligned_block_that_is_wholly_free() -> None:
    """One address in each /28 is enough: hundreds of addresses are free, and no prefix can be had."""
    world = World(24)
    world.ec2.take_addresses(world.subnet, 14, offsets=range(17, 16 * 15, 16))
    assert world.subnet.free == 251 - 1 - 14
    assert world.subnet.free_blocks == 0
    assert code(world.assign(1, prefixes=True)) == "InsufficientCidrBlocks"
    assert len(world.assign(5)) == 5


def test_a_prefix_takes_sixteen_addresses() -> None:
    world = World(24)
    (item,) = world.assign(1, prefixes=True)
    assert item == BASE + 14 * 16 | PREFIX
    assert world.subnet.free == 250 - 16
    assert world.node.primary.all_addresses() == list(range(BASE + 224, BASE + 240))
    world.run(world.ec2.unassign_private_ip_addresses(world.node, world.node.primary.id, [item]))
    assert world.subnet.free == 250


def test_unassign_is_all_or_nothing() -> None:
    world = World()
    items = world.assign(3)
    answer = world.run(
        world.ec2.unassign_private_ip_addresses(world.node, world.node.primary.id, [items[0], BASE + 99])
    )
    assert code(answer) == "InvalidParameterValue"
    assert list(world.node.primary.items) == items


def test_create_takes_its_own_address_first() -> None:
    world = World(26)
    world.ec2.take_addresses(world.subnet, 0, offsets=[*range(5, 15), 33])
    assert world.subnet.free_blocks == 1
    assert world.create(prefixes=1).items
    assert world.subnet.free_blocks == 0


def test_create_without_a_block_is_not_called_insufficient_by_aws() -> None:
    world = World(28)
    assert world.create(prefixes=1) == Refused(
        "InvalidParameterValue", "There aren't sufficient free Ipv4 addresses or prefixes"
    )
    assert world.subnet.free == 10


def test_no_interface_beyond_the_limit() -> None:
    world = World()
    for device in (1, 2):
        eni = world.create(2)
        assert world.run(world.ec2.attach_network_interface(world.node, eni.id, device)) is eni
    extra = world.create()
    answer = world.run(world.ec2.attach_network_interface(world.node, extra.id, 3))
    assert answer == Refused("AttachmentLimitExceeded", "Interface count 4 exceeds the limit for t3.medium")
    assert sorted(world.node.enis) == [0, 1, 2]


def test_a_slow_detach_still_counts_as_attached() -> None:
    world = World(latencies={"ec2/detach": Latency("constant", 5.0)})
    eni = world.create()
    world.run(world.ec2.attach_network_interface(world.node, eni.id, 1))
    world.run(world.ec2.detach_network_interface(world.node, eni.id))
    assert code(world.run(world.ec2.delete_network_interface(world.node, eni.id))) == "InvalidParameterValue"
    assert 1 in world.node.enis
    world.clock.run_until(5.0)
    assert world.run(world.ec2.delete_network_interface(world.node, eni.id)) is None
    assert world.subnet.free == 250


def test_a_call_takes_its_latency_and_has_its_effect_at_the_end() -> None:
    world = World(latencies={"ec2/AssignPrivateIpAddresses": Latency("constant", 0.5)})
    world.clock.process(world.ec2.assign_private_ip_addresses(world.node, world.node.primary.id, 5))
    world.clock.run_until(0.49)
    assert world.subnet.free == 250
    world.clock.run_until(0.5)
    assert world.subnet.free == 245
    (call,) = world.calls
    assert (call.api, call.start_s, call.end_s, call.count, call.device, call.error) == (
        "AssignPrivateIpAddresses", 0.0, 0.5, 5, 0, "")  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "errors"),
    [
        ({"count": 2}, "xx.."),
        ({"count": 1, "after": 2}, "..x."),
        ({"node": "other"}, "...."),
        ({"node": "n"}, "xxxx"),
        ({"subnet": "a", "count": 1}, "x..."),
        ({"subnet": "b"}, "...."),
        ({"since_s": 1.5, "until_s": 3.0}, "..x."),
        ({"rate": 1e-9}, "...."),
    ],
)
def test_faults_strike_whom_when_and_how_often(fault: dict[str, Any], errors: str) -> None:
    world = World()
    world.ec2.faults.add(Fault("AssignPrivateIpAddresses", "InternalError", **fault))
    seen = ""
    for second in range(4):
        world.clock.run_until(float(second))
        seen += "x" if isinstance(world.assign(1), Refused) else "."
    assert seen == errors


def test_a_second_fault_waits_behind_what_is_left_of_the_first() -> None:
    world = World()
    world.ec2.faults.add(Fault("AssignPrivateIpAddresses", "A", count=2))
    world.ec2.faults.add(Fault("AssignPrivateIpAddresses", "B", count=1))
    assert [code(world.assign(1)) for _ in range(3)] == ["A", "A", "B"]
    assert len(world.assign(1)) == 1


def test_a_rate_strikes_its_share() -> None:
    """1,000 calls at 30 %: off by more than 5 standard deviations less than once in a million seeds."""
    world = World(throttled=False)
    world.ec2.faults.add(Fault("DescribeInstances", "InternalError", rate=0.3))
    struck = sum(isinstance(world.run(world.ec2.describe_instances(world.node)), Refused) for _ in range(1000))
    assert abs(struck - 300) < 5 * (1000 * 0.3 * 0.7) ** 0.5


def test_healing_a_fault() -> None:
    world = World()
    fault = world.ec2.faults.add(Fault("AssignPrivateIpAddresses", "UnauthorizedOperation"))
    assert code(world.assign(1)) == "UnauthorizedOperation"
    world.ec2.faults.remove(fault)
    assert len(world.assign(1)) == 1
    with pytest.raises(InputError):
        Fault("AssignPrivateIpAddress", "X")


def test_the_account_s_bucket_empties_and_refills() -> None:
    """Attach and Detach share 50 requests, then 5 a second."""
    throttle = Throttle()
    assert [throttle.refuses("AttachNetworkInterface", 0.0) for _ in range(25)] == [False] * 25
    assert [throttle.refuses("DetachNetworkInterface", 0.0) for _ in range(26)] == [False] * 25 + [True]
    assert [throttle.refuses("AttachNetworkInterface", 1.0) for _ in range(6)] == [False] * 5 + [True]
    assert not throttle.refuses("AssignPrivateIpAddresses", 1.0)


def test_throttled_calls_are_refused_and_recorded() -> None:
    world = World()
    for _ in range(100):
        assert not isinstance(world.run(world.ec2.describe_instances(world.node)), Refused)
    assert code(world.run(world.ec2.describe_instances(world.node))) == "RequestLimitExceeded"
    assert world.calls[-1].error == "RequestLimitExceeded"


def _lag(world: World, eni: float, cidr: float, remove: float, each: float = 0.0) -> None:
    world.ec2.lag = MetadataLag(
        Streams(1)["lag"], *(Latency("constant", x) for x in (eni, cidr, remove)), each
    )


def _shown(world: World, at: float) -> list[tuple[int, list[int]]]:
    return [(a.device, [(i & ~PREFIX) - BASE for i in a.items]) for a in attached_enis(world.node, at)]


def test_metadata_is_late() -> None:
    """An ENI after 1 s, its k-th address after 2 + k s, what is gone for 10 s more."""
    world = World()
    _lag(world, 1.0, 2.0, 10.0, each=1.0)
    eni = world.create(2)
    world.run(world.ec2.attach_network_interface(world.node, eni.id, 1))
    assert _shown(world, 0.9) == [(0, [])]
    assert _shown(world, 1.0) == [(0, []), (1, [])]
    assert _shown(world, 2.0) == [(0, []), (1, [6])]
    assert _shown(world, 1.0 - 1e-9) == [(0, []), (1, [])], "a sum of floats that falls short by less than 1 µs"
    assert _shown(world, 3.0) == [(0, []), (1, [6, 7])]
    world.clock.run_until(50.0)
    assert last_change_s(world.node, 50.0) == 50.0
    world.ec2.lose_items(world.node, 1, 1)
    assert _shown(world, 59.9) == [(0, []), (1, [6, 7])]
    assert _shown(world, 60.0) == _shown(world, 60.0 - 1e-9) == [(0, []), (1, [6])]
    world.clock.run_until(60.0)
    world.ec2.lose_eni(world.node, 1)
    assert _shown(world, 69.9) == [(0, []), (1, [6])]
    assert _shown(world, 70.0) == [(0, [])]


def test_what_others_do() -> None:
    world = World()
    eni = world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=3, prefixes=1)
    assert eni is not None
    assert (eni.device, len(eni.items), eni.device_name) == (1, 4, "eth1")
    assert world.ec2.lose_items(world.node, 1, 9) == [BASE + 8, BASE + 7, BASE + 6]
    assert world.ec2.lose_items(world.node, 2, 1) is None
    assert world.ec2.add_items(world.node, 1, 9) is None
    assert len(world.ec2.add_items(world.node, 1, 2) or ()) == 2
    assert world.ec2.detach_eni(world.node, 1)
    assert not world.ec2.lose_eni(world.node, 1)
    assert eni.id in world.network.detached
    assert world.ec2.take_addresses(world.subnet, 500) == world.subnet.used - 1 - 1 - 16 - 2
    assert world.subnet.free == 0
    assert world.ec2.release_addresses(world.subnet, 7) == 7
    assert world.subnet.free == 7
    assert world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=9) is None


def test_a_foreign_eni_is_attached_whole_or_not_at_all() -> None:
    world = World()
    most = world.node.ipv4_per_eni - 1
    free = world.subnet.free, world.subnet.free_blocks
    assert world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=most, prefixes=1) is None
    assert world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=most + 1) is None
    assert (world.subnet.free, world.subnet.free_blocks, len(world.network.enis)) == (*free, 1)
    world.ec2.take_addresses(world.subnet, 0, offsets=range(16, world.subnet.size - 17, 16))
    assert world.subnet.free_blocks == 0
    assert world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=1, prefixes=1) is None
    assert len(world.network.enis) == 1
    assert world.ec2.attach_foreign_eni(world.node, world.subnet, addresses=most) is not None


def test_a_terminated_instance_gives_everything_back() -> None:
    world = World()
    world.assign(4)
    world.ec2.terminate_instance("n")
    assert (world.subnet.free, len(world.network.enis), len(world.network.instances)) == (251, 0, 0)


def test_a_launch_needs_an_address() -> None:
    world = World(28)
    world.ec2.take_addresses(world.subnet, 99)
    answer = world.ec2.launch_instance("m", "i-2", world.subnet, max_enis=3, ipv4_per_eni=6)
    assert code(answer) == "InsufficientFreeAddressesInSubnet"


@pytest.mark.parametrize("placement", [Sequential, lambda: Scattered(Streams(3)["p"])])
def test_every_address_of_a_subnet_is_handed_out_once(placement: Callable[[], Any]) -> None:
    world = World(25, placement=placement())
    seen = {world.node.primary.address}
    for _ in range(world.subnet.free):
        eni = world.network.create_eni(f"eni-{len(seen)}", world.subnet, world.ec2.placement)
        assert eni.address not in seen
        seen.add(eni.address)
    assert world.subnet.free == 0
    assert len(seen) == 128 - 5
