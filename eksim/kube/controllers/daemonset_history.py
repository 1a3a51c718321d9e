"""A DaemonSet's ControllerRevisions: one for each template it has had.

Called by :mod:`eksim.kube.controllers.daemonset`.
"""

from __future__ import annotations

from eksim.errors import Refused
from eksim.kube.controllers.base import ApiClient, SyncFailed
from eksim.kube.controllers.daemonset_rules import REVISION_HASH_LABEL
from eksim.kube.controllers.daemonset_state import DaemonState
from eksim.kube.controllers.informers import Informers, Templates
from eksim.state.objects import ApiObject
from eksim.state.store import Store

KIND = "ControllerRevision"


def _revision(obj: ApiObject) -> int:
    return int(obj.extra.get("revision", 0))


class RevisionHistory:
    """Finds, makes and removes revisions."""

    def __init__(self, store: Store, informers: Informers, templates: Templates, client: ApiClient) -> None:
        self._store = store
        self._informers = informers
        self._templates = templates
        self._client = client

    def construct(self, state: DaemonState) -> tuple[str, list[ApiObject]]:
        """(the hash of the present template's revision, the other revisions).

        Source: kubernetes/pkg/controller/daemon/update.go:constructHistory, v1.34.1.
        """
        obj = state.obj
        template = obj.spec.get("template") or {}
        current: list[ApiObject] = []
        old: list[ApiObject] = []
        for revision in self._informers.owned_by(KIND, obj.uid):
            same = self._templates.equal_ignore_hash(revision.extra["template"], template)
            (current if same else old).append(revision)
        number = max(map(_revision, old), default=0) + 1
        if not current:
            return self._snapshot(state, number).labels[REVISION_HASH_LABEL], old
        kept = current[0] if len(current) == 1 else max(current, key=_revision)
        if _revision(kept) < number:
            self._client.bucket.reserve()
            self._store.update_object(kept, extra={**kept.extra, "revision": number})
        return kept.labels[REVISION_HASH_LABEL], old

    def _snapshot(self, state: DaemonState, number: int) -> ApiObject:
        """Source: kubernetes/pkg/controller/daemon/update.go:snapshot, v1.34.1."""
        obj = state.obj
        template = obj.spec.get("template") or {}
        collisions = obj.status.get("collisionCount")
        hash_ = self._templates.sum(template).hash(collisions)
        labels = {**((template.get("metadata") or {}).get("labels") or {}), REVISION_HASH_LABEL: hash_}
        revision = ApiObject(
            KIND,
            obj.namespace,
            f"{obj.name}-{hash_}",
            {},
            labels=labels,
            annotations=obj.annotations,
            owner=state.owner,
            extra={"revision": number, "template": template},
        )
        created = self._client.create_object(revision)
        if not isinstance(created, Refused):
            return created
        existing = self._store.get(KIND, revision.key)
        if created.code == "AlreadyExists" and existing is not None:
            if existing.extra.get("template") == template:
                return existing
            self._store.update_object(obj, status={**obj.status, "collisionCount": (collisions or 0) + 1})
        raise SyncFailed(created)

    def cleanup(self, state: DaemonState, old: list[ApiObject]) -> None:
        """Delete the oldest revisions beyond revisionHistoryLimit that no pod has.

        Source: kubernetes/pkg/controller/daemon/update.go:cleanupHistory, v1.34.1.
        """
        limit = state.obj.spec.get("revisionHistoryLimit")
        surplus = len(old) - (10 if limit is None else limit)
        if surplus <= 0:
            return
        live = {
            pod.labels.get(REVISION_HASH_LABEL): None for pods in state.on_node.values() for pod in pods.values()
        }
        for revision in sorted(old, key=_revision):
            if surplus <= 0:
                break
            if revision.labels.get(REVISION_HASH_LABEL) in live:
                continue
            self._client.bucket.reserve()
            self._store.delete_object(revision)
            surplus -= 1
