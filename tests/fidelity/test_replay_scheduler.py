"""Recorded decisions of the real kube-scheduler, replayed through the simulation's own: every case, both releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eksim.kube.scheduler import handlers, profile
from eksim.kube.scheduler.plugins import node_resources_fit, pod_topology_spread
from eksim.kube.scheduler.queue import PriorityQueue
from eksim.testing.replay_scheduler import replay_case, replay_scheduler_files
from eksim.testing.traces import read_recording, runs_in

RECORDINGS = Path(__file__).parent.parent / "recordings" / "scheduler"
FILES = sorted(RECORDINGS.glob("*/*.json.gz"))


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}-{p.name.split('.')[0]}" for p in FILES])
def test_every_case_of_a_family_replays(path: Path) -> None:
    """Nodes, reasons, scores, choices, messages, nominations and (where recorded) the queue after each step."""
    outcomes = list(replay_scheduler_files([path]))
    assert outcomes
    assert [o for o in outcomes if o.difference is not None] == []


def test_all_families_are_here() -> None:
    """27 families in the new release, 25 in the old: 108 cases."""
    assert len(list((RECORDINGS / "v1.34").iterdir())) == 27
    assert len(list((RECORDINGS / "v1.21").iterdir())) == 25
    assert sum(len(runs_in(read_recording(p), p)) for p in FILES) == 108


def _differences(release: str, family: str) -> list[str]:
    path = RECORDINGS / release / f"{family}.json.gz"
    data = read_recording(path)
    return [o.difference for o in (replay_case(run, data) for run in runs_in(data, path)) if o.difference]


def _no_filter(self: Any, state: Any, pod: Any, node: Any) -> None:
    return None


def _never(*_: Any) -> bool:
    return False


def test_without_a_filter_recordings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule shows: no resources are compared."""
    monkeypatch.setattr(node_resources_fit.NodeResourcesFit, "filter", _no_filter)
    assert _differences("v1.34", "pods_limit")
    assert _differences("v1.21", "requests")


def test_without_a_score_recordings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule shows: the system's default spread constraints are gone."""
    monkeypatch.setattr(pod_topology_spread, "SYSTEM_DEFAULTS", ())
    profile._build.cache_clear()
    try:
        assert _differences("v1.34", "spread_default")
    finally:
        monkeypatch.undo()
        profile._build.cache_clear()
    assert not _differences("v1.34", "spread_default")


def test_without_a_hint_recordings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule shows: a deleted pod wakes nobody whom resources rejected."""
    monkeypatch.setattr(node_resources_fit, "is_schedulable_after_pod_event", _never)
    profile._build.cache_clear()
    try:
        assert _differences("v1.34", "queue_pods")
    finally:
        monkeypatch.undo()
        profile._build.cache_clear()


def test_without_a_flush_recordings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule shows: nobody is tried again after having waited too long."""
    monkeypatch.setattr(PriorityQueue, "flush_unschedulable_leftover", lambda self: None)
    assert _differences("v1.34", "queue_nodes") or _differences("v1.34", "queue_pods")
    assert _differences("v1.21", "queue_nodes") or _differences("v1.21", "queue_pods")


def test_without_an_event_recordings_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """A removed rule shows: an uncordoned or relabelled node wakes nobody."""
    monkeypatch.setattr(handlers, "node_scheduling_properties_change", lambda *_, **__: [])
    assert _differences("v1.34", "queue_spread")
