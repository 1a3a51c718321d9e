"""A thousand random small clusters: the scheduler's placements against an independent reading of the rules."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from brute_scheduler import HOST, ZONE, Cluster, decide

from eksim.engine.clock import Clock
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.profile import build_profiles
from eksim.state.objects import ApiObject, Node, Owner, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.testing.scheduler_paths import CheckedScheduler
from eksim.versions import KubernetesRules

Json = dict[str, Any]
MI = 1 << 20
APPS = ("a", "b", "c")


class Draws:
    """Random ties, remembered."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def host(self, top: Sequence[str]) -> int:
        return self.rng.randrange(len(top))

    def offset(self, nodes: int) -> int:
        return 0

    def candidate(self, nodes: Sequence[str]) -> int:
        return 0


def random_node(rng: random.Random, i: int) -> Json:
    labels = {HOST: f"n{i}"}
    if rng.random() < 0.9:
        labels[ZONE] = rng.choice("xyz")
    if rng.random() < 0.5:
        labels["disk"] = rng.choice(("ssd", "hdd"))
    node: Json = {
        "name": f"n{i}", "labels": labels, "pods": rng.randint(1, 6),
        "cpu": rng.choice((1000, 1930, 4000)), "memory": rng.choice((1024, 3072, 8192)) * MI,
    }  # fmt: skip
    if rng.random() < 0.3:
        node["example.com/gpu"] = rng.randint(1, 3)
    node["taints"] = [
        {"key": rng.choice(("k", "l")), "value": rng.choice(("", "v")), "effect": rng.choice(EFFECTS)}
        for _ in range(rng.choice((0, 0, 0, 1, 2)))
    ]
    if rng.random() < 0.15:
        node["unschedulable"] = True
    return node


EFFECTS = ("NoSchedule", "NoExecute", "PreferNoSchedule")


def random_selector(rng: random.Random) -> Json:
    if rng.random() < 0.7:
        return {"matchLabels": {"app": rng.choice(APPS)}}
    operator = rng.choice(("In", "NotIn", "Exists", "DoesNotExist"))
    expression: Json = {"key": "app", "operator": operator}
    if operator in ("In", "NotIn"):
        expression["values"] = rng.sample(APPS, 2)
    return {"matchExpressions": [expression]}


def random_term(rng: random.Random) -> Json:
    return {"key": rng.choice((HOST, ZONE, "disk")), "selector": random_selector(rng)}


def random_pod(rng: random.Random, i: int) -> Json:
    app = rng.choice(APPS)
    pod: Json = {"name": f"p{i}", "labels": {"app": app}, "containers": []}
    for _ in range(rng.choice((1, 1, 2))):
        container: Json = {}
        if rng.random() < 0.6:
            container["cpu"] = rng.choice((0, 100, 500, 1200))
        if rng.random() < 0.6:
            container["memory"] = rng.choice((0, 64, 700, 2500)) * MI
        if rng.random() < 0.1:
            container["example.com/gpu"] = rng.randint(1, 2)
        pod["containers"].append(container)
    if rng.random() < 0.4:
        pod["owner"] = f"rs-{app}"
    if rng.random() < 0.3:
        pod["tolerations"] = [rng.choice(TOLERATIONS) for _ in range(rng.choice((1, 2)))]
    if rng.random() < 0.15:
        pod["nodeSelector"] = {"disk": rng.choice(("ssd", "hdd"))}
    if rng.random() < 0.15:
        pod["hostPorts"] = rng.sample((80, 443), rng.choice((1, 2)))
    if rng.random() < 0.2:
        pod["prefer"] = [
            {"key": "disk", "value": rng.choice(("ssd", "hdd")), "weight": rng.choice((1, 50))},
            {"key": ZONE, "value": rng.choice("xyz"), "weight": rng.choice((1, 20))},
        ]
    if rng.random() < 0.25:
        pod["spread"] = [
            {"key": key, "maxSkew": rng.randint(1, 2), "hard": rng.random() < 0.5, "selector": random_selector(rng),
             "minDomains": rng.choice((1, 1, 3))}
            for key in rng.sample((HOST, ZONE, "disk"), rng.choice((1, 2)))
        ]  # fmt: skip
    for name, chance in (("affinity", 0.12), ("anti", 0.12), ("near", 0.15)):
        if rng.random() < chance:
            pod[name] = [random_term(rng)]
            if name == "near":
                pod[name][0]["weight"] = rng.choice((1, 100))
    return pod


