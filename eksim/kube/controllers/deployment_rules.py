"""The Deployment controller's arithmetic: fenceposts, proportions, sizes, conditions. Pure functions.

Called by :mod:`eksim.kube.controllers.deployment`, by the DaemonSet controller for percentages, and by the replay of
recorded tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
ROLLBACK_TO = "deprecated.deployment.rollback.to"
HASH_LABEL = "pod-template-hash"

#: Annotations that stay the Deployment's own.
#: Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:annotationsToSkip, v1.34.1.
ANNOTATIONS_TO_SKIP = (LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS, ROLLBACK_TO)

MAX_INT32 = 2**31 - 1
MAX_REVISION_HISTORY_CHARS = 2000


def scaled_value(value: int | str, total: int, round_up: bool) -> int:
    """``3`` → 3; ``25%`` → that share of ``total``, rounded up or down.

    Source: kubernetes/staging/src/k8s.io/apimachinery/pkg/util/intstr/intstr.go:GetScaledValueFromIntOrPercent, v1.34.1.
    """
    if isinstance(value, int):
        return value
    percent = int(value.removesuffix("%")) * total
    return -(-percent // 100) if round_up else percent // 100


def resolve_fenceposts(max_surge: int | str, max_unavailable: int | str, desired: int) -> tuple[int, int]:
    """(surge, unavailable): surge rounds up, unavailable down; both 0 → unavailable 1.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:ResolveFenceposts, v1.34.1.
    """
    surge = scaled_value(max_surge, desired, True)
    unavailable = scaled_value(max_unavailable, desired, False)
    return (surge, 1) if surge == 0 and unavailable == 0 else (surge, unavailable)


def max_unavailable(unavailable: int, desired: int) -> int:
    """What a rolling Deployment may lack: at most the desired count.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:MaxUnavailable, v1.34.1.
    """
    return min(unavailable, desired)


def new_rs_new_replicas(desired: int, surge: int, total: int, new: int) -> int:
    """The next size of a rolling Deployment's new ReplicaSet; ``total``: the sum of all ReplicaSets' spec.replicas.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:NewRSNewReplicas, v1.34.1.
    """
    room = desired + surge - total
    return new if room <= 0 else new + min(room, desired - new)


def round_to_int(value: float) -> int:
    """Round half away from zero (k8s.io/utils/integer:RoundToInt32)."""
    return int(value - 0.5) if value < 0 else int(value + 0.5)


def replica_set_fraction(size: int, desired: int, surge: int, annotated: int | None, status_replicas: int) -> int:
    """By how much a ReplicaSet of ``size`` should change when its Deployment is scaled; without a max-replicas
    annotation (None or 0) the Deployment's status.replicas stands in.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:getReplicaSetFraction, v1.34.1.
    """
    if desired == 0:
        return -size
    before = annotated or status_replicas
    if before == 0:
        return 0
    return round_to_int(size * (desired + surge) / before) - size


def replica_set_proportion(size: int, fraction: int, to_add: int, added: int) -> int:
    """The part of ``to_add`` that a ReplicaSet gets, bounded by what is left.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:GetReplicaSetProportion, v1.34.1.
    """
    if size == 0 or to_add == 0 or to_add == added:
        return 0
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def int_annotation(annotations: dict[str, str], key: str) -> int | None:
    """The annotation as a number, None if it is missing or none."""
    try:
        return int(annotations[key])
    except (KeyError, ValueError):
        return None


def revision_of(annotations: dict[str, str]) -> int:
    """The revision annotation; 0 if missing or no number."""
    return int_annotation(annotations, REVISION) or 0


def new_replica_set_annotations(
    deployment: dict[str, str], replica_set: dict[str, str], new_revision: int
) -> dict[str, str] | None:
    """The new ReplicaSet's annotations after taking over the Deployment's and the revision; None if nothing changes.

    Returning to an old ReplicaSet raises its revision and appends the former to its history.
    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:SetNewReplicaSetAnnotations, v1.34.1.
    """
    copied = {
        key: value
        for key, value in deployment.items()
        if key not in ANNOTATIONS_TO_SKIP and replica_set.get(key) != value
    }
    changed = bool(copied)
    old_text = replica_set.get(REVISION)
    try:
        old = int(old_text) if old_text else 0
    except ValueError:
        # without a readable revision the real code gives up here and reports no change
        return None
    if not changed and old >= new_revision:
        return None
    out = {**replica_set, **copied}
    if old < new_revision:
        out[REVISION] = str(new_revision)
        if old_text is not None:
            history = _extended_history(out.get(REVISION_HISTORY, ""), old_text)
            if history is not None:
                out[REVISION_HISTORY] = history
    return out


def _extended_history(history: str, revision: str) -> str | None:
    if not history:
        return revision
    revisions = history.split(",")
    length = len(history) + len(revision) + 1
    start = 0
    while length > MAX_REVISION_HISTORY_CHARS and start < len(revisions):
        length -= len(revisions[start]) + 1
        start += 1
    if length > MAX_REVISION_HISTORY_CHARS:
        return None
    return ",".join([*revisions[start:], revision])


def whole_second(time_s: float) -> float:
    """Times in objects are cut to whole seconds."""
    return float(math.floor(time_s))


def get_condition(conditions: Sequence[Json], type: str) -> Json | None:
    """The condition of that type."""
    for condition in conditions:
        if condition["type"] == type:
            return condition
    return None


def without_condition(conditions: Sequence[Json], type: str) -> list[Json]:
    """The conditions of other types."""
    return [c for c in conditions if c["type"] != type]


def deployment_condition(type: str, status: str, reason: str, message: str, now_s: float) -> Json:
    """A new condition; times in seconds since the start, whole."""
    now_s = whole_second(now_s)
    return {
        "type": type,
        "status": status,
        "reason": reason,
        "message": message,
        "lastUpdateTime": now_s,
        "lastTransitionTime": now_s,
    }


def set_deployment_condition(conditions: list[Json], condition: Json) -> list[Json]:
    """The conditions with that one set. Same status and reason: nothing changes; same status: the transition stays.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:SetDeploymentCondition, v1.34.1.
    """
    current = get_condition(conditions, condition["type"])
    if current is not None and current["status"] == condition["status"]:
        if current["reason"] == condition["reason"]:
            return conditions
        condition = {**condition, "lastTransitionTime": current["lastTransitionTime"]}
    return [*without_condition(conditions, condition["type"]), condition]


def scaling_message(words: str, up: bool, name: str, old: int, new: int, *, created: bool = False) -> str:
    """The text of a ScalingReplicaSet event; ``words`` as in ``KubernetesRules.scaling_event_words``.

    Source: kubernetes/pkg/controller/deployment/sync.go:scaleReplicaSet, getNewReplicaSet, v1.21.9, v1.28.0, v1.34.1.
    """
    verb = "up" if up else "down"
    if words == "from_to":
        return f"Scaled {verb} replica set {name} from {old} to {new}"
    if words == "to_from" and not created:
        return f"Scaled {verb} replica set {name} to {new} from {old}"
    return f"Scaled {verb} replica set {name} to {new}"
