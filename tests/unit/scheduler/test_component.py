"""The scheduler as a component, on a bare clock and store: when it tries pods, and what it writes."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.engine.clock import OBSERVER, STEPS, Clock
from eksim.engine.latency import latencies
from eksim.engine.streams import Streams
from eksim.errors import Standstill
from eksim.kube.scheduler.component import Scheduler, SchedulerSettings, truncate_message
from eksim.state.objects import ApiObject, Node, Owner, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules


class Recorder:
    """Keeps what would be recorded: (time, reason, pod, message)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.events: list[tuple[float, str, str, str]] = []

    def event(self, obj: Any, type: str, reason: str, message: str, **_: Any) -> None:
        self.events.append((self.clock.now, reason, obj.name, message))

    def times(self, pod: str, reason: str = "FailedScheduling") -> list[float]:
        return [when for when, why, name, _ in self.events if (name, why) == (pod, reason)]

    def messages(self, pod: str) -> list[str]:
        return [message for _, _, name, message in self.events if name == pod]


class World:
    """A clock, a store and a scheduler."""

    def __init__(self, version: str, *, start_s: float = 0.0, timed: bool = False, config: Any = None) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.recorder = Recorder(self.clock)
        self.rules = KubernetesRules.of(version)
        self.scheduler = Scheduler(
            self.clock,
            self.store,
            Streams(1),
            self.rules,
            self.recorder,
            SchedulerSettings(start_s, config, latencies("default" if timed else "none")),
        )
        self.spec = PodSpec.parse({"containers": [{"name": "c", "image": "i"}]}, self.rules)

    def node(self, name: str, pods: int, zone: str = "a", **fields: Any) -> Node:
        allocatable = {"cpu": 1930, "memory": 3 << 30, "pods": pods}
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
        return self.store.add_node(Node(name, allocatable, labels=labels, **fields))

    def pod(self, name: str, *, node: str = "", spec: dict[str, Any] | None = None, **fields: Any) -> Pod:
        parsed = self.spec if spec is None else PodSpec.parse(spec, self.rules)
        pod = Pod("default", name, parsed, {"app": "x"}, uid=f"uid-{name}", node=node, **fields)
        assert self.store.create_pod(pod) is pod
        return pod

    def at(self, when: float, call: Any, *args: Any) -> None:
        self.clock.call_at(when, STEPS, call, *args)

    def run(self, until: float) -> None:
        self.clock.run_until(until)


@pytest.mark.parametrize("timed", [False, True])
def test_the_labs_pending_pods_are_tried_four_times_in_193_seconds(timed: bool) -> None:
    """Release 1.21: at t0, again after 1 to 2 s (the status patch), when the slot frees, and at the flush 141 s on."""
    world = World("1.21", start_s=-9.5, timed=timed)
    for name in ("a", "b"):
        world.node(name, 3)
    for i in range(5):
        world.pod(f"old-{i}", node="ab"[i % 2])
    pods = {}

    def scale() -> None:
        for i in range(4):
            pods[i] = world.pod(f"new-{i}")

    world.at(0.0, scale)
    world.at(60.0, lambda: world.store.delete_pod(world.store.pods["default/old-0"]))
    world.run(200.0)
    placed = [pod for pod in pods.values() if pod.node]
    pending = [pod.name for pod in pods.values() if not pod.node]
    assert len(placed) == 2
    assert len(pending) == 2
    for name in pending:
        times = world.recorder.times(name)
        assert times[0] == pytest.approx(0.0, abs=0.05)
        assert 1.0 <= times[1] - times[0] <= 2.01
        assert times[2] == pytest.approx(60.0, abs=0.05)
        # Flushes come at -9.5 + 30k; the first more than 60 s after the third try is at 140.5.
        assert times[3] == pytest.approx(140.5, abs=0.05)
        assert len(times) == 4
        assert set(world.recorder.messages(name)) == {"0/2 nodes are available: 2 Too many pods."}


