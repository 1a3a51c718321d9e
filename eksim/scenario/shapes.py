"""What form a manifest's fields must have: the types of the API, held against a document before anything reads it.

Mimics the API server's strict decoding, and as much of its validation as keeps a mistake from being taken for a setting:
unknown fields, values of the wrong type, missing fields, words that are none of the allowed ones. The fields of every
release are known at any release, since an older one merely drops them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from eksim.errors import InputError
from eksim.state.podtypes import field_table
from eksim.units import parse_quantity

Fail = Callable[..., InputError]
Path_ = tuple[str | int, ...]

_TOP = {"apiVersion": "string", "kind": "string", "metadata": "v1.ObjectMeta", "status": "any"}
_SELECTOR_AND_TEMPLATE = {"selector": "v1.LabelSelector", "template": "v1.PodTemplateSpec", "minReadySeconds": "int32"}
_PLUGIN_SET = "PluginSet"
EXTENSION_POINTS = ("preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve",
                    "permit", "preBind", "bind", "postBind", "multiPoint")  # fmt: skip
_WEIGHED = "[]ResourceWeight"
_SHAPE = "[]ShapePoint"

#: Fields of the types that are not in the table of a pod template's; ``*`` lets in any other.
#: Sources: k8s.io/api apps/v1, policy/v1 and scheduling/v1, k8s.io/kube-scheduler/config/v1, v1.34.1.
_STRUCTS: dict[str, dict[str, str]] = {
    "Deployment": {**_TOP, "spec": "DeploymentSpec"},
    "ReplicaSet": {**_TOP, "spec": "ReplicaSetSpec"},
    "DaemonSet": {**_TOP, "spec": "DaemonSetSpec"},
    "Pod": {**_TOP, "spec": "v1.PodSpec"},
    "PodDisruptionBudget": {**_TOP, "spec": "PodDisruptionBudgetSpec"},
    "Service": {**_TOP, "spec": "ServiceSpec"},
    "PriorityClass": {
        **_TOP,
        "value": "int32",
        "globalDefault": "bool",
        "description": "string",
        "preemptionPolicy": "v1.PreemptionPolicy",
    },
    "Namespace": {**_TOP, "*": "any"},
    "ConfigMap": {**_TOP, "*": "any"},
    "ServiceAccount": {**_TOP, "*": "any"},
    "DeploymentSpec": {
        **_SELECTOR_AND_TEMPLATE,
        "replicas": "int32",
        "strategy": "DeploymentStrategy",
        "revisionHistoryLimit": "int32",
        "paused": "bool",
        "progressDeadlineSeconds": "int32",
    },
    "DeploymentStrategy": {"type": "DeploymentStrategyType", "rollingUpdate": "RollingUpdate"},
    "RollingUpdate": {"maxUnavailable": "share", "maxSurge": "share"},
    "ReplicaSetSpec": {**_SELECTOR_AND_TEMPLATE, "replicas": "int32"},
    "DaemonSetSpec": {
        **_SELECTOR_AND_TEMPLATE,
        "updateStrategy": "DaemonSetUpdateStrategy",
        "revisionHistoryLimit": "int32",
    },
    "DaemonSetUpdateStrategy": {"type": "DaemonSetUpdateStrategyType", "rollingUpdate": "RollingUpdate"},
    "PodDisruptionBudgetSpec": {
        "minAvailable": "share",
        "maxUnavailable": "share",
        "selector": "v1.LabelSelector",
        "unhealthyPodEvictionPolicy": "string",
    },
    "ServiceSpec": {"selector": "map[string]string", "*": "any"},
    "KubeSchedulerConfiguration": {
        "percentageOfNodesToScore": "int32",
        "parallelism": "int32",
        "apiVersion": "string",
        "kind": "string",
        "profiles": "[]Profile",
        "podInitialBackoffSeconds": "int64",
        "podMaxBackoffSeconds": "int64",
        "leaderElection": "any",
        "clientConnection": "any",
        "enableProfiling": "bool",
        "enableContentionProfiling": "bool",
        "delayCacheUntilActive": "bool",
        "extenders": "[]any",
    },
    "Profile": {
        "schedulerName": "string",
        "percentageOfNodesToScore": "int32",
        "plugins": "Plugins",
        "pluginConfig": "[]PluginConfig",
    },
    "Plugins": dict.fromkeys(EXTENSION_POINTS, _PLUGIN_SET),
    _PLUGIN_SET: {"enabled": "[]Plugin", "disabled": "[]Plugin"},
    "Plugin": {"name": "string", "weight": "int32"},
    "PluginConfig": {"name": "string", "args": "any"},
    "Args": {
        "apiVersion": "string",
        "kind": "string",
        "scoringStrategy": "ScoringStrategy",
        "ignoredResources": "[]string",
        "ignoredResourceGroups": "[]string",
        "resources": _WEIGHED,
        "shape": _SHAPE,
        "hardPodAffinityWeight": "int32",
        "ignorePreferredTermsOfExistingPods": "bool",
        "defaultConstraints": "[]v1.TopologySpreadConstraint",
        "defaultingType": "DefaultingType",
        "minCandidateNodesPercentage": "int32",
        "minCandidateNodesAbsolute": "int32",
        "addedAffinity": "v1.NodeAffinity",
        "*": "any",
    },
    "ScoringStrategy": {
        "type": "ScoringStrategyType",
        "resources": _WEIGHED,
        "requestedToCapacityRatio": "RequestedToCapacityRatio",
    },
    "RequestedToCapacityRatio": {"shape": _SHAPE},
    "ResourceWeight": {"name": "string", "weight": "int64"},
    "ShapePoint": {"utilization": "int32", "score": "int32"},
}

#: Fields without which an object says nothing.
_REQUIRED: dict[str, tuple[str, ...]] = {
    "v1.LabelSelectorRequirement": ("key", "operator"),
    "v1.NodeSelectorRequirement": ("key", "operator"),
    "v1.NodeSelector": ("nodeSelectorTerms",),
    "v1.PreferredSchedulingTerm": ("weight", "preference"),
    "v1.WeightedPodAffinityTerm": ("weight", "podAffinityTerm"),
    "v1.PodAffinityTerm": ("topologyKey",),
    "v1.TopologySpreadConstraint": ("maxSkew", "topologyKey", "whenUnsatisfiable"),
    "v1.PodSchedulingGate": ("name",),
    "v1.ContainerPort": ("containerPort",),
    "v1.EnvVar": ("name",),
    "v1.Volume": ("name",),
    "v1.VolumeMount": ("name", "mountPath"),
    "v1.HTTPGetAction": ("port",),
    "v1.TCPSocketAction": ("port",),
    "PriorityClass": ("value",),
    "Plugin": ("name",),
    "PluginConfig": ("name",),
    "ResourceWeight": ("name",),
    "ShapePoint": ("utilization", "score"),
}

#: Words that a type takes. Those of types that nothing here reads are left alone.
_WORDS: dict[str, tuple[str, ...]] = {
    "v1.RestartPolicy": ("Always", "OnFailure", "Never"),
    "v1.PullPolicy": ("Always", "IfNotPresent", "Never"),
    "v1.Protocol": ("TCP", "UDP", "SCTP"),
    "v1.TaintEffect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
    "v1.TolerationOperator": ("Equal", "Exists"),
    "v1.UnsatisfiableConstraintAction": ("DoNotSchedule", "ScheduleAnyway"),
    "v1.NodeInclusionPolicy": ("Honor", "Ignore"),
    "v1.LabelSelectorOperator": ("In", "NotIn", "Exists", "DoesNotExist"),
    "v1.NodeSelectorOperator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "v1.PreemptionPolicy": ("PreemptLowerPriority", "Never"),
    "DeploymentStrategyType": ("RollingUpdate", "Recreate"),
    "DaemonSetUpdateStrategyType": ("RollingUpdate", "OnDelete"),
    "DefaultingType": ("System", "List"),
    "ScoringStrategyType": ("LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"),
}

#: Bounds of numbers, where they are not those of the type; other numbers are 0 or more.
_BOUNDS: dict[tuple[str, str], tuple[int, int]] = {
    ("DeploymentSpec", "replicas"): (0, 1_000_000),  # eksim's own, as of scenarios' scale
    ("ReplicaSetSpec", "replicas"): (0, 1_000_000),
    ("v1.ContainerPort", "containerPort"): (1, 65535),
    ("v1.ContainerPort", "hostPort"): (0, 65535),
    ("v1.WeightedPodAffinityTerm", "weight"): (1, 100),
    ("v1.PreferredSchedulingTerm", "weight"): (1, 100),
    ("v1.TopologySpreadConstraint", "maxSkew"): (1, 2**31 - 1),
    ("v1.TopologySpreadConstraint", "minDomains"): (1, 2**31 - 1),
    ("v1.PodSpec", "priority"): (-(2**31), 2**31 - 1),
    ("v1.Toleration", "tolerationSeconds"): (-(2**63), 2**63 - 1),
    ("PriorityClass", "value"): (-(2**31), 10**9),
    ("KubeSchedulerConfiguration", "percentageOfNodesToScore"): (0, 100),
    ("Profile", "percentageOfNodesToScore"): (0, 100),
    ("Args", "hardPodAffinityWeight"): (0, 100),
    ("Args", "minCandidateNodesPercentage"): (0, 100),
    ("ResourceWeight", "weight"): (1, 100),
    ("ShapePoint", "utilization"): (0, 100),
    ("ShapePoint", "score"): (0, 10),
}
_LARGEST = {"int32": 2**31 - 1, "int64": 2**63 - 1}


def check_shape(value: Any, struct: str, path: Path_, fail: Fail) -> None:
    """Hold a document (or a part of one) against a type. ``fail(path, message, expected, nearest)`` is raised."""
    _check(value, struct, path, fail, (0, 0))


def check_scheduler_config(config: dict[str, Any], path: Path_, fail: Fail) -> None:
    """The form of a KubeSchedulerConfiguration, the arguments of its plugins included."""
    check_shape(config, "KubeSchedulerConfiguration", path, fail)
    for i, profile in enumerate(config.get("profiles") or ()):
        for k, entry in enumerate(profile.get("pluginConfig") or ()):
            if entry.get("args") is not None:
                check_shape(entry["args"], "Args", (*path, "profiles", i, "pluginConfig", k, "args"), fail)


@lru_cache(maxsize=512)
def _fields(struct: str) -> dict[str, str] | None:
    """JSON name → type, embedded structs included; None if it is no struct."""
    own = _STRUCTS.get(struct)
    rows, _ = field_table()
    if own is not None or struct not in rows:
        return own
    out: dict[str, str] = {}
    for _, go_type, json_name, _, _ in rows[struct]:
        if json_name:
            out.setdefault(json_name, go_type)
        else:
            out.update(_fields(go_type) or {})
    return out


def _check(value: Any, go_type: str, path: Path_, fail: Fail, bounds: tuple[int, int]) -> None:
    words = _WORDS.get(go_type)
    go_type = field_table()[1].get(go_type, go_type).removeprefix("*")
    if go_type in ("any", "v1.FieldsV1"):
        return
    if go_type.startswith("[]"):
        if not isinstance(value, list):
            raise fail(path, f"is {_shown(value)}", "a list")
        for i, item in enumerate(value):
            _check(item, go_type[2:], (*path, i), fail, bounds)
    elif go_type.startswith("map["):
        if not isinstance(value, dict):
            raise fail(path, f"is {_shown(value)}", "a mapping")
        for key, item in value.items():
            _check(item, go_type[go_type.index("]") + 1 :], (*path, key), fail, bounds)
    elif (fields := _fields(go_type)) is not None:
        _check_struct(value, go_type, fields, path, fail)
    elif words is not None or go_type == "string":
        _check_text(value, words, path, fail)
    elif go_type in _LARGEST:
        _check_number(value, bounds if any(bounds) else (0, _LARGEST[go_type]), path, fail)
    elif go_type == "bool":
        if not isinstance(value, bool):
            raise fail(path, f"is {_shown(value)}", "true or false")
    elif go_type == "resource.Quantity":
        _check_quantity(value, path, fail)
    elif go_type == "share":
        _check_share(value, path, fail)
    elif isinstance(value, bool) or not isinstance(value, str | int):  # intstr.IntOrString, v1.Time
        raise fail(path, f"is {_shown(value)}", "a number or text")


def _check_struct(value: Any, struct: str, fields: dict[str, str], path: Path_, fail: Fail) -> None:
    if not isinstance(value, dict):
        raise fail(path, f"is {_shown(value)}", "a mapping with " + _some(fields))
    for key, item in value.items():
        wanted = fields.get(key) or fields.get("*")
        if wanted is None:
            near = difflib.get_close_matches(key, fields, n=1, cutoff=0.5)
            raise fail((*path, key), "unknown field", "one of " + ", ".join(fields), near[0] if near else "")
        if item is not None:
            _check(item, wanted, (*path, key), fail, _BOUNDS.get((struct, key), (0, 0)))
    for key in _REQUIRED.get(struct, ()):
        if value.get(key) is None:
            raise fail(path, f"lacks {key!r}", f"the field {key}")


def _check_text(value: Any, words: tuple[str, ...] | None, path: Path_, fail: Fail) -> None:
    if not isinstance(value, str):
        plain = isinstance(value, int | float)
        text = str(value).lower() if isinstance(value, bool) else str(value)
        raise fail(
            path, f"is {_shown(value)}", "text (put it in quotes)" if plain else "text", f'"{text}"' if plain else ""
        )
    if words and value and value not in words:
        near = difflib.get_close_matches(value, words, n=1, cutoff=0.4)
        raise fail(path, f"is {value!r}", "one of " + ", ".join(words), near[0] if near else "")


def _check_number(value: Any, bounds: tuple[int, int], path: Path_, fail: Fail) -> None:
    low, high = bounds
    if isinstance(value, bool) or not isinstance(value, int):
        raise fail(path, f"is {_shown(value)}", "a whole number, " + _range(low, high))
    if not low <= value <= high:
        expected = _range(low, high) if value < low else f"{low} to {high}"
        raise fail(path, f"is {value}", expected, str(min(max(value, low), high)))


def _range(low: int, high: int) -> str:
    return f"{low} or more" if high >= 10**6 and low >= 0 else f"{low} to {high}"


def _check_quantity(value: Any, path: Path_, fail: Fail) -> None:
    try:
        negative = parse_quantity(value).nano < 0
    except (ValueError, TypeError):
        raise fail(path, f"is {_shown(value)}", "a quantity such as 100m or 70Mi") from None
    if negative:
        raise fail(path, f"is {_shown(value)}", "0 or more", "0")


def _check_share(value: Any, path: Path_, fail: Fail) -> None:
    number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST["int32"]
    if not number and not (isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}%", value)):
        raise fail(path, f"is {_shown(value)}", "a whole number or a percentage such as 25%")


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _some(fields: dict[str, str]) -> str:
    names = [name for name in fields if name != "*"]
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
