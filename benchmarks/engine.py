"""``python benchmarks/engine.py``: the same event list through a bare heapq loop and through the engine.

A pod's life is eight callbacks at given instants, each arming the next. The ratio engine ÷ heapq in CPU time, with the
recorder off and on (a row of the pods table per event), in alternating pairs of fresh processes; the checksum of the
outcome stands beside it.
"""

from __future__ import annotations

import json
import sys
import time
from heapq import heappop, heappush

from measure import child, emit, own_rss_mib, spread

PODS = 30_000
STAGES = 8
PAIRS = 15


class Pod:
    __slots__ = ("delays", "name", "stage")

    def __init__(self, number: int) -> None:
        self.name = f"default/pod-{number}"
        self.stage = 0
        # a fixed pseudo-random schedule, the same for every engine
        self.delays = [((number * 2654435761 + k * 40503) % 10007) / 1000.0 for k in range(STAGES)]


def heapq_loop(pods: list[Pod]) -> tuple[float, int]:
    queue: list[tuple[float, int, object, Pod]] = []
    now = 0.0
    sequence = 0
    checksum = 0

    def step(pod: Pod) -> None:
        nonlocal sequence, checksum
        pod.stage += 1
        checksum += pod.stage
        if pod.stage < STAGES:
            sequence += 1
            heappush(queue, (now + pod.delays[pod.stage], sequence, step, pod))

    for pod in pods:
        sequence += 1
        heappush(queue, (pod.delays[0], sequence, step, pod))
    while queue:
        now, _, fn, pod = heappop(queue)
        fn(pod)  # type: ignore[operator]
    return now, checksum


def engine(pods: list[Pod], record: bool) -> tuple[float, int]:
    from eksim.engine.calm import calm_gc
    from eksim.engine.clock import INFINITY, NODE_AGENT, Clock
    from eksim.record.recorder import Table

    clock = Clock()
    call_at = clock.arm
    table = Table("pods")
    checksum = 0

    def step(pod: Pod) -> None:
        nonlocal checksum
        pod.stage += 1
        checksum += pod.stage
        if record:
            table.add((clock.now, pod.name, "Pending", "", "node", ""))
        if pod.stage < STAGES:
            call_at(clock.now + pod.delays[pod.stage], NODE_AGENT, step, pod)

    for pod in pods:
        call_at(pod.delays[0], NODE_AGENT, step, pod)
    with calm_gc():
        clock.run_until(INFINITY)
    return clock.now, checksum


def one(which: str) -> None:
    if which != "heapq":
        engine([], False)  # imports, which are paid once and not by each event
    pods = [Pod(i) for i in range(PODS)]
    before = time.process_time()
    end, checksum = heapq_loop(pods) if which == "heapq" else engine(pods, which == "engine-recorder")
    cpu = time.process_time() - before
    print(
        json.dumps(
            {"us_per_event": cpu / (PODS * STAGES) * 1e6, "end_s": end, "checksum": checksum, "rss_mib": own_rss_mib()}
        )
    )


def main() -> None:
    if len(sys.argv) > 1:
        one(sys.argv[1])
        return
    kinds = ("heapq", "engine", "engine-recorder")
    runs: dict[str, list[dict[str, float]]] = {k: [] for k in kinds}
    for _ in range(PAIRS):
        for kind in kinds:
            runs[kind].append(child([__file__, kind]))
    ends = {(r["end_s"], r["checksum"]) for rs in runs.values() for r in rs}
    ratios = {
        kind: spread([r["us_per_event"] / h["us_per_event"] for r, h in zip(runs[kind], runs["heapq"], strict=True)])
        for kind in kinds[1:]
    }
    emit(
        "engine",
        {
            "events": PODS * STAGES,
            "us_per_event": {k: spread([r["us_per_event"] for r in rs]) for k, rs in runs.items()},
            "ratio_to_heapq": ratios,
            "targets": {"engine": 1.4, "engine-recorder": 2.0},
            "outcomes_equal": len(ends) == 1,
            "checksum": runs["engine"][0]["checksum"],
            "rss_mib": spread([r["rss_mib"] for r in runs["engine-recorder"]]),
        },
    )


if __name__ == "__main__":
    main()
