"""Soft spread constraints over classes of nodes: counts by domain kept up to date, and scores by class.

The constraints of one kind of pod; the rules are those of the plugin PodTopologySpread. Called by ``classes``.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

from eksim.kube.scheduler.class_places import NodeClass
from eksim.kube.scheduler.framework import MAX_NODE_SCORE, Handle
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins.node_affinity import required_node_affinity_matches
from eksim.kube.scheduler.plugins.pod_topology_spread import (
    HOSTNAME,
    Constraint,
    PodTopologySpread,
    topology_normalizing_weight,
)

_WEIGHTS: dict[int, float] = {}
#: by constraint: the domain, and how many pods a node adds to it
Shares = tuple[tuple[str, int], ...]


class ClassSpread:
    """The soft constraints of a kind of pod. ``constant``: what every node scores alike without any."""

    def __init__(self, handle: Handle, pod: PodInfo, plugin: PodTopologySpread | None, weight: int) -> None:
        self.pod = pod
        self.weight = weight
        self.constant = 0
        self.constraints: tuple[Constraint, ...] = ()
        self.require_all = False
        rules = handle.rules
        if plugin is not None:
            self.constraints = plugin.constraints(handle, pod.pod, hard=False)
            self.require_all = plugin.requires_all_topologies(pod.pod)
            if not self.constraints and not rules.spread_and_interpod_skip:
                self.constant = MAX_NODE_SCORE * weight
        keys = [constraint.key for constraint in self.constraints]
        #: up to some release constraints of one key count together, which classes do not
        self.usable = rules.spread_counting == "constraint" or len(set(keys)) == len(keys)
        self._totals: list[dict[str, int]] = [{} for _ in self.constraints]
        #: what each node (by row) adds to the totals
        self.shares: dict[int, Shares] = {}
        self._parts = [self._part(handle, constraint) for constraint in self.constraints]
        counters = {counter for _, _, counter, _ in self._parts}
        #: whether all constraints count the same pods, and by which counter of the nodes
        self.counts_alike = len(counters) <= 1
        self.counter = next((counter for counter in counters if counter is not None), -1)
        self._skews = [(c.key == HOSTNAME, float(c.max_skew - 1)) for c in self.constraints]
        self._host_and_domain = [is_hostname for is_hostname, _ in self._skews] == [True, False]
        self._rounded = rules.spread_rounded
        spec = pod.facts.spec
        #: whether nodes that the pod does not select count too
        self._everywhere = rules.node_inclusion_policy or (not spec.node_selector and spec.affinity.node_required is None)

    def _part(self, handle: Handle, constraint: Constraint) -> tuple[str, bool, int | None, bool]:
        """(topology key, whether it is the hostname, pod counter or None if nothing counts, whether every node's pods
        count)."""
        spec = self.pod.facts.spec
        counter = None
        if not (constraint.selector.empty and handle.rules.empty_selector_counts_none):
            counter = handle.cache.counter(self.pod.namespace, constraint.selector)
        everywhere = not constraint.honor_taints and not (
            constraint.honor_affinity and (spec.node_selector or spec.affinity.node_required is not None)
        )
        return constraint.key, constraint.key == HOSTNAME, counter, everywhere

    def of(self, node: NodeInfo) -> tuple[tuple[Any, ...], bool, Shares]:
        """(the node's domain or own count by constraint, whether it is ignored, what its pods add to the totals)."""
        labels, counts = node.labels, node.counts
        found: list[Any] = []
        shares: list[tuple[str, int]] | None = None
        ignored = False
        for key, is_hostname, counter, everywhere in self._parts:
            value = labels.get(key)
            if value is None and self.require_all:
                ignored = True
            count = 0 if counter is None else counts.get(counter, 0)
            if is_hostname:
                found.append(None if value is None else count)
            else:
                found.append(value)
                if count and (everywhere or self.constraints[len(found) - 1].includes(self.pod, node)):
                    if shares is None:
                        shares = [("", 0)] * len(self._parts)
                    shares[len(found) - 1] = (value or "", count)
        if ignored or not (shares is None or self._everywhere or self._matches(node)):
            shares = None
        added = tuple(shares or ())
        return ((), True, added) if ignored else (tuple(found), False, added)

    def _matches(self, node: NodeInfo) -> bool:
        return required_node_affinity_matches(self.pod.facts.spec, node.labels, node.name)

    def share(self, row: int, shares: Shares) -> None:
        """What the node's pods add to the domains' counts, instead of what they added before."""
        was = self.shares.get(row, ())
        if was == shares:
            return
        for totals, (value, count) in zip(self._totals, was, strict=False):
            if count:
                totals[value] -= count
        for totals, (value, count) in zip(self._totals, shares, strict=False):
            if count:
                totals[value] = totals.get(value, 0) + count
        self.shares[row] = shares

    def add(self, classes: Sequence[NodeClass], counts: Sequence[int], totals: list[int]) -> None:
        """Add each class's weighted score to its total.

        Source: podtopologyspread/scoring.go:PreScore, Score, NormalizeScore, v1.34.1, over classes.
        """
        counted: Sequence[int] = range(len(classes))
        if self.require_all:
            counted = [i for i, c in enumerate(classes) if not c.ignored]
            if not counted:
                return
            counts = [counts[i] for i in counted]
            classes = [classes[i] for i in counted]
        raws = (self._host_and_domain_raws if self._host_and_domain else self._raws)(classes, sum(counts))
        highest = max(raws)
        share = self.weight
        if not highest:
            for i in counted:
                totals[i] += MAX_NODE_SCORE * share
            return
        both = highest + min(raws)
        for i, raw in zip(counted, raws, strict=True):
            totals[i] += MAX_NODE_SCORE * (both - raw) // highest * share

    def _raws(self, classes: Sequence[NodeClass], nodes: int) -> list[int]:
        scores = [0.0] * len(classes)
        for j, (is_hostname, skew) in enumerate(self._skews):
            if is_hostname:
                weight = weight_for(nodes)
                added = [0.0 if (n := c.spread[j]) is None else n * weight + skew for c in classes]
            else:
                of = self._totals[j]
                domains: dict[Any, float] = dict.fromkeys([c.spread[j] for c in classes], 0.0)
                weight = weight_for(len(domains))
                for value in domains:
                    if value is not None:
                        domains[value] = of.get(value, 0) * weight + skew
                added = [domains[c.spread[j]] for c in classes]
            scores = [x + y for x, y in zip(scores, added, strict=True)]
        return [floor(score + 0.5) if self._rounded else int(score) for score in scores]

    def _host_and_domain_raws(self, classes: Sequence[NodeClass], nodes: int) -> list[int]:
        """The usual constraints, hostname and one other key, written out: they are scored for every pod."""
        host_weight = weight_for(nodes)
        (_, host_skew), (_, skew) = self._skews
        weight = weight_for(len({c.spread[1] for c in classes}))
        of = self._totals[1]
        domains: dict[str, float] = {}
        raws = []
        rounding = 0.5 if self._rounded else 0.0
        for c in classes:
            count, value = c.spread
            score = 0.0 if count is None else count * host_weight + host_skew
            if value is not None:
                added = domains.get(value)
                if added is None:
                    added = domains[value] = of.get(value, 0) * weight + skew
                score += added
            raws.append(int(score + rounding))
        return raws


def weight_for(size: int) -> float:
    """The spread weight of so many domains, worked out once."""
    weight = _WEIGHTS.get(size)
    if weight is None:
        weight = _WEIGHTS[size] = topology_normalizing_weight(size)
    return weight
