"""Rules of ipamd that stand in the real code and that no recording of the project shows, each with its source."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.cni.datastore import Datastore
from eksim.cni.gomap import MapOrder
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.testing.replay_cni import Replay
from eksim.versions import CniRules


def _world(version: str, mode: str, env: dict[str, str]) -> Replay:
    trace: dict[str, Any] = {
        "cni_version": version,
        "instance": {"type": "m5.large", "max_eni": 3, "ipv4_per_eni": 10, "max_pods": 110},
        "mode": mode,
        "env": env,
        "subnet": {"cidr": "10.0.0.0/20", "free": 4090},
        "free_eni_pause": 2,
        "tick_work": 0.001,
        "steps": [],
    }
    return Replay(trace)


def _do(world: Replay, op: str, **args: Any) -> list[str]:
    """Do a step without a record to follow; the EC2 calls that came of it."""
    step = {"op": op, "args": args, "state": {"enis": [], "api_calls": [], "ec2_calls": []}}
    if op == "assign":
        step["result"] = {"at": [None] * len(args["pods"])}
    world.record.begin(step)
    world._do({"op": op, "args": args})
    return [call["c"] for call in world.record.ec2_calls]


@pytest.mark.parametrize(
    ("version", "calls"),
    [
        # ipamd.go:increaseDatastorePool, v1.9.0 and v1.16.2: nothing is short of a target of 0, so the step ends at once
        ("v1.9.0", []),
        ("v1.16.2", []),
        # v1.16.3 on: one prefix, which an update without pods gives back
        ("v1.16.3", ["AssignPrivateIpAddresses", "AssignPrivateIpAddresses"]),
        ("v1.23.1", ["AssignPrivateIpAddresses", "AssignPrivateIpAddresses"]),
    ],
)
def test_a_warm_prefix_target_of_0_adds_nothing_in_old_releases(version: str, calls: list[str]) -> None:
    world = _world(version, "prefix", {"WARM_PREFIX_TARGET": "0"})
    done = [*_do(world, "init"), *_do(world, "tick"), *_do(world, "tick")]
    growth = [c for c in done if c in ("AssignPrivateIpAddresses", "CreateNetworkInterface", "AttachNetworkInterface")]
    assert growth == calls


@pytest.mark.parametrize(
    ("version", "error"),
    [
        # data_store.go:assignPodIPv4AddressUnsafe, v1.7.5: a panic
        ("v1.7.5", "addr already assigned"),
        # data_store.go:ReadBackingStore, v1.9.0
        ("v1.9.0", "datastore: IP already in data store"),
        # data_store.go:ReadAllDataStores, v1.23.1
        ("v1.23.1", "Error while reading datastore: datastore: IP already in data store"),
    ],
)
def test_two_checkpoint_entries_with_one_address_end_the_start(version: str, error: str) -> None:
    ds = Datastore("n", False, 30.0, CniRules.of(version), MapOrder(Streams(1)["order"]))
    eni = ds.add_eni("eni-0", 0, "s", 0.0, primary=True)
    ds.add_cidr(eni, 100)
    assert ds.restore("a", 100) is None
    assert ds.restore("b", 100) == Refused("", error)
    assert ds.restore("c", 101) is None, "an address on no ENI is dropped"
    assert (ds.stats().assigned, list(ds.by_key)) == (1, ["a"])

    world = _world(version, "secondary-ip", {})
    _do(world, "init")
    _do(world, "assign", pods=[1])
    address = world.node.ds.by_key["pod-1"][0]
    world.ipamd.stop(world.node)
    world.node.checkpoint["pod-2"] = address
    world.record.begin({"op": "restart", "state": {"enis": [], "api_calls": [], "ec2_calls": []}})
    assert world._do_init() == {"error": error}
    assert world.node.datastore is None
    # the entries stay in the file: the start works once the pod of one of them is gone
    assert world._do_restart(0, gone=[2]) is None
    assert list(world.node.ds.by_key) == ["pod-1"]
