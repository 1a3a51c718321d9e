"""What is worked out of read-only values once for the life of the process, so that the many runs of a sweep share it.

A manifest is a dict, which cannot be looked up by its content at the price of a call; it is found again by identity, and
kept alive as long as its entry is there. For functions whose value depends on the two arguments alone, neither of which is
ever changed in place. Called by what parses and defaults manifests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")
V = TypeVar("V")

#: So many values are kept for each function; then all are forgotten.
ENTRIES_MAX = 1024


def shared(make: Callable[[A, B], V]) -> Callable[[A, B], V]:
    """``make(a, b)``, remembered by the identity of both arguments."""
    found: dict[tuple[int, int], tuple[V, A, B]] = {}

    @wraps(make)
    def get(a: A, b: B) -> V:
        key = (id(a), id(b))
        known = found.get(key)
        if known is None:
            if len(found) >= ENTRIES_MAX:
                found.clear()
            known = found[key] = (make(a, b), a, b)
        return known[0]

    return get
