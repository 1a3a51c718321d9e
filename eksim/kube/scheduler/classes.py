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
from eksim.kube.scheduler.class_places import MANY_NODES, NodeClass, Places, Verdict
from eksim.kube.scheduler.class_spread import ClassSpread, Shares
from eksim.kube.scheduler.diagnosis import Diagnosis
from eksim.kube.scheduler.framework import SKIP, UNSCHEDULABLE, CycleState, Framework, Handle, Status
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins import inter_pod_affinity, pod_topology_spread
from eksim.kube.scheduler.plugins.node_affinity import NodeAffinity
from eksim.kube.scheduler.plugins.pod_topology_spread import PodTopologySpread
from eksim.kube.scheduler.sampling import num_feasible_nodes_to_find

#: tables are kept for so many kinds of pod, and in a large cluster as long as all have so many rows
_TABLES_MIN: Final = 8
_TABLES_MAX: Final = 512
_ROWS_MAX: Final = 1_000_000
_KNOWN_MAX: Final = 100_000
#: (refusal, weighted scores, scores to normalise)
_Looked = tuple[Status | None, int, tuple[int, ...]]


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
        self._answers: dict[Any, tuple[NodeClass, Shares]] = {}
        self._order_version = -1
        self._affinity_version = -1
        self._affinity_lister_version = -1
        self._affinity_matters = False
        self.places = Places(self.class_of, self.by_number)
        self._refusal: tuple[int, tuple[Diagnosis, str, str | None]] | None = None

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
        weight = 0 if spread is None else {p.name: w for p, w in framework.score_plugins}[spread.name]
        self._spread = ClassSpread(handle, pod, spread, weight)
        if not self._spread.usable:
            return False
        #: what every node gets alike
        self._constant = self._spread.constant
        #: classes with a raw score to normalise other than 0, and what all nodes get while there are none
        self._uneven = 0
        self._even = self._constant
        for plugin, weight in self._norms:
            zeros = [0]
            plugin.normalize(state, zeros, ())
            self._even += zeros[0] * weight
        spec = pod.facts.spec
        selects_nodes = bool(
            spec.node_name or spec.node_selector or spec.affinity.node_required or spec.affinity.node_preferred
        ) or any(isinstance(p, NodeAffinity) and (p.added_required or p.added_preferred) for p in framework.filter_plugins)
        #: nodes of one kind need to be asked about only once for the same figures
        self._by_kind = (
            not (selects_nodes or pod.facts.uncommon)
            and self._spread.counts_alike
            and all(p.plain_figures(handle.rules, pod.facts) for p in (*self._filters, *(p for p, _ in self._scores)))
        )
        return True

    def affinity_matters(self) -> bool:
        """Whether some placed pod's affinity terms match this kind of pod."""
        cache = self.cache
        listers = self.handle.listers  # namespaces' labels count, too
        if self._affinity_version != cache.affinity_version or self._affinity_lister_version != listers.version:
            self._affinity_version = cache.affinity_version
            self._affinity_lister_version = listers.version
            pod = self.pod
            labels = listers.namespace_labels(pod.namespace)
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
        self.feasible = 0
        self._order_version = -1

    def _reorder(self) -> None:
        """Nodes came or went: place the new ones, forget the others."""
        order = self.cache.order
        self._order_version = self.cache.order_version
        self.places.forget()
        nodes = {node.row: node for node in order}
        for row in [row for row in self.class_of if row not in nodes]:
            self._leave(row)
            del self.class_of[row]
            self._static.pop(row, None)
            self._spread.share(row, ())
        self.nodes = nodes
        self._place_new([node for row, node in nodes.items() if row not in self.class_of])
        sample = num_feasible_nodes_to_find(len(order), self.framework.percentage_of_nodes_to_score)
        self.places.arrange(order, self.feasible, sample)

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

    def _answer_for(self, node: NodeInfo) -> tuple[NodeClass, Shares]:
        """What :meth:`_ask` finds; nodes of one kind with the same figures get the same answer."""
        kind = node.kind
        if kind < 0 or not self._by_kind or node.scalars:
            return self._ask(node)
        figures: Any = (
            kind, len(node.pods), node.cpu, node.memory, node.nonzero_cpu, node.nonzero_memory,
            node.counts.get(self._spread.counter, 0),
        )  # fmt: skip
        answer = self._answers.get(figures)
        if answer is None:
            answer = self._answers[figures] = self._ask(node)
        return answer

    def _place_new(self, nodes: Sequence[NodeInfo]) -> None:
        """Put nodes not met before into their classes."""
        class_of, share = self.class_of, self._spread.share
        found: dict[NodeClass, int] = {}
        empty: dict[int, NodeClass] = {}
        for node in nodes:
            if node.pods:
                now, shares = self._answer_for(node)
                if shares:
                    share(node.row, shares)
            else:
                # Empty nodes of one kind have the same figures, and add to no domain.
                known = empty.get(node.kind)
                if known is None:
                    known, _ = self._answer_for(node)
                    if node.kind >= 0 and self._by_kind:
                        empty[node.kind] = known
                now = known
            class_of[node.row] = now
            found[now] = found.get(now, 0) + 1
        for now, count in found.items():
            if not now.count:
                self._enliven(now)
            now.count += count
            if now.status is None:
                self.feasible += count
        self.version += 1

    def _place(self, node: NodeInfo) -> None:
        """Ask the plugins about a node and put it into its class."""
        row = node.row
        now, shares = self._answer_for(node)
        spread = self._spread
        if spread.shares.get(row, ()) is not shares:
            spread.share(row, shares)
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
        self.places.move(node, was, now)

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

    def _ask(self, node: NodeInfo) -> tuple[NodeClass, Shares]:
        """(the node's class by the plugins, what its pods add to the domains' counts)."""
        static = self._static.get(node.row)
        if static is None or static[0] != node.version:
            static = self._static[node.row] = (node.version, self._look(node))
        looked = static[1]
        spread: tuple[Any, ...] = ()
        ignored = False
        shares: Shares = ()
        if self._spread.constraints:
            spread, ignored, shares = self._spread.of(node)
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

    # -- the verdict ------------------------------------------------------------------------------------------------

    def verdict(self, start: int, enough: int) -> Verdict:
        """Look from ``start`` until ``enough`` nodes are feasible; at least one is."""
        verdict, classes, counts = self.places.look(start, enough, self.feasible, self.live)
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
        if self._spread.constraints:
            self._spread.add(classes, counts, totals)
        best = verdict.best = max(totals)
        ties = [i for i, total in enumerate(totals) if total == best]
        verdict.ties = [classes[i] for i in ties]
        verdict.count = sum([counts[i] for i in ties])
        return verdict

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
            nominated: str | None = None
            if self.framework.preempts and not diagnosis.preemption_message:
                potential = any(status.code == UNSCHEDULABLE for status, _ in diagnosis.counts)
                nominated = "" if rules.postfilter_message or not potential else None
            known = self._refusal = (
                self.version,
                (diagnosis, diagnosis.message(rules, claims=claims), nominated),
            )
        return known[1]


