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
from typing import Any, Final

from eksim.kube.scheduler import preemption
from eksim.kube.scheduler.diagnosis import Diagnosis
from eksim.kube.scheduler.framework import MAX_NODE_SCORE, SKIP, UNSCHEDULABLE, CycleState, Framework, Handle, Status
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins import inter_pod_affinity, pod_topology_spread
from eksim.kube.scheduler.plugins.node_affinity import required_node_affinity_matches
from eksim.kube.scheduler.plugins.pod_topology_spread import (
    HOSTNAME,
    PodTopologySpread,
    count_pods_match_selector,
    node_labels_match_spread_constraints,
    normalized,
    round_half_away,
    topology_normalizing_weight,
)

#: From this many nodes on, places of nodes are kept in arrays.
MANY_NODES: Final = 100
_TABLES_MAX: Final = 64
_WEIGHTS: dict[int, float] = {}


class NodeClass:
    """Nodes that are equal for a kind of pod. ``base``: weighted scores that need no normalising; ``norms``: raw scores
    that do; ``spread``: per soft constraint the domain, or for the hostname the node's own count; None without label."""

    __slots__ = ("base", "count", "ignored", "key", "norms", "number", "spread", "status")

    def __init__(self, key: Any, number: int) -> None:
        self.key = key
        self.number = number
        self.count = 0
        self.status: Status | None = None
        self.base = 0
        self.norms: tuple[int, ...] = ()
        self.spread: tuple[Any, ...] = ()
        self.ignored = False


