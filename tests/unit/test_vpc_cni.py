"""The VPC CNI in a cluster: worked examples, starts and restarts, the plugin, faults, and when it is quiet."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from eksim.aws.ec2 import Call, Ec2
from eksim.aws.faults import Fault
from eksim.aws.vpc import Sequential
from eksim.cni.vpc_cni import VpcCni
from eksim.engine.clock import Clock
from eksim.engine.latency import latencies
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.names import host_veth_name
from eksim.state.changes import Verb
from eksim.state.network import PREFIX, Instance, Network, Subnet
from eksim.state.objects import Node
from eksim.state.store import Store
from eksim.versions import CniRules

NO_SWEEP = {"DISABLE_LEAKED_ENI_CLEANUP": "true"}
TYPES = {"t3.small": (3, 4, 11), "t3.medium": (3, 6, 17), "m5.large": (3, 10, 29)}


class World:
    """A few nodes of one type in one subnet; no latencies unless asked for."""

    def __init__(
        self,
        env: dict[str, str] | None = None,
        *,
        type: str = "t3.medium",
        nodes: int = 1,
        version: str = "v1.23.1",
        max_pods: int | None = None,
        prefix_length: int = 20,
        latency: str = "none",
        seed: int = 1,
        start: bool = True,
    ) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        streams = Streams(seed)
        self.network = Network(self.store)
        times = latencies(latency)
        self.ec2 = Ec2(self.clock, self.store, self.network, streams, times, placement=Sequential())
        self.cni = VpcCni(
            self.clock, self.store, streams, self.ec2, CniRules.of(version), {**NO_SWEEP, **(env or {})}, times
        )
        self.calls: list[Call] = []
        self.notes: list[str] = []
        self.serving: list[tuple[str, float]] = []
        self.store.watch(Verb.EC2_CALL, lambda call, _: self.calls.append(call))
        self.store.watch(Verb.NOTE, lambda text, _: self.notes.append(text))
        self.subnet = self.network.add_subnet(Subnet("a", 192 << 24 | 168 << 16, prefix_length))
        enis, ips, pods = TYPES[type]
        for i in range(nodes):
            self.ec2.launch_instance(f"n{i}", f"i-{i}", self.subnet, type=type, max_enis=enis, ipv4_per_eni=ips)
            self.store.add_node(Node(f"n{i}", {"pods": max_pods or pods}))
            self.cni.add_node(f"n{i}")
            if start:
                self.cni.start_node(f"n{i}", lambda name: self.serving.append((name, self.clock.now)))
        self.until(0.0)

    def until(self, when: float) -> None:
        self.clock.run_until(when)

    def add(self, *pods: int, node: str = "n0") -> list[str | Refused]:
        return [self.cni.add(node, "default", f"pod-{pod}", f"sandbox-{pod}") for pod in pods]

    def delete(self, *pods: int, node: str = "n0") -> None:
        for pod in pods:
            self.cni.delete(node, "default", f"pod-{pod}", f"sandbox-{pod}")

    def enis(self, node: str = "n0") -> int:
        return len(self.network.instances[node].enis)

    def shape(self, node: str = "n0") -> tuple[int, int]:
        """(ENIs, addresses for pods)."""
        stats = self.cni.pool_stats(node)
        return stats[0], stats[1]

    def names(self, since_s: float = 0.0) -> list[str]:
        return [call.api for call in self.calls if call.start_s >= since_s]


# -- worked examples of the CNI's documentation ------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1.7.5", "v1.9.0", "v1.23.1"])
@pytest.mark.parametrize(("pods", "shape"), [(0, (1, 5)), (1, (2, 10)), (5, (2, 10)), (6, (3, 15)), (15, (3, 15))])
def test_worked_example_2_grows(version: str, pods: int, shape: tuple[int, int]) -> None:
    """t3.medium, defaults: 0 pods 1 ENI, 1–5 pods 2 ENIs, 6–15 pods 3 ENIs; never more."""
    world = World(version=version)
    left = list(range(pods))
    for second in range(1, 40):
        left = [pod for pod in left if isinstance(world.add(pod)[0], Refused)]
        world.until(float(second))
    assert left == []
    assert world.shape() == shape


def test_worked_example_2_shrinks() -> None:
    """Back to 0 pods, all cooled and older than 60 s: one ENI a turn, until one is left."""
    world = World()
    for second in range(0, 30, 5):
        world.add(*range(15))
        world.until(float(second))
    assert world.shape() == (3, 15)
    world.until(100.0)
    world.delete(*range(15))
    world.until(130.0)
    assert world.shape() == (3, 15)
    world.until(145.0)
    assert world.shape() == (1, 5)
    freed = [call.start_s for call in world.calls if call.api == "DetachNetworkInterface"]
    assert len(freed) == 2
    assert freed[1] - freed[0] == pytest.approx(7.001)  # 2 s pause, then the next turn
    world.until(1000.0)
    assert world.enis() == 1


def test_worked_example_3() -> None:
    """t3.small, WARM_IP_TARGET=2, MINIMUM_IP_TARGET=5: asks 5, gets 3, then a second ENI with 2."""
    world = World({"WARM_IP_TARGET": "2", "MINIMUM_IP_TARGET": "5"}, type="t3.small")
    assert world.shape() == (1, 3)
    world.until(10.0)
    assert world.shape() == (2, 5)
    assert [c.count for c in world.calls if c.api == "AssignPrivateIpAddresses"] == [3]
    assert [c.count for c in world.calls if c.api == "CreateNetworkInterface"] == [2]


def test_worked_example_4() -> None:
    """t3.small with prefixes, WARM_PREFIX_TARGET=1: 16 pods need two, the 17th brings the third."""
    world = World({"ENABLE_PREFIX_DELEGATION": "true"}, type="t3.small", max_pods=110)
    assert world.shape() == (1, 16)
    world.add(*range(16))
    world.until(20.0)
    assert world.shape() == (1, 32)
    world.add(16)
    world.until(30.0)
    assert world.shape() == (1, 48)


def test_worked_example_5() -> None:
    assert host_veth_name("kube-system", "coredns-57ff979f67-qqbdh") == "enib5faff8a083"


def test_worked_example_6() -> None:
    """t3.medium with max-pods 110 and no prefixes: the 16th pod fails until another ends and 30 s have passed."""
    world = World(max_pods=110)
    for second in range(0, 30, 5):
        world.add(*range(15))
        world.until(float(second))
    assert world.add(15) == [Refused("NoAddress", "add cmd: failed to assign an IP address to container")]
    world.until(100.0)
    world.delete(3)
    world.until(130.0)
    assert isinstance(world.add(15)[0], Refused)
    world.until(130.1)
    assert isinstance(world.add(15)[0], str)


def test_growth_stops_at_max_pods_since_v1_16_3() -> None:
    for version, shape in (("v1.16.2", (3, 27)), ("v1.23.1", (2, 18))):
        world = World(type="m5.large", max_pods=11, version=version)
        for second in range(0, 30, 5):
            world.add(*range(10))
            world.until(float(second))
        assert world.shape() == shape


# -- starts ------------------------------------------------------------------------------------------------------


def test_a_fresh_node_has_its_primary_filled_when_it_turns_ready() -> None:
    world = World(latency="default")
    world.until(20.0)
    ((name, at_s),) = world.serving
    assert name == "n0"
    assert world.names() == [
        "DescribeNetworkInterfaces",
        "CreateTags",
        "DescribeSubnets",
        "ModifyNetworkInterfaceAttribute",
        "AssignPrivateIpAddresses",
    ]
    assert at_s == world.calls[-1].end_s
    assert world.shape() == (1, 5)
    assert world.cni.is_quiet("n0")


def test_before_it_serves_the_plugin_cannot_reach_it() -> None:
    world = World(start=False)
    answer = world.add(1)[0]
    assert isinstance(answer, Refused)
    assert answer.message.startswith("add cmd: Error received from AddNetwork gRPC call: rpc error: code = Unavailable")
    assert "ipamd.sock" in answer.message
    old = World(start=False, version="v1.9.0").add(1)[0]
    assert isinstance(old, Refused)
    assert "127.0.0.1:50051" in old.message


def test_an_assign_error_at_the_start_crashes_aws_node_which_comes_back() -> None:
    """Tried again after 10 s, 20 s, …; the SDK's own three tries come first."""
    world = World(start=False)
    world.ec2.faults.add(Fault("AssignPrivateIpAddresses", "UnauthorizedOperation", count=4))
    world.cni.start_node("n0", lambda name: world.serving.append((name, world.clock.now)))
    world.until(100.0)
    assert world.notes == ["aws-node on n0 failed to start: error while trying to increase datastore pool"] * 2
    assert world.serving == [("n0", 30.0)]


