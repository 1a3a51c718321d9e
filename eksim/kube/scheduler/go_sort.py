"""Go's ``sort.Slice``, which is not stable: where the order asked for leaves elements equal, what comes out depends on
the steps of the algorithm, and a rule that takes the first few of them shows it.

A pattern-defeating quicksort (Go 1.19 and later): insertion sort up to 12 elements, above that a pivot out of three (or
nine), partitioning by swaps, heapsort if the pivots were too bad. Called by preemption, which sorts victims.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

MAX_INSERTION: Final = 12
SHORTEST_NINTHER: Final = 50
SHORTEST_SHIFTING: Final = 50
MAX_STEPS: Final = 5
MAX_SWAPS: Final = 12
_MASK: Final = 2**64 - 1

Less = Callable[[Any, Any], bool]


def sort_slice(items: list[Any], less: Less) -> None:
    """Sort in place. ``less`` is asked about two elements in Go's order of questions; it need not be consistent.

    Source: Go's sort/zsortfunc.go:pdqsort_func, go1.24.
    """
    _Sort(items, less).pdqsort(0, len(items), len(items).bit_length())


class _Sort:
    __slots__ = ("data", "less")

    def __init__(self, data: list[Any], less: Less) -> None:
        self.data = data
        self.less = less

    def _before(self, i: int, j: int) -> bool:
        return self.less(self.data[i], self.data[j])

    def _swap(self, i: int, j: int) -> None:
        data = self.data
        data[i], data[j] = data[j], data[i]

    def pdqsort(self, a: int, b: int, limit: int) -> None:
        """Sort ``data[a:b]``; after ``limit`` bad pivots by heapsort."""
        balanced = partitioned = True
        while True:
            length = b - a
            if length <= MAX_INSERTION:
                self._insertion_sort(a, b)
                return
            if limit == 0:
                self._heap_sort(a, b)
                return
            if not balanced:
                self._break_patterns(a, b)
                limit -= 1
            pivot, hint = self._choose_pivot(a, b)
            if hint == "decreasing":
                self.data[a:b] = self.data[a:b][::-1]
                pivot = (b - 1) - (pivot - a)
                hint = "increasing"
            if balanced and partitioned and hint == "increasing" and self._partial_insertion_sort(a, b):
                return
            if a > 0 and not self._before(a - 1, pivot):
                a = self._partition_equal(a, b, pivot)
                continue
            middle, partitioned = self._partition(a, b, pivot)
            left, right = middle - a, b - middle
            balanced = min(left, right) >= length // 8
            if left < right:
                self.pdqsort(a, middle, limit)
                a = middle + 1
            else:
                self.pdqsort(middle + 1, b, limit)
                b = middle

    def _insertion_sort(self, a: int, b: int) -> None:
        for i in range(a + 1, b):
            j = i
            while j > a and self._before(j, j - 1):
                self._swap(j, j - 1)
                j -= 1

    def _heap_sort(self, a: int, b: int) -> None:
        count = b - a
        for root in range((count - 1) // 2, -1, -1):
            self._sift_down(root, count, a)
        for end in range(count - 1, -1, -1):
            self._swap(a, a + end)
            self._sift_down(0, end, a)

    def _sift_down(self, root: int, end: int, first: int) -> None:
        while (child := 2 * root + 1) < end:
            if child + 1 < end and self._before(first + child, first + child + 1):
                child += 1
            if not self._before(first + root, first + child):
                return
            self._swap(first + root, first + child)
            root = child

    def _choose_pivot(self, a: int, b: int) -> tuple[int, str]:
        length = b - a
        quarter = length // 4
        swaps = [0]
        i, j, k = a + quarter, a + quarter * 2, a + quarter * 3
        if length >= SHORTEST_NINTHER:
            i, j, k = (self._median(m - 1, m, m + 1, swaps) for m in (i, j, k))
        j = self._median(i, j, k, swaps)
        return j, {0: "increasing", MAX_SWAPS: "decreasing"}.get(swaps[0], "unknown")

    def _median(self, a: int, b: int, c: int, swaps: list[int]) -> int:
        if self._before(b, a):
            swaps[0] += 1
            a, b = b, a
        if self._before(c, b):
            swaps[0] += 1
            b, c = c, b
        if self._before(b, a):
            swaps[0] += 1
            a, b = b, a
        return b

    def _partition(self, a: int, b: int, pivot: int) -> tuple[int, bool]:
        """(where the pivot lies now, whether nothing had to be swapped)."""
        self._swap(a, pivot)
        i, j = a + 1, b - 1
        untouched = True
        while True:
            while i <= j and self._before(i, a):
                i += 1
            while i <= j and not self._before(j, a):
                j -= 1
            if i > j:
                break
            untouched = False
            self._swap(i, j)
            i += 1
            j -= 1
        self._swap(j, a)
        return j, untouched

    def _partition_equal(self, a: int, b: int, pivot: int) -> int:
        """Where those that are greater than the pivot begin; none is less."""
        self._swap(a, pivot)
        i, j = a + 1, b - 1
        while True:
            while i <= j and not self._before(a, i):
                i += 1
            while i <= j and self._before(a, j):
                j -= 1
            if i > j:
                return i
            self._swap(i, j)
            i += 1
            j -= 1

    def _partial_insertion_sort(self, a: int, b: int) -> bool:
        """Whether it is sorted, after a few shifts if it is long."""
        i = a + 1
        for _ in range(MAX_STEPS):
            while i < b and not self._before(i, i - 1):
                i += 1
            if i == b:
                return True
            if b - a < SHORTEST_SHIFTING:
                return False
            self._swap(i, i - 1)
            if i - a >= 2:
                for j in range(i - 1, 0, -1):
                    if not self._before(j, j - 1):
                        break
                    self._swap(j, j - 1)
            if b - i >= 2:
                for j in range(i + 1, b):
                    if not self._before(j, j - 1):
                        break
                    self._swap(j, j - 1)
        return False

    def _break_patterns(self, a: int, b: int) -> None:
        """Move three elements about, by random numbers that depend on the length alone."""
        length = b - a
        random = length
        modulus = 1 << length.bit_length()
        index = a + (length // 4) * 2 - 1
        for i in range(3):
            random ^= random << 13 & _MASK
            random ^= random >> 7
            random ^= random << 17 & _MASK
            other = random & (modulus - 1)
            if other >= length:
                other -= length
            self._swap(index + i, a + other)
