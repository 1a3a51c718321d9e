"""The controllers' shared view of the store: who owns what, and who is told of which change.

Mimics the shared informers with their indexes (by owner instead of by scanning a namespace) and the templates that
controllers compare and hash. Reads only; one watcher for each kind of change, which hands on to the controller whose
kind of owner it is. Called by the store; used by every controller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from eksim.engine.shared import shared
from eksim.kube.controllers.deployment_rules import HASH_LABEL
from eksim.kube.template import TemplateSum, sum_template
from eksim.state.changes import Verb
from eksim.state.objects import ApiObject, Node, Owner, Pod
from eksim.state.podspec import PodSpec
from eksim.state.selectors import LabelSelector
from eksim.state.store import Store
from eksim.versions import KubernetesRules

Json = dict[str, Any]


class PodHandler(Protocol):
    """A controller that hears of pods with its kind of owner."""

    def pod_added(self, pod: Pod) -> None:
        """A pod of one of its objects was created or adopted."""

    def pod_updated(self, pod: Pod) -> None:
        """A pod changed: bound, status, condition."""

    def pod_relabelled(self, pod: Pod) -> None:
        """A pod's labels or annotations changed."""

    def pod_gone(self, pod: Pod, owner: Owner) -> None:
        """A pod is being deleted, is deleted, or has left ``owner``."""

    def orphan_changed(self, pod: Pod) -> None:
        """A pod without an owner came or changed its labels: somebody may want to adopt it."""


class ObjectHandler(Protocol):
    """A controller that hears of objects of a kind."""

    def object_added(self, obj: ApiObject) -> None:
        """Created."""

    def object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        """Changed; ``old`` is how it was."""

    def object_deleted(self, obj: ApiObject) -> None:
        """Gone."""


class NodeHandler(Protocol):
    """A controller that hears of nodes."""

    def node_added(self, node: Node) -> None:
        """Registered."""

    def node_updated(self, node: Node, old: Node) -> None:
        """Labels, taints or anything else changed; ``old`` is how it was."""

    def node_deleted(self, node: Node) -> None:
        """Gone."""


def is_active(pod: Pod) -> bool:
    """Whether a pod counts for its controller: not ended and not being deleted.

    Source: kubernetes/pkg/controller/controller_utils.go:IsPodActive, v1.34.1.
    """
    return pod.deletion_s is None and pod.phase != "Succeeded" and pod.phase != "Failed"


