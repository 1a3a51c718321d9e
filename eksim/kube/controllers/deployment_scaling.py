"""How a Deployment's ReplicaSets get their sizes: in proportion when it is scaled, step by step when it is rolled out.

Called by :mod:`eksim.kube.controllers.deployment` within a sync, with the ReplicaSets as that read them.
"""

from __future__ import annotations

from typing import Any

from eksim.kube.controllers.base import ApiClient, SyncFailed
from eksim.kube.controllers.deployment_rules import (
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    int_annotation,
    new_rs_new_replicas,
    replica_set_fraction,
    replica_set_proportion,
    scaling_message,
)
from eksim.kube.controllers.deployment_views import DeploymentView, ReplicaSetView
from eksim.parts import EventRecorder
from eksim.state.objects import ApiObject
from eksim.state.store import Store
from eksim.versions import ControllerRules

Json = dict[str, Any]


class ReplicaSetScaler:
    """Writes ReplicaSets' sizes and annotations; keeps the views of them by version."""

    def __init__(
        self, store: Store, client: ApiClient, recorder: EventRecorder, rules: ControllerRules
    ) -> None:
        self._store = store
        self._client = client
        self._recorder = recorder
        self._rules = rules
        self._views: dict[str, ReplicaSetView] = {}

    def view(self, rs: ApiObject) -> ReplicaSetView:
        """The ReplicaSet as it is now; the view does not change with what is written later."""
        view = self._views.get(rs.uid)
        if view is None or view.version != rs.resource_version:
            view = self._views[rs.uid] = ReplicaSetView(rs)
        return view

    def forget(self, rs: ApiObject) -> None:
        """The ReplicaSet is gone."""
        self._views.pop(rs.uid, None)

    def update_replica_set(
        self, d: DeploymentView, rs: ReplicaSetView, annotations: dict[str, str], spec: Json
    ) -> ReplicaSetView:
        """PUT of a ReplicaSet as read, with other annotations and spec."""
        d.wrote = True
        self._client.bucket.reserve()
        refused = self._store.update_object(
            rs.obj,
            expected_version=rs.version,
            bump_generation=spec != rs.spec,
            annotations=annotations,
            spec=spec,
        )
        if refused is not None:
            raise SyncFailed(refused)
        return self.view(rs.obj)

    def scale(self, d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView]) -> None:
        """Only the Deployment's size changed, or it is paused: give every active ReplicaSet its part.

        Source: kubernetes/pkg/controller/deployment/sync.go:scale, v1.34.1.
        """
        spec = d.spec
        active = [rs for rs in (*reversed(old), new) if rs is not None and rs.replicas > 0]
        if len(active) <= 1:
            only = active[0] if active else new if new is not None else old[-1] if old else None
            if only is not None and only.replicas != spec.replicas:
                self.scale_replica_set(d, only, spec.replicas)
            return
        if new is not None and self._is_saturated(d, new):
            for rs in reversed(old):
                if rs.replicas > 0:
                    self.scale_replica_set(d, rs, 0)
            return
        if not spec.rolling:
            return
        allowed = spec.replicas + spec.surge if spec.replicas > 0 else 0
        to_add = allowed - sum(rs.replicas for rs in active)
        if to_add != 0:
            active.sort(key=ReplicaSetView.by_creation, reverse=to_add > 0)
            active.sort(key=lambda rs: -rs.replicas)
        added = 0
        sizes = []
        for rs in active:
            proportion = 0
            if to_add != 0:
                annotated = int_annotation(rs.annotations, MAX_REPLICAS)
                fraction = replica_set_fraction(
                    rs.replicas, spec.replicas, spec.surge, annotated, d.status.get("replicas", 0)
                )
                proportion = replica_set_proportion(rs.replicas, fraction, to_add, added)
                added += proportion
            sizes.append(rs.replicas + proportion)
        if to_add != 0:
            sizes[0] = max(0, sizes[0] + to_add - added)
        for rs, size in zip(active, sizes, strict=True):
            self.scale_replica_set(d, rs, size, up=to_add > 0)

    def _is_saturated(self, d: DeploymentView, rs: ReplicaSetView) -> bool:
        """Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:IsSaturated, v1.34.1."""
        desired = d.spec.replicas
        annotated = int_annotation(rs.annotations, DESIRED_REPLICAS)
        return rs.replicas == annotated == rs.available == desired

    def scale_replica_set(
        self, d: DeploymentView, rs: ReplicaSetView, size: int, up: bool | None = None
    ) -> ReplicaSetView:
        """Write size and annotations, if they differ.

        Source: kubernetes/pkg/controller/deployment/sync.go:scaleReplicaSet, v1.34.1.
        """
        spec = d.spec
        desired, most = str(spec.replicas), str(spec.replicas + spec.surge)
        annotations = rs.annotations
        resized = rs.replicas != size
        if not resized and annotations.get(DESIRED_REPLICAS) == desired and annotations.get(MAX_REPLICAS) == most:
            return rs
        annotations = {**annotations, DESIRED_REPLICAS: desired, MAX_REPLICAS: most}
        updated = self.update_replica_set(d, rs, annotations, {**rs.spec, "replicas": size} if resized else rs.spec)
        if resized:
            growing = size > rs.replicas if up is None else up
            text = scaling_message(self._rules.scaling_event_words, growing, rs.name, rs.replicas, size)
            self._recorder.event(d.obj, "Normal", "ScalingReplicaSet", text)
        return updated

    def reconcile_new_replica_set(self, d: DeploymentView, new: ReplicaSetView, old: list[ReplicaSetView]) -> bool:
        """Let the new ReplicaSet grow into the room there is; whether it did.

        Source: kubernetes/pkg/controller/deployment/rolling.go:reconcileNewReplicaSet, v1.34.1.
        """
        spec = d.spec
        if new.replicas == spec.replicas:
            return False
        size = spec.replicas
        if new.replicas < size:
            total = new.replicas + sum(rs.replicas for rs in old)
            size = new_rs_new_replicas(spec.replicas, spec.surge, total, new.replicas)
        if size == new.replicas:
            return False
        self.scale_replica_set(d, new, size)
        return True

    def reconcile_old_replica_sets(self, d: DeploymentView, new: ReplicaSetView, old: list[ReplicaSetView]) -> bool:
        """Let old ReplicaSets shrink as far as availability allows; whether one did.

        Source: kubernetes/pkg/controller/deployment/rolling.go:reconcileOldReplicaSets, v1.34.1.
        """
        active = [rs for rs in old if rs.replicas > 0]
        if not active:
            return False
        min_available = d.spec.replicas - d.spec.max_unavailable
        total = new.replicas + sum(rs.replicas for rs in active)
        budget = total - min_available - (new.replicas - new.available)
        if budget <= 0:
            return False
        cleaned = self._cleanup_unhealthy_replicas(d, active, budget)
        available = new.available + sum(rs.available for rs in active)
        to_go = available - min_available
        for rs in active:
            if to_go <= 0:
                break
            if rs.replicas == 0:
                continue
            count = min(rs.replicas, to_go)
            self.scale_replica_set(d, rs, rs.replicas - count)
            cleaned += count
            to_go -= count
        return cleaned > 0

    def _cleanup_unhealthy_replicas(self, d: DeploymentView, active: list[ReplicaSetView], budget: int) -> int:
        """Scale down what is not available anyway; ``active`` takes the updated ReplicaSets.

        Source: kubernetes/pkg/controller/deployment/rolling.go:cleanupUnhealthyReplicas, v1.34.1.
        """
        done = 0
        for i, rs in enumerate(active):
            if done >= budget:
                break
            if rs.replicas == rs.available:
                continue
            count = min(budget - done, rs.replicas - rs.available)
            active[i] = self.scale_replica_set(d, rs, rs.replicas - count)
            done += count
        return done
