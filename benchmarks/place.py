"""How fast pods are placed: Deployment pods one by one on a large cluster, and the histogram that must come with it.

    python benchmarks/place.py [--nodes 5000] [--pods 1500] [--pairs 5] [--peer PROGRAM] [--no-spread]

Each measurement is a fresh process. ``fast`` is the scheduler as the simulation runs it, driven without a store, as the
real one is for its figure of 264 pods per CPU-second; ``component`` has the store, the clock and the event recorder
around it; ``plain`` is the same scheduler without node classes, the pure-Python reference, on fewer pods. ``--peer``: a
program that is called with the numbers of nodes and pods and prints a JSON object with ``cpu_s``. JSON out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import time
from typing import Any

from measure import child

PEER_PODS_PER_CPU_S = {(100, True): 1490, (1000, True): 578, (5000, True): 264,
                       (100, False): 3280, (1000, False): 859, (5000, False): 556}  # fmt: skip


def build(nodes: int, spread: bool, seed: int) -> Any:
    """(scheduler core, function that makes pod i)."""
    from eksim.engine.clock import Clock
    from eksim.engine.streams import Streams
    from eksim.kube.scheduler.component import Draws
    from eksim.kube.scheduler.cycle import Scheduler
    from eksim.kube.scheduler.listers import Listers
    from eksim.kube.scheduler.profile import build_profiles
    from eksim.state.objects import ApiObject, Node, Owner, Pod
    from eksim.state.podspec import PodSpec
    from eksim.state.store import Store
    from eksim.versions import KubernetesRules

    rules = KubernetesRules.of("1.34")
    store = Store(Clock())
    store.create_object(ApiObject("ReplicaSet", "default", "web", {"selector": {"matchLabels": {"app": "web"}}}))
    now = [0.0]
    scheduler = Scheduler(
        rules.scheduler,
        build_profiles(rules.scheduler, None),
        Listers(store),
        now=lambda: now[0],
        alive=store.pods.get,
        choices=Draws(Streams(seed)),
    )
    for i in range(nodes):
        scheduler.handlers.add_node_to_cache(make_node(Node, i))
    spec = PodSpec.parse({"containers": [{"name": "web", "image": "web:1"}]}, rules)
    owner = Owner("ReplicaSet", "web", "uid-web") if spread else None

    def make(i: int) -> Pod:
        return Pod("default", f"web-{i}", spec, {"app": "web"}, uid=f"u{i}", owner=owner)

    return scheduler, make


def make_node(node_class: Any, i: int) -> Any:
    """A node of 8 cpu, 32 GiB and 110 pods in one of three zones."""
    labels = {
        "kubernetes.io/hostname": f"node-{i}",
        "topology.kubernetes.io/region": "r",
        "topology.kubernetes.io/zone": "abc"[i % 3],
    }
    return node_class(f"node-{i}", {"cpu": 8000, "memory": 32 << 30, "pods": 110}, labels=labels)


def place_core(nodes: int, pods: int, spread: bool, seed: int, plain: bool) -> dict[str, int]:
    """Place and bind, one pod after another; pods per node."""
    scheduler, make = build(nodes, spread, seed)
    handlers = scheduler.handlers
    placed: dict[str, int] = {}
    for i in range(pods):
        pod = make(i)
        handlers.add_pod_to_scheduling_queue(pod)
        attempt = scheduler.schedule_one(detail=plain)
        name = attempt.chosen.name
        pod.node = name
        handlers.add_pod_to_cache(pod)
        handlers.delete_pod_from_scheduling_queue(pod)
        placed[name] = placed.get(name, 0) + 1
    return placed


def place_component(nodes: int, pods: int, spread: bool, seed: int) -> dict[str, int]:
    """The same with store, clock and a recorder of events."""
    from eksim.engine.clock import STEPS, Clock
    from eksim.engine.streams import Streams
    from eksim.kube.scheduler.component import Scheduler, SchedulerSettings
    from eksim.state.objects import ApiObject, Node, Owner, Pod
    from eksim.state.podspec import PodSpec
    from eksim.state.store import Store
    from eksim.versions import KubernetesRules

    class Recorder:
        def __init__(self) -> None:
            self.events: list[Any] = []

        def event(self, obj: Any, type: str, reason: str, message: str, **_: Any) -> None:
            self.events.append((obj.key, reason, message))

    rules = KubernetesRules.of("1.34")
    clock = Clock()
    store = Store(clock)
    Scheduler(clock, store, Streams(seed), rules, Recorder(), SchedulerSettings())
    store.create_object(ApiObject("ReplicaSet", "default", "web", {"selector": {"matchLabels": {"app": "web"}}}))
    for i in range(nodes):
        store.add_node(make_node(Node, i))
    spec = PodSpec.parse({"containers": [{"name": "web", "image": "web:1"}]}, rules)
    owner = Owner("ReplicaSet", "web", "uid-web") if spread else None
    for i in range(pods):
        pod = Pod("default", f"web-{i}", spec, {"app": "web"}, uid=f"u{i}", owner=owner)
        clock.call_at(1.0 + i * 0.001, STEPS, store.create_pod, pod)
    clock.run_until(1.0 + pods)
    return {name: len(on) for name, on in store.pods_by_node.items() if on}


def measure(how: str, nodes: int, pods: int, spread: bool, seed: int) -> dict[str, Any]:
    """One measurement in this process; making the cluster is not counted (a run without pods is taken off)."""
    from eksim.engine.calm import calm_gc

    run = place_component if how == "component" else lambda n, p, s, x: place_core(n, p, s, x, how == "plain")
    run(150, 5, spread, seed)
    with calm_gc():
        cpu, wall = time.process_time(), time.perf_counter()
        run(nodes, 0, spread, seed)
        empty_cpu, empty_wall = time.process_time() - cpu, time.perf_counter() - wall
        cpu, wall = time.process_time(), time.perf_counter()
        placed = run(nodes, pods, spread, seed)
        cpu, wall = time.process_time() - cpu - empty_cpu, time.perf_counter() - wall - empty_wall
    per_node = [placed.get(f"node-{i}", 0) for i in range(nodes)]
    histogram = {count: per_node.count(count) for count in sorted(set(per_node))}
    rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"cpu_s": cpu, "wall_s": wall, "pods": pods, "rss_mib": rss_kib / 1024, "histogram": histogram}


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median and range over runs."""
    rates = sorted(run["pods"] / run["cpu_s"] for run in runs)
    return {
        "pods_per_cpu_s": {"median": round(statistics.median(rates)), "range": [round(rates[0]), round(rates[-1])]},
        "us_per_pod": round(1e6 / statistics.median(rates), 1),
        "wall_s": round(statistics.median(run["wall_s"] for run in runs), 3),
        "rss_mib": round(max(run["rss_mib"] for run in runs)),
        "histograms": [run["histogram"] for run in runs],
    }


