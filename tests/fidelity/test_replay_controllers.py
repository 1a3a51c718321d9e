"""The recorded runs of the real controllers replay through the simulation's own."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from eksim.testing.replay_controllers import replay_case, replay_controller_files
from eksim.testing.traces import read_recording

RECORDINGS = Path(__file__).parents[1] / "recordings" / "controllers"


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.json.gz")), ids=lambda path: path.name.split(".")[0])
def test_every_recorded_case_replays_without_a_difference(path: Path) -> None:
    outcomes = list(replay_controller_files([path]))
    assert outcomes
    assert [(o.id, o.difference) for o in outcomes if o.difference is not None] == []


def case_of(family: str) -> dict[str, Any]:
    return copy.deepcopy(read_recording(RECORDINGS / f"{family}.json.gz")["cases"][0])


def test_a_record_with_another_size_is_told_from_the_real_one() -> None:
    case = case_of("deploy_scale")
    step = next(s for s in case["steps"] if "ReplicaSet" in s.get("changed", {}))
    name, replica_set = next(iter(step["changed"]["ReplicaSet"].items()))
    replica_set["replicas"] += 1
    difference = replay_case(case).difference
    assert difference is not None and f"ReplicaSet {name}: replicas is" in difference


def test_a_record_with_another_message_is_told_from_the_real_one() -> None:
    case = case_of("deploy_minready")
    step = next(s for s in case["steps"] if s.get("events"))
    step["events"][0][5] += "!"
    assert replay_case(case).difference is not None


def test_a_record_in_which_another_pod_is_deleted_is_told_from_the_real_one() -> None:
    case = next(
        c
        for c in read_recording(RECORDINGS / "rs_delete_order.json.gz")["cases"]
        if c["runs_equal"] == 5 and any("deleting" in p for s in c["steps"] for p in _pods(s).values())
    )
    step = next(s for s in case["steps"] if any("deleting" in p for p in _pods(s).values()))
    deleted = next(name for name, pod in _pods(step).items() if "deleting" in pod)
    del _pods(step)[deleted]["deleting"]
    assert replay_case(case).difference is not None


def _pods(step: dict[str, Any]) -> dict[str, Any]:
    pods: dict[str, Any] = step.get("changed", {}).get("Pod", {})
    return pods


def test_a_family_whose_controller_is_not_modelled_counts_as_different() -> None:
    case = {**case_of("rs_burst"), "family": "hpa_loop", "controllers": ["hpa", "deployment"]}
    difference = replay_case(case).difference
    assert difference is not None and difference.startswith("family hpa_loop is not modelled yet")
