"""How many nodes a cycle looks at.

Mimics ``schedule_one.go:numFeasibleNodesToFind``. Called by the cycle and by the node classes.
"""

from __future__ import annotations

from typing import Final

MIN_FEASIBLE_NODES_TO_FIND: Final = 100
MIN_FEASIBLE_NODES_PERCENTAGE_TO_FIND: Final = 5


def num_feasible_nodes_to_find(nodes: int, percentage: int) -> int:
    """How many feasible nodes are enough: all below 100, else a share that shrinks with the cluster.

    Source: kubernetes/pkg/scheduler/schedule_one.go:numFeasibleNodesToFind, v1.34.1.
    """
    if nodes < MIN_FEASIBLE_NODES_TO_FIND or percentage >= 100:
        return nodes
    if percentage <= 0:
        percentage = max(50 - nodes // 125, MIN_FEASIBLE_NODES_PERCENTAGE_TO_FIND)
    return max(nodes * percentage // 100, MIN_FEASIBLE_NODES_TO_FIND)