class Informers:
    """Indexes over the store, and the handlers by kind."""

    def __init__(self, store: Store) -> None:
        self.store = store
        #: owner's uid → key → pod, terminating and ended ones included
        self.pods_of: dict[str, dict[str, Pod]] = {}
        #: pods without a controlling owner; ``orphan_changes`` rises with every change among them
        self.orphans: dict[str, Pod] = {}
        self.orphan_changes = 0
        #: owner's uid → key → ReplicaSet or ControllerRevision
        self.objects_of: dict[str, dict[str, ApiObject]] = {}
        #: kind → key → object without a controlling owner
        self.orphan_objects: dict[str, dict[str, ApiObject]] = {}
        self.pod_handlers: dict[str, PodHandler] = {}
        self.object_handlers: dict[str, list[ObjectHandler]] = {}
        self.node_handlers: list[NodeHandler] = []
        #: told of every pod that is gone for good, with its owner
        self.pod_deleted_handlers: list[Any] = []
        for pod in store.pods.values():
            self._place(pod)
        for room in store.objects.values():
            for obj in room.values():
                self._place_object(obj)
        watch = store.watch
        watch(Verb.POD_CREATED, self._pod_created)
        watch(Verb.POD_BOUND, self._pod_updated)
        watch(Verb.POD_STATUS, self._pod_updated)
        watch(Verb.POD_CONDITION, self._pod_updated)
        watch(Verb.POD_UPDATED, self._pod_edited)
        watch(Verb.POD_DELETING, self._pod_deleting)
        watch(Verb.POD_DELETED, self._pod_deleted)
        watch(Verb.OBJECT_CREATED, self._object_created)
        watch(Verb.OBJECT_UPDATED, self._object_updated)
        watch(Verb.OBJECT_DELETED, self._object_deleted)
        watch(Verb.NODE_ADDED, self._node_added)
        watch(Verb.NODE_UPDATED, self._node_updated)
        watch(Verb.NODE_DELETED, self._node_deleted)

    # -- pods -----------------------------------------------------------------------------------------------------

    def _place(self, pod: Pod) -> None:
        owner = pod.owner
        if owner is None:
            self.orphans[pod.key] = pod
            self.orphan_changes += 1
        else:
            pods = self.pods_of.get(owner.uid)
            if pods is None:
                pods = self.pods_of[owner.uid] = {}
            pods[pod.key] = pod

    def _remove(self, pod: Pod, owner: Owner | None) -> None:
        if owner is None:
            self.orphans.pop(pod.key, None)
            return
        pods = self.pods_of.get(owner.uid)
        if pods is not None and pods.pop(pod.key, None) is not None and not pods:
            del self.pods_of[owner.uid]

    def _pod_created(self, pod: Pod, _: object) -> None:
        self._place(pod)
        if pod.owner is None:
            self._tell_orphan(pod)
        else:
            handler = self.pod_handlers.get(pod.owner.kind)
            if handler is not None:
                handler.pod_added(pod)

    def _pod_updated(self, pod: Pod, _: object) -> None:
        owner = pod.owner
        if owner is not None:
            handler = self.pod_handlers.get(owner.kind)
            if handler is not None:
                handler.pod_updated(pod)

    def _pod_edited(self, pod: Pod, old: Pod) -> None:
        owner, former = pod.owner, old.owner
        if owner is former or (owner is not None and former is not None and owner.uid == former.uid):
            if owner is not None:
                handler = self.pod_handlers.get(owner.kind)
                if handler is not None:
                    handler.pod_relabelled(pod)
            elif pod.labels != old.labels:
                self.orphan_changes += 1
                self._tell_orphan(pod)
            return
        self._remove(pod, former)
        self._place(pod)
        if former is not None:
            handler = self.pod_handlers.get(former.kind)
            if handler is not None:
                handler.pod_gone(pod, former)
        if owner is None:
            self._tell_orphan(pod)
        else:
            handler = self.pod_handlers.get(owner.kind)
            if handler is not None:
                handler.pod_added(pod)

    def _pod_deleting(self, pod: Pod, _: object) -> None:
        owner = pod.owner
        if owner is not None:
            handler = self.pod_handlers.get(owner.kind)
            if handler is not None:
                handler.pod_gone(pod, owner)

    def _pod_deleted(self, pod: Pod, _: object) -> None:
        self._remove(pod, pod.owner)
        if pod.owner is not None:
            handler = self.pod_handlers.get(pod.owner.kind)
            if handler is not None:
                handler.pod_gone(pod, pod.owner)
        for told in self.pod_deleted_handlers:
            told(pod)

    def _tell_orphan(self, pod: Pod) -> None:
        for handler in self.pod_handlers.values():
            handler.orphan_changed(pod)

    # -- objects --------------------------------------------------------------------------------------------------

    def _place_object(self, obj: ApiObject) -> None:
        if obj.owner is not None:
            self.objects_of.setdefault(obj.owner.uid, {})[f"{obj.kind}/{obj.key}"] = obj
        elif obj.kind in ("ReplicaSet", "ControllerRevision"):
            self.orphan_objects.setdefault(obj.kind, {})[obj.key] = obj

    def _remove_object(self, obj: ApiObject, owner: Owner | None) -> None:
        if owner is not None:
            room = self.objects_of.get(owner.uid)
            if room is not None and room.pop(f"{obj.kind}/{obj.key}", None) is not None and not room:
                del self.objects_of[owner.uid]
        else:
            self.orphan_objects.get(obj.kind, {}).pop(obj.key, None)

    def _object_created(self, obj: ApiObject, _: object) -> None:
        self._place_object(obj)
        for handler in self.object_handlers.get(obj.kind, ()):
            handler.object_added(obj)

    def _object_updated(self, obj: ApiObject, old: ApiObject) -> None:
        if obj.owner is not old.owner:
            self._remove_object(obj, old.owner)
            self._place_object(obj)
        for handler in self.object_handlers.get(obj.kind, ()):
            handler.object_updated(obj, old)

    def _object_deleted(self, obj: ApiObject, _: object) -> None:
        self._remove_object(obj, obj.owner)
        for handler in self.object_handlers.get(obj.kind, ()):
            handler.object_deleted(obj)

    def owned_by(self, kind: str, owner_uid: str) -> list[ApiObject]:
        """Objects of ``kind`` that the owner controls, in the order of creation."""
        return [obj for obj in self.objects_of.get(owner_uid, {}).values() if obj.kind == kind]

    def owner_of(self, owner: Owner | None, kind: str, namespace: str) -> ApiObject | None:
        """The object that ``owner`` points to, if it is of that kind and the very one (resolveControllerRef)."""
        if owner is None or owner.kind != kind:
            return None
        obj = self.store.get(kind, f"{namespace}/{owner.name}")
        return obj if obj is not None and obj.uid == owner.uid else None

    # -- nodes ----------------------------------------------------------------------------------------------------

    def _node_added(self, node: Node, _: object) -> None:
        for handler in self.node_handlers:
            handler.node_added(node)

    def _node_updated(self, node: Node, old: Node) -> None:
        for handler in self.node_handlers:
            handler.node_updated(node, old)

    def _node_deleted(self, node: Node, _: object) -> None:
        for handler in self.node_handlers:
            handler.node_deleted(node)


