"""The Deployment controller: ReplicaSets from templates, their sizes, and what the Deployment says of itself.

Mimics kube-controller-manager's deployment controller in the order of its syncs: pausing, scaling in proportion, rolling
update or recreation, history, conditions and the progress deadline, with the conflicts that its second status write of
a sync meets. Left out: the rollback annotation of extensions/v1beta1. Called by its work queue.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from eksim.engine.clock import CONTROLLER, Clock
from eksim.errors import Refused
from eksim.kube.controllers.base import ApiClient, ControllerSettings, SyncFailed, WorkQueue
from eksim.kube.controllers.deployment_rules import (
    DESIRED_REPLICAS,
    HASH_LABEL,
    MAX_REPLICAS,
    REVISION,
    deployment_condition,
    get_condition,
    int_annotation,
    new_replica_set_annotations,
    new_rs_new_replicas,
    scaling_message,
    set_deployment_condition,
)
from eksim.kube.controllers.deployment_scaling import ReplicaSetScaler
from eksim.kube.controllers.deployment_status import (
    calculate_status,
    is_complete,
    never_times_out,
    paused_condition,
    rollout_status,
    stuck_after,
)
from eksim.kube.controllers.deployment_views import DeploymentSpec, DeploymentView, ReplicaSetView
from eksim.kube.controllers.informers import Informers, Templates
from eksim.parts import EventRecorder
from eksim.state.objects import ApiObject, Owner, Pod
from eksim.state.store import CONFLICT, Store
from eksim.versions import ControllerRules

Json = dict[str, Any]
KIND = "Deployment"
MAX_RETRIES = 15


class _InOrder(NamedTuple):
    """What a sync found in order: the Deployment's spec and annotations, its one ReplicaSet (and under which key the
    informers have it) and the parts of that."""

    spec: Json
    annotations: dict[str, str]
    place: str
    rs: ApiObject
    rs_spec: Json
    rs_annotations: dict[str, str]
    rs_labels: dict[str, str]


class DeploymentController:
    """One object for all Deployments."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        informers: Informers,
        templates: Templates,
        client: ApiClient,
        recorder: EventRecorder,
        rules: ControllerRules,
        settings: ControllerSettings,
    ) -> None:
        self._clock = clock
        self._store = store
        self._informers = informers
        self._templates = templates
        self._client = client
        self._recorder = recorder
        self._rules = rules
        self._skip_idle_syncs = settings.skip_idle_syncs
        #: the Deployment whose status is being written as the next sync would find it
        self._settling: ApiObject | None = None
        self.queue = WorkQueue(clock, self._process, settings.deployment_workers)
        self._specs: dict[str, DeploymentSpec] = {}
        #: by the Deployment's uid
        self._in_order: dict[str, _InOrder] = {}
        self._scaler = ReplicaSetScaler(store, client, recorder, rules)
        informers.object_handlers.setdefault(KIND, []).append(self)
        informers.object_handlers.setdefault("ReplicaSet", []).append(_ReplicaSets(self))
        informers.pod_deleted_handlers.append(self._pod_deleted)

    def start(self) -> None:
        """Take up the Deployments that are there."""
        for obj in list(self._store.list(KIND)):
            self.queue.add(obj.key)

    @property
    def busy(self) -> bool:
        """Whether a key is at hand."""
        return self.queue.busy

    # -- what wakes it ----------------------------------------------------------------------------------------------

    def object_added(self, obj: ApiObject) -> None:
        """addDeployment."""
        self.queue.add(obj.key)

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        """updateDeployment."""
        if obj is not self._settling:
            self.queue.add(obj.key)

    def object_deleted(self, obj: ApiObject) -> None:
        """deleteDeployment."""
        self._specs.pop(obj.key, None)
        self._in_order.pop(obj.uid, None)
        self.queue.add(obj.key)

    def replica_set_changed(self, rs: ApiObject, old: ApiObject | None) -> None:
        """addReplicaSet, updateReplicaSet, deleteReplicaSet."""
        former = old.owner if old is not None else None
        if former is not None and former is not rs.owner:
            deployment = self._informers.owner_of(former, KIND, rs.namespace)
            if deployment is not None:
                self.queue.add(deployment.key)
        if rs.owner is not None:
            deployment = self._informers.owner_of(rs.owner, KIND, rs.namespace)
            if deployment is not None:
                self.queue.add(deployment.key)
        elif old is None or old.labels != rs.labels or former is not None:
            for obj in self._store.list(KIND, rs.namespace):
                if self._spec_of(obj).selects(rs.labels):
                    self.queue.add(obj.key)

    def forget(self, rs: ApiObject) -> None:
        """A ReplicaSet is gone."""
        self._scaler.forget(rs)

    def _pod_deleted(self, pod: Pod) -> None:
        """A Deployment that recreates is woken when its last pod is gone.

        Source: kubernetes/pkg/controller/deployment/deployment_controller.go:deletePod, v1.34.1.
        """
        rs = self._informers.owner_of(pod.owner, "ReplicaSet", pod.namespace)
        deployment = self._informers.owner_of(rs.owner, KIND, pod.namespace) if rs is not None else None
        if deployment is None or self._spec_of(deployment).rolling:
            return
        if not any(self._informers.pods_of.get(r.uid) for r in self._informers.owned_by("ReplicaSet", deployment.uid)):
            self.queue.add(deployment.key)

    # -- the sync ---------------------------------------------------------------------------------------------------

    def _process(self, key: str) -> None:
        debt = self._client.bucket.debt()
        if debt > 0:
            self._clock.arm(self._clock.now + debt, CONTROLLER, self._process, key)
            return
        obj = self._store.get(KIND, key)
        try:
            if obj is not None:
                self._sync(obj)
        except SyncFailed:
            if self.queue.requeues(key) < MAX_RETRIES:
                self.queue.add_rate_limited(key)
            else:
                self.queue.forget(key)
        else:
            self.queue.forget(key)
        self.queue.done(key)

    def _sync(self, obj: ApiObject) -> None:
        """Source: kubernetes/pkg/controller/deployment/deployment_controller.go:syncDeployment, v1.34.1."""
        d = DeploymentView(obj, self._spec_of(obj))
        only = self._only_status_left(d) if self._in_order else None
        if only is not None:
            self._sync_rollout_status(d, only, [])
            return
        replica_sets = self._claim_replica_sets(d)
        if obj.deletion_s is not None:
            new, old = self._split(d, replica_sets, create=False)
            self._sync_deployment_status(d, new, old)
            return
        self._check_paused(d)
        if d.spec.paused:
            self._sync_scale(d, replica_sets)
            return
        found = self._split(d, replica_sets, create=False)
        if self._is_scaling_event(d, *found):
            self._sync_scale(d, replica_sets)
        elif d.spec.rolling:
            # looking once more finds the same, if there is a new ReplicaSet and nothing was written
            new = found[0]
            if new is None or d.wrote:
                new, old = self._split(d, replica_sets, create=True)
                assert new is not None
                self._rollout_rolling(d, new, old)
            else:
                self._rollout_rolling(d, new, found[1])
        else:
            self._rollout_recreate(d, replica_sets)

    def _only_status_left(self, d: DeploymentView) -> ReplicaSetView | None:
        """The Deployment's one ReplicaSet, if nothing but its status has changed since a sync found all in order."""
        obj = d.obj
        known = self._in_order.get(obj.uid)
        if known is None:
            return None
        owned = self._informers.objects_of.get(obj.uid)
        rs = None if owned is None or len(owned) != 1 else owned.get(known.place)
        if (
            rs is None
            or rs is not known.rs
            or obj.spec is not known.spec
            or obj.annotations is not known.annotations
            or obj.deletion_s is not None
            or rs.spec is not known.rs_spec
            or rs.annotations is not known.rs_annotations
            or rs.labels is not known.rs_labels
            or self._informers.orphan_objects.get("ReplicaSet")
        ):
            return None
        if d.spec.deadline_s is not None:
            progress = get_condition(d.conditions, "Progressing")
            if progress is None or progress["reason"] == "DeploymentPaused":
                return None
        return self._scaler.view(rs)

    def _spec_of(self, obj: ApiObject) -> DeploymentSpec:
        spec = self._specs.get(obj.key)
        if spec is None or spec.source is not obj.spec:
            spec = self._specs[obj.key] = DeploymentSpec(obj.spec, self._templates)
        return spec

    def _claim_replica_sets(self, d: DeploymentView) -> list[ReplicaSetView]:
        """The Deployment's ReplicaSets as they are now, oldest first; orphans that match are adopted, others released.

        The sync goes on with what it read here: a ReplicaSet that it writes twice answers with a conflict.

        Source: kubernetes/pkg/controller/deployment/deployment_controller.go:getReplicaSetsForDeployment, v1.34.1.
        """
        obj = d.obj
        views = []
        for rs in self._informers.owned_by("ReplicaSet", obj.uid):
            if d.spec.selects(rs.labels):
                views.append(self._scaler.view(rs))
            elif obj.deletion_s is None:
                self._store.update_object(rs, owner=None)
        orphans = self._informers.orphan_objects.get("ReplicaSet")
        if orphans and obj.deletion_s is None:
            for rs in list(orphans.values()):
                if rs.namespace == obj.namespace and rs.deletion_s is None and d.spec.selects(rs.labels):
                    views.append(self._scaler.view(rs))
                    self._store.update_object(rs, owner=Owner(KIND, obj.name, obj.uid, obj.api_version))
        if len(views) > 1:
            views.sort(key=ReplicaSetView.by_creation)
        return views

    # -- the new ReplicaSet -------------------------------------------------------------------------------------------

    def _split(
        self, d: DeploymentView, replica_sets: list[ReplicaSetView], *, create: bool
    ) -> tuple[ReplicaSetView | None, list[ReplicaSetView]]:
        """(the new ReplicaSet, the old ones); brings annotations and revision of the new one up to date.

        Source: kubernetes/pkg/controller/deployment/sync.go:getAllReplicaSetsAndSyncRevision, v1.34.1.
        """
        found: ReplicaSetView | None = None
        for rs in replica_sets:
            if self._templates.equal_ignore_hash(rs.template, d.spec.template):
                found = rs
                break
        old = [rs for rs in replica_sets if rs is not found]
        return self._get_new_replica_set(d, found, old, create), old

    def _get_new_replica_set(
        self, d: DeploymentView, found: ReplicaSetView | None, old: list[ReplicaSetView], create: bool
    ) -> ReplicaSetView | None:
        """Source: kubernetes/pkg/controller/deployment/sync.go:getNewReplicaSet, v1.34.1."""
        revision = max(rs.revision for rs in old) + 1 if old else 1
        spec = d.spec
        if found is not None:
            annotations = new_replica_set_annotations(d.annotations, found.annotations, revision)
            min_ready_differs = found.min_ready_s != spec.min_ready_s
            if annotations is not None or min_ready_differs:
                return self._scaler.update_replica_set(
                    d,
                    found,
                    annotations if annotations is not None else found.annotations,
                    {**found.spec, "minReadySeconds": spec.min_ready_s} if min_ready_differs else found.spec,
                )
            needs_update = self._set_revision(d, found.annotations.get(REVISION, ""))
            if spec.deadline_s is not None and get_condition(d.conditions, "Progressing") is None:
                self._set_condition(d, "True", "FoundNewReplicaSet", f'Found new replica set "{found.name}"')
                needs_update = True
            if needs_update:
                self._write(d)
            return found
        if not create:
            return None
        return self._create_replica_set(d, old, revision)

    def _create_replica_set(self, d: DeploymentView, old: list[ReplicaSetView], revision: int) -> ReplicaSetView:
        spec, obj = d.spec, d.obj
        hash_ = self._templates.sum(spec.template).hash(d.collision_count)
        metadata = spec.template.get("metadata") or {}
        labels = {**(metadata.get("labels") or {}), HASH_LABEL: hash_}
        selector = spec.selector_manifest
        size = (
            new_rs_new_replicas(spec.replicas, spec.surge, sum(rs.replicas for rs in old), 0)
            if spec.rolling
            else spec.replicas
        )
        annotations = new_replica_set_annotations(d.annotations, {}, revision) or {}
        annotations[DESIRED_REPLICAS] = str(spec.replicas)
        annotations[MAX_REPLICAS] = str(spec.replicas + spec.surge)
        rs_spec: Json = {
            "replicas": size,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: hash_}},
            "template": {**spec.template, "metadata": {**metadata, "labels": labels}},
        }
        if spec.min_ready_s:
            rs_spec["minReadySeconds"] = spec.min_ready_s
        made = ApiObject(
            "ReplicaSet",
            obj.namespace,
            f"{obj.name}-{hash_}",
            rs_spec,
            labels=labels,
            annotations=annotations,
            owner=Owner(KIND, obj.name, obj.uid, obj.api_version),
        )
        d.wrote = True
        created = self._client.create_object(made)
        existed = False
        if isinstance(created, Refused):
            existing = self._store.get("ReplicaSet", made.key)
            if created.code == "AlreadyExists" and existing is not None:
                owner = existing.owner
                if not (
                    owner is not None
                    and owner.uid == obj.uid
                    and self._templates.equal_ignore_hash(spec.template, existing.spec.get("template") or {})
                ):
                    # a foreign one has the name: the next sync tries another hash
                    d.collision_count = (d.collision_count or 0) + 1
                    self._try_write(d)
                    raise SyncFailed(created)
                created, existed = existing, True
            else:
                message = f'Failed to create new replica set "{made.name}": {created.message}'
                if spec.deadline_s is not None:
                    self._set_condition(d, "False", "ReplicaSetCreateError", message)
                    self._try_write(d)
                self._recorder.event(obj, "Warning", "ReplicaSetCreateError", message)
                raise SyncFailed(created)
        if not existed and size > 0:
            text = scaling_message(self._rules.scaling_event_words, True, created.name, 0, size, created=True)
            self._recorder.event(obj, "Normal", "ScalingReplicaSet", text)
        needs_update = self._set_revision(d, str(revision))
        if not existed and spec.deadline_s is not None:
            self._set_condition(d, "True", "NewReplicaSetCreated", f'Created new replica set "{created.name}"')
            needs_update = True
        view = self._scaler.view(created)
        if needs_update:
            self._write(d)
        return view

    def _set_revision(self, d: DeploymentView, revision: str) -> bool:
        if d.annotations.get(REVISION) == revision:
            return False
        d.annotations = {**d.annotations, REVISION: revision}
        return True

    # -- the courses of a sync ------------------------------------------------------------------------------------------

    def _is_scaling_event(
        self, d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView]
    ) -> bool:
        """Source: kubernetes/pkg/controller/deployment/sync.go:isScalingEvent, v1.34.1."""
        desired = d.spec.replicas
        for rs in (*old, new) if new is not None else old:
            if rs.replicas > 0:
                annotated = int_annotation(rs.annotations, DESIRED_REPLICAS)
                if annotated is not None and annotated != desired:
                    return True
        return False

    def _sync_scale(self, d: DeploymentView, replica_sets: list[ReplicaSetView]) -> None:
        """Source: kubernetes/pkg/controller/deployment/sync.go:sync, v1.34.1."""
        new, old = self._split(d, replica_sets, create=False)
        self._scaler.scale(d, new, old)
        if d.spec.paused:
            self._cleanup(d, old)
        self._sync_deployment_status(d, new, old)

    def _rollout_rolling(self, d: DeploymentView, new: ReplicaSetView, old: list[ReplicaSetView]) -> None:
        """Source: kubernetes/pkg/controller/deployment/rolling.go:rolloutRolling, v1.34.1."""
        if not self._scaler.reconcile_new_replica_set(d, new, old) and not self._scaler.reconcile_old_replica_sets(
            d, new, old
        ):
            if old:
                if is_complete(d, d.status):
                    self._cleanup(d, old)
            elif not d.wrote:
                obj, rs = d.obj, new.obj
                self._in_order[obj.uid] = _InOrder(
                    obj.spec, obj.annotations, f"ReplicaSet/{rs.key}", rs, rs.spec, rs.annotations, rs.labels
                )
        self._sync_rollout_status(d, new, old)

    def _rollout_recreate(self, d: DeploymentView, replica_sets: list[ReplicaSetView]) -> None:
        """Source: kubernetes/pkg/controller/deployment/recreate.go:rolloutRecreate, v1.34.1."""
        new, old = self._split(d, replica_sets, create=False)
        scaled_down = False
        for rs in old:
            if rs.replicas > 0:
                self._scaler.scale_replica_set(d, rs, 0)
                scaled_down = True
        if scaled_down or self._old_pods_running(new, old):
            self._sync_rollout_status(d, new, old)
            return
        if new is None:
            new, old = self._split(d, replica_sets, create=True)
            assert new is not None
        if new.replicas != d.spec.replicas:
            self._scaler.scale_replica_set(d, new, d.spec.replicas)
        if is_complete(d, d.status):
            self._cleanup(d, old)
        self._sync_rollout_status(d, new, old)

    def _old_pods_running(self, new: ReplicaSetView | None, old: list[ReplicaSetView]) -> bool:
        """Source: kubernetes/pkg/controller/deployment/recreate.go:oldPodsRunning, v1.34.1."""
        if any(rs.actual > 0 for rs in old):
            return True
        for rs in old:
            for pod in self._informers.pods_of.get(rs.uid, {}).values():
                if pod.phase not in ("Failed", "Succeeded"):
                    return True
        return False

    # -- status -------------------------------------------------------------------------------------------------------

    def _check_paused(self, d: DeploymentView) -> None:
        """Note a pause or its end, so that the deadline does not run meanwhile."""
        wanted = paused_condition(d)
        if wanted is not None:
            self._set_condition(d, "Unknown", *wanted)
            self._write(d)

    def _set_condition(self, d: DeploymentView, status: str, reason: str, message: str) -> None:
        """Set Progressing in this sync's view."""
        condition = deployment_condition("Progressing", status, reason, message, self._clock.now)
        d.conditions = set_deployment_condition(d.conditions, condition)

    def _sync_deployment_status(
        self, d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView]
    ) -> None:
        """Source: kubernetes/pkg/controller/deployment/sync.go:syncDeploymentStatus, v1.34.1."""
        status = calculate_status(d, new, old, self._clock.now)
        if status != d.full_status():
            d.take(status)
            self._write(d)

    def _sync_rollout_status(self, d: DeploymentView, new: ReplicaSetView | None, old: list[ReplicaSetView]) -> None:
        """Source: kubernetes/pkg/controller/deployment/progress.go:syncRolloutStatus, v1.34.1."""
        status = rollout_status(d, new, old, self._clock.now)
        if status == d.full_status():
            self._requeue_stuck(d, status)
            return
        d.take(status)
        if self._skip_idle_syncs and not old and not d.wrote and d.spec.rolling:
            # the next sync would find nothing but this to do
            self._settling = d.obj
            try:
                self._write(d)
            finally:
                self._settling = None
            self._requeue_stuck(d, status)
        else:
            self._write(d)

    def _requeue_stuck(self, d: DeploymentView, status: Json) -> None:
        """Come back for the progress deadline."""
        after = stuck_after(d, status, self._clock.now)
        if after is None:
            return
        if after < 1.0:
            # the real controller spins on a finished rollout that is not available; such a sync finds nothing to do
            if not (self._skip_idle_syncs and never_times_out(d)):
                self.queue.add_rate_limited(d.obj.key)
        else:
            # a second more, against skewed clocks
            self.queue.add_after(d.obj.key, after + 1.0)

    def _try_write(self, d: DeploymentView) -> Refused | None:
        d.wrote = True
        self._client.bucket.reserve()
        obj = d.obj
        if d.version != obj.resource_version:
            return CONFLICT
        return self._store.update_object(obj, status=d.full_status(), annotations=d.annotations)

    def _write(self, d: DeploymentView) -> None:
        """PUT deployments/NAME/status with the version read at the start; annotations go with it."""
        refused = self._try_write(d)
        if refused is not None:
            raise SyncFailed(refused)

    # -- history ----------------------------------------------------------------------------------------------------------

    def _cleanup(self, d: DeploymentView, old: list[ReplicaSetView]) -> None:
        """Delete the oldest revisions beyond revisionHistoryLimit, if they are empty.

        Source: kubernetes/pkg/controller/deployment/sync.go:cleanupDeployment, v1.34.1.
        """
        limit = d.spec.history_limit
        if limit is None:
            return
        alive = [rs for rs in old if rs.obj.deletion_s is None]
        surplus = len(alive) - limit
        if surplus <= 0:
            return
        alive.sort(key=ReplicaSetView.by_creation)
        alive.sort(key=lambda rs: rs.revision)
        for rs in alive[:surplus]:
            if rs.actual or rs.replicas or rs.generation > rs.observed_generation:
                continue
            self._client.bucket.reserve()
            self._store.delete_object(rs.obj)


class _ReplicaSets:
    """Hands ReplicaSets' changes to the Deployment controller."""

    __slots__ = ("_controller",)

    def __init__(self, controller: DeploymentController) -> None:
        self._controller = controller

    def object_added(self, obj: ApiObject) -> None:
        self._controller.replica_set_changed(obj, None)

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        self._controller.replica_set_changed(obj, old)

    def object_deleted(self, obj: ApiObject) -> None:
        self._controller.forget(obj)
        if obj.owner is not None:
            self._controller.replica_set_changed(obj, None)
