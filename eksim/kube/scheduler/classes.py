"""Equal-node classes: the same verdict as looking at every node, for the price of looking at the few kinds of node.

Nodes that the plugins cannot tell apart for a pod (same refusal, or same raw scores and same place in its spread
constraints) form a class. A :class:`ClassTable` keeps the classes for one kind of pod (same spec, namespace, labels and
controller) up to date from the cache's log of changed nodes: only those are put to the plugins again, the very plugins
of the plain path. A cycle then normalises and weighs classes instead of nodes, and a retry on an unchanged cluster costs
nothing. Not for pods whose filters look at other nodes (pod affinity that matters, hard spread constraints, nominated
pods, nodes named by matchFields): those take the plain path. ``tests/properties`` holds both paths together.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any, Final

from eksim.kube.scheduler import preemption
from eksim.kube.scheduler.diagnosis import Diagnosis
from eksim.kube.scheduler.framework import MAX_NODE_SCORE, SKIP, UNSCHEDULABLE, CycleState, Framework, Handle, Status
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins import inter_pod_affinity, pod_topology_spread
from eksim.kube.scheduler.plugins.node_affinity import NodeAffinity, required_node_affinity_matches
from eksim.kube.scheduler.plugins.pod_topology_spread import (
    HOSTNAME,
    PodTopologySpread,
    topology_normalizing_weight,
)
from eksim.kube.scheduler.sampling import num_feasible_nodes_to_find

#: From this many nodes on, places of nodes are kept in arrays.
MANY_NODES: Final = 100
#: tables are kept for so many kinds of pod, and in a large cluster as long as all have so many rows
_TABLES_MIN: Final = 8
_TABLES_MAX: Final = 512
_ROWS_MAX: Final = 1_000_000
_KNOWN_MAX: Final = 100_000
_WEIGHTS: dict[int, float] = {}
#: (refusal, weighted scores, scores to normalise)
_Looked = tuple[Status | None, int, tuple[int, ...]]


class NodeClass:
    """Nodes that are equal for a kind of pod. ``base``: weighted scores that need no normalising; ``norms``: raw scores
    that do; ``spread``: per soft constraint the domain, or for the hostname the node's own count; None without label."""

    __slots__ = ("base", "count", "ignored", "key", "norms", "number", "spread", "status", "uneven")

    def __init__(self, key: Any) -> None:
        self.key = key
        #: its mark in the arrays while it has nodes
        self.number = -1
        self.count = 0
        self.status: Status | None = None
        self.base = 0
        self.norms: tuple[int, ...] = ()
        self.spread: tuple[Any, ...] = ()
        self.ignored = False
        #: some raw score to normalise is not 0
        self.uneven = False


#: the nodes of each class among neighbours in the snapshot's order
Block = dict[NodeClass, list[NodeInfo]]


class Verdict:
    """What a cycle finds. ``feasible``: how many of the nodes looked at; ``best``: the highest total (None if one node
    was taken unseen); ``ties``: the classes that have it; ``count``: their nodes in the sample; ``block``: the sample,
    if it is one of the table's blocks."""

    __slots__ = ("best", "block", "count", "evaluated", "feasible", "start", "ties")

    def __init__(self, start: int, evaluated: int, feasible: int, block: Block | None = None) -> None:
        self.start = start
        self.evaluated = evaluated
        self.feasible = feasible
        self.block = block
        self.best: int | None = None
        self.ties: list[NodeClass] = []
        self.count = 0


