"""The scheduling framework: statuses, what a plugin may do, and a profile that runs its plugins in order.

Mimics ``framework/interface.go`` and ``framework/runtime/framework.go``; leaves out Reserve, Permit, PreBind and
PostBind, which no default plugin without volumes uses. A :class:`Framework` holds no state of a cluster, so equal
configurations share one. Called by the cycle, preemption and the fast path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from eksim.kube.scheduler.events import ADD, NODE, NODE_TAINT, ClusterEvent, match_cluster_events
from eksim.versions import SchedulerRules

if TYPE_CHECKING:
    from eksim.kube.scheduler.cache import Cache
    from eksim.kube.scheduler.facts import SpecFacts
    from eksim.kube.scheduler.listers import Listers
    from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
    from eksim.state.objects import Pod

MAX_NODE_SCORE: Final = 100

# Codes of a rejection, as the recordings write them.
UNSCHEDULABLE: Final = "Unschedulable"
UNRESOLVABLE: Final = "UnschedulableAndUnresolvable"
ERROR: Final = "Error"


class Status:
    """Why a plugin says no. Reasons are the real component's words, made once and shared."""

    __slots__ = ("code", "plugin", "reasons")

    def __init__(self, plugin: str, code: str, reasons: tuple[str, ...]) -> None:
        self.plugin = plugin
        self.code = code
        self.reasons = reasons

    def __repr__(self) -> str:
        return f"<{self.plugin} {self.code} {self.reasons}>"


#: A PreFilter's or PreScore's answer: leave me out of this cycle.
SKIP: Final = Status("", "Skip", ())

#: pod, old, new → whether to try the pod again
Hint = Callable[["Handle", "Pod", Any, Any], bool]


def always(handle: Handle, pod: Pod, old: Any, new: Any) -> bool:
    """The default hint: try again."""
    return True


class Handle:
    """What plugins may ask of the scheduler: the snapshot, the objects of the cluster, the release."""

    __slots__ = ("cache", "listers", "rules")

    def __init__(self, cache: Cache, listers: Listers, rules: SchedulerRules) -> None:
        self.cache = cache
        self.listers = listers
        self.rules = rules


class CycleState:
    """What plugins remember from one extension point to the next, for one pod in one cycle."""

    __slots__ = ("data", "handle", "skip_filter", "skip_score")

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.data: dict[str, Any] = {}
        self.skip_filter: dict[str, None] = {}
        self.skip_score: dict[str, None] = {}

    def clone(self) -> CycleState:
        """A copy whose data can be changed without changing this one's."""
        copy = CycleState(self.handle)
        copy.data = {name: value.clone() if hasattr(value, "clone") else value for name, value in self.data.items()}
        copy.skip_filter = self.skip_filter
        copy.skip_score = self.skip_score
        return copy


class Plugin:
    """A rule under its real name. What a subclass does not override, it does not take part in.

    ``filter_by_pods``: its Filter looks at the pods on the node, not only at the node object; ``score_by_pods`` alike.
    ``local_score``: its Score looks at nothing but the pod's spec and that node.
    """

    name = ""
    filter_by_pods = False
    score_by_pods = False
    local_score = True

    def plain_figures(self, rules: SchedulerRules, facts: SpecFacts) -> bool:
        """Whether, of the pods on a node, Filter and Score look only at their number, their cpu and their memory."""
        return False

    def pre_filter(self, state: CycleState, pod: PodInfo) -> Status | frozenset[str] | None:
        """Prepare; SKIP to be left out, a rejection for all nodes, or names of the only nodes that can do."""
        raise NotImplementedError

    def add_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """PreFilterExtensions: suppose that ``other`` is on ``node``."""
        raise NotImplementedError

    def remove_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """PreFilterExtensions: suppose that ``other`` has left ``node``."""
        raise NotImplementedError

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """A rejection, or None."""
        raise NotImplementedError

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]) -> Status | None:
        """Prepare for ``nodes``, the feasible ones; SKIP to be left out."""
        raise NotImplementedError

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        """The raw score."""
        raise NotImplementedError

    def normalize(self, state: CycleState, scores: list[int], nodes: Sequence[NodeInfo]) -> None:
        """Bring the raw scores of all feasible nodes into 0 … 100, in place."""
        raise NotImplementedError

    def events(self, rules: SchedulerRules) -> Iterable[tuple[ClusterEvent, Hint]] | None:
        """The events that may make a pod schedulable that this plugin rejected; None: every event."""
        return None


