"""Events as the lab's reader saw them, and the recorders' rules in small."""

from __future__ import annotations

import pytest

from eksim.engine.clock import Clock
from eksim.kube.event_correlator import ClassicRecorder
from eksim.kube.event_series import SeriesRecorder
from eksim.kube.events import EventRecorders
from eksim.parts import EventRecorder
from eksim.state.objects import Node, Pod
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules

FULL = "0/2 nodes are available: 2 Too many pods."


class Desk:
    """A clock, a store, recorders of one release, and a pod to report on."""

    def __init__(self, version: str) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.recorders = EventRecorders(self.clock, self.store, KubernetesRules.of(version), 1_600_000_000.0)
        self.pod = Pod("default", "nginx-hgg7k", PodSpec.parse({"containers": []}), {}, uid="u1")
        self.store.create_pod(self.pod)

    def at(self, when: float, recorder: EventRecorder, message: str = FULL, reason: str = "FailedScheduling") -> None:
        self.clock.run_until(when)
        recorder.event(self.pod, "Warning", reason, message)


@pytest.mark.parametrize(("version", "kind"), [("v1.21.2", ClassicRecorder), ("1.34", SeriesRecorder)])
def test_the_scheduler_writes_classic_events_then_and_series_today(version: str, kind: type[EventRecorder]) -> None:
    desk = Desk(version)
    assert isinstance(desk.recorders.recorder("default-scheduler"), kind)
    assert isinstance(desk.recorders.recorder("kubelet", "n1"), ClassicRecorder)


def test_four_failures_of_the_lab_are_one_event_with_count_four() -> None:
    desk = Desk("v1.21.2")
    scheduler = desk.recorders.recorder("default-scheduler")
    for when in (10.2, 11.9, 70.0, 151.2):
        desk.at(when, scheduler)
    (event,) = desk.recorders.stored()
    assert (event.count, event.first_s, event.last_s) == (4, 10.0, 151.0)
    assert event.name == f"nginx-hgg7k.{1_600_000_010_200_000_000:x}"
    assert (event.component, event.reporting_component) == ("default-scheduler", "")


def test_a_series_is_written_at_its_second_event_and_then_only_every_half_hour() -> None:
    desk = Desk("1.34")
    scheduler = desk.recorders.recorder("default-scheduler")
    for when in (10, 20, 30, 40):
        desk.at(when, scheduler)
    (event,) = desk.recorders.stored()
    assert (event.series_count, event.series_last_s, event.event_time_s) == (2, 20.0, 10.0)
    for when in range(300, 1800, 300):
        desk.at(when, scheduler)
    desk.clock.run_until(1800.0)
    (event,) = desk.recorders.stored()
    assert (event.series_count, event.series_last_s) == (9, 1500.0)


def test_a_changed_pod_starts_a_new_series_but_a_changed_message_does_not() -> None:
    desk = Desk("1.34")
    scheduler = desk.recorders.recorder("default-scheduler")
    desk.at(1, scheduler)
    desk.at(2, scheduler, "something else")
    assert [e.message for e in desk.recorders.stored()] == [FULL]
    desk.store.set_pod_status(desk.pod, phase="Pending")
    desk.at(3, scheduler)
    assert len(desk.recorders.stored()) == 2


def test_up_to_1_26_the_server_refuses_a_series_of_one() -> None:
    desk = Desk("1.26")
    scheduler = desk.recorders.recorder("default-scheduler")
    desk.at(1, scheduler)
    desk.at(2, scheduler)
    (event,) = desk.recorders.stored()
    assert event.series_count == 0


def test_the_tenth_distinct_message_is_combined() -> None:
    desk = Desk("1.34")
    kubelet = desk.recorders.recorder("kubelet", "n1")
    for i in range(12):
        desk.at(i, kubelet, f"sandbox {i}", "FailedCreatePodSandBox")
    events = desk.recorders.stored()
    assert len(events) == 10
    assert events[-1].message == "(combined from similar events): sandbox 11"
    assert events[-1].count == 3


def test_the_spam_filter_lets_25_through_and_counts_the_rest() -> None:
    desk = Desk("1.34")
    kubelet = desk.recorders.recorder("kubelet", "n1")
    for i in range(30):
        desk.at(i, kubelet, "Back-off", "BackOff")
    (event,) = desk.recorders.stored()
    assert event.count == 25
    desk.at(331, kubelet, "Back-off", "BackOff")
    assert desk.recorders.stored()[0].count == 31


def test_an_event_lives_an_hour_from_its_last_write_and_comes_back_with_its_count() -> None:
    desk = Desk("1.34")
    kubelet = desk.recorders.recorder("kubelet", "n1")
    desk.at(0, kubelet)
    desk.at(100, kubelet)
    desk.clock.run_until(3699.0)
    assert len(desk.recorders.stored()) == 1
    desk.clock.run_until(3700.0)
    assert desk.recorders.stored() == []
    desk.at(3800, kubelet)
    (event,) = desk.recorders.stored()
    assert (event.count, event.first_s) == (3, 0.0)


def test_the_kubelet_refers_to_its_node_by_name() -> None:
    desk = Desk("1.34")
    node = Node("n1", {}, uid="real-uid")
    desk.recorders.recorder("kubelet", "n1").event(node, "Normal", "NodeReady", "Node n1 status is now: NodeReady")
    (event,) = desk.recorders.stored()
    assert (event.involved.uid, event.namespace, event.object) == ("n1", "default", "node/n1")


def test_a_recorder_with_nothing_to_do_arms_nothing() -> None:
    desk = Desk("1.34")
    desk.recorders.recorder("default-scheduler")
    assert desk.clock.next_time() == float("inf")
    desk.at(10, desk.recorders.recorder("default-scheduler"))
    desk.clock.run_until(800.0)
    assert desk.clock.next_time() == float("inf")


def test_events_of_one_object_at_one_instant_are_all_kept() -> None:
    desk = Desk("1.34")
    controller = desk.recorders.recorder("replicaset-controller")
    for i in range(9):
        desk.at(5, controller, f"Created pod: web-{i}", "SuccessfulCreate")
    desk.at(5, desk.recorders.recorder("kubelet", "n1"), "Pulling", "Pulling")
    assert len(desk.recorders.stored()) == 10
