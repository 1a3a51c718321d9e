"""``make results``: run every shipped scenario and two sweeps, and keep what they gave; ``--check`` makes all anew and
compares.

Kept in ``results/shipped/<name>/``: ``summary.json`` (versions left out), small tables as CSV, the pictures. Figures must
come out exactly; pictures are compared by structure (size, and the number of marks of each kind), since fonts differ
between machines.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from eksim.play.run import play
from eksim.record.result import Result
from eksim.record.tables import TABLES
from eksim.scenario.load import LoadedScenario, load_scenario
from eksim.sweep.dataset import column_names
from eksim.sweep.file import plan_from_flags
from eksim.sweep.plan import Plan
from eksim.sweep.runner import run_sweep
from eksim.views.plots import draw_run
from eksim.views.sweep_plots import draw_sweep, frontier

ROOT = Path(__file__).parent.parent
SHIPPED = Path(__file__).parent / "shipped"
SCENARIOS = ROOT / "scenarios"
LEFT_OUT = ("versions",)


def write_csv(path: Path, columns: list[str], rows: list[Any]) -> None:
    """Rows (tuples) as CSV; missing is empty."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if v is None or v != v else round(v, 6) if isinstance(v, float) else v for v in row])


def keep_scenario(file: Path, target: Path) -> tuple[LoadedScenario, Result]:
    """Run a scenario and keep its summary, small tables and picture."""
    loaded = load_scenario(file)
    result = play(loaded, loaded.scenario.seed)
    if result.failures:
        sys.exit("\n".join(map(str, result.failures)))
    target.mkdir(parents=True, exist_ok=True)
    summary = {k: v for k, v in result.summary.items() if k not in LEFT_OUT}
    (target / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    write_csv(target / "enis.csv", [c.name for c in TABLES["enis"]], result.rows("enis"))
    reasons = Counter((r[1], r[2]) for r in result.rows("events"))
    write_csv(target / "events.csv", ["type", "reason", "written"], [(*k, n) for k, n in sorted(reasons.items())])
    calls = Counter((r[3], r[6]) for r in result.rows("ec2_calls"))
    write_csv(target / "ec2_calls.csv", ["api", "error", "calls"], [(*k, n) for k, n in sorted(calls.items())])
    draw_run(result, target)
    return loaded, result


def sweeps() -> list[tuple[Plan, str]]:
    """The two kept sweeps, with a sentence each."""
    base = SCENARIOS / "scale-to-30.yaml"
    small = plan_from_flags(base, instance_type="t3.*", nodes="1..10")
    small.name = "sweep-t3"
    large = plan_from_flags(base, instance_type="*", nodes="1..6")
    large.name = "sweep-all-types"
    return [
        (small, "The lab's Deployment at 30 replicas over every t3 size and one to ten nodes."),
        (large, "The same over all instance types of the catalogue and one to six nodes."),
    ]


COLUMNS = (
    "instance_type", "nodes", "pods_running", "pods_pending", "pods_stuck", "bound_by", "settled_s", "addresses_assigned",
    "enis", "ec2_calls", "usd_per_hour", "error",
)  # fmt: skip


def keep_sweep(plan: Plan, target: Path) -> list[dict[str, Any]]:
    """Run a sweep and keep its rows, its frontier and its pictures."""
    rows = run_sweep(plan)
    target.mkdir(parents=True, exist_ok=True)
    assert set(COLUMNS) <= set(column_names(plan))
    write_csv(target / "rows.csv", list(COLUMNS), [[r.get(c) for c in COLUMNS] for r in rows])
    write_csv(target / "frontier.csv", list(COLUMNS), [[r.get(c) for c in COLUMNS] for r in frontier(rows)])
    enough = [r for r in rows if not r["error"] and r["pods_pending"] == 0 and r["usd_per_hour"] is not None]
    cheapest = min(enough, key=lambda r: (r["usd_per_hour"], r["nodes"], r["instance_type"]))
    summary = {
        "configurations": len(rows),
        "failed": sum(bool(r["error"]) for r in rows),
        "without_pending": len(enough),
        "bound_by": dict(sorted(Counter(str(r["bound_by"]) for r in rows if not r["error"]).items())),
        "cheapest_without_pending": {k: cheapest[k] for k in ("instance_type", "nodes", "usd_per_hour")},
    }
    (target / "summary.json").write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n")
    draw_sweep(rows, target, plan.name)
    return rows


def make(target: Path) -> None:
    """Everything, into a directory."""
    lines = [
        "# What the shipped scenarios gave",
        "",
        "Made by `make results`; continuous integration makes them anew and compares. A run of your own writes to",
        "`results/<scenario>/`, which git ignores.",
        "",
    ]
    for file in sorted(SCENARIOS.glob("*.yaml")):
        loaded, result = keep_scenario(file, target / file.stem)
        sentence = loaded.scenario.description.strip()
        lines += [f"## {file.stem}", "", sentence, "", f"*{result.summary['cause']}*", ""]
        lines += [f"![{file.stem}](shipped/{file.stem}/run.png)", ""]
        print(f"{file.stem}: {result.summary['cause']}")
    for plan, sentence in sweeps():
        rows = keep_sweep(plan, target / plan.name)
        summary = json.loads((target / plan.name / "summary.json").read_text())
        best = summary["cheapest_without_pending"]
        found = (
            f"{len(rows)} configurations; cheapest without a Pending pod: {best['nodes']} × {best['instance_type']} at "
            f"{best['usd_per_hour']:g} USD per hour."
        )
        lines += [f"## {plan.name}", "", f"{sentence} {found}", ""]
        lines += [f"![{p.stem}](shipped/{plan.name}/{p.name})" for p in sorted((target / plan.name).glob("*.png"))] + [
            ""
        ]
        print(f"{plan.name}: {found}")
    (target / "README.md").write_text("\n".join(lines))


def picture_shape(path: Path) -> Any:
    """What a picture is made of: its size, and for SVG the number of elements of each kind within tolerance of fonts."""
    if path.suffix == ".png":
        return struct.unpack(">II", path.read_bytes()[16:24])
    text = path.read_text()
    counts = {tag: text.count(f"<{tag}") for tag in ("path", "g", "use", "text")}
    return counts, sorted(re.findall(r"<text[^>]*>([^<]*)</text>", text))


def differences(kept: Path, made: Path) -> list[str]:
    """What differs between two directories of kept results."""
    out: list[str] = []
    names = {p.relative_to(d).as_posix() for d in (kept, made) for p in d.rglob("*") if p.is_file()}
    for name in sorted(names):
        one, two = kept / name, made / name
        if not one.exists() or not two.exists():
            out.append(f"{name}: only {'kept' if one.exists() else 'made'}")
        elif one.suffix in (".png", ".svg"):
            if picture_shape(one) != picture_shape(two):
                out.append(f"{name}: another structure")
        elif one.read_text() != two.read_text():
            out.append(f"{name}: other figures")
    return out


def main() -> None:
    """The script."""
    parser = argparse.ArgumentParser(description="Make the kept results, or check them.")
    parser.add_argument("--check", action="store_true", help="make them elsewhere and compare")
    if parser.parse_args().check:
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            readme = (Path(folder) / "README.md").read_text()
            (Path(folder) / "README.md").unlink()
            found = differences(SHIPPED, Path(folder))
            if readme != (SHIPPED.parent / "README.md").read_text():
                found.append("README.md: other text")
        if found:
            sys.exit("results differ:\n" + "\n".join(found))
        print("results are as kept")
        return
    make(SHIPPED)
    (SHIPPED / "README.md").replace(SHIPPED.parent / "README.md")


if __name__ == "__main__":
    main()
