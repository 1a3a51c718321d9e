"""``eksim sweep`` and ``eksim search``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from eksim.cli.output import Format, print_rows
from eksim.errors import EXIT_INTERRUPTED, InputError

InstanceType = Annotated[
    str | None, typer.Option("--instance-type", help="Globs ('t3.*,m5.*') or a filter ('vcpu<=8 and arch=arm64').")
]
Nodes = Annotated[str | None, typer.Option("--nodes", help="Node counts: 3, 1..20, 1..20/5.")]
Replicas = Annotated[str | None, typer.Option("--replicas", help="Replicas of the scenario's Deployment.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A scenario field by path: 'vpcCni.env.WARM_IP_TARGET=1,2,5'.")
]
Group = Annotated[str | None, typer.Option("--node-group", help="The node group meant, if there are several.")]


def sweep(
    file: Annotated[Path, typer.Argument(help="A sweep file, or a scenario with axes as options.")],
    instance_type: InstanceType = None,
    nodes: Nodes = None,
    replicas: Replicas = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Seeds: 1..5.")] = None,
    settings: Settings = None,
    zipped: Annotated[
        bool, typer.Option("--zip", help="Take the axes' values side by side, not all combinations.")
    ] = False,
    node_group: Group = None,
    results: Annotated[Path | None, typer.Option(help="Directory; default results/<name>.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an earlier run of this sweep stopped.")] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default one per core.", show_default=False)
    ] = None,
    simulate_all: Annotated[bool, typer.Option("--simulate-all", help="Simulate equal configurations each.")] = False,
    dask: Annotated[str | None, typer.Option(metavar="SCHEDULER", help="Run on this Dask cluster.")] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    output: Annotated[Format, typer.Option("-o", "--output", help="Output format of the rows.")] = Format.table,
) -> None:
    """Run a scenario over axes; a row per configuration, each an event-true simulation."""
    from eksim.sweep.dataset import Dataset, column_names
    from eksim.sweep.file import is_sweep_file, plan_from_file, plan_from_flags
    from eksim.sweep.runner import CHUNK, run_sweep

    if is_sweep_file(file):
        if instance_type or nodes or replicas or seeds or settings or zipped or node_group:
            raise InputError("a sweep file has its axes inside", str(file), expected="no axis options beside it")
        plan = plan_from_file(file)
    else:
        plan = plan_from_flags(
            file,
            instance_type=instance_type,
            nodes=nodes,
            replicas=replicas,
            seeds=seeds,
            settings=settings,
            zipped=zipped,
            node_group=node_group,
        )
    target = results or Path("results") / plan.name
    dataset = Dataset(target, plan, _chunk_size(len(plan), CHUNK))
    progress = None if quiet or not sys.stderr.isatty() else _SweepProgress()
    try:
        rows = run_sweep(
            plan, dataset, jobs=jobs, resume=resume, simulate_all=simulate_all, dask=dask, progress=progress
        )
    except KeyboardInterrupt:
        print(f"\neksim: interrupted; what is done stays in {target}, go on with --resume", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if progress is not None:
        progress.close()
    columns = column_names(plan)
    if output is Format.table:
        _print_sweep(rows, columns, plan)
        print(f"\nResults: {target} ({len(rows)} rows)")
    else:
        print_rows(rows, columns, output)


def _chunk_size(total: int, usual: int) -> int:
    return max(1, min(usual, -(-total // 16)))


def _print_sweep(rows: list[dict[str, Any]], columns: list[str], plan: Any) -> None:
    varied = [a.name for a in plan.axes if len(a.values) > 1]
    shown = [*varied, "pods_running", "pods_pending", "pods_stuck", "bound_by", "enis", "settled_s", "usd_per_hour"]
    if any(r["error"] for r in rows):
        shown.append("error")
    limit = 200
    table = [{**r, "settled_s": None if r["settled_s"] is None else round(r["settled_s"], 1)} for r in rows[:limit]]
    print_rows(table, shown, Format.table, [c.upper().replace("_", " ") for c in shown])
    if len(rows) > limit:
        print(f"… and {len(rows) - limit} more rows; -o csv prints all")


class _SweepProgress:
    """One line on standard error: rows done, rate, time left."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._first: int | None = None
        self._width = 0

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._first = done
        took = time.monotonic() - self._began
        rate = (done - self._first) / took if took > 0 else 0.0
        left = f", {_time_text((total - done) / rate)} left" if rate > 0 and done < total else ""
        text = f"{done:,} of {total:,} rows  {rate:,.0f}/s{left}"
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def close(self) -> None:
        """End the line."""
        sys.stderr.write("\r" + " " * self._width + "\r")


