"""``python benchmarks/startup.py``: wall time of ``--version``, ``--help`` and the lab without its picture, fresh processes.

One run of each, not counted, comes first: it compiles what has no bytecode yet.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measure import emit, spread, timed

RUNS = 9
LAB = Path(__file__).parent.parent / "scenarios" / "lab.yaml"


def main() -> None:
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in (
            ("version", ["--version"]),
            ("help", ["--help"]),
            ("lab", ["run", str(LAB), "-q", "--no-picture", "--results", f"{folder}/lab"]),
        ):
            runs = [timed([sys.executable, "-m", "eksim", *arguments]) for _ in range(RUNS + 1)][1:]
            figures[name] = {
                "wall_ms": spread([r["wall_s"] * 1000 for r in runs]),
                "cpu_ms": spread([r["cpu_s"] * 1000 for r in runs]),
                "rss_mib": spread([r["rss_mib"] for r in runs]),
            }
    emit("startup", {"figures": figures, "targets_wall_ms": {"version": 60, "help": 200, "lab": 400}})


if __name__ == "__main__":
    main()
