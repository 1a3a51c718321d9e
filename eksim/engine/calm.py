"""Fewer passes of the garbage collector while many long-lived small objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: Allocations between two collections of the youngest generation while a run goes on (CPython's default is 700 or 2,000).
THRESHOLD = 100_000
_CALM = (THRESHOLD, 50, 100)


def calm_down() -> None:
    """Raise the collector's threshold for good: for a program of its own, most of whose objects stay."""
    gc.set_threshold(*_CALM)


def leave_all() -> None:
    """For a program that ends: the collector need not look through what the end of the process frees at once."""
    gc.freeze()


@contextmanager
def calm_gc() -> Iterator[None]:
    """Raise the collector's threshold for the duration; nested uses change nothing more."""
    before = gc.get_threshold()
    if before[0] >= THRESHOLD or not gc.isenabled():
        yield
        return
    gc.set_threshold(*_CALM)
    try:
        yield
    finally:
        gc.set_threshold(*before)
