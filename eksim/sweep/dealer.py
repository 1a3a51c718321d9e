"""Deals a sweep's configurations out to whoever runs them, equal ones once, and puts the rows together to whole chunks.

A configuration that is equal to one that has been run, or is being run, is not dealt: its row follows from that one's
(:mod:`eksim.sweep.shortcut`). Called by the runner, for processes and for a Dask cluster alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from eksim.sweep.row import NODES_UP
from eksim.sweep.shortcut import Shortcut

Rows = list[dict[str, Any]]


class Task(NamedTuple):
    """Configurations to be run: the chunk's number, their places in it, and their values."""

    number: int
    places: list[int]
    values: Rows


class _Chunk:
    """A chunk that is not whole: its configurations, the rows so far, how many are missing."""

    __slots__ = ("missing", "rows", "values")

    def __init__(self, values: Rows) -> None:
        self.values = values
        self.rows: Rows = [{} for _ in values]
        self.missing = len(values)


class Dealer:
    """``todo``: (number, configurations) of the chunks to run; ``shortcut``: None simulates every configuration."""

    def __init__(self, todo: Iterator[tuple[int, Rows]], shortcut: Shortcut | None) -> None:
        self._todo = todo
        self._shortcut = shortcut
        self._chunks: dict[int, _Chunk] = {}
        #: what decides a row that is being computed → (chunk, place) of those that wait for it
        self._under_way: dict[str, list[tuple[int, int]]] = {}
        #: places whose equal ended in an error, which may speak of its type: they are run themselves
        self._again: deque[tuple[int, int]] = deque()
        self._whole: list[tuple[int, Rows]] = []

    def next(self) -> Task | None:
        """The next task, which may be empty; None if there is nothing to be run that is not under way."""
        if self._again:
            number, place = self._again.popleft()
            return Task(number, [place], [self._chunks[number].values[place]])
        found = next(self._todo, None)
        if found is None:
            return None
        number, values = found
        self._chunks[number] = _Chunk(values)
        if not values:
            self._fill(number, [], [])
        places = [place for place in range(len(values)) if self._must_run(number, place)]
        return Task(number, places, [values[place] for place in places])

    def take(self, task: Task, rows: Rows) -> None:
        """A task's rows have come."""
        if not task.places:
            return
        shortcut = self._shortcut
        if shortcut is not None:
            for values, row in zip(task.values, rows, strict=True):
                key = shortcut.key(values)
                waiting = () if key is None else self._under_way.pop(key, ())
                if row["error"]:
                    self._again.extend(waiting)
                    continue
                shortcut.learn(values, row)
                for number, place in waiting:
                    self._fill(number, [place], [shortcut.row(self._chunks[number].values[place])])
        self._fill(task.number, task.places, rows)

    def whole(self) -> Iterator[tuple[int, Rows]]:
        """The chunks that have become whole since this was last asked."""
        whole, self._whole = self._whole, []
        for number, rows in whole:
            for row in rows:
                row.pop(NODES_UP, None)
            yield number, rows

    def _must_run(self, number: int, place: int) -> bool:
        """Whether the configuration is to be run; otherwise its row is known, or somebody's whom it equals is on its way."""
        shortcut = self._shortcut
        values = self._chunks[number].values[place]
        key = None if shortcut is None else shortcut.key(values)
        if shortcut is None or key is None:
            return True
        if shortcut.knows(key):
            self._fill(number, [place], [shortcut.row(values)])
            return False
        waiting = self._under_way.get(key)
        if waiting is None:
            self._under_way[key] = []
            return True
        waiting.append((number, place))
        return False

    def _fill(self, number: int, places: list[int], rows: Rows) -> None:
        chunk = self._chunks[number]
        for place, row in zip(places, rows, strict=True):
            chunk.rows[place] = dict(row)
        chunk.missing -= len(places)
        if not chunk.missing:
            del self._chunks[number]
            self._whole.append((number, chunk.rows))
