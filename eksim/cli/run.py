"""``eksim run``, ``eksim validate`` and ``eksim schema``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eksim.cli.output import Format, print_table
from eksim.errors import EXIT_EXPECTATION, EXIT_INTERRUPTED, InputError

if TYPE_CHECKING:
    from eksim.record.result import Result

#: How often the progress line is renewed, in seconds of the wall clock.
PROGRESS_PERIOD_S = 0.1


def run(
    scenario: Annotated[Path, typer.Argument(help="A scenario file.")],
    seed: Annotated[int | None, typer.Option(min=0, max=2**63 - 1, help="Instead of the scenario's.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Directory for the results; default results/<scenario>.", show_default=False)
    ] = None,
    no_results: Annotated[bool, typer.Option("--no-results", help="Write nothing.")] = False,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Write tables and summary only.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress; print only what fails.")] = False,
    output: Annotated[Format, typer.Option("-o", "--output", help="table, or json for programs.")] = Format.table,
) -> None:
    """Run a scenario: what its reader saw, the cause in one sentence, and results on disk.

    Exit code 0; 1 if an expectation failed; 2 for bad input; 130 after Ctrl-C (partial results are kept).
    """
    from eksim.scenario.load import load_scenario

    if output is Format.csv:
        raise InputError("-o csv is not an output of run", expected="-o table or -o json")
    loaded = load_scenario(scenario)
    target = None if no_results else (results or Path("results") / loaded.scenario.name)
    chosen = loaded.scenario.seed if seed is None else seed
    shown = not quiet and output is Format.table
    progress = _Progress() if shown and sys.stderr.isatty() else None
    if target is not None:
        _check_target(target)
    from eksim.play.run import play_so_far

    result = play_so_far(loaded, chosen, progress)
    if progress is not None:
        progress.close()
    unwritten = None if target is None else _write(result, target, not no_picture)
    if result.stopped is not None:
        kept = "" if target is None or unwritten else f" (what came before is in {target}, marked incomplete)"
        print(f"eksim: {result.stopped}{kept}", file=sys.stderr)
        if unwritten is not None:
            print(f"eksim: {unwritten}", file=sys.stderr)
        raise typer.Exit(result.stopped.exit_code)
    if output is Format.json:
        where = None if target is None or unwritten else str(target)
        json.dump({**result.summary, "results": where}, sys.stdout, indent=1, sort_keys=True)
        print()
    elif not quiet:
        _print_report(result, None if unwritten else target)
    for failure in result.failures:
        print(f"eksim: expectation failed: {failure}", file=sys.stderr)
    if unwritten is not None:
        print(f"eksim: {unwritten}", file=sys.stderr)
        raise typer.Exit(unwritten.exit_code)
    if not result.complete:
        print("eksim: interrupted; partial results are marked incomplete", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.failures:
        raise typer.Exit(EXIT_EXPECTATION)


def _check_target(target: Path) -> None:
    from eksim.record.result import SUMMARY

    try:
        taken = target.exists() and (
            not target.is_dir() or (any(target.iterdir()) and not (target / SUMMARY).exists())
        )
    except OSError as error:
        raise InputError(f"{target} cannot be used: {error.strerror}", expected="a directory for results") from None
    if taken:
        raise InputError(f"{target} is in use by something else", expected="an empty or new directory for results")


def _write(result: Result, target: Path, picture: bool) -> InputError | None:
    """Write the results; what hinders it is said after the report, so that the run was not in vain."""
    try:
        result.save(target)
        if picture:
            from eksim.views.plots import draw_run

            draw_run(result, target)
    except InputError as error:
        return error
    except OSError as error:
        return InputError(
            f"the picture cannot be written to {target}: {error.strerror or error}", expected="a directory with space"
        )
    return None


class _Progress:
    """One line on standard error: simulated time and pods by phase."""

    def __init__(self) -> None:
        import time

        self._clock = time.monotonic
        self._next = 0.0
        self._width = 0

    def __call__(self, now_s: float, counts: dict[str, int]) -> None:
        moment = self._clock()
        if moment < self._next:
            return
        self._next = moment + PROGRESS_PERIOD_S
        phases = "  ".join(f"{v} {k}" for k, v in counts.items() if v and k[0].isupper())
        text = f"{now_s:9.1f} s  {phases}"
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def close(self) -> None:
        """Clear the line."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")


def _print_report(result: Result, target: Path | None) -> None:
    summary = result.summary
    moments = {m["time_s"]: m for m in summary["moments"]}
    for look in result.looks:
        moment = moments.pop(look.time_s, None)
        if moment is not None:
            print(f"--- {_clock_text(look.time_s)}  {_pods_text(moment['pods'])}  {moment['step']}".rstrip())
        print(f"$ {look.command}")
        print(look.text)
        print()
    for moment in moments.values():
        if moment["step"] != "end":
            print(f"--- {_clock_text(moment['time_s'])}  {_pods_text(moment['pods'])}  {moment['step']}".rstrip())
    print(f"--- {_clock_text(summary['end_s'])}  {_pods_text(summary['pods'])}  the end")
    pending = [p for p in summary["pending"] if p["state"] != "starting"]
    for entry in pending[:10]:
        print(f"  Pending  {entry['pod']}  {entry['message']}")
    if len(pending) > 10:
        print(f"  … and {len(pending) - 10} more")
    print()
    rows: list[list[Any]] = [
        [
            n["node"],
            n["instance_type"],
            f"{n['pods']}/{n['max_pods']}",
            f"{n['addresses_assigned']}/{n['addresses_total']}",
            " ".join(n["devices"]),
        ]
        for n in summary["nodes"]
    ]
    if len(rows) > 20:
        rows = [*rows[:20], [f"… and {len(rows) - 20} more", "", "", "", ""]]
    print_table(rows, ["NODE", "TYPE", "PODS", "ADDRESSES", "INTERFACES"])
    print()
    when = "" if summary["cause_at_s"] == summary["end_s"] else f" (at {_clock_text(summary['cause_at_s'])})"
    print(f"Cause{when}: {summary['cause']}")
    if result.failures:
        print(f"{len(result.failures)} expectations failed")
    if target is not None:
        print(f"Results: {target}")


def _pods_text(pods: dict[str, int]) -> str:
    phases = ", ".join(f"{v} {k}" for k, v in pods.items() if v and k[0].isupper())
    return f"{pods['total']} pods" + (f": {phases}" if phases else "")


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}"


def validate(
    files: Annotated[list[Path], typer.Argument(help="Scenario files.")],
) -> None:
    """Check scenario files and build their clusters without running them; exit 2 if any has a mistake."""
    from eksim.cluster import build
    from eksim.scenario.load import load_scenario

    mistakes: list[InputError] = []
    for file in files:
        try:
            loaded = load_scenario(file)
            build(loaded, loaded.scenario.seed, record=False, events=False).close()
        except InputError as error:
            mistakes.append(error)
            print(f"eksim: {error}", file=sys.stderr)
        else:
            scenario = loaded.scenario
            print(f"{file}: valid ({_counted(scenario.steps, 'step')}, {_counted(scenario.expect, 'expectation')})")
    if mistakes:
        raise typer.Exit(mistakes[0].exit_code)


def _counted(things: Sized, word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"


def schema() -> None:
    """Print the JSON Schema of scenario files."""
    from eksim.scenario.schema import json_schema

    print(json.dumps(json_schema(), indent=1))
