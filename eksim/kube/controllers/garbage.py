"""The garbage collector: what an owner leaves behind goes after it.

Mimics background deletion: the dependents of a deleted object are deleted, theirs in turn. Foreground and orphan deletion
are not modelled. Called by its work queue.
"""

from __future__ import annotations

from eksim.engine.clock import CONTROLLER, Clock
from eksim.kube.controllers.base import ApiClient, WorkQueue
from eksim.kube.controllers.informers import Informers
from eksim.state.changes import Verb
from eksim.state.objects import ApiObject
from eksim.state.store import Store

#: ``--concurrent-gc-syncs``
WORKERS = 20


class GarbageCollector:
    """One queue of absent owners.

    Source: kubernetes/pkg/controller/garbagecollector/garbagecollector.go:attemptToDeleteItem, v1.34.1.
    """

    def __init__(self, clock: Clock, store: Store, informers: Informers, client: ApiClient) -> None:
        self._clock = clock
        self._store = store
        self._informers = informers
        self._client = client
        self.queue = WorkQueue(clock, self._process, WORKERS)
        store.watch(Verb.OBJECT_DELETED, self._deleted)

    def start(self) -> None:
        """What is in the store has its owners: nothing to do."""

    @property
    def busy(self) -> bool:
        """Whether an owner's dependents are still to be looked at."""
        return self.queue.busy

    def _deleted(self, obj: ApiObject, _: object) -> None:
        if obj.uid in self._informers.pods_of or obj.uid in self._informers.objects_of:
            self.queue.add(obj.uid)

    def _process(self, uid: str) -> None:
        """Delete one owner's dependents, one request each; waits for the client in between."""
        bucket = self._client.bucket
        for obj in list(self._informers.objects_of.get(uid, {}).values()):
            if bucket.debt() > 0:
                self._wait(uid)
                return
            bucket.reserve()
            self._store.delete_object(obj)
        for pod in list(self._informers.pods_of.get(uid, {}).values()):
            if pod.deletion_s is not None:
                continue
            if bucket.debt() > 0:
                self._wait(uid)
                return
            bucket.reserve()
            self._store.begin_pod_deletion(pod)
        self.queue.forget(uid)
        self.queue.done(uid)

    def _wait(self, uid: str) -> None:
        self._clock.arm(self._clock.now + self._client.bucket.debt(), CONTROLLER, self._process, uid)
