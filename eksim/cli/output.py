"""Tables for people (rich), JSON and CSV for programs: one way to print rows, used by every command."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """``-o``."""

    table = "table"
    json = "json"
    csv = "csv"


def print_rows(
    rows: Iterable[dict[str, Any]], columns: Sequence[str], form: Format, titles: Sequence[str] = ()
) -> None:
    """Print rows in the asked format; ``titles`` are the table's headings (default: the column names).

    None prints as nothing (``null`` in JSON); in a table numbers stand to the right.
    """
    if form is Format.json:
        json.dump([{c: r.get(c) for c in columns} for r in rows], sys.stdout, indent=1)
        sys.stdout.write("\n")
        return
    if form is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if row.get(c) is None else row[c] for c in columns])
        return
    print_table([[row.get(c) for c in columns] for row in rows], titles or columns)


def print_table(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> None:
    """A plain table on standard output, as wide as its content."""
    cells = [[_text(v) for v in row] for row in rows]
    right = [
        bool(rows) and all(isinstance(r[i], int | float) or r[i] is None for r in rows) for i in range(len(titles))
    ]
    widths = [max([len(str(t)), *(len(row[i]) for row in cells)]) for i, t in enumerate(titles)]
    for line in [[str(t) for t in titles], *cells]:
        out = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)]
        print("   ".join(out).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
