"""Rules of ipamd that stand in the real code and that no recording of the project shows, each with its source."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.cni.datastore import Datastore
from eksim.cni.gomap import MapOrder
from eksim.cni.reconcile import finds_work
from eksim.cni.settings import atoi
from eksim.cni.subnets import is_excluded, is_subnet_valid_for_eni_creation
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.state.network import Subnet
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


def test_imds_only_mode_knows_no_tags_and_so_leaves_no_eni_alone() -> None:
    # awsutils.go:DescribeAllENIs, v1.23.1: an empty TagMap, no trunk and no EFA
    world = _world("v1.23.1", "secondary-ip", {"ENABLE_IMDS_ONLY_MODE": "true", "MANAGE_UNTAGGED_ENI": "false"})
    _do(world, "eni_attach", n=1, no_manage="true")
    world.instance.enis[1].type = "trunk"
    assert _do(world, "init") == ["DescribeSubnets", "DescribeSubnets"]
    assert world.node.unmanaged_count == 0
    assert world.node.ds.stats().total == 1
    assert not world.node.ds.has_trunk()


@pytest.mark.parametrize(("version", "alone"), [("v1.19.5", 1), ("v1.19.6", 0)])
def test_imds_only_mode_is_known_since_it_exists(version: str, alone: int) -> None:
    world = _world(version, "secondary-ip", {"ENABLE_IMDS_ONLY_MODE": "true", "MANAGE_UNTAGGED_ENI": "false"})
    _do(world, "eni_attach", n=1)
    calls = _do(world, "init")
    assert world.node.unmanaged_count == alone
    assert ("DescribeNetworkInterfaces" in calls, "CreateTags" in calls) == (alone == 1, alone == 1)


@pytest.mark.parametrize(("version", "alone"), [("v1.9.0", 0), ("v1.9.1", 1)])
def test_untagged_enis_can_be_left_alone_from_v1_9_1(version: str, alone: int) -> None:
    world = _world(version, "secondary-ip", {"MANAGE_UNTAGGED_ENI": "false"})
    _do(world, "eni_attach", n=1)
    _do(world, "init")
    assert world.node.unmanaged_count == alone


def test_with_custom_networking_prefixes_of_the_first_eni_are_not_read() -> None:
    # awsutils.go:getENIMetadata, v1.23.1
    world = _world("v1.23.1", "secondary-ip", {"AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": "true"})
    world.node.eni_config = "0"
    _do(world, "ips_added", device=0, n=1, kind="prefix")
    _do(world, "ips_added", device=0, n=1, kind="ip")
    # so a leftover prefix is not given back either
    assert "UnassignPrivateIpAddresses" not in _do(world, "init")
    first = next(eni for eni in world.node.ds.enis.values() if eni.primary)
    assert (first.prefixes, first.cidrs.count) == (0, 1)
    assert finds_work(world.node, world.clock.now) is False


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ('{"team": "a"}', {"team": "a"}),
        ('{"team": "a", "team": "b"}', {"team": "b"}),
        ('{"node.k8s.amazonaws.com/x": "1", "team": "a"}', {"team": "a"}),
        ('{"team": null}', {"team": ""}),
        ('{"team": 1}', {}),
        ('["team"]', {}),
        ("null", {}),
        ("team", {}),
    ],
)
def test_additional_eni_tags(text: str, tags: dict[str, str]) -> None:
    # awsutils.go:loadAdditionalENITags, v1.23.1
    world = _world("v1.23.1", "secondary-ip", {"ADDITIONAL_ENI_TAGS": text})
    _do(world, "init")
    assert world.instance.primary.tags == {"node.k8s.amazonaws.com/instance_id": "i-1", **tags}


def test_an_eni_gets_the_additional_tags_it_lacks_at_the_next_start() -> None:
    world = _world("v1.23.1", "secondary-ip", {})
    assert _do(world, "init").count("CreateTags") == 1
    assert _do(world, "restart", down=0).count("CreateTags") == 0
    assert _do(world, "restart", down=0, env={"ADDITIONAL_ENI_TAGS": '{"team": "a"}'}).count("CreateTags") == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+5", 5),
        ("-05", -5),
        ("9223372036854775807", (1 << 63) - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(1 << 63)),
        ("0" * 30 + "1", 1),
        ("1" * 5000, None),
        ("1_0", None),
        ("5 ", None),
    ],
)
def test_a_number_in_the_environment_is_one_of_64_bits(text: str, value: int | None) -> None:
    # strconv.Atoi; what it refuses is the default
    assert atoi(text) == value


@pytest.mark.parametrize(
    ("version", "counts", "attached"),
    [
        # ipamd.go:filterUnmanagedENIs, v1.22.4: the count of every look is added to those before
        ("v1.19.6", [1, 1, 1], 3),
        ("v1.20.0", [1, 2, 3], 2),
        ("v1.22.4", [1, 2, 3], 2),
        ("v1.23.0", [1, 1, 1], 3),
    ],
)
def test_from_v1_20_to_v1_22_enis_left_alone_take_ever_more_room(
    version: str, counts: list[int], attached: int
) -> None:
    world = _world(version, "secondary-ip", {"WARM_ENI_TARGET": "2"})
    _do(world, "eni_attach", n=1, no_manage="true")
    _do(world, "cordon")
    _do(world, "init")
    assert world.node.unmanaged_count == counts[0]
    for count in counts[1:]:
        _do(world, "advance", seconds=61)
        _do(world, "tick")
        assert world.node.unmanaged_count == count
    for _ in range(4):
        _do(world, "uncordon")
        _do(world, "tick")
    assert len(world.instance.enis) == attached
    assert world.node.unmanaged_count <= world.instance.max_enis


@pytest.mark.parametrize(
    ("version", "describes"),
    [
        # ipamd.go:tryAssignIPs: EC2 is asked what came of an Assign up to v1.11.3, then its answer is believed
        ("v1.9.0", 1),
        ("v1.11.3", 1),
        ("v1.11.4", 0),
        ("v1.18.2", 0),
        ("v1.23.1", 0),
    ],
)
def test_what_an_assign_gave_is_asked_again_by_old_releases_only(version: str, describes: int) -> None:
    world = _world(version, "secondary-ip", {})
    calls = _do(world, "init")
    assert calls[calls.index("AssignPrivateIpAddresses") :].count("DescribeNetworkInterfaces") == describes
    assert world.node.ds.stats().total == 9


@pytest.mark.parametrize(
    ("version", "calls", "total"),
    [
        # after PrivateIpAddressLimitExceeded: asks EC2 anyway
        ("v1.11.3", ["AssignPrivateIpAddresses", "DescribeNetworkInterfaces"], 9),
        # counts it as success and learns nothing, turn after turn
        ("v1.11.4", ["AssignPrivateIpAddresses"], 3),
        ("v1.12.2", ["AssignPrivateIpAddresses"], 3),
        # asks EC2 because of it
        ("v1.12.5", ["AssignPrivateIpAddresses", "DescribeNetworkInterfaces"], 9),
        ("v1.18.2", ["AssignPrivateIpAddresses", "DescribeNetworkInterfaces"], 9),
        ("v1.23.1", ["AssignPrivateIpAddresses", "DescribeNetworkInterfaces"], 9),
    ],
)
def test_an_eni_that_ec2_calls_full(version: str, calls: list[str], total: int) -> None:
    world = _world(version, "secondary-ip", {"WARM_IP_TARGET": "3"})
    _do(world, "init")
    _do(world, "ips_added", device=0, n=6, kind="ip")
    _do(world, "assign", pods=[1, 2, 3])
    assert _do(world, "tick") == calls
    assert world.node.ds.stats().total == total


@pytest.mark.parametrize(
    ("version", "paused"),
    [("v1.9.1", False), ("v1.10.1", False), ("v1.10.2", True), ("v1.11.0", True), ("v1.12.6", True)],
)
def test_a_start_in_a_dry_subnet_pauses_growth_or_fails(version: str, paused: bool) -> None:
    # ipamd.go:nodeInit, containsInsufficientCIDRsOrSubnetIPs: a single address missing counts from v1.10.2 on
    world = _world(version, "secondary-ip", {})
    _do(world, "subnet_take", n=5000)
    world.record.begin({"op": "init", "state": {"enis": [], "api_calls": [], "ec2_calls": []}})
    result = world._do_init()
    assert (result is None) == paused
    assert (world.node.last_insufficient_s == 0.0) == paused


def test_a_start_without_a_free_block_goes_on_from_v1_9_1() -> None:
    for version, goes_on in (("v1.9.0", False), ("v1.9.1", True), ("v1.12.6", True)):
        world = _world(version, "prefix", {"WARM_PREFIX_TARGET": "1"})
        _do(world, "subnet_take", n=5000)
        world.record.begin({"op": "init", "state": {"enis": [], "api_calls": [], "ec2_calls": []}})
        assert (world._do_init() is None) == goes_on, version


@pytest.mark.parametrize(
    ("version", "env", "enis"),
    [
        # ipamd.go:isNodeNonSchedulable is asked from v1.11.3 on, and can be overruled from v1.12.6 on
        ("v1.11.2", {}, 2),
        ("v1.11.3", {}, 1),
        ("v1.12.5", {"AWS_MANAGE_ENIS_NON_SCHEDULABLE": "true"}, 1),
        ("v1.12.6", {"AWS_MANAGE_ENIS_NON_SCHEDULABLE": "true"}, 2),
        ("v1.12.6", {}, 1),
    ],
)
def test_a_cordoned_node_does_not_grow_from_v1_11_3(version: str, env: dict[str, str], enis: int) -> None:
    world = _world(version, "secondary-ip", env)
    _do(world, "init")
    _do(world, "cordon")
    _do(world, "assign", pods=[1])
    _do(world, "tick")
    assert len(world.instance.enis) == enis


@pytest.mark.parametrize(("version", "touched"), [("v1.9.0", True), ("v1.9.1", False), ("v1.23.1", False)])
def test_without_provisioning_the_first_releases_still_tag_and_fill_at_the_start(version: str, touched: bool) -> None:
    # ipamd.go:nodeInit, v1.9.0 and v1.9.1
    world = _world(version, "secondary-ip", {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"})
    calls = _do(world, "init")
    assert ("CreateTags" in calls, "AssignPrivateIpAddresses" in calls) == (touched, touched)
    assert world.node.settings.leak_cleanup == touched
    _do(world, "assign", pods=[1, 2])
    assert "CreateNetworkInterface" not in _do(world, "tick"), "the loop adds nothing"


@pytest.mark.parametrize(
    ("version", "error"),
    [
        ("v1.11.2", "ipamd init: failed to retrieve attached ENIs info"),
        ("v1.11.3", "ipamd init: failed to retrieve attached ENIs info: UnauthorizedOperation: injected"),
        ("v1.19.3", "ipamd init: failed to retrieve attached ENIs info: UnauthorizedOperation: injected"),
        # AWS SDK v2
        ("v1.19.4", "ipamd init: failed to retrieve attached ENIs info: api error UnauthorizedOperation: injected"),
    ],
)
def test_why_a_start_failed(version: str, error: str) -> None:
    world = _world(version, "secondary-ip", {})
    _do(world, "ec2_fail", api="DescribeNetworkInterfaces", code="UnauthorizedOperation", count=12)
    world.record.begin({"op": "init", "state": {"enis": [], "api_calls": [], "ec2_calls": []}})
    assert world._do_init() == {"error": error}


@pytest.mark.parametrize(
    ("version", "before"),
    [
        # ipamd.go:New, nodeInit: the calls that come before the start's Assign
        ("v1.13.0", ["DescribeNetworkInterfaces", "CreateTags"]),
        ("v1.13.2", ["ModifyNetworkInterfaceAttribute", "DescribeNetworkInterfaces", "CreateTags"]),
        ("v1.13.4", ["DescribeNetworkInterfaces", "CreateTags", "ModifyNetworkInterfaceAttribute"]),
        ("v1.18.2", ["DescribeNetworkInterfaces", "CreateTags", "ModifyNetworkInterfaceAttribute"]),
    ],
)
def test_when_a_start_sets_the_security_groups(version: str, before: list[str]) -> None:
    calls = _do(_world(version, "secondary-ip", {}), "init")
    assert calls[: calls.index("AssignPrivateIpAddresses")] == before
    assert calls.count("ModifyNetworkInterfaceAttribute") == 1


@pytest.mark.parametrize(
    ("version", "error"),
    [
        # awsutils.go:RefreshSGIDs, v1.18.1 (metadata) and v1.18.2 (the datastore)
        ("v1.13.4", "DescribeAllENIs: failed to get local ENI metadata"),
        ("v1.18.1", "DescribeAllENIs: failed to get local ENI metadata"),
        ("v1.18.2", ""),
    ],
)
def test_where_the_enis_for_the_security_groups_come_from(version: str, error: str) -> None:
    world = _world(version, "secondary-ip", {})
    _do(world, "ec2_fail", api="metadata", code="InternalError", count=1, after=1)
    world.record.begin({"op": "init", "state": {"enis": [], "api_calls": [], "ec2_calls": []}})
    result = world._do_init()
    assert (result or {"error": ""})["error"].startswith(error)
    assert (result is None) == (error == "")


@pytest.mark.parametrize(("version", "sets"), [("v1.9.1", 0), ("v1.10.1", 1), ("v1.10.2", 0)])
def test_two_releases_set_security_groups_without_provisioning(version: str, sets: int) -> None:
    world = _world(version, "secondary-ip", {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"})
    assert _do(world, "init").count("ModifyNetworkInterfaceAttribute") == sets


@pytest.mark.parametrize(
    ("version", "tags", "cluster", "valid", "excluded"),
    [
        # awsutils.go:isSubnetValidForENICreation, IsSubnetExcluded: (as the node's own subnet, as another)
        ("v1.22.0", {"kubernetes.io/cluster/a": "shared"}, "b", (False, False), True),
        ("v1.22.0", {"kubernetes.io/cluster/a": "shared"}, "", (False, False), True),
        ("v1.22.0", {"kubernetes.io/cluster/a": "shared"}, "a", (True, False), False),
        ("v1.22.0", {"cni.networking.k8s.aws/cluster/a": ""}, "b", (True, False), False),
        ("v1.22.1", {"kubernetes.io/cluster/a": "shared"}, "b", (True, False), False),
        ("v1.22.1", {"cni.networking.k8s.aws/cluster/a": ""}, "b", (True, False), False),
        (
            "v1.22.1",
            {"cni.networking.k8s.aws/cluster/a": "", "kubernetes.io/role/cni": "1"},
            "b",
            (False, False),
            True,
        ),
        ("v1.22.1", {"cni.networking.k8s.aws/cluster/a": "", "kubernetes.io/role/cni": "1"}, "", (True, True), False),
    ],
)
def test_whose_subnet_it_is(
    version: str, tags: dict[str, str], cluster: str, valid: tuple[bool, bool], excluded: bool
) -> None:
    rules = CniRules.of(version)
    subnet = Subnet("s", 10 << 24, 24, tags=tags)
    seen = tuple(is_subnet_valid_for_eni_creation(subnet, own, cluster, rules) for own in (True, False))
    assert (seen, is_excluded(subnet, cluster, rules)) == (valid, excluded)
