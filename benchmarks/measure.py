"""Honest timings: each measurement in a fresh process, CPU time and wall time, median and range, JSON out."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

#: What is measured does no linear algebra, but the CPU time of a process holds the spinning of its idle threads. Bytecode
#: is kept, as it is wherever Python is not told otherwise.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def child(arguments: list[str]) -> dict[str, float]:
    """Run one measurement in a fresh process; it prints a JSON object of figures."""
    command = [sys.executable, *arguments]
    out = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
    return dict(json.loads(out.strip().split("\n")[-1]))


def timed(arguments: list[str]) -> dict[str, float]:
    """Run a command as its user would; wall seconds, CPU seconds and peak RSS (MiB) of the process as a whole."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before = time.perf_counter()
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed")
    return {
        "wall_s": time.perf_counter() - before,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "rss_mib": usage.ru_maxrss / 1024,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": len(values)}


def own_rss_mib() -> float:
    """This process's high-water mark, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def emit(name: str, figures: dict[str, Any]) -> None:
    """Print the benchmark's JSON."""
    print(json.dumps({"benchmark": name, "python": sys.version.split()[0], **figures}, indent=1))
