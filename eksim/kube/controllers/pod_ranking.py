"""Which pods a ReplicaSet deletes first.

Mimics ``ActivePodsWithRanks`` with its criteria in their order, today's logarithmic comparison of ages and the exact one
of before. Called by :mod:`eksim.kube.controllers.replicaset`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cmp_to_key

from eksim.kube.controllers.deployment_rules import whole_second
from eksim.state.objects import Pod

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"

_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_COST = re.compile(r"0|-[0-9]+|[1-9][0-9]*")


def deletion_cost(annotations: Mapping[str, str]) -> int:
    """The pod-deletion-cost annotation; one that is no plain 32-bit number (``+3``, ``05``) counts as 0.

    Source: kubernetes/pkg/apis/core/helper/helpers.go:GetDeletionCostFromPodAnnotations, v1.34.1.
    """
    text = annotations.get(DELETION_COST, "")
    if not _COST.fullmatch(text):
        return 0
    cost = int(text)
    return cost if -(2**31) <= cost < 2**31 else 0


def logarithmic_age(time_s: float, now_s: float) -> int:
    """⌊log2(age in nanoseconds)⌋; −1 for an age of zero or less."""
    age_ns = (now_s - time_s) * 1e9
    return int(math.log2(age_ns)) if age_ns > 0 else -1


def pods_to_delete(
    pods: Sequence[Pod],
    on_node: Mapping[str, int],
    count: int,
    now_s: float,
    *,
    logarithmic: bool,
    costs: bool,
    shuffled: Callable[[Sequence[Pod]], Sequence[Pod]],
) -> list[Pod]:
    """The ``count`` pods to delete of the active ``pods``.

    ``on_node``: active pods of the same owner's ReplicaSets by node (empty without an owner). ``shuffled`` gives the
    order in which the real code happens to see the pods, which decides between equals (and is asked only if there is
    something to choose).
    Source: kubernetes/pkg/controller/replicaset/replica_set.go:getPodsToDelete, v1.34.1.
    """
    if count >= len(pods):
        return list(pods)

    def compare_times(one: Pod, other: Pod, first: float | None, second: float | None) -> int:
        """Empty < younger < older; by logarithm the lower uid decides within one power of two."""
        if first is None or second is None:
            return -1 if first is None else 1
        if logarithmic:
            difference = logarithmic_age(first, now_s) - logarithmic_age(second, now_s)
            if difference == 0:
                return -1 if one.uid < other.uid else 1
            return difference
        return -1 if first > second else 1

    def compare(one: Pod, other: Pod) -> int:
        if (not one.node) != (not other.node):
            return -1 if not one.node else 1
        phases = _PHASES.get(one.phase, 0) - _PHASES.get(other.phase, 0)
        if phases:
            return phases
        if one.ready != other.ready:
            return 1 if one.ready else -1
        if costs:
            difference = deletion_cost(one.annotations) - deletion_cost(other.annotations)
            if difference:
                return difference
        crowd = on_node.get(other.node, 0) - on_node.get(one.node, 0)
        if crowd:
            return crowd
        if one.ready:
            first = None if one.ready_s is None else whole_second(one.ready_s)
            second = None if other.ready_s is None else whole_second(other.ready_s)
            if first != second:
                return compare_times(one, other, first, second)
        if one.restarts != other.restarts:
            return other.restarts - one.restarts
        first, second = whole_second(one.created_s), whole_second(other.created_s)
        if first != second:
            return compare_times(one, other, first, second)
        return 0

    return sorted(shuffled(pods), key=cmp_to_key(compare))[:count]