TOLERATIONS = (
    {"operator": "Exists"},
    {"key": "k", "operator": "Exists"},
    {"key": "l", "operator": "Equal", "value": "v", "effect": "NoSchedule"},
    {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"},
)


def real_node(node: Json) -> Node:
    allocatable = {name: node[name] for name in ("cpu", "memory", "pods", "example.com/gpu") if name in node}
    taints = tuple(Taint(t["key"], t["value"], t["effect"]) for t in node["taints"])
    return Node(
        node["name"], allocatable, labels=node["labels"], taints=taints, unschedulable=node.get("unschedulable", False)
    )


def real_pod(pod: Json, rules: KubernetesRules) -> Pod:
    def term(t: Json) -> Json:
        return {"topologyKey": t["key"], "labelSelector": t["selector"]}

    containers = []
    for c in pod["containers"]:
        requests = {r: f"{v}m" if r == "cpu" else v for r, v in c.items()}
        containers.append({"name": "c", "resources": {"requests": requests}})
    containers[0]["ports"] = [{"containerPort": 1, "hostPort": port} for port in pod.get("hostPorts", [])]
    affinity: Json = {}
    if "prefer" in pod:
        affinity["nodeAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": p["weight"],
                 "preference": {"matchExpressions": [{"key": p["key"], "operator": "In", "values": [p["value"]]}]}}
                for p in pod["prefer"]
            ]
        }  # fmt: skip
    if "affinity" in pod or "near" in pod:
        affinity["podAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [term(t) for t in pod.get("affinity", [])],
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": t["weight"], "podAffinityTerm": term(t)} for t in pod.get("near", [])
            ],
        }
    if "anti" in pod:
        affinity["podAntiAffinity"] = {
            "requiredDuringSchedulingIgnoredDuringExecution": [term(t) for t in pod["anti"]]
        }
    spec = {
        "containers": containers,
        "tolerations": pod.get("tolerations", []),
        "nodeSelector": pod.get("nodeSelector", {}),
        "affinity": affinity,
        "topologySpreadConstraints": [
            {"maxSkew": s["maxSkew"], "topologyKey": s["key"], "labelSelector": s["selector"],
             "whenUnsatisfiable": "DoNotSchedule" if s["hard"] else "ScheduleAnyway", "minDomains": s["minDomains"]}
            for s in pod.get("spread", [])
        ],
    }  # fmt: skip
    owner = Owner("ReplicaSet", pod["owner"], "uid") if "owner" in pod else None
    return Pod("default", pod["name"], PodSpec.parse(spec, rules), pod["labels"], uid=pod["name"], owner=owner)


@pytest.mark.parametrize("version", ["1.34", "1.21"])
@pytest.mark.parametrize("part", range(5))
def test_placements_agree_with_a_plain_reading(version: str, part: int) -> None:
    """Every refusal and every set of best nodes; the node taken is one of the best. A hundred clusters a part."""
    rules = KubernetesRules.of(version)
    placed_total = refused_total = 0
    for seed in range(part * 100, part * 100 + 100):
        rng = random.Random(seed)
        store = Store(Clock())
        # Then a pod without an owner is spread by whatever ReplicaSet selects it, so all pods have theirs.
        replica_sets = {f"rs-{app}": {"matchLabels": {"app": app}} for app in APPS}
        for name, selector in replica_sets.items():
            store.create_object(ApiObject("ReplicaSet", "default", name, {"selector": selector}))
        pods: dict[str, Pod] = {}
        scheduler = CheckedScheduler(
            rules.scheduler, build_profiles(rules.scheduler, None), Listers(store),
            now=lambda: 0.0, alive=pods.get, choices=Draws(rng),
        )  # fmt: skip
        nodes = [random_node(rng, i) for i in range(rng.randint(1, 8))]
        for node in nodes:
            scheduler.handlers.add_node_to_cache(real_node(node))
        cluster = Cluster(nodes, [], replica_sets, version == "1.34")
        for i in range(10):
            manifest = random_pod(rng, i)
            if version == "1.21":
                manifest["owner"] = f"rs-{manifest['labels']['app']}"
            best, refused = decide(cluster, manifest)
            pod = pods[f"default/p{i}"] = real_pod(manifest, rules)
            scheduler.handlers.add_pod_to_scheduling_queue(pod)
            attempt = scheduler.schedule_one(detail=True)
            assert attempt is not None
            where = f"seed {seed}, pod {i}"
            got = {name: (status.plugin, status.reasons) for name, status in attempt.rejected.items()}
            assert got == refused, where
            if attempt.chosen is None:
                assert best == [], where
                refused_total += 1
                scheduler.handlers.delete_pod_from_scheduling_queue(pod)
                continue
            top = attempt.scores.top if attempt.scores else [attempt.chosen.name]
            assert sorted(top) == sorted(best), where
            placed_total += 1
            pod.node = manifest["node"] = attempt.chosen.name
            cluster.placed.append(manifest)
            scheduler.handlers.add_pod_to_cache(pod)
            scheduler.handlers.delete_pod_from_scheduling_queue(pod)
    assert placed_total > 300 and refused_total > 100