class Verdict:
    """What a cycle finds. ``feasible``: how many of the nodes looked at; ``best``: the highest total (None if one node
    was taken unseen); ``ties``: the classes that have it; ``count``: their nodes in the sample."""

    __slots__ = ("best", "count", "end", "evaluated", "feasible", "start", "ties")

    def __init__(self, start: int, end: int, evaluated: int, feasible: int) -> None:
        self.start = start
        #: place after the last node looked at, not yet wrapped
        self.end = end
        self.evaluated = evaluated
        self.feasible = feasible
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
        self.classes: dict[Any, NodeClass] = {}
        self.by_number: list[NodeClass] = []
        self._free: list[int] = []
        self.feasible = 0
        #: raised whenever a class gains or loses a node
        self.version = 0
        self._static: dict[int, tuple[int, Status | None, int, tuple[int, ...]]] = {}
        self._shares: dict[int, tuple[tuple[str, int], ...]] = {}
        self._order_version = -1
        self._affinity_version = -1
        self._affinity_matters = False
        self._numbers: Any = None
        self._ok: Any = None
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
        self._totals: list[dict[str, int]] = [{} for _ in self._constraints]
        return True

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
        self.classes.clear()
        self.by_number.clear()
        self._free.clear()
        self._static.clear()
        self._shares.clear()
        self.feasible = 0
        self._order_version = -1

    def _reorder(self) -> None:
        """Nodes came or went: place the new ones, forget the others."""
        order = self.cache.order
        self._order_version = self.cache.order_version
        self._numbers = None
        nodes = {node.row: node for node in order}
        for row in [row for row in self.class_of if row not in nodes]:
            self._leave(row)
            del self.class_of[row]
            del self._static[row]
            self._share(row, ())
        self.nodes = nodes
        for row, node in nodes.items():
            if row not in self.class_of:
                self._place(node)
        if len(order) >= MANY_NODES:
            import numpy as np

            of = self.class_of
            self._numbers = np.fromiter((of[node.row].number for node in order), np.int32, len(order))
            self._ok = np.fromiter((of[node.row].status is None for node in order), np.bool_, len(order))

    def _leave(self, row: int) -> None:
        left = self.class_of[row]
        left.count -= 1
        self.version += 1
        if left.status is None:
            self.feasible -= 1
        if not left.count:
            del self.classes[left.key]
            self._free.append(left.number)

    def _place(self, node: NodeInfo) -> None:
        """Ask the plugins about a node and put it into its class."""
        state, pod, row = self.state, self.pod, node.row
        static = self._static.get(row)
        if static is None or static[0] != node.version:
            static = self._static[row] = self._look(node)
        status = static[1]
        if status is None:
            for plugin in self._filters:
                status = plugin.filter(state, pod, node)
                if status is not None:
                    break
        if self._constraints:
            self._share(row, self._shares_of(node))
        key: Any
        if status is not None:
            key = (status.plugin, status.code, status.reasons)
            base, spread, ignored = 0, (), False
        else:
            base = static[2]
            for plugin, weight in self._scores:
                base += plugin.score(state, pod, node) * weight
            spread, ignored = self._spread_of(node) if self._constraints else ((), False)
            key = (base, static[3], spread, ignored)
        was = self.class_of.get(row)
        if was is not None:
            if was.key == key:
                return
            self._leave(row)
        now = self.classes.get(key)
        if now is None:
            now = self._new_class(key)
            now.status, now.base, now.norms, now.spread, now.ignored = status, base, static[3], spread, ignored
        now.count += 1
        self.version += 1
        if status is None:
            self.feasible += 1
        self.class_of[row] = now
        if self._numbers is not None:
            self._numbers[node.order_index] = now.number
            self._ok[node.order_index] = status is None

    def _new_class(self, key: Any) -> NodeClass:
        if self._free:
            number = self._free.pop()
            made = self.by_number[number] = NodeClass(key, number)
        else:
            made = NodeClass(key, len(self.by_number))
            self.by_number.append(made)
        self.classes[key] = made
        return made

    def _look(self, node: NodeInfo) -> tuple[int, Status | None, int, tuple[int, ...]]:
        """What depends on the node object alone: (its version, refusal, weighted scores, scores to normalise)."""
        state, pod = self.state, self.pod
        for plugin in self._static_filters:
            status = plugin.filter(state, pod, node)
            if status is not None:
                return node.version, status, 0, ()
        base = sum(plugin.score(state, pod, node) * weight for plugin, weight in self._static_scores)
        return node.version, None, base, tuple(plugin.score(state, pod, node) for plugin, _ in self._norms)

    # -- spread -----------------------------------------------------------------------------------------------------

    def _shares_of(self, node: NodeInfo) -> tuple[tuple[str, int], ...]:
        """(domain, matching pods) that the node adds to each constraint's count; ("", 0): nothing."""
        constraints, handle, pod = self._constraints, self.handle, self.pod
        if self._require_all and not node_labels_match_spread_constraints(node.labels, constraints):
            return ()
        policies = handle.rules.node_inclusion_policy
        if not policies and not required_node_affinity_matches(pod.facts.spec, node.labels, node.name):
            return ()
        shares = []
        for constraint in constraints:
            value = node.labels.get(constraint.key, "")
            if constraint.key == HOSTNAME or (policies and not constraint.includes(pod, node)):
                shares.append(("", 0))
            else:
                shares.append((value, count_pods_match_selector(handle, node, constraint.selector, pod.namespace)))
        return tuple(shares)

    def _share(self, row: int, shares: tuple[tuple[str, int], ...]) -> None:
        was = self._shares.get(row, ())
        if was == shares:
            return
        for totals, (value, count) in zip(self._totals, was, strict=False):
            totals[value] -= count
        for totals, (value, count) in zip(self._totals, shares, strict=False):
            totals[value] = totals.get(value, 0) + count
        self._shares[row] = shares

    def _spread_of(self, node: NodeInfo) -> tuple[tuple[Any, ...], bool]:
        constraints, handle = self._constraints, self.handle
        if self._require_all and not node_labels_match_spread_constraints(node.labels, constraints):
            return (), True
        found: list[Any] = []
        for constraint in constraints:
            value = node.labels.get(constraint.key)
            if value is not None and constraint.key == HOSTNAME:
                found.append(count_pods_match_selector(handle, node, constraint.selector, self.pod.namespace))
            else:
                found.append(value)
        return tuple(found), False

    def _add_spread(self, classes: Sequence[NodeClass], counts: Sequence[int], totals: list[int]) -> None:
        """Source: podtopologyspread/scoring.go:PreScore, Score, NormalizeScore, over classes."""
        constraints = self._constraints
        counted = [i for i, c in enumerate(classes) if not c.ignored]
        weights = []
        for j, constraint in enumerate(constraints):
            if constraint.key == HOSTNAME:
                size = sum(counts[i] for i in counted)
            else:
                size = len(dict.fromkeys(classes[i].spread[j] or "" for i in counted))
            weight = _WEIGHTS.get(size)
            if weight is None:
                weight = _WEIGHTS[size] = topology_normalizing_weight(size)
            weights.append(weight)
        raws = []
        rounded = self.handle.rules.spread_rounded
        for i in counted:
            score = 0.0
            for j, value in enumerate(classes[i].spread):
                if value is not None:
                    constraint = constraints[j]
                    count = value if constraint.key == HOSTNAME else self._totals[j].get(value, 0)
                    score += float(count) * weights[j] + float(constraint.max_skew - 1)
            raws.append(round_half_away(score) if rounded else int(score))
        lowest, highest = min(raws, default=0), max(raws, default=0)
        for i, raw in zip(counted, raws, strict=True):
            totals[i] += normalized(raw, lowest, highest) * self._spread_weight

    # -- the verdict ------------------------------------------------------------------------------------------------

    def verdict(self, start: int, enough: int) -> Verdict:
        """Look from ``start`` until ``enough`` nodes are feasible; at least one is."""
        nodes = len(self.cache.order)
        if self.feasible <= enough:
            verdict = Verdict(start, start + nodes, nodes, self.feasible)
            classes = [c for c in self.classes.values() if c.status is None]
            counts = [c.count for c in classes]
        else:
            verdict, classes, counts = self._sample(start, enough, nodes)
        if verdict.feasible == 1:
            verdict.ties, verdict.count = classes, 1
            return verdict
        totals = [c.base + self._constant for c in classes]
        for j, (plugin, weight) in enumerate(self._norms):
            scores = [c.norms[j] for c in classes]
            plugin.normalize(self.state, scores, ())
            for i, score in enumerate(scores):
                totals[i] += score * weight
        if self._constraints:
            self._add_spread(classes, counts, totals)
        best = verdict.best = max(totals)
        for i, total in enumerate(totals):
            if total == best:
                verdict.ties.append(classes[i])
                verdict.count += counts[i]
        return verdict

    def _sample(self, start: int, enough: int, nodes: int) -> tuple[Verdict, list[NodeClass], list[int]]:
        import numpy as np

        ok = self._ok
        # The search stops at one feasible node more than enough, which is not counted.
        length = min(nodes, enough + enough // 8 + 64)
        while True:
            looked = _window(ok, start, length)
            places = np.flatnonzero(looked)
            if len(places) > enough:
                break
            length = min(nodes, length * 2)
        evaluated = int(places[enough])
        numbers = _window(self._numbers, start, evaluated)
        found = np.bincount(numbers[places[:enough]])
        present = np.flatnonzero(found).tolist()
        verdict = Verdict(start, start + evaluated, evaluated, enough)
        return verdict, [self.by_number[number] for number in present], found[present].tolist()

    def member(self, verdict: Verdict, index: int) -> NodeInfo:
        """The tied node at ``index`` in the order in which the nodes were looked at."""
        order, start = self.cache.order, verdict.start
        nodes = len(order)
        ties = verdict.ties
        if self._numbers is None:
            of = self.class_of
            for i in range(start, start + nodes):
                node = order[i % nodes]
                if of[node.row] in ties:
                    if index == 0:
                        return node
                    index -= 1
            raise AssertionError("fewer tied nodes than counted")
        import numpy as np

        numbers = _window(self._numbers, start, verdict.end - start)
        if len(ties) == 1:
            places = np.flatnonzero(numbers == ties[0].number)
        else:
            places = np.flatnonzero(np.isin(numbers, [c.number for c in ties]))
        return order[(start + int(places[index])) % nodes]

    def refusal(self, claims: bool) -> tuple[Diagnosis, str, str | None]:
        """Every node refuses: (why, the message, what becomes of a nomination). No placed pod is less important.

        The same as long as no node changes its class: a retry costs a look at a number.
        """
        rules = self.handle.rules
        known = self._refusal
        if known is None or known[0] != self.version:
            diagnosis = Diagnosis(len(self.cache.order))
            diagnosis.counts = [(c.status, c.count) for c in self.classes.values() if c.status is not None]
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
    import numpy as np

    end = start + length
    nodes = len(places)
    return places[start:end] if end <= nodes else np.concatenate((places[start:], places[: end - nodes]))


class ClassTables:
    """The tables of the kinds of pod met lately."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._tables: dict[Any, ClassTable] = {}
        self._seen: dict[Any, None] = {}

    def table_for(self, framework: Framework, pod: PodInfo) -> ClassTable | None:
        """The pod's table, up to date; None: take the plain path. In a large cluster a kind of pod gets its table when
        it is met for the second time."""
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
            if len(self.handle.cache.order) >= MANY_NODES and key not in self._seen:
                if len(self._seen) > 4 * _TABLES_MAX:
                    self._seen.clear()
                self._seen[key] = None
                return None
            if len(tables) >= _TABLES_MAX:
                del tables[next(iter(tables))]
            table = tables[key] = ClassTable(framework, self.handle, pod)
        if table.affinity_matters():
            return None
        if not table.usable and table._lister_version == self.handle.listers.version:
            return None
        table.sync()
        return table if table.usable else None