def test_throttling_is_retried_by_the_sdk_before_ipamd_hears_of_it() -> None:
    for version, refusals, fails in (("v1.23.1", 2, False), ("v1.23.1", 3, True), ("v1.7.5", 15, False)):
        world = World(start=False, version=version)
        world.ec2.faults.add(Fault("DescribeNetworkInterfaces", "RequestLimitExceeded", count=refusals))
        world.cni.start_node("n0")
        world.until(3000.0)
        described = [c for c in world.calls if c.api == "DescribeNetworkInterfaces" and c.error]
        assert len(described) == refusals
        gave_up = version == "v1.23.1" and refusals > 2
        assert gave_up == fails
        assert world.cni.is_serving("n0")


def test_settings_that_the_container_refuses() -> None:
    world = World({"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "0"})
    world.until(60.0)
    assert not world.cni.is_serving("n0")
    assert world.cni.is_quiet("n0")  # no retry can help
    assert all("WARM_PREFIX_TARGET = 0 is not supported" in note for note in world.notes)
    world.cni.set_env({"WARM_PREFIX_TARGET": "1"})
    world.until(61.0)
    assert world.cni.is_serving("n0")


def test_a_restart_takes_over_the_checkpoint_and_drops_pods_that_ended_meanwhile() -> None:
    world = World(latency="default")
    world.until(10.0)
    first = world.add(1, 2, 3)
    world.until(40.0)
    world.cni.restart_node("n0")
    world.delete(2)
    assert isinstance(world.add(4)[0], Refused)
    world.until(60.0)
    assert len(world.serving) == 2
    assert sorted(key for key, _, _ in world.cni.assignments("n0")) == ["sandbox-1", "sandbox-3"]
    assert world.add(1) == first[:1]
    world.delete(1, 3)
    assert world.cni.pool_stats("n0")[2:] == (0, 2)


def test_a_restart_cuts_a_turn_short_but_not_the_request_that_is_out() -> None:
    world = World(latency="default")
    world.until(10.0)
    world.add(1)
    while not any(call.api == "CreateNetworkInterface" for call in world.calls):
        world.clock.run_instant()
    world.cni.restart_node("n0")  # DescribeInstances is out
    world.until(200.0)
    apis = world.names()
    assert apis.count("DescribeInstances") >= 1
    assert len(world.network.detached) == 1  # the ENI that nobody attached: leaked until the sweep


def test_switching_prefixes_on_returns_what_is_unused() -> None:
    world = World(type="m5.large", max_pods=110)
    world.until(10.0)
    world.add(1, 2)
    world.until(40.0)
    assert world.shape() == (2, 18)
    world.cni.set_env({"ENABLE_PREFIX_DELEGATION": "true"})
    world.until(41.0)
    instance = world.network.instances["n0"]
    secondaries = sum(item < PREFIX for eni in instance.enis.values() for item in eni.items)
    assert secondaries == 2
    assert world.cni.pool_stats("n0")[1:3] == (16, 0)
    assert world.cni.addresses_per_eni("n0") == 9 * 16


def test_the_leak_sweep_deletes_what_was_never_attached() -> None:
    world = World({"DISABLE_LEAKED_ENI_CLEANUP": "false"}, nodes=2)
    world.ec2.faults.add(Fault("AttachNetworkInterface", "InternalFailure", node="n0", count=1))
    world.ec2.faults.add(Fault("DeleteNetworkInterface", "InternalFailure", node="n0", count=12))
    world.add(1)
    world.until(1200.0)
    assert len(world.network.detached) == 1
    world.until(2 * 3900.0)
    assert len(world.network.detached) == 0
    sweeps = [c.start_s for c in world.calls if c.background and c.node == "n0"]
    assert sweeps[0] < 300.0
    assert all(3600.0 <= b - a < 3900.1 for a, b in pairwise(sweeps))


# -- cordons, dead ends, quiet -----------------------------------------------------------------------------------


def test_a_cordoned_node_neither_grows_nor_frees_until_it_is_uncordoned() -> None:
    world = World()
    node = world.store.nodes["n0"]
    world.store.cordon_node(node, True)
    world.add(1)
    world.until(60.0)
    assert world.shape() == (1, 5)
    assert world.cni.is_quiet("n0")
    world.store.cordon_node(node, False)
    assert world.clock.next_time() <= 65.0
    world.until(70.0)
    assert world.shape() == (2, 10)
    old = World(version="v1.11.2")
    old.store.cordon_node(old.store.nodes["n0"], True)
    old.add(1)
    old.until(60.0)
    assert old.shape() == (2, 10)


def test_a_dry_subnet_is_a_dead_end_and_quiet_though_it_is_tried_again() -> None:
    world = World(prefix_length=27)
    world.ec2.take_addresses(world.subnet, world.subnet.free)
    world.add(*range(5))
    world.until(300.0)
    tries = [c.start_s for c in world.calls if c.api == "CreateNetworkInterface"]
    assert len(tries) > 2
    assert all(b - a > 120.0 for a, b in pairwise(tries))
    assert world.cni.is_quiet("n0")
    world.ec2.release_addresses(world.subnet, 6)
    assert not world.cni.is_quiet("n0")
    world.until(500.0)
    assert world.shape() == (2, 10)


def test_without_room_for_an_eni_the_failing_calls_come_every_turn() -> None:
    world = World({"MAX_ENI": "1"}, prefix_length=28)
    world.ec2.take_addresses(world.subnet, world.subnet.free)
    world.ec2.lose_items(world.network.instances["n0"], 0, 2)
    world.ec2.take_addresses(world.subnet, 2)
    world.until(80.0)
    before = len(world.calls)
    world.until(130.0)
    after = world.names()[before:]
    assert after == ["AssignPrivateIpAddresses"] * 20
    assert world.cni.is_quiet("n0")


def test_a_fault_that_passes_is_waited_for_and_one_that_lasts_is_not() -> None:
    for until_s, quiet in ((200.0, False), (float("inf"), True)):
        world = World()
        world.ec2.faults.add(Fault("CreateNetworkInterface", "UnauthorizedOperation", until_s=until_s))
        world.add(1)
        world.until(50.0)
        assert world.cni.is_quiet("n0") == quiet
        world.until(250.0)
        assert (world.shape() == (2, 10)) == (not quiet)


def test_an_eni_that_will_be_freed_keeps_the_node_from_being_quiet() -> None:
    world = World()
    world.add(1)
    world.until(20.0)
    world.delete(1)
    assert not world.cni.is_quiet("n0")
    world.until(90.0)
    assert world.shape() == (1, 5)
    assert world.cni.is_quiet("n0")
    assert world.clock.next_time() == float("inf")


def test_an_idle_cluster_costs_nothing() -> None:
    world = World(nodes=20)
    world.until(10.0)
    assert world.clock.next_time() == float("inf")
    world.until(86400.0)
    assert len(world.calls) == 100
    assert 86400.0 - 60.012 < world.cni.marks("n7")[0] <= 86400.0


# -- behind its back ---------------------------------------------------------------------------------------------


def test_a_lost_eni_is_noticed_within_a_minute_and_replaced() -> None:
    world = World()
    world.add(*range(6))
    world.until(10.0)
    world.add(*range(6))
    world.until(20.0)
    assert world.shape() == (3, 15)
    lost = world.network.instances["n0"].enis[2].id
    world.ec2.lose_eni(world.network.instances["n0"], 2)
    world.until(60.0)
    assert world.shape() == (3, 15)
    world.until(80.0)
    assert world.shape() == (3, 15)
    assert lost not in {eni.id for eni in world.network.instances["n0"].enis.values()}
    assert [c.start_s for c in world.calls if c.api == "CreateNetworkInterface"][-1] > 60.0


def test_lost_addresses_are_believed_even_if_a_pod_uses_them() -> None:
    world = World({"WARM_ENI_TARGET": "0"})
    world.add(*range(5))
    world.ec2.lose_items(world.network.instances["n0"], 0, 5)
    world.until(70.0)
    assert world.cni.assignments("n0") == []


def test_a_foreign_eni_is_taken_over_unless_it_is_tagged() -> None:
    for tags, shape in (({}, (2, 9)), ({"node.k8s.amazonaws.com/no_manage": "true"}, (1, 5))):
        world = World()
        world.until(10.0)
        world.ec2.attach_foreign_eni(world.network.instances["n0"], world.subnet, addresses=4, tags=tags)
        world.until(75.0)
        assert world.shape() == shape
        assert world.cni.address_limit("n0") == (15 if not tags else 10)


def test_a_fragmented_subnet_has_no_prefix_though_hundreds_of_addresses_are_free() -> None:
    world = World({"ENABLE_PREFIX_DELEGATION": "true"}, prefix_length=24, start=False, max_pods=110)
    world.ec2.take_addresses(world.subnet, 0, offsets=range(21, 240, 16))
    world.cni.start_node("n0")
    world.until(60.0)
    assert world.subnet.free > 200
    assert world.shape() == (1, 0)
    errors = {(c.api, c.error) for c in world.calls if c.error}
    assert errors == {
        ("AssignPrivateIpAddresses", "InsufficientCidrBlocks"),
        ("CreateNetworkInterface", "InvalidParameterValue"),
    }


def test_many_nodes_that_want_an_eni_at_once_are_throttled() -> None:
    """The account's buckets are shared: many hear RequestLimitExceeded, and all come through in the end."""
    world = World(nodes=150)
    world.until(100.0)  # the start itself is throttled too, and some nodes came late
    for i in range(150):
        world.add(i, node=f"n{i}")
    before = len(world.calls)
    world.until(106.0)
    refused = {c.api for c in world.calls[before:] if c.error == "RequestLimitExceeded"}
    assert refused
    world.until(600.0)
    assert all(world.shape(f"n{i}") == (2, 10) for i in range(150))


# -- the plugin --------------------------------------------------------------------------------------------------


def test_every_change_of_an_address_is_told_to_the_store() -> None:
    world = World()
    heard: list[tuple[str, Any]] = []
    for verb in (Verb.ADDRESS_ASSIGNED, Verb.ADDRESS_RELEASED):
        world.store.watch(verb, lambda node, detail, verb=verb: heard.append((verb.name, node, *detail)))
    (address,) = world.add(1)
    world.add(1)
    world.delete(1)
    world.delete(1)
    world.delete(2)
    assert [h[0] for h in heard] == ["ADDRESS_ASSIGNED", "ADDRESS_RELEASED"]
    assert heard[0][1:] == ("n0", *heard[1][2:])
    assert heard[0][3:] == ("sandbox-1", "default", "pod-1")
    assert isinstance(address, str)
    assert address.startswith("192.168.0.")


def test_the_type_s_limit_in_the_cni_s_table_may_be_above_ec2_s() -> None:
    """ipamd then goes on asking for an ENI that EC2 does not attach."""
    world = World(start=False)
    world.cni.nodes["n0"].eni_limit = 4
    world.cni.start_node("n0")
    for second in range(0, 40, 5):
        world.add(*range(15))
        world.until(float(second))
    assert world.enis() == 3
    assert any(c.error == "AttachmentLimitExceeded" for c in world.calls)
    assert world.cni.address_limit("n0") == 15


def test_a_removed_node_s_ipamd_does_nothing_more() -> None:
    world = World(latency="default")
    world.until(10.0)
    world.add(1)
    while not any(call.api == "CreateNetworkInterface" for call in world.calls):
        world.clock.run_instant()
    world.cni.remove_node("n0")
    world.ec2.terminate_instance("n0")
    world.until(100.0)
    assert world.names().count("AttachNetworkInterface") == 0
    world.delete(1)
    assert isinstance(world.network.instances.get("n0"), (Instance, type(None)))
