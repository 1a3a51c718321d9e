"""The pool loop that sleeps while it has nothing to do has the same outcome as one that polls every turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eksim.aws.ec2 import Ec2
from eksim.aws.faults import Fault
from eksim.aws.vpc import Sequential
from eksim.cni.vpc_cni import VpcCni
from eksim.engine.clock import Clock
from eksim.engine.latency import latencies
from eksim.engine.streams import Streams
from eksim.state.changes import Verb
from eksim.state.network import Network, Subnet
from eksim.state.objects import Node
from eksim.state.store import Store
from eksim.versions import CniRules

VERSIONS = ("v1.7.5", "v1.9.0", "v1.12.6", "v1.16.0", "v1.23.1")
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    {},
    {"WARM_ENI_TARGET": "0"},
    {"WARM_IP_TARGET": "2"},
    {"WARM_IP_TARGET": "1", "MINIMUM_IP_TARGET": "7"},
    {"ENABLE_PREFIX_DELEGATION": "true"},
    {"ENABLE_PREFIX_DELEGATION": "true", "WARM_IP_TARGET": "3"},
    {"IP_COOLDOWN_PERIOD": "5"},
    {"ENABLE_SUBNET_DISCOVERY": "false"},
    {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"},
    {"ENABLE_POD_ENI": "true"},
)


class World:
    """One node on its own, and everything that can be seen of it."""

    def __init__(self, version: str, env: dict[str, str], latency: str, seed: int, *, polling: bool) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        streams = Streams(seed)
        self.network = Network(self.store)
        times = latencies(latency)
        self.ec2 = Ec2(self.clock, self.store, self.network, streams, times, placement=Sequential())
        self.cni = VpcCni(
            self.clock, self.store, streams, self.ec2, CniRules.of(version), env, times, polling=polling
        )
        self.seen: list[Any] = []
        self.store.watch(Verb.EC2_CALL, self._call)
        self.subnet = self.network.add_subnet(Subnet("a", 10 << 24, 25))
        self.ec2.launch_instance("n", "i-1", self.subnet, type="t3.medium", max_enis=3, ipv4_per_eni=6)
        self.store.add_node(Node("n", {"pods": 17}))
        self.cni.add_node("n")
        self.cni.start_node("n")
        self.pods: list[int] = []
        self.next = 0

    def _call(self, call: Any, _: Any) -> None:
        self.seen.append(
            (call.start_s, call.end_s, call.api, call.device, call.count, tuple(call.items), call.error)
        )

    def do(self, what: str, n: int) -> None:
        instance = self.network.instances["n"]
        if what == "add":
            for _ in range(n):
                self.seen.append(self.cni.add("n", "default", f"p{self.next}", f"s{self.next}"))
                self.pods.append(self.next)
                self.next += 1
        elif what == "delete":
            for pod in self.pods[:n]:
                self.cni.delete("n", "default", f"p{pod}", f"s{pod}")
            del self.pods[:n]
        elif what == "cordon":
            self.store.cordon_node(self.store.nodes["n"], n % 2 == 0)
        elif what == "lose eni":
            self.ec2.lose_eni(instance, 1 + n % 2)
        elif what == "lose addresses":
            self.ec2.lose_items(instance, n % 3, n, prefixes=n % 2 == 0)
        elif what == "foreign eni":
            self.ec2.attach_foreign_eni(
                instance,
                self.subnet,
                addresses=n % 4,
                tags={"node.k8s.amazonaws.com/no_manage": "true"} if n % 2 else {},
            )
        elif what == "take":
            self.ec2.take_addresses(self.subnet, 15 * n)
        elif what == "release":
            self.ec2.release_addresses(self.subnet, 15 * n)
        elif what == "fault":
            apis = ("AssignPrivateIpAddresses", "CreateNetworkInterface", "DetachNetworkInterface", "metadata",
                    "UnassignPrivateIpAddresses", "ModifyNetworkInterfaceAttribute")  # fmt: skip
            self.ec2.faults.add(Fault(apis[n % 6], "UnauthorizedOperation", count=1 + n % 3))
        elif what == "restart":
            self.cni.restart_node("n")

    def picture(self) -> Any:
        instance = self.network.instances["n"]
        return (
            self.seen,
            self.cni.pool_stats("n"),
            self.cni.marks("n"),
            sorted(self.cni.assignments("n")),
            sorted((device, eni.id, tuple(eni.items)) for device, eni in instance.enis.items()),
        )


STEPS = st.lists(
    st.tuples(
        st.floats(0.0, 90.0).map(lambda x: round(x, 3)) | st.sampled_from((0.0, 5.001, 30.0, 60.0, 120.0, 400.0)),
        st.sampled_from(
            ("add", "add", "add", "delete", "delete", "cordon", "lose eni", "lose addresses", "foreign eni", "take",
             "release", "fault", "restart")
        ),
        st.integers(1, 8),
    ),
    max_size=14,
)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
    st.sampled_from(VERSIONS),
    st.sampled_from(ENVIRONMENTS),
    st.sampled_from(("none", "default")),
    st.integers(0, 1 << 30),
    STEPS,
)
def test_sleeping_and_polling_agree(
    version: str, env: dict[str, str], latency: str, seed: int, steps: list[tuple[float, str, int]]
) -> None:
    """Every EC2 call with its time, every address given, every mark and what is left are the same."""
    worlds = [World(version, env, latency, seed, polling=polling) for polling in (False, True)]
    when = 4.0
    for delay, what, n in steps:
        when += delay
        for world in worlds:
            world.clock.run_until(when)
            world.do(what, n)
    for world in worlds:
        world.clock.run_until(when + 400.0)
    assert worlds[0].picture() == worlds[1].picture()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_idle_node_arms_nothing(version: str) -> None:
    """A node with a full pool and no pods has no timer, an hour's reconciles included, and its mark moves on.

    Before v1.13 the sweep of leaked ENIs cannot be switched off.
    """
    world = World(version, {"DISABLE_LEAKED_ENI_CLEANUP": "true"}, "none", 1, polling=False)
    world.clock.run_until(70.0)
    assert world.clock.next_time() == float("inf") or not CniRules.of(version).leak_cleanup_setting
    world.clock.run_until(3600.0)
    assert 3600.0 - 60.012 < world.cni.marks("n")[0] <= 3600.0