class ClassTable:
    """The classes of all nodes for one kind of pod."""

    def __init__(self, framework: Framework, handle: Handle, pod: PodInfo) -> None:
        self.framework = framework
        self.handle = handle
        self.cache = handle.cache
        self.pod = pod
        self.state = CycleState(handle)
        self.usable = self._prepare()
        self._epoch = self.cache.log_epoch
        self._cursor = len(self.cache.log)
        self.class_of: dict[int, NodeClass] = {}
        self.nodes: dict[int, NodeInfo] = {}
        #: the classes that have nodes
        self.live: dict[NodeClass, None] = {}
        self._known: dict[Any, NodeClass] = {}
        self.by_number: list[NodeClass] = []
        self._free: list[int] = []
        self.feasible = 0
        #: raised whenever a class gains or loses a node
        self.version = 0
        self._static: dict[int, tuple[int, _Looked]] = {}
        self._answers: dict[Any, tuple[NodeClass, tuple[tuple[str, int], ...]]] = {}
        self._shares: dict[int, tuple[tuple[str, int], ...]] = {}
        self._order_version = -1
        self._affinity_version = -1
        self._affinity_matters = False
        self._numbers: Any = None
        self._ok: Any = None
        self._blocks: list[Block] | None = None
        self._block_length = 0
        #: row → place of the node among its class's members in its block
        self._slot: dict[int, int] = {}
        self._refusal: tuple[int, Diagnosis, str] | None = None

    # -- what the kind of pod needs ---------------------------------------------------------------------------------

    def _prepare(self) -> bool:
        """Sort the plugins; False if the plain path is needed."""
        framework, state, pod, handle = self.framework, self.state, self.pod, self.handle
        self._lister_version = handle.listers.version
        self._images_version = handle.cache.images_version
        if pod.facts.has_own_terms or not framework.score_plugins:
            return False
        spread = next((p for p, _ in framework.score_plugins if isinstance(p, PodTopologySpread)), None)
        hard = next((p for p in framework.filter_plugins if isinstance(p, PodTopologySpread)), None)
        if hard is not None and hard.constraints(handle, pod.pod, hard=True):
            return False
        for plugin in framework.pre_filter_plugins:
            if isinstance(plugin, (PodTopologySpread, inter_pod_affinity.InterPodAffinity)):
                continue
            answer = plugin.pre_filter(state, pod)
            if answer is SKIP:
                state.skip_filter[plugin.name] = None
            elif answer is not None:
                return False
        elsewhere = (pod_topology_spread.NAME, inter_pod_affinity.NAME)
        filters = [p for p in framework.filter_plugins if p.name not in state.skip_filter and p.name not in elsewhere]
        first = next((i for i, p in enumerate(filters) if p.filter_by_pods), len(filters))
        self._static_filters, self._filters = filters[:first], filters[first:]
        for plugin in framework.pre_score_plugins:
            if plugin.local_score and plugin.pre_score(state, pod, ()) is SKIP:
                state.skip_score[plugin.name] = None
        scored = [(p, w) for p, w in framework.score_plugins if p.local_score and p.name not in state.skip_score]
        plain = [(p, w) for p, w in scored if not framework.normalizes[p.name]]
        self._static_scores = [(p, w) for p, w in plain if not p.score_by_pods]
        self._scores = [(p, w) for p, w in plain if p.score_by_pods]
        self._norms = [(p, w) for p, w in scored if framework.normalizes[p.name]]
        self._require_all = False
        self._constraints: tuple[pod_topology_spread.Constraint, ...] = ()
        self._spread_weight = 0
        rules = handle.rules
        #: what every node gets alike
        self._constant = 0
        if spread is not None:
            self._spread_weight = {p.name: w for p, w in framework.score_plugins}[spread.name]
            self._constraints = spread.constraints(handle, pod.pod, hard=False)
            self._require_all = spread.requires_all_topologies(pod.pod)
            if not self._constraints and not rules.spread_and_interpod_skip:
                self._constant += MAX_NODE_SCORE * self._spread_weight
            keys = [constraint.key for constraint in self._constraints]
            if rules.spread_counting != "constraint" and len(set(keys)) < len(keys):
                return False
        #: classes with a raw score to normalise other than 0, and what all nodes get while there are none
        self._uneven = 0
        self._even = self._constant
        for plugin, weight in self._norms:
            zeros = [0]
            plugin.normalize(state, zeros, ())
            self._even += zeros[0] * weight
        self._totals: list[dict[str, int]] = [{} for _ in self._constraints]
        self._parts = [self._part(constraint) for constraint in self._constraints]
        spec = pod.facts.spec
        selects_nodes = bool(
            spec.node_name or spec.node_selector or spec.affinity.node_required or spec.affinity.node_preferred
        ) or any(isinstance(p, NodeAffinity) and (p.added_required or p.added_preferred) for p in framework.filter_plugins)
        counters = {part[2] for part in self._parts}
        self._counter = next((counter for _, _, counter, _ in self._parts if counter is not None), -1)
        #: nodes of one kind need to be asked about only once for the same figures
        self._by_kind = (
            not (selects_nodes or pod.facts.uncommon)
            and len(counters) <= 1
            and all(p.plain_figures(rules, pod.facts) for p in (*self._filters, *(p for p, _ in self._scores)))
        )
        self._skews = [(c.key == HOSTNAME, float(c.max_skew - 1)) for c in self._constraints]
        self._host_and_domain = [is_hostname for is_hostname, _ in self._skews] == [True, False]
        self._rounded = rules.spread_rounded
        self._policies = rules.node_inclusion_policy
        self._everywhere = not spec.node_selector and spec.affinity.node_required is None
        return True

    def _part(self, constraint: pod_topology_spread.Constraint) -> tuple[str, bool, int | None, bool]:
        """(topology key, whether it is the hostname, pod counter or None if nothing counts, whether every node's pods
        count)."""
        handle, spec = self.handle, self.pod.facts.spec
        counter = None
        if not (constraint.selector.empty and handle.rules.empty_selector_counts_none):
            counter = handle.cache.counter(self.pod.namespace, constraint.selector)
        everywhere = not constraint.honor_taints and not (
            constraint.honor_affinity and (spec.node_selector or spec.affinity.node_required is not None)
        )
        return constraint.key, constraint.key == HOSTNAME, counter, everywhere

    def affinity_matters(self) -> bool:
        """Whether some placed pod's affinity terms match this kind of pod."""
        cache = self.cache
        if self._affinity_version != cache.affinity_version:
            self._affinity_version = cache.affinity_version
            pod = self.pod
            labels = self.handle.listers.namespace_labels(pod.namespace)
            self._affinity_matters = any(
                term.matches(pod.namespace, pod.labels, labels)
                for _, one in cache.affinity_kinds.values()
                for terms in [one.facts.terms(one.namespace)]
                for term in (*terms.affinity, *terms.anti, *terms.preferred, *terms.preferred_anti)
            )
        return self._affinity_matters

    # -- keeping up -------------------------------------------------------------------------------------------------

    def sync(self) -> None:
        """Take in what changed since the last cycle of this kind of pod."""
        cache = self.cache
        if (
            self._epoch != cache.log_epoch
            or self._lister_version != self.handle.listers.version
            or (self._images_version != cache.images_version and cache.images)
        ):
            self._start_over()
            if not self.usable:
                return
        if self._order_version != cache.order_version:
            self._reorder()
        log = cache.log
        cursor = self._cursor
        count = len(log) - cursor
        if count:
            nodes = self.nodes
            rows: Sequence[int] = log[cursor:] if count == 1 else list(dict.fromkeys(log[cursor:]))
            for row in rows:
                node = nodes.get(row)
                if node is not None:
                    self._place(node)
            self._cursor = len(log)

    def _start_over(self) -> None:
        self.state = CycleState(self.handle)
        self.usable = self._prepare()
        self._epoch = self.cache.log_epoch
        self._cursor = len(self.cache.log)
        self.class_of.clear()
        self.nodes.clear()
        self.live.clear()
        self._known.clear()
        self.by_number.clear()
        self._free.clear()
        self._static.clear()
        self._answers.clear()
        self._shares.clear()
        self.feasible = 0
        self._order_version = -1

    def _reorder(self) -> None:
        """Nodes came or went: place the new ones, forget the others."""
        order = self.cache.order
        self._order_version = self.cache.order_version
        self._numbers = self._ok = self._blocks = None
        self._slot.clear()
        nodes = {node.row: node for node in order}
        for row in [row for row in self.class_of if row not in nodes]:
            self._leave(row)
            del self.class_of[row]
            self._static.pop(row, None)
            self._share(row, ())
        self.nodes = nodes
        for row, node in nodes.items():
            if row not in self.class_of:
                self._place(node)
        self._arrange(order)

    def _arrange(self, order: Sequence[NodeInfo]) -> None:
        """Make the blocks: all nodes of a small cluster; in a large one, as long as every node is feasible and a whole
        number of samples makes up the cluster, the samples, which then are always the same. Else places are kept in
        arrays, from which any sample is counted."""
        nodes = len(order)
        of = self.class_of
        length = nodes
        if nodes >= MANY_NODES:
            import numpy as np

            self._numbers = np.fromiter((of[node.row].number for node in order), np.intp, nodes)
            self._ok = np.fromiter((of[node.row].status is None for node in order), np.bool_, nodes)
            length = num_feasible_nodes_to_find(nodes, self.framework.percentage_of_nodes_to_score)
            if self.feasible < nodes or nodes % length:
                return
        blocks: list[Block] = [{} for _ in range(0, nodes, length or 1)]
        for index, node in enumerate(order):
            members = blocks[index // length].setdefault(of[node.row], [])
            self._slot[node.row] = len(members)
            members.append(node)
        self._blocks = blocks
        self._block_length = length

    def _move_in_block(self, node: NodeInfo, was: NodeClass, now: NodeClass) -> None:
        assert self._blocks is not None
        block = self._blocks[node.order_index // self._block_length]
        members = block[was]
        slot = self._slot[node.row]
        last = members.pop()
        if last is not node:
            members[slot] = last
            self._slot[last.row] = slot
        elif not members:
            del block[was]
        joined = block.get(now)
        if joined is None:
            joined = block[now] = []
        self._slot[node.row] = len(joined)
        joined.append(node)

    def _leave(self, row: int) -> None:
        left = self.class_of[row]
        left.count -= 1
        self.version += 1
        if left.status is None:
            self.feasible -= 1
        if not left.count:
            if left.uneven:
                self._uneven -= 1
            del self.live[left]
            self._free.append(left.number)

    def _place(self, node: NodeInfo) -> None:
        """Ask the plugins about a node and put it into its class."""
        row = node.row
        kind = node.kind
        if kind >= 0 and self._by_kind and not node.scalars:
            # Nodes of one kind with the same figures get the same answers.
            counts = node.counts
            figures: Any = (
                kind, len(node.pods), node.cpu, node.memory, node.nonzero_cpu, node.nonzero_memory,
                counts.get(self._counter, 0),
            )  # fmt: skip
            answer = self._answers.get(figures)
            if answer is None:
                answer = self._answers[figures] = self._ask(node)
        else:
            answer = self._ask(node)
        now, shares = answer
        if self._shares.get(row, ()) is not shares:
            self._share(row, shares)
        was = self.class_of.get(row)
        if was is now:
            return
        if was is not None:
            self._leave(row)
        now.count += 1
        if now.count == 1:
            self._enliven(now)
        self.version += 1
        self.class_of[row] = now
        status = now.status
        if status is None:
            self.feasible += 1
        if self._blocks is not None and was is not None:
            if status is not None and self._numbers is not None:
                # A large cluster's samples are no longer always the same.
                self._blocks = None
                self._renumber()
            else:
                self._move_in_block(node, was, now)
        elif self._numbers is not None:
            self._numbers[node.order_index] = now.number
            self._ok[node.order_index] = status is None

    def _enliven(self, one: NodeClass) -> None:
        """The class got its first node."""
        if self._free:
            one.number = self._free.pop()
            self.by_number[one.number] = one
        else:
            one.number = len(self.by_number)
            self.by_number.append(one)
        self.live[one] = None
        if one.uneven:
            self._uneven += 1

    def _renumber(self) -> None:
        """Bring the arrays up to date, which were not kept while there were blocks."""
        import numpy as np

        order, of = self.cache.order, self.class_of
        self._numbers = np.fromiter((of[node.row].number for node in order), np.intp, len(order))
        self._ok = np.fromiter((of[node.row].status is None for node in order), np.bool_, len(order))

    def _ask(self, node: NodeInfo) -> tuple[NodeClass, tuple[tuple[str, int], ...]]:
        """(the node's class by the plugins, what its pods add to the domains' counts)."""
        static = self._static.get(node.row)
        if static is None or static[0] != node.version:
            static = self._static[node.row] = (node.version, self._look(node))
        looked = static[1]
        spread: tuple[Any, ...] = ()
        ignored = False
        shares: tuple[tuple[str, int], ...] = ()
        if self._parts:
            spread, ignored, shares = self._spread_of(node)
        state, pod = self.state, self.pod
        status, base, norms = looked
        if status is None:
            for plugin in self._filters:
                status = plugin.filter(state, pod, node)
                if status is not None:
                    break
        key: Any
        if status is not None:
            key = (status.plugin, status.code, status.reasons)
        else:
            for plugin, weight in self._scores:
                base += plugin.score(state, pod, node) * weight
            key = (base, norms, spread, ignored)
        found = self._known.get(key)
        if found is None:
            if len(self._known) + len(self._answers) > _KNOWN_MAX:
                self._answers.clear()
                self._known = {one.key: one for one in self.live}
            found = self._known[key] = NodeClass(key)
            found.status = status
            if status is None:
                found.base, found.norms, found.spread, found.ignored = base, norms, spread, ignored
                found.uneven = any(norms)
        return found, shares

    def _look(self, node: NodeInfo) -> _Looked:
        """What depends on the node object alone: (refusal, weighted scores, scores to normalise)."""
        state, pod = self.state, self.pod
        for plugin in self._static_filters:
            status = plugin.filter(state, pod, node)
            if status is not None:
                return status, 0, ()
        base = sum(plugin.score(state, pod, node) * weight for plugin, weight in self._static_scores)
        return None, base, tuple(plugin.score(state, pod, node) for plugin, _ in self._norms)

    # -- spread -----------------------------------------------------------------------------------------------------

    def _spread_of(self, node: NodeInfo) -> tuple[tuple[Any, ...], bool, tuple[tuple[str, int], ...]]:
        """(the node's domain or own count by constraint, whether it is ignored, what its pods add to the totals)."""
        labels, counts = node.labels, node.counts
        found: list[Any] = []
        shares: list[tuple[str, int]] | None = None
        ignored = False
        for key, is_hostname, counter, everywhere in self._parts:
            value = labels.get(key)
            if value is None and self._require_all:
                ignored = True
            count = 0 if counter is None else counts.get(counter, 0)
            if is_hostname:
                found.append(None if value is None else count)
            else:
                found.append(value)
                if count and (everywhere or self._constraints[len(found) - 1].includes(self.pod, node)):
                    if shares is None:
                        shares = [("", 0)] * len(self._parts)
                    shares[len(found) - 1] = (value or "", count)
        if ignored or not (shares is None or self._policies or self._everywhere or self._matches(node)):
            shares = None
        added = tuple(shares or ())
        return ((), True, added) if ignored else (tuple(found), False, added)

    def _matches(self, node: NodeInfo) -> bool:
        return required_node_affinity_matches(self.pod.facts.spec, node.labels, node.name)

    def _share(self, row: int, shares: tuple[tuple[str, int], ...]) -> None:
        """What the node's pods add to the domains' counts, instead of what they added before."""
        was = self._shares.get(row, ())
        if was == shares:
            return
        for totals, (value, count) in zip(self._totals, was, strict=False):
            if count:
                totals[value] -= count
        for totals, (value, count) in zip(self._totals, shares, strict=False):
            if count:
                totals[value] = totals.get(value, 0) + count
        self._shares[row] = shares

    def _add_spread(self, classes: Sequence[NodeClass], counts: Sequence[int], totals: list[int]) -> None:
        """Source: podtopologyspread/scoring.go:PreScore, Score, NormalizeScore, over classes."""
        counted: Sequence[int] = range(len(classes))
        if self._require_all:
            counted = [i for i, c in enumerate(classes) if not c.ignored]
            if not counted:
                return
            counts = [counts[i] for i in counted]
            classes = [classes[i] for i in counted]
        sizes = sum(counts)
        if self._host_and_domain:
            self._normalize_spread(self._host_and_domain_raws(classes, sizes), counted, totals)
            return
        scores: list[float] | None = None
        for j, (is_hostname, skew) in enumerate(self._skews):
            if is_hostname:
                weight = weight_for(sizes)
                added = [0.0 if (n := c.spread[j]) is None else n * weight + skew for c in classes]
            else:
                of = self._totals[j]
                domains: dict[Any, float] = dict.fromkeys([c.spread[j] for c in classes], 0.0)
                weight = weight_for(len(domains))
                for value in domains:
                    if value is not None:
                        domains[value] = of.get(value, 0) * weight + skew
                added = [domains[c.spread[j]] for c in classes]
            scores = added if scores is None else [x + y for x, y in zip(scores, added, strict=True)]
        assert scores is not None
        if self._rounded:
            raws = [floor(score + 0.5) for score in scores]
        else:
            raws = [int(score) for score in scores]
        self._normalize_spread(raws, counted, totals)

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

    def _normalize_spread(self, raws: list[int], counted: Sequence[int], totals: list[int]) -> None:
        """Source: podtopologyspread/scoring.go:NormalizeScore."""
        highest = max(raws)
        share = self._spread_weight
        if not highest:
            for i in counted:
                totals[i] += MAX_NODE_SCORE * share
            return
        both = highest + min(raws)
        for i, raw in zip(counted, raws, strict=True):
            totals[i] += MAX_NODE_SCORE * (both - raw) // highest * share

    # -- the verdict ------------------------------------------------------------------------------------------------

    def verdict(self, start: int, enough: int) -> Verdict:
        """Look from ``start`` until ``enough`` nodes are feasible; at least one is."""
        nodes = len(self.cache.order)
        start %= nodes
        blocks, length = self._blocks, self._block_length
        if blocks is not None and (length == nodes or (length == enough and start % length == 0)):
            block = blocks[0 if length == nodes else start // length]
            if self.feasible == nodes:
                classes, counts = list(block), [len(members) for members in block.values()]
            else:
                classes = [c for c in block if c.status is None]
                counts = [len(block[c]) for c in classes]
            verdict = Verdict(start, length, self.feasible if length == nodes else length, block)
        else:
            if blocks is not None and self._numbers is not None:
                self._blocks = None
                self._renumber()
            if self.feasible <= enough:
                verdict = Verdict(start, nodes, self.feasible)
                classes = [c for c in self.live if c.status is None]
                counts = [c.count for c in classes]
            else:
                verdict, classes, counts = self._sample(start, enough, nodes)
        if verdict.feasible == 1:
            verdict.ties, verdict.count = classes, 1
            return verdict
        if self._uneven:
            totals = [c.base + self._constant for c in classes]
            for j, (plugin, weight) in enumerate(self._norms):
                scores = [c.norms[j] for c in classes]
                plugin.normalize(self.state, scores, ())
                for i, score in enumerate(scores):
                    totals[i] += score * weight
        else:
            constant = self._even
            totals = [c.base + constant for c in classes]
        if self._constraints:
            self._add_spread(classes, counts, totals)
        best = verdict.best = max(totals)
        ties = [i for i, total in enumerate(totals) if total == best]
        verdict.ties = [classes[i] for i in ties]
        verdict.count = sum([counts[i] for i in ties])
        return verdict

    def _sample(self, start: int, enough: int, nodes: int) -> tuple[Verdict, list[NodeClass], list[int]]:
        import numpy as np

        if self.feasible == nodes:
            evaluated = enough
            numbers = _window(self._numbers, start, enough)
        else:
            # The search stops at one feasible node more than enough, which is not counted.
            length = min(nodes, enough + enough // 8 + 64)
            while True:
                places = _window(self._ok, start, length).nonzero()[0]
                if len(places) > enough:
                    break
                length = min(nodes, length * 2)
            evaluated = int(places[enough])
            numbers = _window(self._numbers, start, evaluated)[places[:enough]]
        found = np.bincount(numbers).tolist()
        present = [number for number, count in enumerate(found) if count]
        by_number = self.by_number
        verdict = Verdict(start, evaluated, enough)
        return verdict, [by_number[number] for number in present], [found[number] for number in present]

    def member(self, verdict: Verdict, index: int) -> NodeInfo:
        """One of the tied nodes, ``index`` below the verdict's ``count``."""
        ties = verdict.ties
        block = verdict.block
        if block is not None:
            for one in ties:
                members = block[one]
                if index < len(members):
                    return members[index]
                index -= len(members)
            raise AssertionError("fewer tied nodes than counted")
        import numpy as np

        order = self.cache.order
        numbers = _window(self._numbers, verdict.start, verdict.evaluated)
        if len(ties) == 1:
            places = (numbers == ties[0].number).nonzero()[0]
        else:
            tied = np.zeros(len(self.by_number), np.bool_)
            for one in ties:
                tied[one.number] = True
            places = tied[numbers].nonzero()[0]
        return order[(verdict.start + int(places[index])) % len(order)]

    def refusal(self, claims: bool) -> tuple[Diagnosis, str, str | None]:
        """Every node refuses: (why, the message, what becomes of a nomination). No placed pod is less important.

        The same as long as no node changes its class: a retry costs a look at a number.
        """
        rules = self.handle.rules
        known = self._refusal
        if known is None or known[0] != self.version:
            diagnosis = Diagnosis(len(self.cache.order))
            diagnosis.counts = [(c.status, c.count) for c in self.live if c.status is not None]
            for status, _ in diagnosis.counts:
                diagnosis.plugins[status.plugin] = None
            if self.framework.preempts:
                if self.pod.facts.spec.preemption_policy == "Never":
                    diagnosis.preemption_message = preemption.NEVER
                else:
                    helped = sum(count for status, count in diagnosis.counts if status.code == UNSCHEDULABLE)
                    counts = [(preemption.NO_VICTIMS, helped), (preemption.NOT_HELPFUL, diagnosis.nodes - helped)]
                    diagnosis.preemption_counts = [(status, count) for status, count in counts if count]
            known = self._refusal = (self.version, diagnosis, diagnosis.message(rules, claims=claims))
        diagnosis = known[1]
        nominated: str | None = None
        if self.framework.preempts and not diagnosis.preemption_message:
            potential = any(status.code == UNSCHEDULABLE for status, _ in diagnosis.counts)
            nominated = "" if rules.postfilter_message or not potential else None
        return diagnosis, known[2], nominated


def _window(places: Any, start: int, length: int) -> Any:
    """``length`` places from ``start`` on, around the end."""
    end = start + length
    nodes = len(places)
    if end <= nodes:
        return places[start:end]
    import numpy as np

    return np.concatenate((places[start:], places[: end - nodes]))


def weight_for(size: int) -> float:
    """The spread weight of so many domains, worked out once."""
    weight = _WEIGHTS.get(size)
    if weight is None:
        weight = _WEIGHTS[size] = topology_normalizing_weight(size)
    return weight


class ClassTables:
    """The tables of the kinds of pod met lately."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._tables: dict[Any, ClassTable] = {}
        self._seen: dict[Any, None] = {}

    def table_for(self, framework: Framework, pod: PodInfo) -> ClassTable | None:
        """The pod's table, up to date; None: take the plain path. In a large cluster a pod that may be the
        only one of its kind gets no table before a second one comes."""
        owner = pod.pod.owner
        key = (
            framework.profile_name,
            pod.facts,
            pod.namespace,
            pod.labels_key,
            None if owner is None else (owner.kind, owner.name, owner.uid),
        )
        tables = self._tables
        table = tables.get(key)
        if table is None:
            lonely = owner is None or owner.kind == "DaemonSet"
            if lonely and len(self.handle.cache.order) >= MANY_NODES and key not in self._seen:
                if len(self._seen) > 4 * _TABLES_MAX:
                    self._seen.clear()
                self._seen[key] = None
                return None
            room = max(_TABLES_MIN, _ROWS_MAX // (len(self.handle.cache.order) + 1))
            while len(tables) >= min(room, _TABLES_MAX):
                del tables[next(iter(tables))]
            table = tables[key] = ClassTable(framework, self.handle, pod)
        elif len(tables) > _TABLES_MIN:
            # The longest unused is the first to go.
            tables[key] = tables.pop(key)
        if table.affinity_matters():
            return None
        if not table.usable and table._lister_version == self.handle.listers.version:
            return None
        table.sync()
        return table if table.usable else None


