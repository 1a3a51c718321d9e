"""What the real ipamd did in the recordings, the simulation's ipamd does too; and the replay would notice if not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from eksim.cni.gomap import GoMap
from eksim.testing.replay_cni import Replay, replay_cni_files, replay_trace
from eksim.testing.traces import read_recording

RECORDINGS = Path(__file__).parents[1] / "recordings" / "cni"
FILES = sorted(RECORDINGS.glob("**/*.json*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".json")[0])
def test_every_recorded_run_replays_without_a_difference(path: Path) -> None:
    outcomes = list(replay_cni_files([path]))
    assert outcomes
    assert [(o.id, o.difference) for o in outcomes if o.difference is not None] == []


def test_only_traces_of_the_mode_asked_for_are_replayed() -> None:
    both = len(list(replay_cni_files(FILES)))
    one, other = (len(list(replay_cni_files(FILES, mode=mode))) for mode in ("secondary-ip", "prefix"))
    assert one + other == both == 132
    assert one and other


#: A rule taken away, and a recording that must notice.
REMOVED: list[tuple[str, Any, str]] = [
    ("eksim.cni.ipamd.DECREASE_INTERVAL_S", 0.0, "m5_large_warm_ip_5.json"),
    ("eksim.cni.ipamd.INSUFFICIENT_PAUSE_S", 0.0, "subnet_exhaustion.json"),
    ("eksim.cni.eni.MIN_ENI_LIFETIME_S", 0.0, "m5_large_warm_ip_5.json"),
    ("eksim.cni.settings.DEFAULT_COOLDOWN_S", 0, "cooldown.json"),
    ("eksim.cni.reconcile.RECONCILE_INTERVAL_S", 30.0, "t3_medium_default.json"),
    ("eksim.cni.ipamd.RECONCILE_COOLDOWN_S", 600.0, "more/fail-unassign-m5.large-prefix-wip5.json.gz"),
    ("eksim.cni.datastore.PREFIX_SIZE", 8, "m5_large_prefix_default.json"),
    ("eksim.cni.ipamd.Ipamd.has_room_for_eni", lambda self, node: True, "more/waves-m5.large-maxeni3.json.gz"),
    ("eksim.cni.ipamd.Ipamd.is_node_non_schedulable", lambda self, node: False, "more/cordon-m5.large-default.json.gz"),
    ("eksim.cni.ipamd.growth_is_gated", lambda *args: True, "t3_medium_default.json"),
    ("eksim.cni.nodeinit._read_backing_store", lambda node: None, "paths/restart-t3.medium-down0-gone0.json.gz"),
    ("eksim.cni.awsutils.is_excluded", lambda *args: False, "paths/subnets-second-excluded-at-restart.json.gz"),
    ("eksim.cni.awsutils.MAX_TRIES", 3, "paths/metadata_lag-t3.medium-200.json.gz"),
]


@pytest.mark.parametrize(("rule", "instead", "recording"), REMOVED, ids=[rule.split(".")[-1] for rule, _, _ in REMOVED])
def test_without_the_rule_a_recording_differs(
    rule: str, instead: Any, recording: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, instead)
    assert [o for o in replay_cni_files([RECORDINGS / recording]) if o.difference is not None]


def _change(state: dict[str, Any], fact: str) -> bool:
    """Falsify one fact of a step's state; False if the step has none of the kind."""
    if fact in ("total", "assigned", "cooling", "prefixes", "subnet_free", "subnet_free_prefixes"):
        state[fact] += 1
    elif fact == "timers":
        if state["timers"]["last_pool_action"] is None:
            return False
        state["timers"]["last_pool_action"] += 0.01
    elif fact == "enis":
        state["enis"][-1]["ips_total"] += 1
    elif fact == "since":
        state["enis"][-1]["since"] += 1
    else:
        calls = [call for call in state[fact] if "n" in call]
        if not calls:
            return False
        calls[0]["n"] += 1
    return True


@pytest.mark.parametrize(
    "fact",
    ["total", "assigned", "cooling", "prefixes", "subnet_free", "subnet_free_prefixes", "timers", "enis", "since",
     "api_calls", "ec2_calls"],
)  # fmt: skip
def test_a_false_fact_is_found(fact: str) -> None:
    trace = copy.deepcopy(read_recording(RECORDINGS / "m5_large_warm_ip_5.json"))
    assert any(_change(step["state"], fact) for step in trace["steps"][10:])
    assert replay_trace(trace).difference is not None


def test_a_false_address_is_found() -> None:
    trace = copy.deepcopy(read_recording(RECORDINGS / "t3_medium_default.json"))
    step = next(s for s in trace["steps"] if s["op"] == "assign")
    step["result"]["at"][0][0] += 4000
    assert "result" in str(replay_trace(trace).difference)


def test_an_address_that_still_cools_cannot_be_chosen() -> None:
    """Following a record is no licence: a recorded choice that the rules forbid is a difference."""
    trace = copy.deepcopy(read_recording(RECORDINGS / "cooldown.json"))
    steps = trace["steps"]
    freed = next(i for i, s in enumerate(steps) if s["op"] == "unassign")
    address = steps[freed]["result"]["at"][0]
    again = {
        "t": steps[freed]["t"],
        "op": "assign",
        "args": {"pods": [999]},
        "result": {"ok": 1, "fail": 0, "at": [address]},
        "state": copy.deepcopy(steps[freed]["state"]) | {"api_calls": [], "ec2_calls": []},
    }
    steps.insert(freed + 1, again)
    assert f"step {freed + 1}" in str(replay_trace(trace).difference)


@pytest.mark.parametrize(
    ("result", "agrees"),
    [
        ({"device": 1, "ips": [11, 12], "prefixes": []}, True),
        ({"device": 1, "ips": [11, 12]}, True),
        ({"device": 1, "ips": 2, "prefixes": 0}, True),
        ({"device": 1}, False),
        ({"device": 1, "ips": [11], "prefixes": []}, False),
        ({"device": 2, "ips": [11, 12], "prefixes": []}, False),
    ],
)
def test_what_others_did_may_be_told_in_part(result: dict[str, Any], agrees: bool) -> None:
    """An empty list may be missing, and a list given by its length; a fact that is told must be equal."""
    trace = copy.deepcopy(read_recording(RECORDINGS / "t3_medium_default.json"))
    trace["steps"] = trace["steps"][:2]
    trace["steps"][1] = {"t": trace["steps"][0]["t"], "op": "eni_attach", "args": {"n": 2}, "result": result}
    state = copy.deepcopy(trace["steps"][0]["state"]) | {"api_calls": [], "ec2_calls": []}
    state["subnet_free"] -= 3
    del state["subnet_free_prefixes"]
    trace["steps"][1]["state"] = state
    outcome = replay_trace(trace).difference
    assert (outcome is None) == agrees, outcome


def test_an_address_that_two_enis_give_back_is_followed_once() -> None:
    replay = Replay(copy.deepcopy(read_recording(RECORDINGS / "cooldown.json")))
    calls = [{"c": "DeallocIPAddresses", "ips": [6, 7]}, {"c": "DeallocIPAddresses", "dev": 0, "ips": [7, 8]}]
    replay.record.begin({"op": "tick", "state": {"enis": [], "api_calls": calls, "ec2_calls": []}})
    held = GoMap()
    for offset in (8, 7, 9):
        replay.order.add(held, replay.base + offset)
    walk = replay.order.walk("unassign-cidr", held, "node")
    assert [item - replay.base for item in walk] == [7, 8, 9]