class Templates:
    """What is worked out from pod templates and selectors, once for each (templates are replaced, never changed)."""

    def __init__(self, rules: KubernetesRules) -> None:
        self.rules = rules
        #: how a pod's spec as written becomes the spec as stored (the API server's admission, where there is one)
        self.parse: Callable[[Json], PodSpec] = lambda manifest: PodSpec.parse(manifest, rules)
        # by identity; the second part keeps the key alive
        self._specs: dict[int, tuple[PodSpec, Json]] = {}
        self._equal: dict[tuple[int, int], tuple[bool, Json, Json]] = {}
        self._selectors: dict[int, tuple[LabelSelector, Any]] = {}
        #: warnings of hashing, in the order met
        self.warnings: dict[str, None] = {}

    def pod_spec(self, template: Json) -> PodSpec:
        """The parsed spec of the pods made from a template."""
        manifest = template.get("spec") or {}
        found = self._specs.get(id(manifest))
        if found is None:
            found = self._specs[id(manifest)] = (self.parse(manifest), manifest)
        return found[0]

    def sum(self, template: Json) -> TemplateSum:
        """The template's sum, for its hashes."""
        total = _sum(template, self.rules.minor)
        for warning in total.warnings:
            self.warnings[warning] = None
        return total

    def equal_ignore_hash(self, one: Json, other: Json) -> bool:
        """Whether two templates are the same but for the label pod-template-hash.

        Source: kubernetes/pkg/controller/deployment/util/deployment_util.go:EqualIgnoreHash, v1.34.1.
        """
        if one is other:
            return True
        key = (id(one), id(other))
        found = self._equal.get(key)
        if found is None:
            found = self._equal[key] = (_without_hash(one) == _without_hash(other), one, other)
        return found[0]

    def selector(self, manifest: Any) -> LabelSelector:
        """A parsed ``spec.selector``."""
        found = self._selectors.get(id(manifest))
        if found is None:
            found = self._selectors[id(manifest)] = (LabelSelector.parse(manifest), manifest)
        return found[0]


_sum = shared(sum_template)


def _without_hash(template: Json) -> Json:
    metadata = template.get("metadata") or {}
    labels = metadata.get("labels") or {}
    if HASH_LABEL not in labels:
        return template
    return {**template, "metadata": {**metadata, "labels": {k: v for k, v in labels.items() if k != HASH_LABEL}}}
