"""``eksim plot DIR``: the pictures of a run's or a sweep's results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from eksim.errors import InputError


def plot(
    directory: Annotated[Path, typer.Argument(help="A results directory of eksim run or eksim sweep.")],
    into: Annotated[
        Path | None, typer.Option("--into", help="Where to write them; default there.", show_default=False)
    ] = None,
) -> None:
    """Draw the pictures of results: PNG and SVG."""
    if not os.path.isdir(directory):  # False for a name that no file can have
        raise InputError(f"{directory} is not a directory", expected="a results directory")
    target = into or directory
    try:
        target.mkdir(parents=True, exist_ok=True)
        paths = _drawn(directory, target)
    except OSError as error:
        raise InputError(
            f"pictures cannot be written to {target}: {error.strerror or error}",
            expected="a writable directory with space",
        ) from None
    for path in paths:
        print(path)


def _drawn(directory: Path, target: Path) -> list[Path]:
    from eksim.sweep.dataset import HEADER, load_rows

    if (directory / HEADER).exists():
        from eksim.views.sweep_plots import draw_sweep

        header, rows = load_rows(directory)
        if not rows:
            raise InputError(f"{directory} holds no rows yet", expected="a sweep with finished rows")
        paths = draw_sweep(rows, target, str(header.get("name", "")))
        if not paths:
            raise InputError(
                f"{directory} varies nothing that there is a picture of",
                expected="rows that ran, over instance types, node counts or warm settings",
            )
        return paths
    from eksim.record.result import Result
    from eksim.views.plots import draw_run

    return draw_run(Result.load(directory), target)
