"""Corners of the scheduler's rules that no recording shows, each with what the real code does there."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.kube.scheduler.cache import Cache
from eksim.kube.scheduler.component import Draws
from eksim.kube.scheduler.cycle import Scheduler
from eksim.kube.scheduler.facts import Terms, facts_of
from eksim.kube.scheduler.go_sort import sort_slice
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.nodeinfo import PodInfo
from eksim.kube.scheduler.preemption import sort_by_importance
from eksim.kube.scheduler.profile import build_profiles
from eksim.kube.scheduler.queued_pod import BACKOFF, GATED, UNSCHEDULABLE
from eksim.state.objects import Node, Pod
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.testing.replay_scheduler import Harness
from eksim.versions import KubernetesRules

# What Go's sort.Slice makes of these (by value; of two -1 each is less than the other): the places of the elements.
SORTED = [
    ([2, 2, 1, 1, 2, 1, 2, 2, 1, 1, 2, 1], [2, 3, 5, 8, 9, 11, 0, 1, 4, 6, 7, 10]),
    ([0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1], [6, 0, 11, 3, 9, 5, 12, 8, 1, 4, 10, 2, 7, 13]),
    ([1] * 14, list(range(14))),
    ([-1] * 3, [2, 1, 0]),
    ([-1] * 14, [11, 10, 9, 8, 7, 13, 5, 4, 3, 2, 1, 12, 0, 6]),
    ([0, 1, 1, -1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1, 1, 0], [3, 12, 7, 16, 4, 13, 0, 9, 10, 2, 8, 11, 6, 5, 14, 15, 1]),
    ([5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0, 5, 5, 4, 3, 1], [11, 10, 9, 8, 16, 7, 5, 6, 4, 3, 15, 2, 14, 1, 0, 12, 13]),
    (
        [i * 7 % 5 for i in range(60)],
        [40, 25, 55, 30, 20, 5, 0, 10, 15, 45, 35, 50, 58, 13, 38, 8, 48, 33, 18, 43, 53, 3, 28, 23, 31, 36, 26, 1, 56, 51,
         21, 6, 46, 11, 41, 16, 49, 24, 14, 39, 59, 34, 54, 4, 44, 9, 29, 19, 47, 7, 37, 32, 52, 17, 42, 2, 22, 57, 27, 12],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("values", "places"), SORTED)
def test_equal_elements_come_out_as_from_go(values: list[int], places: list[int]) -> None:
    """sort.Slice is not stable above 12 elements, and not at all for a comparison that contradicts itself."""
    items = list(enumerate(values))
    sort_slice(items, lambda a, b: (a[1] == b[1] == -1) or a[1] < b[1])
    assert [place for place, _ in items] == places


@pytest.mark.parametrize("count", [13, 40, 300])
def test_it_sorts(count: int) -> None:
    """Whatever the order before."""
    for step in (1, 3, 7, 11):
        items = [i * step % count for i in range(count)]
        wanted = sorted(items)
        sort_slice(items, lambda a, b: a < b)
        assert items == wanted
        items.reverse()
        sort_slice(items, lambda a, b: a < b)
        assert items == wanted


def test_more_than_twelve_victims_lose_their_order() -> None:
    """Priorities 0 and 1, all started at once: the same as the second row of the table, the other way round."""
    spec = PodSpec.parse({"containers": []})
    important = spec.replace(priority=1)
    pods = []
    for i, value in enumerate(SORTED[1][0]):
        pod = Pod("default", f"p{i}", spec if value else important, {})
        pod.started_s = 0.0
        pods.append(PodInfo(pod))
    sort_by_importance(pods)
    assert [int(info.pod.name[1:]) for info in pods] == SORTED[1][1]


GPU = {"example.com/gpu": "0"}


@pytest.mark.parametrize(
    ("version", "manifest", "asked"),
    [
        ("1.21", {"containers": [{"resources": {"requests": GPU}}]}, True),
        ("1.21", {"containers": [{}], "overhead": GPU}, True),
        ("1.21", {"containers": [{}], "initContainers": [{"resources": {"requests": GPU}}]}, False),
        ("1.34", {"containers": [{"resources": {"requests": GPU}}]}, False),
    ],
)
def test_zero_of_an_extended_resource(version: str, manifest: dict[str, Any], asked: bool) -> None:
    """Then it is asked for if a container or the overhead names it (Resource.Add), not if only an init container does
    (Resource.SetMaxResource): fit.go:computePodResourceRequest, v1.21.9."""
    spec = PodSpec.parse(manifest, KubernetesRules.of(version), defaulted=False)
    assert facts_of(spec).scalars == ((("example.com/gpu", 0),) if asked else ())


NOT_Q = {"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["q"]}]}
IN_Q = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["q"]}]}


@pytest.mark.parametrize(
    ("version", "selector", "team", "existing", "incoming"),
    [
        ("1.34", IN_Q, "q", True, True),
        ("1.34", IN_Q, "p", False, False),
        ("1.34", NOT_Q, "p", True, True),
        ("1.34", NOT_Q, "q", False, True),
        ("1.33", NOT_Q, "q", False, False),
        ("1.34", {}, "q", True, True),
    ],
)
def test_namespace_selector_of_the_pod_being_placed(
    version: str, selector: dict[str, Any], team: str, existing: bool, incoming: bool
) -> None:
    """In 1.34 a selector that no labels at all fulfil selects every namespace, in terms of the pod being placed only:
    interpodaffinity/plugin.go:mergeAffinityTermNamespacesIfNotEmpty takes the term by value."""
    term = {"labelSelector": {}, "topologyKey": "zone", "namespaceSelector": selector}
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    spec = PodSpec.parse({"containers": [], "affinity": affinity}, KubernetesRules.of(version))
    (found,) = Terms(spec, "default").affinity
    assert found.matches("other", {}, {"team": team}) is existing
    assert found.matches_for_incoming("other", {}, {"team": team}) is incoming


TWO_NAMED = {
    "nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]} for name in ("n0", "n1")
    ]
}
NAMED_POD = {
    "metadata": {"name": "p", "namespace": "default", "uid": "u"},
    "spec": {
        "schedulerName": "default-scheduler",
        "containers": [{"resources": {"requests": {"cpu": "2"}}}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": TWO_NAMED}},
    },
}


def _nodes(*cpus: str) -> list[dict[str, Any]]:
    allocatable = [{"cpu": cpu, "memory": "4Gi", "pods": "10"} for cpu in cpus]
    return [{"metadata": {"name": f"n{i}"}, "status": {"allocatable": a}} for i, a in enumerate(allocatable)]


@pytest.mark.parametrize(
    ("nominated", "plugins"), [("", "[NodeAffinity]"), ("n0", "[NodeAffinity NodeResourcesFit]"), ("n9", "[NodeAffinity]")]
)
def test_who_kept_the_pod_from_the_other_nodes(nominated: str, plugins: str) -> None:
    """What refused the nominated node stands in one set with the plugins that named the nodes
    (schedule_one.go:findNodesThatFitPod, v1.34.1: UnschedulablePlugins)."""
    harness = Harness({"scheduler_version": "1.34", "steps": []}, plain=True)
    for manifest in _nodes("1", "1", "1"):
        harness._add_node(manifest)
    pod = harness._pod(NAMED_POD)
    pod.nominated_node = nominated
    harness.pods[pod.key] = pod
    harness.scheduler.handlers.add_pod_to_scheduling_queue(pod)
    attempt = harness.scheduler.schedule_one(detail=True)
    assert attempt is not None
    assert f"1 node(s) didn't satisfy plugin(s) {plugins}" in attempt.message


def test_order_of_named_nodes_follows_the_record() -> None:
    """The real scheduler takes them from a Go set; empty fields may be missing."""
    outcomes = []
    for feasible, total in (([0, 1], [10, 20]), ([1, 0], [20, 10])):
        harness = Harness({"scheduler_version": "1.34", "steps": []}, plain=True)
        want = {"feasible": feasible, "total": total, "top": [1], "scores": {"X": {"w": 1, "raw": total, "norm": total}}}
        got = harness._in_order(want, [0, 1])
        outcomes.append((got["feasible"], got["total"], got["top"], got["scores"]["X"]["raw"]))
    assert outcomes[0] == outcomes[1] == ([0, 1], [10, 20], [1], [10, 20])
    assert Harness._in_order({"feasible": [0, 2]}, [0, 1]) == {"feasible": [0, 2]}


@pytest.mark.parametrize(("version", "first", "after_pod"), [("1.34", 1, 2), ("1.28", 1, 1)])
def test_an_unchanged_node_remembers_how_many_had_its_image(version: str, first: int, after_pod: int) -> None:
    """A snapshot copies only nodes that have changed, and an image's count with them; up to 1.28 it is set with the node.

    framework/types.go:ImageStateSummary.Snapshot; cache.go:UpdateSnapshot, v1.34.1.
    """
    cache = Cache(KubernetesRules.of(version).scheduler)
    images = ((("app:1",), 500),)
    one = cache.add_node(Node("one", {"pods": 9}, images=images))
    cache.update_snapshot()
    two = cache.add_node(Node("two", {"pods": 9}, images=images))
    cache.update_snapshot()
    assert one.images["app:1"] == (500, first)
    assert two.images["app:1"] == (500, 2)
    cache.add_pod(PodInfo(Pod("default", "p", PodSpec.parse({"containers": []}), {}), "one"))
    cache.update_snapshot()
    assert one.images["app:1"] == (500, after_pod)


@pytest.mark.parametrize(("now", "where"), [(301.0, BACKOFF), (299.0, UNSCHEDULABLE)])
def test_a_gated_pod_left_over_is_news_to_a_pod_in_flight(now: float, where: str) -> None:
    """The leftover flush takes gated pods of five minutes for left over, too. They stay, but the flush is an event, which
    whoever is being scheduled meanwhile hears of: scheduling_queue.go:flushUnschedulablePodsLeftover, v1.34.1."""
    rules = KubernetesRules.of("1.34")
    clock = [0.0]
    pods: dict[str, Pod] = {}
    core = Scheduler(
        rules.scheduler,
        build_profiles(rules.scheduler, None),
        Listers(Store(Clock())),
        now=lambda: clock[0],
        alive=pods.get,
        choices=Draws(Streams(1)),
    )
    core.handlers.add_node_to_cache(Node("full", {"pods": 0}))
    for name, gates in (("gated", [{"name": "g"}]), ("plain", [])):
        spec = PodSpec.parse({"containers": [{}], "schedulingGates": gates}, rules)
        pod = pods[f"default/{name}"] = Pod("default", name, spec, {}, uid=name)
        core.handlers.add_pod_to_scheduling_queue(pod)
    clock[0] = now
    attempt = core.begin()
    assert attempt is not None
    core.queue.flush_unschedulable_leftover()
    core.finish(attempt)
    assert core.queue.pods["default/plain"].where == where
    assert core.queue.pods["default/gated"].where == GATED