def main() -> None:
    """Alternating fresh processes; JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--pods", type=int, default=1500)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--no-spread", action="store_true")
    parser.add_argument("--plain-pods", type=int, default=50)
    parser.add_argument("--peer", default="")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    spread = not args.no_spread
    if args.measure:
        print(json.dumps(measure(args.measure, args.nodes, args.pods, spread, args.seed)))
        return
    runs: dict[str, list[dict[str, Any]]] = {"fast": [], "component": [], "plain": []}
    peer: list[float] = []
    for seed in range(1, args.pairs + 1):
        for how, found in runs.items():
            pods = min(args.plain_pods, args.pods) if how == "plain" else args.pods
            command = [__file__, "--measure", how, "--nodes", str(args.nodes), "--pods", str(pods)]
            command += ["--seed", str(seed)] + ([] if spread else ["--no-spread"])
            found.append(child(command))
        if args.peer:
            out = subprocess.run([args.peer, str(args.nodes), str(args.pods)], check=True, capture_output=True).stdout
            peer.append(json.loads(out)["cpu_s"])
    result: dict[str, Any] = {"benchmark": "place", "nodes": args.nodes, "pods": args.pods, "spread": spread}
    result.update({how: summary(found) for how, found in runs.items()})
    published = PEER_PODS_PER_CPU_S.get((args.nodes, spread))
    rate = args.pods / statistics.median(peer) if peer else published
    if rate:
        result["peer_pods_per_cpu_s"] = round(rate)
        result["times_the_peer"] = round(result["fast"]["pods_per_cpu_s"]["median"] / rate, 1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
