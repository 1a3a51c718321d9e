"""A rule taken out of the code is missed by a recording and by a scenario: both run the very code."""

from pathlib import Path

import pytest

from eksim.cni.datastore import Datastore
from eksim.kube.scheduler import profile
from eksim.kube.scheduler.plugins import node_resources_fit
from eksim.kube.scheduler.plugins.node_resources_fit import NodeResourcesFit
from eksim.play.run import play
from eksim.scenario.load import load_scenario
from eksim.testing.replay_cni import replay_cni_files
from eksim.testing.replay_scheduler import replay_scheduler_files

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT / "tests" / "recordings"


def scenario_fails(name):
    loaded = load_scenario(ROOT / "scenarios" / f"{name}.yaml")
    return bool(play(loaded, loaded.scenario.seed).failures)


def scheduler_differs(*families):
    return any(o.difference for o in replay_scheduler_files([RECORDINGS / "scheduler" / f for f in families]))


def cni_differs(*names):
    return any(o.difference for o in replay_cni_files([RECORDINGS / "cni" / n for n in names]))


def test_without_the_pod_number_filter(monkeypatch):
    assert not scenario_fails("lab-keep-pods")
    monkeypatch.setattr(NodeResourcesFit, "filter", lambda self, *a, **k: None)
    assert scenario_fails("lab-keep-pods")
    assert scheduler_differs("v1.34/pods_limit.json.gz")


def test_without_the_hint_that_a_deleted_pod_may_help(monkeypatch):
    assert not scenario_fails("lab-today")
    monkeypatch.setattr(node_resources_fit, "is_schedulable_after_pod_event", lambda *_: False)
    profile._build.cache_clear()
    try:
        assert scenario_fails("lab-today")
        assert scheduler_differs("v1.34/queue_pods.json.gz")
    finally:
        monkeypatch.undo()
        profile._build.cache_clear()


@pytest.mark.parametrize("seconds", [0, 29])
def test_without_the_cool_down(monkeypatch, seconds):
    assert not scenario_fails("cool-down")
    names = [p.relative_to(RECORDINGS / "cni").as_posix() for p in sorted((RECORDINGS / "cni").rglob("*cooldown*"))]
    assert names
    assert not cni_differs(*names)
    made = Datastore.__init__

    def shorter(self, *args, **kwargs):
        made(self, *args, **kwargs)
        self.cooldown_s = seconds

    monkeypatch.setattr(Datastore, "__init__", shorter)
    assert cni_differs(*names)
    if seconds == 0:
        assert scenario_fails("cool-down")