def test_today_a_pending_pod_waits_five_minutes_then_for_the_next_flush() -> None:
    """The leftover flush runs every 30 s and takes pods that waited more than 300 s."""
    world = World("1.34", start_s=7.0)
    world.node("a", 1)
    world.pod("old", node="a")
    world.at(1.0, world.pod, "new")
    world.run(700.0)
    assert world.recorder.times("new") == [1.0, 307.0, 637.0]
    assert world.recorder.messages("new")[0] == (
        "0/1 nodes are available: 1 Too many pods. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_a_namespace_that_gets_a_label_is_kept_away_from_then_on() -> None:
    """A placed pod's anti-affinity selects namespaces by label; what was found about a kind of pod before is asked anew."""
    world = World("1.33")
    world.node("a", 9)
    namespace = world.store.create_object(ApiObject("Namespace", "", "default", {}))
    assert isinstance(namespace, ApiObject)
    term = {
        "labelSelector": {},
        "namespaceSelector": {"matchLabels": {"team": "q"}},
        "topologyKey": "kubernetes.io/hostname",
    }
    anti = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    world.pod("alone", node="a", spec={"containers": [{}], "affinity": anti})
    world.at(1.0, world.pod, "before")
    world.at(2.0, lambda: world.store.update_object(namespace, labels={"team": "q"}))
    world.at(3.0, world.pod, "after")
    world.run(4.0)
    assert world.store.pods["default/before"].node == "a"
    assert world.store.pods["default/after"].node == ""


def test_a_victim_that_is_on_its_way_out_already_is_waited_for() -> None:
    """A user deleted it; the preemptor evicts nobody and is tried again when it is gone, not at once and for ever.

    preemption.go:prepareCandidateAsync activates the preemptor only where an API call has failed, v1.34.1.
    """
    world = World("1.34")
    world.node("a", 1)
    low = world.pod("low", node="a")
    world.at(1.0, lambda: world.store.begin_pod_deletion(low, 30.0))
    high = {"containers": [{"name": "c", "image": "i"}], "priority": 10}
    world.at(2.0, lambda: world.pod("high", spec=high))
    world.at(31.0, lambda: world.store.delete_pod(low))
    world.run(40.0)
    assert world.recorder.times("high") == [2.0]
    assert world.store.pods["default/high"].nominated_node == "a"
    assert world.store.pods["default/high"].bound_s == 31.0
    assert world.recorder.messages("low") == []


def test_cycles_that_go_on_for_ever_within_an_instant_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever makes a pod be tried again and again where that takes no time: the run ends and says which pod."""
    world = World("1.34")
    world.node("a", 1)
    world.pod("old", node="a")
    queue = world.scheduler.core.queue
    honest = world.scheduler._apply

    def and_again(attempt: Any) -> None:
        honest(attempt)
        queue.activate(attempt.pod.key)

    monkeypatch.setattr(world.scheduler, "_apply", and_again)
    world.at(5.0, world.pod, "new")
    with pytest.raises(Standstill, match=r"at 5 s .* 10,000 times in one instant \(default/new the last: 0/1 nodes are"):
        world.run(6.0)


def test_heartbeats_wake_nobody_but_a_deleted_pod_does() -> None:
    """A kubelet's status and Ready updates change nothing for who waits; a freed slot does at once."""
    world = World("1.34")
    node = world.node("a", 1)
    old = world.pod("old", node="a")
    world.at(1.0, world.pod, "new")
    world.at(20.0, lambda: world.store.set_node_ready(node, True))
    world.at(21.0, lambda: world.store.set_pod_status(old, phase="Running", ready=True))
    world.at(30.0, lambda: world.store.delete_pod(old))
    world.run(40.0)
    assert world.recorder.times("new") == [1.0]
    assert world.recorder.times("new", "Scheduled") == [30.0]
    assert world.store.pods["default/new"].node == "a"


def test_a_replica_set_is_spread_and_bound() -> None:
    """Pods of one ReplicaSet alternate between two equal nodes; each gets an event when bound."""
    world = World("1.34", timed=True)
    from eksim.state.objects import ApiObject

    world.node("a", 17, "a")
    world.node("b", 17, "b")
    world.store.create_object(ApiObject("ReplicaSet", "default", "rs", {"selector": {"matchLabels": {"app": "x"}}}))
    for i in range(10):
        world.pod(f"p-{i}", owner=Owner("ReplicaSet", "rs", "uid-rs"))
    world.run(5.0)
    assert {node: len(pods) for node, pods in world.store.pods_by_node.items()} == {"a": 5, "b": 5}
    assert len([e for e in world.recorder.events if e[1] == "Scheduled"]) == 10
    assert world.recorder.messages("p-0") == [
        f"Successfully assigned default/p-0 to {world.store.pods['default/p-0'].node}"
    ]
    assert world.scheduler.is_quiet()


def test_preemption_evicts_nominates_and_takes_the_place() -> None:
    """The victim is marked and deleted with its grace; the preemptor gets the slot when the victim is gone."""
    world = World("1.34")
    world.node("a", 1)
    low = world.pod("low", node="a")
    high = world.pod("high", spec={"containers": [{"name": "c"}], "priority": 100})
    world.run(1.0)
    assert low.deletion_s == 0.0
    assert low.conditions["DisruptionTarget"].reason == "PreemptionByScheduler"
    assert high.nominated_node == "a"
    assert world.recorder.messages("low") == ["Preempted by pod uid-high on node a"]
    assert world.recorder.messages("high") == ["0/1 nodes are available: 1 Too many pods."]
    world.at(31.0, lambda: world.store.delete_pod(low))
    world.run(40.0)
    assert high.node == "a"


def test_a_refused_binding_frees_the_place_and_comes_back() -> None:
    """The pod was bound by somebody else meanwhile: the scheduler's assumption is taken back."""
    world = World("1.34", timed=True)
    world.node("a", 1)
    world.node("b", 1, taints=(Taint("t"),))
    pod = world.pod("p")
    world.run(0.0025)
    assert world.scheduler.node_usage("a").requested["pods"] == 1  # type: ignore[union-attr]
    assert world.store.bind_pod(pod, "b") is None
    world.pod("q")
    world.run(30.0)
    assert pod.node == "b"
    assert world.store.pods["default/q"].node == "a"
    assert any(message.startswith('running Bind plugin "DefaultBinder"') for message in world.recorder.messages("p"))


def test_only_its_own_pods() -> None:
    """A pod of another scheduler's is left alone, but counts once it is bound."""
    world = World("1.34")
    world.node("a", 1)
    other = world.pod("other", spec={"containers": [{"name": "c"}], "schedulerName": "mine"})
    world.run(1.0)
    assert other.node == "" and world.recorder.events == []
    assert world.store.bind_pod(other, "a") is None
    world.pod("q")
    world.run(2.0)
    assert world.scheduler.place_of("default/q") == ("unschedulable", 1, 1.0)
    diagnosis = world.scheduler.diagnosis_of("default/q")
    assert diagnosis is not None and diagnosis.reasons() == {"Too many pods": 1}


def test_a_gated_pod_waits_until_its_last_gate_goes() -> None:
    """SchedulingGates keep a pod out of activeQ without an attempt."""
    world = World("1.34")
    world.node("a", 5)
    pod = world.pod("p", spec={"containers": [{"name": "c"}], "schedulingGates": [{"name": "x"}]})
    world.run(400.0)
    assert world.scheduler.place_of("default/p") == ("gated", 0, 0.0)
    world.at(401.0, lambda: world.store.update_pod(pod, spec=pod.spec.replace(schedulingGates=None)))
    world.run(402.0)
    assert pod.node == "a"


def test_quiet_while_retries_cannot_succeed() -> None:
    """A pod in backoffQ that still fits nowhere does not keep the scheduler from being quiet."""
    world = World("1.21")
    world.node("a", 1)
    world.pod("old", node="a")
    world.pod("new")
    states: list[bool] = []
    world.clock.call_at(0.5, OBSERVER, lambda: states.append(world.scheduler.is_quiet()))
    world.run(0.6)
    assert world.scheduler.place_of("default/new") == ("backoff", 1, 0.0)
    assert states == [True]


def test_long_messages_are_cut() -> None:
    """An event's note holds 1,024 bytes."""
    assert truncate_message("x" * 1024) == "x" * 1024
    assert truncate_message("x" * 1025) == "x" * 1020 + " ..."
