"""What client-go's recorders sent to the API server, the simulation's recorders send too."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from eksim.testing.replay_events import replay_case, replay_event_files
from eksim.testing.traces import read_recording

RECORDINGS = Path(__file__).parents[1] / "recordings" / "events"


@pytest.mark.parametrize("path", sorted(RECORDINGS.glob("*.json.gz")), ids=lambda path: path.name.split(".")[0])
def test_every_recorded_case_replays_without_a_difference(path: Path) -> None:
    outcomes = list(replay_event_files([path]))
    assert outcomes
    assert [(o.id, o.difference) for o in outcomes if o.difference is not None] == []


@pytest.mark.parametrize("family", ["classic_spam", "series_many"])
def test_a_record_with_a_call_more_is_told_from_the_real_one(family: str) -> None:
    case = copy.deepcopy(read_recording(RECORDINGS / f"{family}.json.gz")["cases"][0])
    step = next(s for s in case["steps"] if s.get("calls"))
    step["calls"].append(step["calls"][-1])
    assert replay_case(case).difference is not None
