"""Elastic tab stops: Go's text/tabwriter as kubectl uses it.

A column block is a run of consecutive lines that all have a tab-ended cell at that position; its width is the larger of the
minimum and the longest cell plus padding. The text after a line's last tab is neither padded nor counted.
Source: golang/go src/text/tabwriter/tabwriter.go:format; cli-runtime/pkg/printers/tabwriter.go (get), kubectl describe.go
(describe).
"""

from __future__ import annotations

from collections.abc import Sequence


def tabulate(lines: Sequence[Sequence[str]], minimum: int = 0, padding: int = 2) -> list[str]:
    """Lines of cells as text; every cell but a line's last is tab-ended. ``get``: 6 and 3, ``describe``: 0 and 2."""
    widths: list[list[int]] = [[0] * max(len(line) - 1, 0) for line in lines]
    depth = max((len(line) for line in lines), default=0)

    def block(first: int, last: int, column: int) -> None:
        i = first
        while i < last:
            if len(lines[i]) - 1 <= column:
                i += 1
                continue
            end = i
            longest = 0
            while end < last and len(lines[end]) - 1 > column:
                longest = max(longest, len(lines[end][column]))
                end += 1
            # a column of empty cells has no width (tabwriter discards none here, but pads by the minimum)
            width = max(minimum, longest + padding)
            for k in range(i, end):
                widths[k][column] = width
            if column + 1 < depth:
                block(i, end, column + 1)
            i = end

    block(0, len(lines), 0)
    out = []
    for line, sizes in zip(lines, widths, strict=True):
        text = "".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=False))
        out.append(text + (line[-1] if line else ""))
    return out
