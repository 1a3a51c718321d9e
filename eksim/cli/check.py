"""``eksim check RESULT``: the invariants held against a finished run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from eksim.cli.output import Format
from eksim.errors import EXIT_EXPECTATION, InputError


def check(
    directory: Annotated[Path, typer.Argument(metavar="RESULT", help="A results directory of eksim run.")],
    output: Annotated[Format, typer.Option("-o", "--output", help="table, or json for programs.")] = Format.table,
) -> None:
    """Hold the invariants against a finished run's tables, and say which could be judged from them.

    Exit code 0 if all of those hold, 1 if one does not, 2 if the directory is no result.
    """
    from eksim.record.result import Result
    from eksim.testing.check import check_result

    if output is Format.csv:
        raise InputError("-o csv is not an output of check", expected="-o table or -o json")
    if not os.path.isdir(directory):  # False for a name that no file can have
        raise InputError(f"{directory} is not a directory", expected="a results directory of eksim run")
    checked = check_result(Result.load(directory))
    if output is Format.json:
        document = {
            "judged": checked.judged,
            "not_judged": checked.left_out,
            "violations": [{"invariant": v.invariant, "detail": v.detail} for v in checked.violations],
        }
        json.dump(document, sys.stdout, indent=1, ensure_ascii=False)
        print()
    else:
        broken: dict[str, list[str]] = {}
        for violation in checked.violations:
            broken.setdefault(violation.invariant, []).append(violation.detail)
        for name, rows in checked.judged.items():
            found = broken.get(name, [])
            print(f"{'BROKEN' if found else 'holds':8}{name}  ({rows} rows)")
            for detail in found[:10]:
                print(f"        {detail}")
            if len(found) > 10:
                print(f"        … and {len(found) - 10} more")
        for name, why in checked.left_out.items():
            print(f"{'-':8}{name}  ({why})")
        print()
        print(
            f"{len(checked.judged) - len(broken)} of {len(checked.judged)} invariants hold"
            f"; {len(checked.left_out)} cannot be judged from tables"
        )
    if checked.violations:
        raise typer.Exit(EXIT_EXPECTATION)
