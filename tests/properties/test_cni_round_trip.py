"""What the simulation's ipamd does when it chooses freely can be followed: recorded in the recordings' format, it replays."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eksim.cni.datastore import Datastore
from eksim.cni.gomap import MapOrder
from eksim.cni.sdk import Waits
from eksim.engine.streams import Streams
from eksim.testing.replay_cni import Replay, replay_trace

TYPES = (("t3.medium", 3, 6, 17), ("t3.nano", 2, 2, 4), ("m5.large", 3, 10, 29))
APIS = (
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "CreateTags",
    "DeleteNetworkInterface",
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DetachNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "UnassignPrivateIpAddresses",
    "metadata",
)
LATENCY = {api: 0.1 + 0.05 * i for i, api in enumerate(APIS[:-1])}


class FreeRun(Replay):
    """The same world, choosing as Go would, and writing down what happens."""

    def __init__(self, trace: dict[str, Any], seed: int) -> None:
        super().__init__(trace)
        streams = Streams(seed)
        free = MapOrder(streams["order"])
        self.ipamd.order = free
        self.ipamd.aws.sdk.waits = Waits(streams["waits"])

    def record_step(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        step: dict[str, Any] = {"t": self.clock.now, "op": op, "args": args, "state": {"api_calls": [], "ec2_calls": []}}
        if op == "assign":
            step["result"] = {"at": [None] * len(args["pods"])}
        self.record.begin(step)
        result = self._do(step)
        step.pop("result", None)
        if result is not None:
            step["result"] = result
        step["t_end"] = self.clock.now
        step["state"] = {**self._state(), "api_calls": self.record.api_calls, "ec2_calls": self.record.ec2_calls}
        return _rounded(step)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items() if not (k == "unmanaged" and v == 0)}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return value


def _op(op: str, /, **args: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[str, dict[str, Any]]]:
    return st.tuples(st.just(op), st.fixed_dictionaries(args))


def _pods(most: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(1, 40), min_size=1, max_size=most, unique=True)


DEVICE = st.integers(0, 2)
LATER_DEVICE = st.integers(1, 2)
FEW = st.integers(0, 7)
OPERATIONS = st.one_of(
    _op("tick"),
    _op("ticks", n=st.integers(2, 30)),
    _op("assign", pods=_pods(12)),
    _op("unassign", pods=_pods(20)),
    _op("advance", seconds=st.sampled_from((1, 30, 60, 120))),
    _op("subnet_take", n=st.integers(1, 60)),
    _op("subnet_release", n=st.integers(1, 60)),
    _op(
        "ec2_fail",
        api=st.sampled_from(APIS),
        code=st.sampled_from(("RequestLimitExceeded", "InsufficientFreeAddressesInSubnet", "InternalError")),
        count=st.integers(1, 13),
        after=st.integers(0, 2),
    ),
    _op("cordon"),
    _op("uncordon"),
    _op("eni_lost", device=LATER_DEVICE),
    _op("eni_detach", device=LATER_DEVICE),
    _op("ips_lost", device=DEVICE, n=FEW),
    _op("ips_added", device=DEVICE, n=FEW, kind=st.sampled_from(("", "prefix"))),
    _op("eni_attach", n=FEW),
    _op("eni_attach", n=FEW, prefixes=st.integers(0, 2), no_manage=st.sampled_from(("true", "no"))),
    _op("subnet_tag", subnet=st.just(1), value=st.sampled_from(("0", "1"))),
    _op(
        "metadata_lag",
        eni=st.sampled_from((0, 0.5, 90)),
        cidr=st.sampled_from((0, 1)),
        remove=st.sampled_from((0, 100)),
    ),
    _op(
        "restart",
        down=st.sampled_from((0, 5, 40)),
        gone=st.lists(st.integers(1, 40), max_size=5, unique=True),
        mode=st.sampled_from(("", "secondary-ip", "prefix")),
    ),
)

TRACES = st.fixed_dictionaries(
    {
        "version": st.sampled_from(("v1.7.5", "v1.9.0", "v1.23.1", "v1.23.1")),
        "type": st.sampled_from(TYPES),
        "mode": st.sampled_from(("secondary-ip", "prefix")),
        "env": st.sampled_from(
            (
                {},
                {"WARM_IP_TARGET": "2"},
                {"WARM_PREFIX_TARGET": "1"},
                {"WARM_IP_TARGET": "3", "MINIMUM_IP_TARGET": "8"},
                {"WARM_ENI_TARGET": "0"},
                {"ENABLE_SUBNET_DISCOVERY": "false"},
                {"MANAGE_UNTAGGED_ENI": "false"},
            )
        ),
        "free": st.sampled_from((8, 60, 1000)),
        "subnets": st.booleans(),
        "latency": st.booleans(),
        "detach_delay": st.sampled_from((0, 0, 3)),
    }
)


def _trace(spec: dict[str, Any]) -> dict[str, Any]:
    name, enis, ips, max_pods = spec["type"]
    old = spec["version"] == "v1.7.5"
    trace: dict[str, Any] = {
        "id": "free",
        "family": "free",
        "cni_version": spec["version"],
        "instance": {"type": name, "max_eni": enis, "ipv4_per_eni": ips, "max_pods": max_pods},
        "mode": "secondary-ip" if old else spec["mode"],
        "env": spec["env"],
        "subnet": {"cidr": "10.0.0.0/20", "free": spec["free"]},
        "free_eni_pause": 2,
        "tick_work": 0.001,
        "detach_delay": spec["detach_delay"],
        "steps": [],
    }
    if spec["subnets"]:
        trace["more_subnets"] = [{"cidr": "10.0.16.0/20", "cni_tag": "1"}]
    if spec["latency"]:
        trace["ec2_latency"] = LATENCY
    return trace


@settings(max_examples=150, deadline=None, derandomize=True)
@given(TRACES, st.lists(OPERATIONS, max_size=25), st.integers(0, 1 << 20))
def test_a_free_run_replays(spec: dict[str, Any], operations: list[tuple[str, dict[str, Any]]], seed: int) -> None:
    """Every fact of a run with random choices and waits comes out again when the choices are followed."""
    trace = _trace(spec)
    run = FreeRun(trace, seed)
    steps = [run.record_step("init", {})]
    for op, args in operations:
        if op == "subnet_tag" and not spec["subnets"]:
            continue
        if op == "restart" and spec["version"] == "v1.7.5":
            args = {**args, "mode": ""}
        if op in ("tick", "ticks", "assign", "unassign") and run.node.datastore is None:
            continue
        if op == "ticks":
            steps += [run.record_step("tick", {}) for _ in range(args["n"])]
        else:
            steps.append(run.record_step(op, args))
    outcome = replay_trace({**trace, "steps": steps})
    assert outcome.difference is None


def _recorded(trace: dict[str, Any], operations: list[tuple[str, dict[str, Any]]], seed: int) -> dict[str, Any]:
    run = FreeRun(trace, seed)
    return {**trace, "steps": [run.record_step(op, args) for op, args in [("init", {}), *operations]]}


@pytest.mark.parametrize("seed", range(6))
def test_the_older_format_without_times_and_waits_replays(seed: int) -> None:
    """A failed Modify blocks the loop for minutes, of which the older recordings tell only the step's end."""
    fail = {"api": "ModifyNetworkInterfaceAttribute", "code": "InternalError", "count": 1}
    operations = [("ec2_fail", fail), ("assign", {"pods": [1, 2, 3]}), *[("tick", {})] * 3]
    trace = _recorded({**_trace(_PLAIN), "free_eni_pause": 0}, operations, seed)
    calls = [call for step in trace["steps"] for call in step["state"]["api_calls"]]
    assert any(call.get("err") == "no ENI and no error" for call in calls)
    for step in trace["steps"]:
        state = step["state"]
        for name in ("ec2", "unmanaged", "more_subnets_free", "more_subnets_free_prefixes"):
            state.pop(name, None)
        state["api_calls"] = [c for c in state["api_calls"] if c["c"] != "WaitForENIAndIPsAttached"]
        for call in [*state["api_calls"], *state["ec2_calls"]]:
            del call["at"]
    assert replay_trace(trace).difference is None


