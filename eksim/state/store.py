"""The one door for state: every change is a verb here, and everybody else hears of it from here.

A verb checks its precondition, writes, raises the revision and tells the watchers of its code. Watchers watch: they read
at once, note a key and arm an event on the clock; they never call a verb themselves (checked), so verbs never nest.
Mimics the API server with etcd: resource versions are the revision, an outdated version is refused with a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from eksim.engine.clock import Clock
from eksim.errors import BrokenInvariant, Refused
from eksim.state.changes import Verb
from eksim.state.objects import (
    ApiObject,
    Condition,
    Node,
    Pod,
    Taint,
    snapshot_node,
    snapshot_object,
    snapshot_pod,
)

Watcher = Callable[[Any, Any], None]

CONFLICT = Refused("Conflict", "the object has been modified; please apply your changes to the latest version")
NOT_FOUND = Refused("NotFound", "not found")
ALREADY_EXISTS = Refused("AlreadyExists", "already exists")


class Store:
    """The cluster's truth: pods, nodes and objects by key (``namespace/name``; nodes by name)."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.revision = 0
        self.pods: dict[str, Pod] = {}
        self.nodes: dict[str, Node] = {}
        #: kind → key → object
        self.objects: dict[str, dict[str, ApiObject]] = {}
        #: node name → keys of the pods bound there, in the order of binding (a dict used as an ordered set)
        self.pods_by_node: dict[str, dict[str, Pod]] = {}
        self._watchers: list[list[Watcher]] = [[] for _ in Verb]
        self._telling = False

    # -- hearing of changes -------------------------------------------------------------------------------------

    def watch(self, verb: Verb, watcher: Watcher) -> None:
        """Call ``watcher(subject, detail)`` after each change of that kind, in the order of registration."""
        self._watchers[verb].append(watcher)

    def unwatch(self, verb: Verb, watcher: Watcher) -> None:
        """No longer call ``watcher`` for that kind of change."""
        self._watchers[verb].remove(watcher)

    def emit(self, verb: Verb, subject: Any, detail: Any = None) -> None:
        """Raise the revision and tell the watchers. For the verbs here and of the rooms that belong to the store."""
        if self._telling:
            raise BrokenInvariant(f"{verb.name} from within a watcher at {self.clock.now} s: verbs must not nest")
        self.revision += 1
        watchers = self._watchers[verb]
        if watchers:
            self._telling = True
            try:
                for watcher in watchers:
                    watcher(subject, detail)
            finally:
                self._telling = False

    # -- pods ---------------------------------------------------------------------------------------------------

    def create_pod(self, pod: Pod) -> Pod | Refused:
        """POST pods. Refused if the name is taken."""
        if pod.key in self.pods:
            return ALREADY_EXISTS
        pod.created_s = self.clock.now
        pod.resource_version = self.revision + 1
        self.pods[pod.key] = pod
        if pod.node:
            self.pods_by_node.setdefault(pod.node, {})[pod.key] = pod
        self.emit(Verb.POD_CREATED, pod)
        return pod

    def bind_pod(self, pod: Pod, node: str) -> Refused | None:
        """POST pods/NAME/binding: sets spec.nodeName and PodScheduled=True in one update.

        Refused if the pod is gone, being deleted, or has a node already.
        Source: kubernetes/pkg/registry/core/pod/storage/storage.go:assignPod, setPodNodeAndMetadata, v1.34.1.
        """
        if self.pods.get(pod.key) is not pod:
            return Refused("NotFound", f'pods "{pod.name}" not found')
        if pod.node:
            return Refused("Conflict", f'pod {pod.name} is already assigned to node "{pod.node}"')
        if pod.deletion_s is not None:
            return Refused("Conflict", f"pod {pod.name} is being deleted, cannot be assigned to a host")
        now = self.clock.now
        pod.node = node
        pod.bound_s = now
        pod.scheduled = Condition("PodScheduled", "True", last_transition_s=now)
        pod.resource_version = self.revision + 1
        self.pods_by_node.setdefault(node, {})[pod.key] = pod
        self.emit(Verb.POD_BOUND, pod)
        return None

    def set_pod_status(self, pod: Pod, **fields: Any) -> None:
        """PATCH pods/NAME/status by the kubelet: phase, reason, status_message, waiting, ip, host_ip, ready, restarts,
        started_s, finished_s. Setting ``ready`` sets ``ready_s`` too, if it changes."""
        if "ready" in fields:
            ready = fields.pop("ready")
            if ready is not None and ready != pod.ready:
                pod.ready = ready
                pod.ready_s = self.clock.now
        for name, value in fields.items():
            setattr(pod, name, value)
        pod.resource_version = self.revision + 1
        self.emit(Verb.POD_STATUS, pod)

    def patch_pod_scheduling(
        self, pod: Pod, condition: Condition | None = None, nominated_node: str | None = None
    ) -> None:
        """The scheduler's status patch: the PodScheduled condition and/or nominatedNodeName ("" clears it)."""
        old = snapshot_pod(pod)
        if condition is not None:
            pod.scheduled = condition
        if nominated_node is not None:
            pod.nominated_node = nominated_node
        pod.resource_version = self.revision + 1
        self.emit(Verb.POD_CONDITION, pod, old)

    def update_pod(self, pod: Pod, **fields: Any) -> None:
        """PUT or PATCH of a pod's metadata or mutable spec: labels, annotations, owner, spec, conditions."""
        old = snapshot_pod(pod)
        for name, value in fields.items():
            setattr(pod, name, value)
        pod.resource_version = self.revision + 1
        self.emit(Verb.POD_UPDATED, pod, old)

    def begin_pod_deletion(self, pod: Pod, grace_s: float | None = None) -> None:
        """DELETE pods/NAME: sets the deletion timestamp; a pod that has no node, or that has ended, is gone at once.

        ``grace_s``: default the pod's terminationGracePeriodSeconds. A second DELETE may only shorten the grace.
        """
        grace = pod.spec.termination_grace_s if grace_s is None else grace_s
        if not pod.node or pod.phase in ("Succeeded", "Failed"):
            self.delete_pod(pod)
            return
        if pod.deletion_s is not None:
            if grace >= pod.grace_s:
                return
        else:
            pod.deletion_s = self.clock.now
        pod.grace_s = grace
        pod.resource_version = self.revision + 1
        self.emit(Verb.POD_DELETING, pod)

    def delete_pod(self, pod: Pod) -> None:
        """DELETE with grace 0: the object is gone."""
        if self.pods.get(pod.key) is not pod:
            return
        del self.pods[pod.key]
        if pod.node:
            self.pods_by_node[pod.node].pop(pod.key, None)
        self.emit(Verb.POD_DELETED, pod)

    # -- nodes --------------------------------------------------------------------------------------------------

    def add_node(self, node: Node) -> Node:
        """POST nodes: the kubelet registers itself."""
        assert node.name not in self.nodes, node.name
        node.created_s = self.clock.now
        node.resource_version = self.revision + 1
        self.nodes[node.name] = node
        self.pods_by_node.setdefault(node.name, {})
        self.emit(Verb.NODE_ADDED, node)
        return node

    def update_node(self, node: Node, **fields: Any) -> None:
        """PUT nodes/NAME: labels, annotations, taints, unschedulable, capacity, allocatable, images, conditions."""
        old = snapshot_node(node)
        for name, value in fields.items():
            setattr(node, name, value)
        node.resource_version = self.revision + 1
        self.emit(Verb.NODE_UPDATED, node, old)

    def cordon_node(self, node: Node, unschedulable: bool) -> None:
        """kubectl cordon / uncordon: spec.unschedulable, and the taint that the node lifecycle controller sets from it.

        Source: kubernetes/pkg/controller/nodelifecycle/node_lifecycle_controller.go:doNoScheduleTaintingPass.
        """
        taint = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
        others = tuple(t for t in node.taints if t != taint)
        self.update_node(
            node, unschedulable=unschedulable, taints=(*others, taint) if unschedulable else others
        )

    def set_node_ready(self, node: Node, ready: bool) -> None:
        """The kubelet's Ready condition."""
        node.ready = ready
        node.resource_version = self.revision + 1
        self.emit(Verb.NODE_READY, node)

    def delete_node(self, node: Node) -> None:
        """DELETE nodes/NAME. Its pods stay until somebody removes them."""
        if self.nodes.pop(node.name, None) is not None:
            self.emit(Verb.NODE_DELETED, node)

    # -- everything else ----------------------------------------------------------------------------------------

    def list(self, kind: str, namespace: str | None = None) -> Iterable[ApiObject]:
        """Objects of a kind, in the order of creation; of one namespace if given."""
        found = self.objects.get(kind, {}).values()
        return found if namespace is None else [o for o in found if o.namespace == namespace]

    def get(self, kind: str, key: str) -> ApiObject | None:
        """The object of that kind and ``namespace/name`` key, or None."""
        room = self.objects.get(kind)
        return None if room is None else room.get(key)

    def create_object(self, obj: ApiObject) -> ApiObject | Refused:
        """POST. Refused if the name is taken."""
        room = self.objects.setdefault(obj.kind, {})
        if obj.key in room:
            return ALREADY_EXISTS
        obj.created_s = self.clock.now
        obj.resource_version = self.revision + 1
        room[obj.key] = obj
        self.emit(Verb.OBJECT_CREATED, obj)
        return obj

    def update_object(
        self, obj: ApiObject, *, expected_version: int | None = None, bump_generation: bool = False, **fields: Any
    ) -> Refused | None:
        """PUT or PATCH: replaces the fields given (spec, status, labels, annotations, owner, …).

        ``expected_version``: the resourceVersion the writer read; outdated → conflict (409). A write that changes
        nothing makes no change and no watch event. ``bump_generation``: the spec (or, for a Deployment, an annotation)
        changed.
        """
        if self.get(obj.kind, obj.key) is not obj:
            return NOT_FOUND
        if expected_version is not None and expected_version != obj.resource_version:
            return CONFLICT
        for name, value in fields.items():
            if getattr(obj, name) != value:
                break
        else:
            return None
        old = snapshot_object(obj)
        for name, value in fields.items():
            setattr(obj, name, value)
        if bump_generation:
            obj.generation += 1
        obj.resource_version = self.revision + 1
        self.emit(Verb.OBJECT_UPDATED, obj, old)
        return None

    def delete_object(self, obj: ApiObject) -> Refused | None:
        """DELETE: the object is gone; what it owned is the garbage collector's business."""
        if self.objects.get(obj.kind, {}).pop(obj.key, None) is None:
            return NOT_FOUND
        self.emit(Verb.OBJECT_DELETED, obj)
        return None
