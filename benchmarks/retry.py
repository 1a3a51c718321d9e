"""What it costs to try a Pending pod again on a full cluster where nothing has changed.

    python benchmarks/retry.py [--nodes 5000] [--per-node 17] [--attempts 2000] [--pairs 5]

The real scheduler takes 6.2 ms of CPU for such an attempt on 5,000 nodes. ``fast`` keeps the verdict until a node
changes; ``plain`` looks at every node, and is the pure-Python reference. A whole attempt counts: out of the queue, verdict,
message, back into the queue. Fresh processes; JSON out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from typing import Any

from measure import child
from place import make_node

PEER_MS = {100: 0.2, 1000: 1.3, 5000: 6.2}


def measure(nodes: int, per_node: int, attempts: int, plain: bool) -> dict[str, Any]:
    """CPU per attempt of one Pending pod, in this process."""
    from eksim.engine.clock import Clock
    from eksim.engine.streams import Streams
    from eksim.kube.scheduler.component import Draws
    from eksim.kube.scheduler.cycle import Scheduler
    from eksim.kube.scheduler.listers import Listers
    from eksim.kube.scheduler.profile import build_profiles
    from eksim.state.objects import Node, Pod
    from eksim.state.podspec import PodSpec
    from eksim.state.store import Store
    from eksim.versions import KubernetesRules

    rules = KubernetesRules.of("1.34")
    pending: dict[str, Pod] = {}
    scheduler = Scheduler(
        rules.scheduler,
        build_profiles(rules.scheduler, None),
        Listers(Store(Clock())),
        now=lambda: 0.0,
        alive=pending.get,
        choices=Draws(Streams(1)),
    )
    spec = PodSpec.parse({"containers": [{"name": "web", "image": "web:1"}]}, rules)
    for i in range(nodes):
        node = make_node(Node, i)
        node.allocatable = {**node.allocatable, "pods": per_node}
        scheduler.handlers.add_node_to_cache(node)
        for j in range(per_node):
            pod = Pod("default", f"old-{i}-{j}", spec, {"app": "old"}, node=node.name)
            scheduler.handlers.add_pod_to_cache(pod)
    pod = Pod("default", "new", spec, {"app": "new"}, uid="new")
    pending[pod.key] = pod
    scheduler.handlers.add_pod_to_scheduling_queue(pod)
    for _ in range(2):
        message = attempt(scheduler, pod.key, plain)
    cpu = time.process_time()
    for _ in range(attempts):
        attempt(scheduler, pod.key, plain)
    cpu = time.process_time() - cpu
    rss_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"us": cpu / attempts * 1e6, "message": message, "rss_mib": rss_kib / 1024}


def attempt(scheduler: Any, key: str, plain: bool) -> str:
    """One attempt, from whatever place in the queue."""
    scheduler.queue.activate(key)
    return str(scheduler.schedule_one(detail=plain).message)


def main() -> None:
    """Alternating fresh processes; JSON on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--per-node", type=int, default=17)
    parser.add_argument("--attempts", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.nodes, args.per_node, args.attempts, args.measure == "plain")))
        return
    runs: dict[str, list[dict[str, Any]]] = {"fast": [], "plain": []}
    for _ in range(args.pairs):
        for how, found in runs.items():
            count = args.attempts if how == "fast" else max(args.attempts // 200, 3)
            command = [__file__, "--measure", how, "--nodes", str(args.nodes)]
            command += ["--per-node", str(args.per_node), "--attempts", str(count)]
            found.append(child(command))
    result: dict[str, Any] = {"benchmark": "retry", "nodes": args.nodes, "pods": args.nodes * args.per_node}
    for how, found in runs.items():
        times = sorted(run["us"] for run in found)
        result[how] = {"us": round(statistics.median(times), 2), "range": [round(times[0], 2), round(times[-1], 2)],
                       "rss_mib": round(max(run["rss_mib"] for run in found))}  # fmt: skip
    messages = {run["message"] for found in runs.values() for run in found}
    result["message"] = sorted(messages)
    peer = PEER_MS.get(args.nodes)
    if peer:
        result["times_the_peer"] = round(peer * 1000 / result["fast"]["us"])
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
