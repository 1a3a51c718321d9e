"""Random walks of a cluster: node classes (the fast path) and the look at every node find the same, at each attempt."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_scheduler_brute import APPS, Draws, random_node, random_pod, real_node, real_pod

from eksim.engine.clock import Clock
from eksim.kube.scheduler.classes import ClassTable
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.profile import build_profiles
from eksim.state.objects import ApiObject, Condition, Node, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.testing.scheduler_paths import CheckedScheduler
from eksim.versions import KubernetesRules


class Walk:
    """A cluster that changes at random; every attempt runs both paths, and a difference raises."""

    def __init__(self, seed: int, version: str, nodes: int, config: Any = None) -> None:
        self.rng = rng = random.Random(seed)
        self.rules = KubernetesRules.of(version)
        self.store = Store(Clock())
        for app in APPS:
            selector = {"matchLabels": {"app": app}}
            self.store.create_object(ApiObject("ReplicaSet", "default", f"rs-{app}", {"selector": selector}))
        self.pods: dict[str, Pod] = {}
        self.nodes: dict[str, Node] = {}
        self.now = 0.0
        self.made = 0
        self.by_classes = 0
        self.listers = Listers(self.store)
        self.scheduler = CheckedScheduler(
            self.rules.scheduler, build_profiles(self.rules.scheduler, config), self.listers,
            now=lambda: self.now, alive=self.pods.get, choices=Draws(rng),
        )  # fmt: skip
        self.kinds = [self.simple_kind(i) for i in range(3)] + [random_pod(rng, i) for i in range(2)]
        self.specs = [real_pod(kind, self.rules) for kind in self.kinds]
        for _ in range(nodes):
            self.add_node()

    def simple_kind(self, i: int) -> dict[str, Any]:
        kind = random_pod(self.rng, i)
        for name in ("affinity", "anti", "near", "spread"):
            kind.pop(name, None)
        return kind

    def add_node(self) -> None:
        self.made += 1
        manifest = random_node(self.rng, self.made)
        if self.rng.random() < 0.5:
            manifest.update(cpu=1930, memory=3072 << 20, pods=5, taints=[])
            manifest.pop("unschedulable", None)
        node = real_node(manifest)
        if self.rng.random() < 0.2:
            node.images = ((("i:latest", "j"), 500 << 20),)
        self.nodes[node.name] = node
        self.scheduler.handlers.add_node_to_cache(node)

    def change_node(self) -> None:
        old = self.nodes[self.rng.choice(list(self.nodes))]
        new = self.nodes[old.name] = copy.copy(old)
        what = self.rng.randrange(6)
        if what == 0:
            new.taints = () if old.taints else (Taint("k", "v", self.rng.choice(("NoSchedule", "PreferNoSchedule"))),)
        elif what == 1:
            new.unschedulable = not old.unschedulable
        elif what == 2:
            new.allocatable = {**old.allocatable, "pods": self.rng.randint(1, 6)}
        elif what == 3:
            new.labels = {**old.labels, "disk": self.rng.choice(("ssd", "hdd", "tape"))}
        elif what == 4:
            new.labels = {**old.labels, "topology.kubernetes.io/zone": self.rng.choice("xyzw")}
        else:
            new.conditions = {"Ready": Condition("Ready", self.rng.choice(("True", "False")))}
        self.scheduler.handlers.update_node_in_cache(old, new)

    def remove_node(self) -> None:
        node = self.nodes.pop(self.rng.choice(list(self.nodes)))
        self.scheduler.handlers.delete_node_from_cache(node)
        for pod in [p for p in self.pods.values() if p.node == node.name]:
            del self.pods[pod.key]
            self.scheduler.handlers.delete_pod_from_cache(pod)

    def create(self) -> None:
        kind = self.rng.randrange(len(self.specs))
        like = self.specs[kind]
        self.made += 1
        pod = Pod("default", f"q{self.made}", like.spec, dict(like.labels), uid=f"q{self.made}", owner=like.owner)
        if self.rng.random() < 0.05:
            pod.spec = PodSpec.parse({**like.spec.manifest, "priority": 10}, self.rules)
        self.pods[pod.key] = pod
        self.scheduler.handlers.add_pod_to_scheduling_queue(pod)

    def delete(self) -> None:
        if self.pods:
            pod = self.pods.pop(self.rng.choice(list(self.pods)))
            if pod.node:
                self.scheduler.handlers.delete_pod_from_cache(pod)
            else:
                self.scheduler.handlers.delete_pod_from_scheduling_queue(pod)

    def change_pod(self) -> None:
        if self.pods:
            old = self.pods[self.rng.choice(list(self.pods))]
            new = self.pods[old.key] = copy.copy(old)
            if self.rng.random() < 0.5:
                new.labels = {"app": self.rng.choice(APPS)}
            elif new.node:
                new.deletion_s = self.now
            if new.node:
                self.scheduler.handlers.update_pod_in_cache(old, new)
            else:
                self.scheduler.handlers.update_pod_in_scheduling_queue(old, new, updated=True)

    def schedule(self) -> None:
        for _ in range(self.rng.randint(1, 8)):
            attempt = self.scheduler.schedule_one(detail=True)
            if attempt is None:
                return
            old = self.pods[attempt.pod.key]
            new = self.pods[old.key] = copy.copy(old)
            if attempt.chosen is not None:
                new.node = attempt.chosen.name
                self.scheduler.handlers.add_pod_to_cache(new)
                self.scheduler.handlers.delete_pod_from_scheduling_queue(old)
            elif attempt.nominated is not None and attempt.nominated != old.nominated_node:
                new.nominated_node = attempt.nominated
                self.scheduler.handlers.update_pod_in_scheduling_queue(old, new, updated=False)

    def wait(self) -> None:
        self.now += self.rng.choice((1.0, 2.0, 30.0))
        self.scheduler.queue.flush_backoff_completed()
        self.scheduler.queue.flush_unschedulable_leftover()

    def owners(self) -> None:
        """A Service comes or goes: the default spread's selector changes."""
        service = self.store.get("Service", "default/s")
        if service is None:
            self.store.create_object(ApiObject("Service", "default", "s", {"selector": {"app": "a"}}))
        else:
            self.store.delete_object(service)
        self.listers.version += 1
        self.scheduler.handlers.on_service_change()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            roll = self.rng.random()
            if roll < 0.35:
                self.create()
            elif roll < 0.7:
                self.schedule()
            elif roll < 0.78:
                self.delete()
            elif roll < 0.84:
                self.change_pod()
            elif roll < 0.90:
                self.change_node()
            elif roll < 0.93:
                self.wait()
            elif roll < 0.96:
                self.add_node()
            elif roll < 0.98:
                self.owners()
            elif len(self.nodes) > 1:
                self.remove_node()


