"""``python benchmarks/sweep.py``: "scale to 30" over the catalogue × 1–6 nodes × four CNI settings; rows per second.

Every shortcut off and on, one worker and two, in fresh processes, alternating over ``--rounds``; the checksum of all rows
stands beside the speeds. ``--types N`` takes every N-th instance type (default: a tenth of the catalogue; ``--all`` takes it
whole). Beside each round the bare heapq loop of ``engine.py`` is timed, so that a row's cost can be told in its events
whatever the machine; the target is told so, too, for the machine on which it was set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from measure import child, emit, own_rss_mib, spread

BASE = Path(__file__).parent.parent / "scenarios" / "scale-to-30.yaml"
SETTINGS = (
    {},
    {"vpcCni.env.WARM_IP_TARGET": "2"},
    {"vpcCni.env.MINIMUM_IP_TARGET": "10", "vpcCni.env.WARM_IP_TARGET": "2"},
)
PREFIXES = {"vpcCni.env.ENABLE_PREFIX_DELEGATION": "true", "vpcCni.env.WARM_PREFIX_TARGET": "1"}
#: The fourth setting where the hypervisor has no prefixes.
WITHOUT_PREFIXES = {"vpcCni.env.WARM_ENI_TARGET": "2"}

TARGET_ROWS_PER_S = 1000
#: The bare heapq loop where the target was set, microseconds an event.
REFERENCE_HEAPQ_US = 0.92
YARDSTICK = str(Path(__file__).with_name("engine.py"))

CHECKED = (
    "instance_type", "nodes", "pods_running", "pods_pending", "settled_s", "enis", "ec2_calls", "start_p99_s",
    "addresses_assigned", "usd_per_hour",
)  # fmt: skip


def one(jobs: int, simulate_all: bool, step: int) -> None:
    from eksim.catalog import types
    from eksim.sweep.file import plan_from_flags
    from eksim.sweep.runner import run_sweep

    chosen = [t for t in types.match("*") if t.vcpu is not None][::step]
    nitro = [t.name for t in chosen if t.is_nitro]
    others = [t.name for t in chosen if not t.is_nitro]
    parts = [([t.name for t in chosen], setting) for setting in SETTINGS]
    parts += [(nitro, PREFIXES), (others, WITHOUT_PREFIXES)]
    rows = []
    took = cpu = 0.0
    for names, setting in parts:
        if not names:
            continue
        settings = [f"{path}={value}" for path, value in setting.items()]
        plan = plan_from_flags(BASE, instance_type=",".join(names), nodes="1..6", settings=settings)
        before = time.perf_counter()
        used = _cpu()
        rows += run_sweep(plan, jobs=jobs, simulate_all=simulate_all)
        took += time.perf_counter() - before
        cpu += _cpu() - used
    text = json.dumps([[r[c] for c in CHECKED] for r in rows])
    print(
        json.dumps(
            {
                "rows": len(rows),
                "rows_per_s": len(rows) / took,
                "cpu_ms_per_row": cpu / len(rows) * 1000,
                "checksum": hashlib.sha256(text.encode()).hexdigest()[:16],
                "rss_mib": max(own_rss_mib(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
            }
        )
    )


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--types", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=3)
    arguments = parser.parse_args()
    if arguments.child:
        jobs, simulate_all, step = map(int, arguments.child)
        one(jobs, bool(simulate_all), step)
        return
    step = 1 if arguments.all else arguments.types
    kinds = {
        "all, 1 worker": (1, 1),
        "all, 2 workers": (2, 1),
        "shortcut, 1 worker": (1, 0),
        "shortcut, 2 workers": (2, 0),
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    yardstick: list[float] = []
    for _ in range(arguments.rounds):
        yardstick.append(child([YARDSTICK, "heapq"])["us_per_event"])
        for name, (jobs, simulate_all) in kinds.items():
            runs[name].append(child([__file__, "--child", str(jobs), str(simulate_all), str(step)]))
            print(name, runs[name][-1], file=sys.stderr)
    figures = {
        name: {
            "rows": made[0]["rows"],
            "rows_per_s": spread([r["rows_per_s"] for r in made]),
            "cpu_ms_per_row": spread([r["cpu_ms_per_row"] for r in made]),
            "heapq_events_per_row": spread(
                [r["cpu_ms_per_row"] * 1000 / us for r, us in zip(made, yardstick, strict=True)]
            ),
            "rss_mib": spread([r["rss_mib"] for r in made]),
        }
        for name, made in runs.items()
    }
    checksums = {r["checksum"] for made in runs.values() for r in made}
    emit(
        "sweep",
        {
            "figures": figures,
            "heapq_us": spread(yardstick),
            "target_rows_per_s": TARGET_ROWS_PER_S,
            "floor_rows_per_s": 200,
            "target_heapq_events_per_row": 2 * 1e6 / TARGET_ROWS_PER_S / REFERENCE_HEAPQ_US,
            "checksum": sorted(checksums)[0],
            "checksums_equal": len(checksums) == 1,
        },
    )


if __name__ == "__main__":
    main()