@pytest.mark.parametrize("seed", range(6))
def test_a_lost_eni_and_its_successor_of_the_same_device_are_told_apart(seed: int) -> None:
    """Until the reconcile both are in the datastore, and pods get addresses of either."""
    trace = _trace({**_PLAIN, "type": TYPES[0]})
    operations = [
        ("assign", {"pods": [1, 2]}),
        ("tick", {}),
        ("eni_lost", {"device": 1}),
        ("assign", {"pods": [3, 4, 5, 6]}),
        ("tick", {}),
        ("assign", {"pods": [7, 8, 9, 10]}),
    ]
    recorded = _recorded(trace, operations, seed)
    devices = [eni["device"] for eni in recorded["steps"][-1]["state"]["enis"]]
    assert devices == [0, 1, 1]
    assert replay_trace(recorded).difference is None


@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_that_waits_between_its_tries_replays(seed: int) -> None:
    """An ENI that could not be deleted is swept up later; the sweep's waits reach over the ends of steps."""
    trace = _trace({**_PLAIN, "type": TYPES[0]})
    run = FreeRun(trace, seed)
    run.clock.call_at(600.0, 2, run._start_sweep)
    fail = {"api": "AttachNetworkInterface", "code": "InternalError", "count": 1}
    cannot = {"api": "DeleteNetworkInterface", "code": "InternalError", "count": 16}
    operations = [("ec2_fail", fail), ("ec2_fail", cannot), ("assign", {"pods": [1]}), *[("tick", {})] * 70]
    steps = [run.record_step(op, args) for op, args in [("init", {}), *operations]]
    deleted = [c for step in steps[-30:] for c in step["state"]["ec2_calls"] if c["c"] == "DeleteNetworkInterface"]
    assert len(deleted) == 5
    assert replay_trace({**trace, "steps": steps}).difference is None


def test_datastores_of_a_free_run_draw() -> None:
    """The free run really draws: two seeds give pods different addresses."""
    seen = []
    for seed in (1, 2, 3, 4):
        run = FreeRun(_trace({**_PLAIN}), seed)
        run.record_step("init", {})
        assert isinstance(run.node.datastore, Datastore)
        seen.append(str(run.record_step("assign", {"pods": [1, 2, 3]})["result"]["at"]))
    assert len(set(seen)) > 1


_PLAIN: dict[str, Any] = {
    "version": "v1.23.1",
    "type": TYPES[2],
    "mode": "secondary-ip",
    "env": {},
    "free": 1000,
    "subnets": False,
    "latency": False,
    "detach_delay": 0,
}
