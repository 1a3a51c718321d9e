"""How NodeResourcesFit and its forerunners turn requested and allocatable amounts into a score.

Mimics ``plugins/noderesources``: least_allocated.go, most_allocated.go, requested_to_capacity_ratio.go, and
``plugins/helper/shape_score.go``. Amounts are integers (millicores, bytes, units), divisions are 64-bit integer ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from eksim.kube.scheduler.framework import MAX_NODE_SCORE

MAX_CUSTOM_PRIORITY_SCORE: Final = 10
MAX_UTILIZATION: Final = 100

#: (requested, allocatable) of one resource → score
ResourceScorer = Callable[[int, int], int]


def least_requested_score(requested: int, capacity: int) -> int:
    """The unused part, 0 … 100.

    Source: kubernetes/pkg/scheduler/framework/plugins/noderesources/least_allocated.go:leastRequestedScore, v1.34.1.
    """
    if capacity == 0 or requested > capacity:
        return 0
    return (capacity - requested) * MAX_NODE_SCORE // capacity


def most_requested_score(requested: int, capacity: int) -> int:
    """The used part, 0 … 100.

    Source: kubernetes/pkg/scheduler/framework/plugins/noderesources/most_allocated.go:mostRequestedScore, v1.34.1.
    """
    if capacity == 0:
        return 0
    return min(requested, capacity) * MAX_NODE_SCORE // capacity


def broken_linear_function(shape: Sequence[tuple[int, int]]) -> Callable[[int], int]:
    """The line through (utilization, score) points; flat outside; truncated toward zero between.

    Source: kubernetes/pkg/scheduler/framework/plugins/helper/shape_score.go:BuildBrokenLinearFunction, v1.34.1.
    """

    def function(p: int) -> int:
        for i, (utilization, score) in enumerate(shape):
            if p <= utilization:
                if i == 0:
                    return shape[0][1]
                before, before_score = shape[i - 1]
                rise = (score - before_score) * (p - before)
                span = utilization - before
                quotient = abs(rise) // span
                return before_score + (quotient if rise >= 0 else -quotient)
        return shape[-1][1]

    return function


def requested_to_capacity_ratio_score(shape: Sequence[tuple[int, int]], *, rounded_up: bool) -> ResourceScorer:
    """``shape`` with scores 0 … 10. ``rounded_up``: up to 1.21 the utilization was 100 less the free part.

    Source: kubernetes/pkg/scheduler/framework/plugins/noderesources/requested_to_capacity_ratio.go, v1.34.1, v1.21.9.
    """
    factor = MAX_NODE_SCORE // MAX_CUSTOM_PRIORITY_SCORE
    function = broken_linear_function([(utilization, score * factor) for utilization, score in shape])

    def score(requested: int, capacity: int) -> int:
        if capacity == 0 or requested > capacity:
            return function(MAX_UTILIZATION)
        if rounded_up:
            return function(MAX_UTILIZATION - (capacity - requested) * MAX_UTILIZATION // capacity)
        return function(requested * MAX_UTILIZATION // capacity)

    return score


def weighted_mean(scores: Sequence[tuple[int, int]]) -> int:
    """Of (score, weight) pairs, in integers; 0 without any."""
    weights = sum(weight for _, weight in scores)
    return sum(score * weight for score, weight in scores) // weights if weights else 0


def weighted_mean_rounded(scores: Sequence[tuple[int, int]]) -> int:
    """Of the pairs with a score above 0, rounded half away from zero; 0 without any."""
    counted = [(score, weight) for score, weight in scores if score > 0]
    weights = sum(weight for _, weight in counted)
    if not weights:
        return 0
    return math.floor(sum(score * weight for score, weight in counted) / weights + 0.5)