def _time_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes // 60}h{minutes % 60:02d}m" if minutes >= 60 else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
    )


def search(
    scenario: Annotated[Path, typer.Argument(help="A scenario file.")],
    vary: Annotated[str, typer.Option(help="What to find the smallest value of: nodes=1..50, subnet=/28../20.")],
    until: Annotated[str, typer.Option(help="The condition on a row: 'pods_pending == 0'.")],
    instance_type: InstanceType = None,
    nodes: Annotated[int | None, typer.Option(min=0, max=100_000, help="Fixed node count.")] = None,
    replicas: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="Fixed replicas of the scenario's Deployment.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Instead of the scenario's.")] = None,
    settings: Settings = None,
    node_group: Group = None,
    output: Annotated[Format, typer.Option("-o", "--output", help="table or json.")] = Format.table,
) -> None:
    """The smallest node count, subnet size or price that meets a condition, with the runs that show it."""
    from eksim.sweep.configure import Base, base_from_file
    from eksim.sweep.plan import instance_type_axis, set_axis
    from eksim.sweep.search import parse_until, vary_axis
    from eksim.sweep.search import search as find

    if output is Format.csv:
        raise InputError("-o csv is not an output of search", expected="-o table or -o json")
    axis = vary_axis(vary)
    fixed: dict[str, Any] = {}
    for name, value in (("nodes", nodes), ("replicas", replicas), ("seed", seed)):
        if value is not None:
            fixed[name] = value
    for text in settings or ():
        setting = set_axis(text)
        if len(setting.values) != 1:
            raise InputError(f"{text!r} has several values", field="--set", expected="one value for a search")
        fixed[setting.name] = setting.values[0]
    if axis.name in fixed:
        raise InputError(f"{axis.name} is fixed and varied", expected="one of both")
    condition = parse_until(until, tuple(fixed))
    document, folder = base_from_file(scenario)
    base = Base(document, folder, node_group)
    types = instance_type_axis(instance_type).values if instance_type is not None else ()
    first = axis.values[0]
    base.configure({**fixed, **({} if axis.name == "subnet" else {axis.name: first})})
    answer = find(base, fixed, axis, condition, types)
    if output is Format.json:
        json.dump(
            {
                "answer": answer.answer,
                "varied": answer.varied,
                "instance_type": answer.instance_type,
                "nodes": answer.nodes,
                "usd_per_hour": answer.usd_per_hour,
                "method": answer.method,
                "until": until,
                "evidence": answer.evidence,
                "left_out": answer.left_out,
            },
            sys.stdout,
            indent=1,
        )
        print()
    else:
        _print_answer(answer, axis.name, until)
    if answer.answer is None:
        raise typer.Exit(1)


def _print_answer(answer: Any, name: str, until: str) -> None:
    if answer.answer is None:
        print(f"No {name} of the range meets {until!r} (method: {answer.method}).")
    else:
        shown = f"/{answer.answer}" if name == "subnet" else answer.answer
        price = "" if answer.usd_per_hour is None else f", {answer.usd_per_hour:g} USD per hour"
        print(
            f"{name} = {shown} meets {until!r}: {answer.nodes} × {answer.instance_type}{price} (method: {answer.method})"
        )
    if answer.left_out:
        names = list(answer.left_out)
        shown_names = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        print(f"Left out: {shown_names} ({len(names)} types, the first because of {answer.left_out[names[0]]})")
    columns = [name, "instance_type", "pods_running", "pods_pending", "pods_stuck", "bound_by", "usd_per_hour", "meets"]
    print_rows(answer.evidence, list(dict.fromkeys(columns)), Format.table)