VERSIONS = st.sampled_from(["1.34", "1.21", "1.24", "1.30"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), VERSIONS, st.integers(1, 8))
def test_small_clusters(seed: int, version: str, nodes: int) -> None:
    """Every node is looked at."""
    Walk(seed, version, nodes).run(80)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**9), VERSIONS)
def test_sampled_clusters(seed: int, version: str) -> None:
    """More nodes than are looked at: arbitrary samples, counted from arrays."""
    Walk(seed, version, 230).run(60)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 3))
def test_equal_nodes_in_repeating_samples(seed: int, share: int) -> None:
    """All nodes feasible and a whole number of samples: blocks, until a node fills up."""
    walk = Walk(seed, "1.34", 0, {"percentageOfNodesToScore": 50})
    for i in range(200 * share):
        labels = {"kubernetes.io/hostname": f"m{i}", "topology.kubernetes.io/zone": "xyz"[i % 3]}
        node = walk.nodes[f"m{i}"] = Node(f"m{i}", {"cpu": 1930, "memory": 3 << 30, "pods": 2}, labels=labels)
        walk.scheduler.handlers.add_node_to_cache(node)
    spec = PodSpec.parse({"containers": [{"name": "c"}]}, walk.rules)
    walk.specs = [Pod("default", "k", spec, {"app": "a"}, owner=walk.specs[0].owner)]
    for _ in range(60):
        walk.create()
    while walk.scheduler.queue.has_due():
        walk.schedule()
    walk.run(40)


def test_the_walks_do_use_classes(monkeypatch: Any) -> None:
    """The comparison is worth something: most attempts have a verdict by classes."""
    used: list[int] = []
    verdict = ClassTable.verdict
    monkeypatch.setattr(ClassTable, "verdict", lambda self, *a: used.append(1) or verdict(self, *a))
    for seed in range(10):
        Walk(seed, "1.34", 5).run(100)
    assert len(used) > 50
