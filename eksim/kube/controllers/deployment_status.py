"""What a Deployment says of itself: counts, conditions, progress and its deadline. Pure functions over a sync's views.

Called by :mod:`eksim.kube.controllers.deployment`.
"""

from __future__ import annotations

from typing import Any

from eksim.kube.controllers.deployment_rules import (
    deployment_condition,
    get_condition,
    set_deployment_condition,
    without_condition,
)
from eksim.kube.controllers.deployment_views import DeploymentView, ReplicaSetView

Json = dict[str, Any]


def calculate_status(
    d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView], now_s: float
) -> Json:
    """The status from the ReplicaSets as read at the start; zeros are left out.

    Source: kubernetes/pkg/controller/deployment/sync.go:calculateStatus, v1.34.1.
    """
    total = actual = ready = available = 0
    for rs in (*old, new) if new is not None else old:
        total += rs.replicas
        actual += rs.actual
        ready += rs.ready
        available += rs.available
    status: Json = {"observedGeneration": d.obj.generation}
    if actual:
        status["replicas"] = actual
    if new is not None and new.actual:
        status["updatedReplicas"] = new.actual
    if ready:
        status["readyReplicas"] = ready
    if available:
        status["availableReplicas"] = available
    if total > available:
        status["unavailableReplicas"] = total - available
    if d.collision_count is not None:
        status["collisionCount"] = d.collision_count
    enough = available >= d.spec.replicas - d.spec.max_unavailable
    current = get_condition(d.conditions, "Available")
    if current is not None and current["status"] == ("True" if enough else "False"):
        # the reason goes with the status
        status["conditions"] = d.conditions
    else:
        condition = (
            deployment_condition(
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
                now_s,
            )
            if enough
            else deployment_condition(
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
                now_s,
            )
        )
        status["conditions"] = set_deployment_condition(d.conditions, condition)
    return status


def is_complete(d: DeploymentView, status: Json) -> bool:
    """Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:DeploymentComplete, v1.34.1."""
    desired = d.spec.replicas
    return bool(
        status.get("updatedReplicas", 0) == desired
        and status.get("replicas", 0) == desired
        and status.get("availableReplicas", 0) == desired
        and status.get("observedGeneration", 0) >= d.obj.generation
    )


def is_progressing(before: Json, after: Json) -> bool:
    """Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:DeploymentProgressing, v1.34.1."""
    updated_before, updated_after = before.get("updatedReplicas", 0), after.get("updatedReplicas", 0)
    return bool(
        updated_after > updated_before
        or after.get("replicas", 0) - updated_after < before.get("replicas", 0) - updated_before
        or after.get("readyReplicas", 0) > before.get("readyReplicas", 0)
        or after.get("availableReplicas", 0) > before.get("availableReplicas", 0)
    )


def is_timed_out(d: DeploymentView, conditions: list[Json], now_s: float) -> bool:
    """Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:DeploymentTimedOut, v1.34.1."""
    condition = get_condition(conditions, "Progressing")
    if condition is None or condition["reason"] == "NewReplicaSetAvailable":
        return False
    if condition["reason"] == "ProgressDeadlineExceeded":
        return True
    assert d.spec.deadline_s is not None
    return bool(condition["lastUpdateTime"] + d.spec.deadline_s < now_s)


def rollout_status(
    d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView], now_s: float
) -> Json:
    """The status with an estimate of progress and the ReplicaSets' failures.

    Source: kubernetes/pkg/controller/deployment/progress.go:syncRolloutStatus, v1.34.1.
    """
    status = calculate_status(d, new, old, now_s)
    conditions: list[Json] = status["conditions"]
    current = get_condition(d.conditions, "Progressing")
    if d.spec.deadline_s is None:
        conditions = without_condition(conditions, "Progressing")
    elif not (
        status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and current is not None
        and current["reason"] == "NewReplicaSetAvailable"
    ):
        subject = f'ReplicaSet "{new.name}"' if new is not None else f'Deployment "{d.obj.name}"'
        conditions = _estimate_progress(d, status, conditions, current, subject, now_s)
    failing = [rs.failure for rs in ((new, *old) if new is not None else old) if rs.failure is not None]
    if failing:
        conditions = set_deployment_condition(
            conditions, {**failing[0], "lastUpdateTime": failing[0]["lastTransitionTime"]}
        )
    elif get_condition(conditions, "ReplicaFailure") is not None:
        conditions = without_condition(conditions, "ReplicaFailure")
    status["conditions"] = conditions
    return status


def _estimate_progress(
    d: DeploymentView, status: Json, conditions: list[Json], current: Json | None, subject: str, now_s: float
) -> list[Json]:
    if is_complete(d, status):
        condition = deployment_condition(
            "Progressing", "True", "NewReplicaSetAvailable", f"{subject} has successfully progressed.", now_s
        )
        return set_deployment_condition(conditions, condition)
    if is_progressing(d.status, status):
        condition = deployment_condition(
            "Progressing", "True", "ReplicaSetUpdated", f"{subject} is progressing.", now_s
        )
        if current is not None:
            if current["status"] == "True":
                condition["lastTransitionTime"] = current["lastTransitionTime"]
            conditions = without_condition(conditions, "Progressing")
        return set_deployment_condition(conditions, condition)
    if is_timed_out(d, conditions, now_s):
        condition = deployment_condition(
            "Progressing", "False", "ProgressDeadlineExceeded", f"{subject} has timed out progressing.", now_s
        )
        return set_deployment_condition(conditions, condition)
    return conditions


def stuck_after(d: DeploymentView, status: Json, now_s: float) -> float | None:
    """Seconds until the progress deadline; None if there is nothing to wait for.

    Source: kubernetes/pkg/controller/deployment/progress.go:requeueStuckDeployment, v1.34.1.
    """
    current = get_condition(d.conditions, "Progressing")
    if d.spec.deadline_s is None or current is None:
        return None
    if is_complete(d, status) or current["reason"] == "ProgressDeadlineExceeded":
        return None
    return float(current["lastUpdateTime"] + d.spec.deadline_s - now_s)


def never_times_out(d: DeploymentView) -> bool:
    """Whether the rollout is over: scaling a finished Deployment up does not restart its deadline.

    Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:DeploymentTimedOut, v1.34.1.
    """
    current = get_condition(d.conditions, "Progressing")
    return current is not None and current["reason"] == "NewReplicaSetAvailable"


def paused_condition(d: DeploymentView) -> tuple[str, str] | None:
    """(reason, message) of the condition that pausing or resuming asks for; None if it stands already.

    Source: kubernetes/pkg/controller/deployment/sync.go:checkPausedConditions, v1.34.1.
    """
    if d.spec.deadline_s is None:
        return None
    condition = get_condition(d.conditions, "Progressing")
    reason = condition["reason"] if condition is not None else ""
    if reason == "ProgressDeadlineExceeded":
        return None
    if d.spec.paused and reason != "DeploymentPaused":
        return "DeploymentPaused", "Deployment is paused"
    if not d.spec.paused and reason == "DeploymentPaused":
        return "DeploymentResumed", "Deployment is resumed"
    return None