class ClassTables:
    """The tables of the kinds of pod met lately."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self._tables: dict[Any, ClassTable] = {}
        self._seen: dict[Any, None] = {}
        #: the kind of pod asked about last, by what all pods of a template share, and its table
        self._last: tuple[Any, ...] = (None,) * 5
        self._last_table: ClassTable | None = None

    def table_for(self, framework: Framework, pod: PodInfo) -> ClassTable | None:
        """The pod's table, up to date; None: take the plain path. In a large cluster a pod that may be the
        only one of its kind gets no table before a second one comes."""
        owner = pod.pod.owner
        facts = pod.facts
        last_framework, last_facts, last_labels, last_owner, last_namespace = self._last
        if (
            facts is last_facts
            and pod.labels_key is last_labels
            and owner is last_owner
            and framework is last_framework
            and pod.namespace == last_namespace
        ):
            return self._up_to_date(self._last_table)
        if facts.named_nodes and self.handle.rules.prefilter_nodes:
            return None  # NodeAffinity's PreFilter looks at some nodes only
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
        self._last = (framework, facts, pod.labels_key, owner, pod.namespace)
        self._last_table = table
        return self._up_to_date(table)

    def _up_to_date(self, table: ClassTable | None) -> ClassTable | None:
        if table is None:
            return None
        listers_version = self.handle.listers.version
        if (
            table._affinity_version == self.handle.cache.affinity_version
            and table._affinity_lister_version == listers_version
        ):
            if table._affinity_matters:
                return None
        elif table.affinity_matters():
            return None
        if not table.usable and table._lister_version == listers_version:
            return None
        cache = self.handle.cache
        if (
            table._cursor == len(cache.log)
            and table._order_version == cache.order_version
            and table._epoch == cache.log_epoch
            and table._lister_version == listers_version
            and (table._images_version == cache.images_version or not cache.images)
        ):
            return table if table.usable else None
        table.sync()
        return table if table.usable else None