def overrides(plugin: Plugin, method: str) -> bool:
    """Whether the plugin takes part in an extension point."""
    return getattr(type(plugin), method) is not getattr(Plugin, method)


class Framework:
    """A profile: the plugins of each extension point in order, with the weights of the scores."""

    def __init__(
        self,
        profile_name: str,
        rules: SchedulerRules,
        *,
        pre_filter: Sequence[Plugin],
        filter: Sequence[Plugin],
        pre_score: Sequence[Plugin],
        score: Sequence[tuple[Plugin, int]],
        enqueue: Sequence[Plugin],
        preempts: bool,
        claims: bool = False,
        percentage_of_nodes_to_score: int = 0,
        min_candidate_percentage: int = 10,
        min_candidate_absolute: int = 100,
    ) -> None:
        self.profile_name = profile_name
        self.rules = rules
        self.pre_filter_plugins = tuple(p for p in pre_filter if overrides(p, "pre_filter"))
        self.extensions = tuple(p for p in self.pre_filter_plugins if overrides(p, "add_pod"))
        self.filter_plugins = tuple(p for p in filter if overrides(p, "filter"))
        self.pre_score_plugins = tuple(p for p in pre_score if overrides(p, "pre_score"))
        self.score_plugins = tuple((p, weight or 1) for p, weight in score if overrides(p, "score"))
        self.normalizes = {p.name: overrides(p, "normalize") for p, _ in self.score_plugins}
        self.enqueue_plugins = tuple(enqueue)
        self.preempts = preempts
        #: DynamicResources is among the PostFilter plugins
        self.claims = claims
        self.percentage_of_nodes_to_score = percentage_of_nodes_to_score
        self.min_candidate_percentage = min_candidate_percentage
        self.min_candidate_absolute = min_candidate_absolute
        self.registered: list[tuple[str, ClusterEvent, Hint]] = []
        self._wild: dict[str, None] = {}
        for plugin in self.enqueue_plugins:
            # Up to 1.21 only NodeResourcesFit registered; what rejected the rest, any event moved.
            events = plugin.events(rules) if rules.events_by_plugin or plugin.name == "NodeResourcesFit" else None
            if events is None:
                self._wild[plugin.name] = None
                continue
            own = [(plugin.name, event, hint) for event, hint in events]
            node_actions = [event.action for _, event, _ in own if event.resource == NODE]
            if rules.queueing_hints and any(action & ADD for action in node_actions):
                # Who registers Node/Add but not taints is told of every taint change, without a question
                # (kubernetes/pkg/scheduler/scheduler.go:buildQueueingHintMap, v1.34.1).
                if not any(action & NODE_TAINT for action in node_actions):
                    own.append((plugin.name, ClusterEvent(NODE, NODE_TAINT), always))
            self.registered.extend(own)
        self._hints: dict[ClusterEvent, tuple[tuple[str, Hint], ...]] = {}

    # -- what queueing asks ---------------------------------------------------------------------------------------

    def hints(self, event: ClusterEvent) -> tuple[tuple[str, Hint], ...]:
        """(plugin, hint) of every plugin that registered for ``event``."""
        found = self._hints.get(event)
        if found is None:
            found = tuple((name, hint) for name, own, hint in self.registered if match_cluster_events(own, event))
            found += tuple((name, always) for name in self._wild)
            self._hints[event] = found
        return found

    # -- what the cycle asks --------------------------------------------------------------------------------------

    def run_pre_filter(
        self, state: CycleState, pod: PodInfo
    ) -> tuple[frozenset[str] | None, Status | None, dict[str, None]]:
        """(the only nodes to look at or None, a rejection for all nodes or None, the plugins that narrowed the nodes).

        Source: kubernetes/pkg/scheduler/framework/runtime/framework.go:RunPreFilterPlugins, v1.34.1.
        """
        names: frozenset[str] | None = None
        rejection: Status | None = None
        narrowing: dict[str, None] = {}
        for plugin in self.pre_filter_plugins:
            answer = plugin.pre_filter(state, pod)
            if answer is None:
                continue
            if answer is SKIP:
                state.skip_filter[plugin.name] = None
            elif isinstance(answer, Status):
                if answer.code != UNSCHEDULABLE or not self.rules.prefilter_nodes:
                    return None, answer, {}
                rejection = answer
            else:
                narrowing[plugin.name] = None
                names = answer if names is None else names & answer
                if not names:
                    text = f"node(s) didn't satisfy plugin {plugin.name}"
                    if len(narrowing) > 1:
                        text = f"node(s) didn't satisfy plugin(s) {go_list(narrowing)} simultaneously"
                    return names, Status("", UNRESOLVABLE, (text,)), narrowing
        return names, rejection, narrowing

    def run_filters(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        """The first filter's rejection, or None.

        Source: kubernetes/pkg/scheduler/framework/runtime/framework.go:RunFilterPlugins, v1.34.1.
        """
        skip = state.skip_filter
        for plugin in self.filter_plugins:
            if plugin.name not in skip:
                status = plugin.filter(state, pod, node)
                if status is not None:
                    return status
        return None

    def run_filters_with_nominated(
        self, state: CycleState, pod: PodInfo, node: NodeInfo, nominated: Sequence[PodInfo]
    ) -> Status | None:
        """Filters with the nominated pods of equal or higher priority on the node, and without; both must pass.

        Source: kubernetes/pkg/scheduler/framework/runtime/framework.go:RunFilterPluginsWithNominatedPods,
        addGENominatedPods, v1.34.1.
        """
        greater = [other for other in nominated if other.priority >= pod.priority and other.key != pod.key]
        if greater:
            supposed_node, supposed_state = node.clone(), state.clone()
            for other in greater:
                supposed_node.add_pod(other)
                self.run_add_pod(supposed_state, pod, other, supposed_node)
            status = self.run_filters(supposed_state, pod, supposed_node)
            if status is not None:
                return status
        return self.run_filters(state, pod, node)

    def run_add_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """RunPreFilterExtensionAddPod: plugins that skipped are left out."""
        for plugin in self.extensions:
            if plugin.name not in state.skip_filter:
                plugin.add_pod(state, pod, other, node)

    def run_remove_pod(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo) -> None:
        """RunPreFilterExtensionRemovePod."""
        for plugin in self.extensions:
            if plugin.name not in state.skip_filter:
                plugin.remove_pod(state, pod, other, node)

    def run_scores(
        self, state: CycleState, pod: PodInfo, nodes: Sequence[NodeInfo]
    ) -> tuple[list[int], dict[str, tuple[int, list[int], list[int]]]]:
        """(total per node, plugin → (weight, raw, normalised)).

        Source: kubernetes/pkg/scheduler/framework/runtime/framework.go:RunPreScorePlugins, RunScorePlugins;
        schedule_one.go:prioritizeNodes, v1.34.1.
        """
        if not self.score_plugins:
            return [1] * len(nodes), {}
        for plugin in self.pre_score_plugins:
            if plugin.pre_score(state, pod, nodes) is SKIP:
                state.skip_score[plugin.name] = None
        total = [0] * len(nodes)
        detail = {}
        for plugin, weight in self.score_plugins:
            if plugin.name in state.skip_score:
                continue
            raw = [plugin.score(state, pod, node) for node in nodes]
            scores = list(raw)
            if self.normalizes[plugin.name]:
                plugin.normalize(state, scores, nodes)
            detail[plugin.name] = (weight, raw, scores)
            for i, score in enumerate(scores):
                total[i] += score * weight
        return total, detail


def go_list(names: Iterable[str]) -> str:
    """Sorted names as Go prints a slice: ``[A B]``."""
    return "[" + " ".join(sorted(names)) + "]"


def default_normalize(scores: list[int], *, reverse: bool) -> None:
    """Scale to the highest score, or backwards.

    Source: kubernetes/pkg/scheduler/framework/plugins/helper/normalize_score.go:DefaultNormalizeScore, v1.34.1.
    """
    highest = max(scores, default=0)
    if highest <= 0:
        if reverse:
            scores[:] = [MAX_NODE_SCORE] * len(scores)
        return
    for i, score in enumerate(scores):
        scaled = MAX_NODE_SCORE * score // highest
        scores[i] = MAX_NODE_SCORE - scaled if reverse else scaled
