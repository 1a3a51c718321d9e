"""Making a failing scenario small: whatever can go, goes, as long as it still fails.

Works on the document, not on random draws: first the steps, in halves, then any key, item or number of the rest. Knows
nothing of why it fails; what makes no valid scenario does not fail. Called by :mod:`eksim.testing.machine`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]
Path = tuple[str | int, ...]

#: What a scenario cannot do without.
KEPT = ("apiVersion", "kind", "name", "cluster", "steps", "runFor", "expect")

_NUMBER = re.compile(r"^(\d+)(.*)$")


def reduce(document: Document, fails: Callable[[Document], bool], tries: int = 500) -> Document:
    """The smallest document found that fails, with at most so many tries. ``document`` must fail; it is not changed."""
    best = _Best(copy.deepcopy(document), fails, tries)
    if best.document.get("latency", "default") != "none":
        best.try_out({**best.document, "latency": "none"})
    while best.left > 0:
        size = best.tries_won
        _drop_steps(best)
        _drop_parts(best)
        _lower_numbers(best)
        if best.tries_won == size:
            break
    return best.document


class _Best:
    """The smallest failing document so far."""

    def __init__(self, document: Document, fails: Callable[[Document], bool], tries: int) -> None:
        self.document = document
        self._fails = fails
        self.left = tries
        self.tries_won = 0

    def try_out(self, candidate: Document) -> bool:
        """Take the candidate if it fails too."""
        if self.left <= 0:
            return False
        self.left -= 1
        if not self._fails(candidate):
            return False
        self.document = candidate
        self.tries_won += 1
        return True


def _drop_steps(best: _Best) -> None:
    """Runs of steps, long ones first, from the end."""
    length = len(best.document.get("steps", ()))
    while length >= 1:
        end = len(best.document.get("steps", ()))
        while end > 0:
            start = max(end - length, 0)
            steps = best.document["steps"]
            best.try_out({**best.document, "steps": steps[:start] + steps[end:]})
            end = start
        length //= 2


def _drop_parts(best: _Best) -> None:
    """Keys and items, the outer ones first."""
    for path in list(_paths(best.document)):
        if len(path) == 1 and path[0] in KEPT:
            continue
        candidate = copy.deepcopy(best.document)
        holder = _holder(candidate, path)
        if holder is None:
            continue
        del holder[path[-1]]
        best.try_out(candidate)


def _lower_numbers(best: _Best) -> None:
    """Whole numbers, and those that texts begin with (``250m``, ``93.5s``), towards 0: by halves, then by one."""
    for path in list(_paths(best.document)):
        for lower in (lambda n: n // 2, lambda n: n - 1):
            while _lower(best, path, lower):
                pass


def _lower(best: _Best, path: Path, lower: Callable[[int], int]) -> bool:
    candidate = copy.deepcopy(best.document)
    holder = _holder(candidate, path)
    if holder is None:
        return False
    value = holder[path[-1]]
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        holder[path[-1]] = lower(value)
    elif isinstance(value, str) and (match := _NUMBER.match(value)) and int(match[1]) > 0:
        holder[path[-1]] = f"{lower(int(match[1]))}{match[2]}"
    else:
        return False
    return best.try_out(candidate)


def _paths(value: Any, at: Path = ()) -> Iterator[Path]:
    """Every path below, outer ones first, later items before earlier ones (so that removing one leaves the others)."""
    rows: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        rows = list(value.items())
    elif isinstance(value, list):
        rows = list(enumerate(value))
    rows.reverse()
    for key, _ in rows:
        yield (*at, key)
    for key, part in rows:
        yield from _paths(part, (*at, key))


def _holder(document: Document, path: Path) -> Any:
    """What holds the path's last part, if that is still there."""
    holder: Any = document
    for part in path[:-1]:
        if not _has(holder, part):
            return None
        holder = holder[part]
    return holder if _has(holder, path[-1]) else None


def _has(holder: Any, part: str | int) -> bool:
    if isinstance(holder, dict):
        return part in holder
    return isinstance(holder, list) and isinstance(part, int) and part < len(holder)
