"""From a KubeSchedulerConfiguration to frameworks: the default plugins of a release, enabled, disabled, configured.

Mimics ``apis/config/v1/default_plugins.go`` (then ``algorithmprovider/registry.go``), ``defaults.go`` and
``profile/profile.go``. Leaves out extenders, volume plugins and Permit. Equal configurations share their frameworks.
Called when a scheduler is built.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from eksim.errors import InputError
from eksim.kube.scheduler import preemption
from eksim.kube.scheduler.framework import Framework, Plugin
from eksim.kube.scheduler.plugins import (
    image_locality,
    inter_pod_affinity,
    node_affinity,
    node_name,
    node_ports,
    node_prefer_avoid_pods,
    node_resources_balanced_allocation,
    node_resources_fit,
    node_unschedulable,
    pod_topology_spread,
    scheduling_gates,
    taint_toleration,
)
from eksim.kube.scheduler.plugins.resource_scorers import (
    ResourceScorer,
    least_requested_score,
    most_requested_score,
    requested_to_capacity_ratio_score,
)
from eksim.kube.scheduler.queued_pod import INITIAL_BACKOFF_S, MAX_BACKOFF_S
from eksim.state.affinity import TopologySpreadConstraint
from eksim.versions import SchedulerRules

Args = Mapping[str, Any]

#: What a configuration may name although nothing here stands for it: volumes, queue order, binding, claims.
NOT_MODELLED = (
    "VolumeRestrictions", "NodeVolumeLimits", "EBSLimits", "GCEPDLimits", "AzureDiskLimits", "VolumeBinding",
    "VolumeZone", "DefaultBinder", "PrioritySort", "DynamicResources",
)  # fmt: skip

_EXTENSION_POINTS = ("preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve",
                     "permit", "preBind", "bind", "postBind", "multiPoint")  # fmt: skip

# (plugin, weight) of the default profile, in the order of the filters (today: of everything).
_FILTERS = (
    node_unschedulable.NAME, node_name.NAME, taint_toleration.NAME, node_affinity.NAME, node_ports.NAME,
    node_resources_fit.NAME, pod_topology_spread.NAME, inter_pod_affinity.NAME,
)  # fmt: skip


def _scores(rules: SchedulerRules) -> dict[str, int]:
    new = rules.new_weights
    fit = node_resources_fit.NAME if rules.fit_scores else "NodeResourcesLeastAllocated"
    weights = {
        node_resources_balanced_allocation.NAME: 1,
        image_locality.NAME: 1,
        inter_pod_affinity.NAME: 2 if new else 1,
        fit: 1,
        node_affinity.NAME: 2 if new else 1,
    }
    if rules.prefer_avoid_pods:
        weights[node_prefer_avoid_pods.NAME] = 10_000
    weights[pod_topology_spread.NAME] = 2
    weights[taint_toleration.NAME] = 3 if new else 1
    return weights


def build_profiles(rules: SchedulerRules, config: Mapping[str, Any] | None) -> dict[str, Framework]:
    """The frameworks of a configuration by scheduler name. Raises InputError."""
    return _build(rules, json.dumps(config, sort_keys=True) if config else "")


@lru_cache(maxsize=64)
def _build(rules: SchedulerRules, text: str) -> dict[str, Framework]:
    config: Mapping[str, Any] = json.loads(text) if text else {}
    if config.get("extenders"):
        raise InputError("scheduler extenders are not modelled", field="extenders")
    everywhere = _percentage(config.get("percentageOfNodesToScore"))
    backoff_of(config)
    profiles = {}
    entries: Sequence[Mapping[str, Any]] = config.get("profiles") or ({},)
    for profile in entries:
        framework = _framework(rules, profile, everywhere)
        profiles[framework.profile_name] = framework
    return profiles


def backoff_of(config: Mapping[str, Any] | None) -> tuple[float, float]:
    """(podInitialBackoffSeconds, podMaxBackoffSeconds) of a configuration. Raises InputError.

    Source: kubernetes/pkg/scheduler/apis/config/v1/defaults.go:SetDefaults_KubeSchedulerConfiguration;
    apis/config/validation/validation.go:ValidateKubeSchedulerConfiguration, v1.34.1.
    """
    found = []
    for name, default in (("podInitialBackoffSeconds", INITIAL_BACKOFF_S), ("podMaxBackoffSeconds", MAX_BACKOFF_S)):
        value = (config or {}).get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
            raise InputError(f"{name} is {value!r}", expected="whole seconds greater than 0")
        found.append(default if value is None else float(value))
    initial, longest = found
    if longest < initial:
        raise InputError(f"podMaxBackoffSeconds is {longest:g}", expected=f"at least podInitialBackoffSeconds, {initial:g}")
    return initial, longest


def _percentage(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or not 0 <= value <= 100:
        raise InputError(f"percentageOfNodesToScore is {value!r}", expected="0 to 100")
    return value


def _framework(rules: SchedulerRules, profile: Mapping[str, Any], everywhere: int) -> Framework:
    args: dict[str, Args] = {entry["name"]: entry.get("args") or {} for entry in profile.get("pluginConfig") or ()}
    points: Mapping[str, Any] = profile.get("plugins") or {}
    for point in points:
        if point not in _EXTENSION_POINTS:
            raise InputError(f"{point!r} is no extension point", expected=", ".join(_EXTENSION_POINTS))
    made: dict[str, Plugin] = {}

    def plugin(name: str) -> Plugin:
        if name not in made:
            if name not in _MAKERS:
                near = difflib.get_close_matches(name, _MAKERS, n=1, cutoff=0.5)
                raise InputError(
                    f"{name!r} is no scheduler plugin",
                    expected="one of " + ", ".join(sorted(_MAKERS)),
                    nearest=near[0] if near else "",
                )
            made[name] = _MAKERS[name](args.get(name, {}), rules)
        return made[name]

    filters = _apply(points, "filter", dict.fromkeys(_FILTERS, 0))
    pre_filters = _apply(points, "preFilter", dict.fromkeys(_FILTERS, 0))
    scores = _apply(points, "score", _scores(rules))
    pre_scores = _apply(points, "preScore", dict.fromkeys(_scores(rules), 0))
    post_filters = _apply(points, "postFilter", {"DynamicResources": 0, preemption.NAME: 0})
    budget = args.get(preemption.NAME, {})
    own = profile.get("percentageOfNodesToScore")
    return Framework(
        str(profile.get("schedulerName") or "default-scheduler"),
        rules,
        pre_filter=[plugin(name) for name in pre_filters],
        filter=[plugin(name) for name in filters],
        pre_score=[plugin(name) for name in pre_scores],
        score=[(plugin(name), weight) for name, weight in scores.items()],
        enqueue=[*(plugin(name) for name in dict.fromkeys([*filters, *pre_filters])), plugin(scheduling_gates.NAME)],
        preempts=preemption.NAME in post_filters,
        claims=rules.dynamic_resources and "DynamicResources" in post_filters,
        percentage_of_nodes_to_score=everywhere if own is None else _percentage(own),
        min_candidate_percentage=int(budget.get("minCandidateNodesPercentage", 10)),
        min_candidate_absolute=int(budget.get("minCandidateNodesAbsolute", 100)),
    )


def _apply(points: Mapping[str, Any], point: str, defaults: Mapping[str, int]) -> dict[str, int]:
    """The plugins of an extension point: what is enabled there or at multiPoint, less what is disabled.

    Source: kubernetes/pkg/scheduler/apis/config/v1/default_plugins.go:mergePlugins; framework/runtime/framework.go:
    expandMultiPointPlugins, v1.34.1.
    """
    chosen = dict(defaults)
    for where in ("multiPoint", point):
        wanted = points.get(where) or {}
        for entry in wanted.get("disabled") or ():
            if entry["name"] == "*":
                chosen.clear()
            else:
                chosen.pop(entry["name"], None)
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for entry in wanted.get("enabled") or ():
            name = entry["name"]
            if name in NOT_MODELLED or not (where == point or name in defaults or _takes_part(name, point)):
                continue
            # Without a weight it is 1, whatever the default was (getScoreWeights).
            weight = int(entry.get("weight") or 0)
            # What is configured anew comes first, what is new last.
            (first if name in chosen and where == point else last)[name] = weight
        chosen = {**first, **{name: weight for name, weight in chosen.items() if name not in first}, **last}
    return chosen


def _takes_part(name: str, point: str) -> bool:
    return name in _MAKERS and (point in ("score", "preScore")) == (name not in _FILTERS)


# -- plugins from their arguments -----------------------------------------------------------------------------------


def _resources(entries: Sequence[Args] | None) -> tuple[tuple[str, int], ...]:
    found = tuple((str(entry["name"]), int(entry.get("weight") or 1)) for entry in entries or ())
    return found or node_resources_fit.DEFAULT_RESOURCES


def _shape(entries: Sequence[Args]) -> list[tuple[int, int]]:
    if not entries:
        raise InputError("requestedToCapacityRatio needs a shape")
    return [(int(point["utilization"]), int(point["score"])) for point in entries]


def _fit(args: Args, rules: SchedulerRules) -> Plugin:
    strategy = args.get("scoringStrategy") or {}
    kind = strategy.get("type") or "LeastAllocated"
    scorer: ResourceScorer
    if kind == "LeastAllocated":
        scorer = least_requested_score
    elif kind == "MostAllocated":
        scorer = most_requested_score
    elif kind == "RequestedToCapacityRatio":
        shape = _shape((strategy.get("requestedToCapacityRatio") or {}).get("shape") or ())
        scorer = requested_to_capacity_ratio_score(shape, rounded_up=False)
    else:
        raise InputError(
            f"scoring strategy {kind!r}", expected="LeastAllocated, MostAllocated or RequestedToCapacityRatio"
        )
    return node_resources_fit.NodeResourcesFit(
        scorer,
        _resources(strategy.get("resources")),
        rounded=kind == "RequestedToCapacityRatio",
        ignored=args.get("ignoredResources") or (),
        ignored_groups=args.get("ignoredResourceGroups") or (),
    )


def _ratio_then(args: Args, rules: SchedulerRules) -> Plugin:
    scorer = requested_to_capacity_ratio_score(_shape(args.get("shape") or ()), rounded_up=True)
    return node_resources_fit.RequestedToCapacityRatio(scorer, _resources(args.get("resources")), rounded=True)


def _spread(args: Args, rules: SchedulerRules) -> Plugin:
    if (args.get("defaultingType") or "System") == "System":
        return pod_topology_spread.PodTopologySpread()
    constraints = [TopologySpreadConstraint.parse(entry) for entry in args.get("defaultConstraints") or ()]
    return pod_topology_spread.PodTopologySpread(constraints)


def _interpod(args: Args, rules: SchedulerRules) -> Plugin:
    weight = args.get("hardPodAffinityWeight")
    return inter_pod_affinity.InterPodAffinity(
        1 if weight is None else int(weight),
        ignore_preferred_of_existing=bool(args.get("ignorePreferredTermsOfExistingPods")),
    )


_MAKERS: dict[str, Callable[[Args, SchedulerRules], Plugin]] = {
    node_unschedulable.NAME: lambda args, rules: node_unschedulable.NodeUnschedulable(),
    node_name.NAME: lambda args, rules: node_name.NodeName(),
    taint_toleration.NAME: lambda args, rules: taint_toleration.TaintToleration(),
    node_affinity.NAME: lambda args, rules: node_affinity.NodeAffinity(args.get("addedAffinity")),
    node_ports.NAME: lambda args, rules: node_ports.NodePorts(),
    node_resources_fit.NAME: _fit,
    "NodeResourcesLeastAllocated": lambda args, rules: node_resources_fit.NodeResourcesLeastAllocated(
        least_requested_score, _resources(args.get("resources"))
    ),
    "NodeResourcesMostAllocated": lambda args, rules: node_resources_fit.NodeResourcesMostAllocated(
        most_requested_score, _resources(args.get("resources"))
    ),
    "RequestedToCapacityRatio": _ratio_then,
    node_resources_balanced_allocation.NAME: lambda args, rules: (
        node_resources_balanced_allocation.NodeResourcesBalancedAllocation(_resources(args.get("resources")))
    ),
    image_locality.NAME: lambda args, rules: image_locality.ImageLocality(),
    inter_pod_affinity.NAME: _interpod,
    pod_topology_spread.NAME: _spread,
    node_prefer_avoid_pods.NAME: lambda args, rules: node_prefer_avoid_pods.NodePreferAvoidPods(),
    scheduling_gates.NAME: lambda args, rules: scheduling_gates.SchedulingGates(),
}
