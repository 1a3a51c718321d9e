"""What must hold of a node's addresses whatever happens to it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eksim.aws.ec2 import Call, Ec2
from eksim.aws.faults import Fault
from eksim.cni.vpc_cni import VpcCni
from eksim.engine.clock import Clock
from eksim.engine.latency import latencies
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.state.changes import Verb
from eksim.state.network import PREFIX, PREFIX_SIZE, RESERVED, Network, Subnet
from eksim.state.objects import Node
from eksim.state.store import Store
from eksim.versions import CniRules

NODES = ("n0", "n1")
MAX_ENIS, IPS = 3, 6


class World:
    """Two nodes that share a subnet; every promise is kept as it is made."""

    def __init__(self, version: str, env: dict[str, str], seed: int, latency: str) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        streams = Streams(seed)
        self.network = Network(self.store)
        times = latencies(latency)
        self.ec2 = Ec2(self.clock, self.store, self.network, streams, times)
        self.cni = VpcCni(self.clock, self.store, streams, self.ec2, CniRules.of(version), env, times)
        self.with_addresses = self.cni.rules.eni_created_with_addresses
        self.calls: list[Call] = []
        self.store.watch(Verb.EC2_CALL, lambda call, _: self.calls.append(call))
        self.subnet = self.network.add_subnet(Subnet("a", 10 << 24, 25))
        for name in NODES:
            self.ec2.launch_instance(name, f"i-{name}", self.subnet, max_enis=MAX_ENIS, ipv4_per_eni=IPS)
            self.store.add_node(Node(name, {"pods": 110}))
            self.cni.add_node(name)
            self.cni.start_node(name)
        self.pods: dict[str, list[int]] = {name: [] for name in NODES}
        self.held: dict[tuple[str, int], str] = {}
        self.released: dict[tuple[str, str], float] = {}
        self.started = 0
        self.others = 0
        self.foreign = False

    def add(self, node: str, n: int) -> None:
        cooldown = self.cni.cooldown_s(node)
        for _ in range(n):
            self.started += 1
            address = self.cni.add(node, "default", f"p{self.started}", f"s{self.started}")
            if isinstance(address, Refused):
                continue
            assert address not in self.held.values(), "an address in two places"
            last = self.released.get((node, address))
            assert last is None or self.clock.now - last > cooldown - 1e-6, "reassigned within the cool-down"
            self.held[node, self.started] = address
            self.pods[node].append(self.started)

    def delete(self, node: str, n: int) -> None:
        for pod in self.pods[node][:n]:
            self.cni.delete(node, "default", f"p{pod}", f"s{pod}")
            self.released[node, self.held.pop((node, pod))] = self.clock.now
        del self.pods[node][:n]

    def check(self) -> None:
        used = self.others
        everywhere: list[int] = []
        for name, instance in self.network.instances.items():
            assert len(instance.enis) <= MAX_ENIS
            assert instance.enis[0] is instance.primary, "the primary was freed"
            for eni in instance.enis.values():
                assert len(eni.items) <= IPS - 1
                everywhere += [eni.address, *eni.all_addresses()]
            enis, total, assigned, cooling = self.cni.pool_stats(name)
            limit = self.cni.address_limit(name)
            if self.foreign:  # taken over, MAX_ENI or not
                limit = MAX_ENIS * self.cni.addresses_per_eni(name)
            assert assigned + cooling <= total <= limit or total == 0
            assert enis <= MAX_ENIS
            row = self.cni.nodes[name]
            if row.datastore is not None:
                for eni_row in row.datastore.enis.values():
                    held = [a for _, a, eni_id in self.cni.assignments(name) if eni_id == eni_row.id]
                    room = eni_row.total(False) + eni_row.total(True)
                    assert len(held) == len(set(held)) <= room
        for eni in self.network.detached.values():
            everywhere += [eni.address, *eni.all_addresses()]
        assert len(everywhere) == len(set(everywhere)), "an address on two ENIs"
        used += len(everywhere)
        assert self.subnet.free + used + RESERVED == self.subnet.size
        masks = sum(mask.bit_count() for mask in self.subnet.blocks)
        assert masks == used + RESERVED
        assert self.subnet.free_blocks == sum(mask == 0 for mask in self.subnet.blocks)

    def check_calls(self, plain: bool) -> None:
        """Per turn at most one successful Assign or new ENI and one ENI freed; none freed within its first minute."""
        for name in NODES:
            done = [c for c in self.calls if c.node == name and not c.error]
            # before v1.15.4 a new ENI gets its addresses by an Assign of its own
            apis = ("AssignPrivateIpAddresses", "AttachNetworkInterface")
            growth = [c.end_s for c in done if c.api in (apis if self.with_addresses else apis[1:])]
            frees = [c.start_s for c in done if c.api == "DetachNetworkInterface"]
            shrinks = sorted({c.start_s for c in done if c.api == "UnassignPrivateIpAddresses"})
            if plain:
                assert all(b - a > 2.0 for a, b in pairwise(growth))
                assert all(b - a > 2.0 for a, b in pairwise(frees))
                assert all(b - a > 30.0 for a, b in pairwise(shrinks))
                attached: dict[int, float] = {}
                for call in done:
                    if call.api == "AttachNetworkInterface":
                        attached[call.device] = call.end_s
                    elif call.api == "DetachNetworkInterface":
                        assert call.start_s - attached.get(call.device, 0.0) >= 60.0 - 1e-6


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from((0.0, 0.7, 5.001, 12.0, 30.0, 31.0, 65.0, 200.0)),
        st.sampled_from(NODES),
        st.sampled_from(("add", "add", "delete", "take", "release", "lose", "foreign", "fault", "restart", "cordon")),
        st.integers(1, 20),
    ),
    max_size=25,
)
ENVIRONMENTS = st.sampled_from(
    (
        {},
        {"WARM_IP_TARGET": "2", "MINIMUM_IP_TARGET": "4"},
        {"WARM_ENI_TARGET": "0"},
        {"MAX_ENI": "2"},
        {"ENABLE_PREFIX_DELEGATION": "true"},
        {"ENABLE_PREFIX_DELEGATION": "true", "WARM_IP_TARGET": "5"},
        {"IP_COOLDOWN_PERIOD": "5"},
    )
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.sampled_from(("v1.7.5", "v1.9.0", "v1.23.1")),
    ENVIRONMENTS,
    st.integers(0, 1 << 20),
    st.sampled_from(("none", "default")),
    ACTIONS,
)
def test_invariants_of_a_random_walk(
    version: str, env: dict[str, str], seed: int, latency: str, actions: list[tuple[float, str, str, int]]
) -> None:
    """Addresses, ENIs and the subnet's arithmetic, after every step."""
    world = World(version, env, seed, latency)
    when = 10.0
    reused = False
    for delay, node, what, n in actions:
        when += delay
        world.clock.run_until(when)
        world.check()
        instance = world.network.instances[node]
        if what in ("lose", "restart"):
            # lost addresses may come back while their pod still believes to have them; cool-downs end with a restart
            reused = True
        if what == "add" and not reused:
            world.add(node, n)
        elif what == "delete":
            world.delete(node, n)
        elif what == "take":
            world.others += world.ec2.take_addresses(world.subnet, n)
        elif what == "release":
            world.others -= world.ec2.release_addresses(world.subnet, n)
        elif what == "lose":
            world.ec2.lose_items(instance, n % 3, n % 4, prefixes=n % 2 == 0)
            world.ec2.lose_eni(instance, 1 + n % 2)
        elif what == "foreign":
            world.foreign = True
            world.ec2.attach_foreign_eni(instance, world.subnet, addresses=n % 5)
        elif what == "fault":
            world.ec2.faults.add(Fault("CreateNetworkInterface", "InternalFailure", count=n, node=node))
        elif what == "restart":
            world.cni.restart_node(node)
        elif what == "cordon":
            world.store.cordon_node(world.store.nodes[node], n % 2 == 0)
        world.check()
    world.clock.run_until(when + 300.0)
    world.check()
    kinds = {what for _, _, what, _ in actions}
    world.check_calls(plain=not kinds & {"lose", "foreign", "restart", "fault"})


@pytest.mark.parametrize("version", ["v1.7.5", "v1.23.1"])
def test_the_same_seed_gives_the_same_calls(version: str) -> None:
    """Two runs with one seed are equal to the last microsecond; another seed is not."""
    pictures: list[Any] = []
    for seed in (5, 5, 6):
        world = World(version, {}, seed, "default")
        for i in range(8):
            world.clock.run_until(20.0 * (i + 1))
            world.add("n0", 3)
        pictures.append([(c.api, c.node, c.start_s, c.end_s, tuple(c.items)) for c in world.calls])
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_prefix_is_sixteen_addresses_of_the_subnet() -> None:
    world = World("v1.23.1", {"ENABLE_PREFIX_DELEGATION": "true"}, 1, "none")
    world.clock.run_until(10.0)
    items = [item for eni in world.network.enis.values() for item in eni.items]
    assert all(item >= PREFIX for item in items)
    assert world.subnet.used == len(NODES) + PREFIX_SIZE * len(items)
