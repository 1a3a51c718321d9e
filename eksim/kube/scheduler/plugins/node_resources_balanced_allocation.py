"""NodeResourcesBalancedAllocation: resources should be used evenly.

Mimics ``plugins/noderesources/balanced_allocation.go``; floating point in the real order, since the truncation at the
end makes the last bit visible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from eksim.kube.scheduler.facts import SpecFacts
from eksim.kube.scheduler.framework import MAX_NODE_SCORE, SKIP, CycleState, Plugin, Status
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins.node_resources_fit import DEFAULT_RESOURCES, other_resource
from eksim.versions import SchedulerRules

NAME: Final = "NodeResourcesBalancedAllocation"


def balanced_score(fractions: Sequence[float]) -> int:
    """From the used fractions: 100 less their standard deviation.

    Source: kubernetes/pkg/scheduler/framework/plugins/noderesources/balanced_allocation.go:balancedResourceScorer,
    v1.34.1.
    """
    std = 0.0
    if len(fractions) == 2:
        std = abs((fractions[0] - fractions[1]) / 2)
    elif len(fractions) > 2:
        total = 0.0
        for fraction in fractions:
            total += fraction
        mean = total / len(fractions)
        squares = 0.0
        for fraction in fractions:
            squares = squares + (fraction - mean) * (fraction - mean)
        std = math.sqrt(squares / len(fractions))
    return int((1 - std) * float(MAX_NODE_SCORE))


def balanced_score_then(cpu: float, memory: float) -> int:
    """From the used fractions of cpu and memory: 100 less their difference; 0 if one is full.

    Source: balanced_allocation.go:balancedResourceScorer, v1.21.9.
    """
    if cpu >= 1 or memory >= 1:
        return 0
    return int((1 - abs(cpu - memory)) * float(MAX_NODE_SCORE))


def request_of(facts: SpecFacts, name: str) -> int:
    """What the pod really asks of a resource."""
    if name == "cpu":
        return facts.cpu
    if name == "memory":
        return facts.memory
    if name == "ephemeral-storage":
        return facts.ephemeral
    return dict(facts.scalars).get(name, 0)


class NodeResourcesBalancedAllocation(Plugin):
    """Prefers nodes whose resources are used evenly."""

    name = NAME
    score_by_pods = True

    def __init__(self, resources: Sequence[tuple[str, int]] = DEFAULT_RESOURCES) -> None:
        self.resources = tuple(name for name, _ in resources)
        self._usual = self.resources == ("cpu", "memory")

    def plain_figures(self, rules: SchedulerRules, facts: SpecFacts) -> bool:
        """With the default resources."""
        return self._usual

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Status | None:
        """Today a pod that asks for none of the resources is not scored.

        Source: balanced_allocation.go:PreScore, isBestEffortPod, v1.34.1.
        """
        if not state.handle.rules.balanced_skips_best_effort:
            return None
        return None if any(request_of(pod.facts, name) for name in self.resources) else SKIP

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """Source: balanced_allocation.go:Score, v1.34.1, v1.21.9."""
        facts = pod.facts
        if not state.handle.rules.balanced_by_deviation:
            cpu, memory = node.alloc_cpu, node.alloc_memory
            return balanced_score_then(
                (node.nonzero_cpu + facts.score_cpu) / cpu if cpu else 1.0,
                (node.nonzero_memory + facts.score_memory) / memory if memory else 1.0,
            )
        if self._usual and node.alloc_cpu and node.alloc_memory:
            # The default, written out.
            cpu_fraction = (node.cpu + facts.cpu) / node.alloc_cpu
            memory_fraction = (node.memory + facts.memory) / node.alloc_memory
            std = abs(((cpu_fraction if cpu_fraction < 1 else 1.0) - (memory_fraction if memory_fraction < 1 else 1.0)) / 2)
            return int((1 - std) * 100.0)
        fractions = []
        for name in self.resources:
            if name == "cpu":
                capacity, requested = node.alloc_cpu, node.cpu + facts.cpu
            elif name == "memory":
                capacity, requested = node.alloc_memory, node.memory + facts.memory
            else:
                capacity, requested = other_resource(facts, node, name, skip_unrequested=True)
            if capacity:
                fractions.append(min(requested / capacity, 1.0))
        return balanced_score(fractions)
