"""The scheduler's rules against the tables of the reference texts: scores, sampling, back-off, order, messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.errors import InputError
from eksim.kube.scheduler.cache import Cache, zone_key
from eksim.kube.scheduler.component import Draws
from eksim.kube.scheduler.cycle import Scheduler
from eksim.kube.scheduler.diagnosis import Diagnosis, fit_error
from eksim.kube.scheduler.events import (
    ADD,
    DELETE,
    NODE,
    NODE_ALLOCATABLE,
    POD,
    POD_LABEL,
    UPDATE,
    ClusterEvent,
    match_cluster_events,
    node_scheduling_properties_change,
)
from eksim.kube.scheduler.framework import UNRESOLVABLE, UNSCHEDULABLE, Status
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.plugins.image_locality import calculate_priority, normalized_image_name, scaled_image_score
from eksim.kube.scheduler.plugins.node_resources_balanced_allocation import balanced_score, balanced_score_then
from eksim.kube.scheduler.plugins.resource_scorers import (
    broken_linear_function,
    least_requested_score,
    most_requested_score,
    requested_to_capacity_ratio_score,
    weighted_mean,
    weighted_mean_rounded,
)
from eksim.kube.scheduler.preemption import NO_VICTIMS, NOT_HELPFUL, calculate_num_candidates
from eksim.kube.scheduler.profile import backoff_of, build_profiles
from eksim.kube.scheduler.queued_pod import calculate_backoff_duration
from eksim.kube.scheduler.sampling import num_feasible_nodes_to_find
from eksim.state.objects import ApiObject, Condition, Node, Owner, Pod, snapshot
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules

TODAY = KubernetesRules.of("1.34").scheduler
THEN = KubernetesRules.of("1.21").scheduler
MI = 1 << 20


class First:
    """Takes the first of equals."""

    def host(self, top: Sequence[str]) -> int:
        return 0

    def offset(self, nodes: int) -> int:
        return 0

    def candidate(self, nodes: Sequence[str]) -> int:
        return 0


# The two nodes of the lab as scored in kubernetes-scores-events-views, 2: (A, B) total then and today for pod k.
LAB = {
    1: ((378, 373), (279, 277)), 2: ((322, 373), (205, 277)), 3: ((372, 366), (273, 271)), 4: ((309, 366), (217, 271)),
    10: ((325, 347), (221, 254)), 20: ((294, 314), (205, 226)), 26: ((279, 296), (190, 210)), 27: ((295, 205), (206, 205)),
}  # fmt: skip


@pytest.mark.parametrize("version", ["1.21", "1.34"])
def test_the_labs_two_nodes_scored(version: str) -> None:
    """Every total of the worked example; strict alternation; the 29th pod finds no slot."""
    rules = KubernetesRules.of(version)
    store = Store(Clock())
    pods: dict[str, Pod] = {}
    scheduler = Scheduler(
        rules.scheduler, build_profiles(rules.scheduler, None), Listers(store),
        now=lambda: 0.0, alive=pods.get, choices=First(),
    )  # fmt: skip

    def spec(cpu: str = "", memory: str = "", init: bool = False) -> PodSpec:
        requests = {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text}
        containers = [{"name": "c", "resources": {"requests": requests}}]
        return PodSpec.parse({"containers": containers, "initContainers": [{"name": "i"}] if init else []}, rules)

    for name, zone in (("A", "a"), ("B", "b")):
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
        allocatable = {"cpu": 1930, "memory": 3388364 << 10, "pods": 17}
        scheduler.handlers.add_node_to_cache(Node(name, allocatable, labels=labels))
        system = [("aws-node", spec("10m", init=True)), ("kube-proxy", spec("100m"))]
        system.append(("coredns", spec("100m", "70Mi")) if name == "A" else ("kube-ops-view", spec()))
        for what, of in system:
            scheduler.handlers.add_pod_to_cache(Pod("kube-system", f"{what}-{name}", of, {"app": what}, node=name))
    selector = {"matchLabels": {"app": "nginx"}}
    store.create_object(ApiObject("ReplicaSet", "default", "nginx", {"selector": selector}))
    nginx = spec()
    constant = 1_000_000 + 100 if version == "1.21" else 300
    for k in range(1, 31):
        pod = pods[f"default/{k}"] = Pod(
            "default", str(k), nginx, {"app": "nginx"}, owner=Owner("ReplicaSet", "nginx", "u")
        )
        scheduler.handlers.add_pod_to_scheduling_queue(pod)
        attempt = scheduler.schedule_one(detail=True)
        assert attempt is not None
        if k in LAB:
            assert attempt.scores is not None
            totals = dict(zip([n.name for n in attempt.feasible], attempt.scores.total, strict=True))
            assert (totals["A"] - constant, totals["B"] - constant) == LAB[k][version == "1.34"], k
        if k > 28:
            assert attempt.chosen is None
            continue
        assert attempt.chosen is not None and attempt.chosen.name == ("A" if k % 2 else "B")
        pod.node = attempt.chosen.name
        scheduler.handlers.add_pod_to_cache(pod)
        scheduler.handlers.delete_pod_from_scheduling_queue(pod)


@pytest.mark.parametrize(
    ("nodes", "percentage", "find"),
    [(2, 0, 2), (99, 0, 99), (100, 0, 100), (234, 0, 114), (1000, 0, 420), (5000, 0, 500), (100_000, 0, 5000),
     (1000, 30, 300), (200, 10, 100), (500, 100, 500)],
)  # fmt: skip
def test_how_many_nodes_are_enough(nodes: int, percentage: int, find: int) -> None:
    """All below 100; else n·p/100 with p = 50 − n/125, at least 5, never fewer than 100 nodes."""
    assert num_feasible_nodes_to_find(nodes, percentage) == find


def test_back_off_doubles_up_to_ten_seconds() -> None:
    """1, 2, 4, 8, 10, 10 …; none without a failure."""
    assert [calculate_backoff_duration(n) for n in range(7)] == [0, 1, 2, 4, 8, 10, 10]
    assert [calculate_backoff_duration(n, 3.0, 1000.0) for n in (1, 2, 9, 10, 11)] == [3, 6, 768, 1000, 1000]


def test_resource_scores() -> None:
    """LeastAllocated, MostAllocated and the shape, in integers."""
    assert least_requested_score(300, 1930) == 84
    assert least_requested_score(2000, 1930) == 0 == least_requested_score(1, 0)
    assert most_requested_score(300, 1930) == 15
    assert most_requested_score(2000, 1930) == 100
    assert weighted_mean([(84, 2), (10, 1)]) == 59
    assert weighted_mean([]) == 0
    assert weighted_mean_rounded([(1, 1), (2, 1), (0, 5)]) == 2


def test_the_shape_of_requested_to_capacity_ratio() -> None:
    """Flat outside, truncated toward zero between; then the utilization is rounded up, today down."""
    line = broken_linear_function([(0, 0), (40, 30), (100, 100)])
    assert [line(p) for p in (-5, 0, 20, 40, 41, 100, 120)] == [0, 0, 15, 30, 31, 100, 100]
    falling = broken_linear_function([(0, 100), (3, 0)])
    assert [falling(p) for p in (1, 2)] == [67, 34]
    today = requested_to_capacity_ratio_score([(0, 0), (100, 10)], rounded_up=False)
    then = requested_to_capacity_ratio_score([(0, 0), (100, 10)], rounded_up=True)
    assert (today(1, 3), then(1, 3)) == (33, 34)
    assert today(4, 3) == today(1, 0) == 100


def test_balanced_scores() -> None:
    """Standard deviation today, difference then; doubles cut at the end."""
    assert balanced_score([0.5, 0.5]) == 100
    assert balanced_score([0.2, 0.4]) == 90
    assert balanced_score([0.1, 0.2, 0.6]) == int((1 - (0.14 / 3) ** 0.5) * 100)
    assert balanced_score([0.3]) == 100
    assert balanced_score_then(0.2, 0.4) == 80
    assert balanced_score_then(1.0, 0.4) == 0


def test_image_scores() -> None:
    """Sizes scaled by the share of nodes, between 23 MiB and 1000 MiB per container; names compared literally."""
    assert scaled_image_score(100 * MI, 1, 3) == int(100 * MI * (1 / 3))
    assert calculate_priority(22 * MI, 1) == 0
    assert calculate_priority(5000 * MI, 2) == 100
    assert calculate_priority(523 * MI, 1) == 51
    names = ("nginx", "nginx:1", "host:5000/nginx", "host:5000/nginx:1", "nginx@sha256:0")
    assert [normalized_image_name(n) for n in names] == [
        "nginx:latest", "nginx:1", "host:5000/nginx:latest", "host:5000/nginx:1", "nginx@sha256:0"
    ]  # fmt: skip


def test_messages_of_the_table() -> None:
    """Then, 1.24 to 1.33, and today; reasons are sorted as strings."""
    diagnosis = Diagnosis(3)
    fit = Status("NodeResourcesFit", UNSCHEDULABLE, ("Too many pods", "Insufficient memory"))
    memory = Status("NodeResourcesFit", UNSCHEDULABLE, ("Insufficient memory",))
    cordoned = Status("NodeUnschedulable", UNRESOLVABLE, ("node(s) were unschedulable",))
    diagnosis.counts = [(fit, 1), (memory, 1), (cordoned, 1)]
    diagnosis.preemption_counts = [(NO_VICTIMS, 2), (NOT_HELPFUL, 1)]
    first = "0/3 nodes are available: 1 Too many pods, 1 node(s) were unschedulable, 2 Insufficient memory."
    second = (
        "preemption: 0/3 nodes are available: 1 Preemption is not helpful for scheduling, "
        "2 No preemption victims found for incoming pod."
    )
    assert diagnosis.message(TODAY, claims=True) == f"{first} no new claims to deallocate, {second}"
    assert diagnosis.message(KubernetesRules.of("1.30").scheduler, claims=False) == f"{first} {second}"
    assert diagnosis.message(KubernetesRules.of("1.23").scheduler, claims=False) == first
    assert fit_error(12, "", {"x": 10, "y": 2}, TODAY) == "0/12 nodes are available: 10 x, 2 y."


def test_node_order_takes_one_of_each_zone_in_turn() -> None:
    """Zones in the order first seen; a changed zone shows when nodes come or go."""
    cache = Cache(TODAY)

    def node(name: str, zone: str) -> Node:
        return Node(name, {"pods": 1}, labels={"topology.kubernetes.io/zone": zone})

    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("b2", "b")):
        cache.add_node(node(name, zone))
    assert [n.name for n in cache.update_snapshot()] == ["a1", "b1", "a2", "b2", "a3"]
    cache.update_node(node("a1", "a"), node("a1", "b"))
    assert [n.name for n in cache.update_snapshot()] == ["a1", "b1", "a2", "b2", "a3"]
    cache.add_node(node("c1", "c"))
    assert [n.name for n in cache.update_snapshot()] == ["a2", "b1", "c1", "a3", "b2", "a1"]
    cache.remove_node(node("a2", "a"))
    assert [n.name for n in cache.update_snapshot()] == ["a3", "b1", "c1", "b2", "a1"]
    assert zone_key({}) == ""
    assert zone_key({"failure-domain.beta.kubernetes.io/zone": "x", "topology.kubernetes.io/zone": "y"}) == ":\0:x"


def test_a_node_that_is_gone_keeps_its_pods_until_they_are() -> None:
    """A ghost is seen by no cycle, and comes to life with its pods if the node returns."""
    from eksim.kube.scheduler.nodeinfo import PodInfo

    cache = Cache(TODAY)
    node = Node("n", {"pods": 3})
    cache.add_node(node)
    spec = PodSpec.parse({"containers": [{"name": "c"}]})
    cache.add_pod(PodInfo(Pod("d", "p", spec, {}, node="n")))
    cache.remove_node(node)
    assert cache.update_snapshot() == []
    cache.add_node(node)
    assert [len(n.pods) for n in cache.update_snapshot()] == [1]
    cache.remove_node(node)
    assert cache.remove_pod("d/p") is not None
    assert cache.nodes == {}


def test_which_registration_hears_of_which_event() -> None:
    """Any of the registered actions, but not a wider event than was registered."""
    assert match_cluster_events(ClusterEvent(POD, ADD | DELETE), ClusterEvent("AssignedPod", DELETE))
    assert match_cluster_events(ClusterEvent(POD, POD_LABEL), ClusterEvent("UnschedulablePod", POD_LABEL))
    assert not match_cluster_events(ClusterEvent(POD, POD_LABEL), ClusterEvent("AssignedPod", UPDATE))
    assert not match_cluster_events(ClusterEvent(NODE, ADD), ClusterEvent(NODE, NODE_ALLOCATABLE))


def test_a_heartbeat_is_no_change() -> None:
    """Only statuses of conditions count, not their times."""
    node = Node("n", {"pods": 1})
    node.conditions = {"Ready": Condition("Ready", "True", last_update_s=1.0)}
    old = snapshot(node)
    node.conditions = {"Ready": Condition("Ready", "True", last_update_s=11.0)}
    assert node_scheduling_properties_change(node, old) == []
    node.allocatable = {"pods": 2}
    node.labels = {"a": "b"}
    kinds = node_scheduling_properties_change(node, old)
    assert len(kinds) == 2 and kinds[0] == ClusterEvent(NODE, NODE_ALLOCATABLE)


def test_how_many_preemption_candidates_are_enough() -> None:
    """10 % of the nodes, at least 100, at most all."""
    assert [calculate_num_candidates(n, 10, 100) for n in (50, 500, 5000)] == [50, 100, 500]


def test_profiles() -> None:
    """Weights by release; a configuration enables, disables and weighs; equal ones are shared."""
    today = build_profiles(TODAY, None)["default-scheduler"]
    then = build_profiles(THEN, None)["default-scheduler"]
    assert {p.name: w for p, w in today.score_plugins} == {
        "NodeResourcesBalancedAllocation": 1, "ImageLocality": 1, "InterPodAffinity": 2, "NodeResourcesFit": 1,
        "NodeAffinity": 2, "PodTopologySpread": 2, "TaintToleration": 3,
    }  # fmt: skip
    assert {p.name: w for p, w in then.score_plugins} == {
        "NodeResourcesBalancedAllocation": 1, "ImageLocality": 1, "InterPodAffinity": 1, "NodeResourcesLeastAllocated": 1,
        "NodeAffinity": 1, "NodePreferAvoidPods": 10000, "PodTopologySpread": 2, "TaintToleration": 1,
    }  # fmt: skip
    order = [
        "NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity", "NodePorts", "NodeResourcesFit",
        "PodTopologySpread", "InterPodAffinity",
    ]  # fmt: skip
    assert [p.name for p in today.filter_plugins] == order == [p.name for p in then.filter_plugins]
    config = {
        "profiles": [
            {"schedulerName": "mine",
             "plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit", "weight": 7}]},
                         "multiPoint": {"disabled": [{"name": "NodePorts"}]}}},
        ]
    }  # fmt: skip
    mine = build_profiles(TODAY, config)["mine"]
    assert [(p.name, w) for p, w in mine.score_plugins] == [("NodeResourcesFit", 7)]
    assert "NodePorts" not in [p.name for p in mine.filter_plugins]
    assert build_profiles(TODAY, config)["mine"] is mine


@pytest.mark.parametrize(
    "config",
    [
        {"extenders": [{"urlPrefix": "x"}]},
        {"profiles": [{"plugins": {"score": {"enabled": [{"name": "Nope"}]}}}]},
        {"profiles": [{"plugins": {"scores": {}}}]},
        {"percentageOfNodesToScore": 101},
        {"podInitialBackoffSeconds": 0},
        {"podInitialBackoffSeconds": 20},
        {"podMaxBackoffSeconds": "10s"},
        {"profiles": [{"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "Best"}}}]}]},
    ],
)
def test_configurations_that_cannot_be_used(config: dict[str, Any]) -> None:
    """Said at the door."""
    with pytest.raises(InputError):
        build_profiles(TODAY, config)


def test_a_configuration_sets_the_back_off() -> None:
    """From its first wait on, through the queue itself."""
    config = {"podInitialBackoffSeconds": 3, "podMaxBackoffSeconds": 5}
    pods: dict[str, Pod] = {}
    scheduler = Scheduler(
        TODAY, build_profiles(TODAY, config), Listers(Store(Clock())), now=lambda: 0.0, alive=pods.get, choices=First(),
        backoff_limits=backoff_of(config),
    )  # fmt: skip
    pod = Pod("default", "web", PodSpec.parse({"containers": [{"name": "c"}]}, KubernetesRules.of("1.34")), {})
    pods[pod.key] = pod
    scheduler.handlers.add_pod_to_scheduling_queue(pod)
    ends = []
    for _ in range(3):
        scheduler.queue.activate(pod.key)
        attempt = scheduler.schedule_one()
        assert attempt is not None
        attempt.queued.plugins = {"NodeResourcesFit": None}
        attempt.queued.rejections = len(ends) + 1
        attempt.queued.errors = 0
        attempt.queued.backoff_until = None
        ends.append(scheduler.queue.backoff.ends(attempt.queued))
    assert ends == [3.0, 5.0, 5.0]


def test_ties_are_even() -> None:
    """Four equal nodes, 4,000 draws: chi-squared with 3 degrees of freedom, error probability 0.1 %."""
    draws = Draws(Streams(5))
    counts = [0, 0, 0, 0]
    for _ in range(4000):
        counts[draws.host("abcd")] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 16.27
