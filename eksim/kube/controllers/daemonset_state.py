"""One DaemonSet as its controller sees it: its pods by node, and counts that follow from them.

The real controller recounts all nodes in each sync; here the nodes of which something changed are noted, so that a sync
costs as much as there is news. Called by :mod:`eksim.kube.controllers.daemonset`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eksim.kube.controllers.daemonset_rules import (
    GENERATION_LABEL,
    REVISION_HASH_LABEL,
    by_creation_and_phase,
    daemon_spec,
    is_pod_updated,
    node_should_run_daemon_pod,
    target_node_name,
)
from eksim.kube.controllers.deployment_rules import scaled_value
from eksim.kube.controllers.informers import Templates
from eksim.kube.template import TEMPLATE_GENERATION
from eksim.state.objects import ApiObject, Node, Owner, Pod
from eksim.state.podspec import PodSpec
from eksim.state.selectors import LabelSelector

Json = dict[str, Any]

#: desired, current, misscheduled, ready, updated, available, old pods
Counts = tuple[int, int, int, int, int, int, int]
NOTHING: Counts = (0, 0, 0, 0, 0, 0, 0)


class DaemonState:
    """See the module."""

    __slots__ = (
        "_changed",
        "_counts",
        "_fits",
        "_labels",
        "_source",
        "_template",
        "_totals",
        "_uncounted",
        "generation",
        "hash",
        "key",
        "min_ready_s",
        "mismatched",
        "obj",
        "on_node",
        "orphans_seen",
        "owner",
        "prefix",
        "ready",
        "rolling",
        "selector",
        "spec",
        "surge",
        "unavailable",
    )

    spec: PodSpec
    selector: LabelSelector

    def __init__(self, obj: ApiObject) -> None:
        self.obj = obj
        self.key = obj.key
        self.prefix = obj.name + "-"
        self.owner = Owner("DaemonSet", obj.name, obj.uid, obj.api_version)
        #: node → key → pod, pending and terminating ones included
        self.on_node: dict[str, dict[str, Pod]] = {}
        self.ready: dict[str, None] = {}
        #: pods that the selector no longer matches
        self.mismatched: dict[str, Pod] = {}
        self.orphans_seen = -1
        self.hash = ""
        self.generation = ""
        self.min_ready_s = 0.0
        self.rolling = True
        self.surge: int | str = 0
        self.unavailable: int | str = 1
        self._source: Json = {}
        self._template: Json = {}
        self._labels: dict[str, str] = {}
        self._fits: dict[str, tuple[bool, bool]] = {}
        #: nodes whose pods must be looked at, and nodes that must be counted again
        self._changed: dict[str, None] = {}
        self._uncounted: dict[str, None] = {}
        self._counts: dict[str, Counts] = {}
        self._totals: list[int] = [0] * 7

    # -- spec ---------------------------------------------------------------------------------------------------------

    def read(self, templates: Templates) -> None:
        """Take over the object's spec, if it was replaced, and its template generation."""
        self.generation = self.obj.annotations.get(TEMPLATE_GENERATION, "")
        spec = self.obj.spec
        if spec is self._source:
            return
        self._source = spec
        self.selector = templates.selector(spec.get("selector"))
        min_ready_s = float(spec.get("minReadySeconds") or 0)
        strategy = spec.get("updateStrategy") or {}
        self.rolling = (strategy.get("type") or "RollingUpdate") == "RollingUpdate"
        rolling = strategy.get("rollingUpdate") or {}
        surge: int | str = 0
        if self.rolling:
            surge = rolling.get("maxSurge") or 0
            self.unavailable = rolling.get("maxUnavailable", 1)
        if not templates.rules.controllers.daemonset_surge:
            surge = 0
        template = spec.get("template") or {}
        if template is not self._template or min_ready_s != self.min_ready_s or surge != self.surge:
            self.min_ready_s = min_ready_s
            self.surge = surge if scaled_value(surge, 100, True) > 0 else 0
            self._template = template
            self._labels = {}
            self.spec = daemon_spec(templates.pod_spec(template))
            self._fits.clear()
            for name in (*self._counts, *self.on_node):
                self.touch(name)

    def set_hash(self, hash_: str) -> None:
        """The hash of the present revision; with another one every pod counts anew."""
        if hash_ != self.hash:
            self.hash = hash_
            self._labels = {}
            for name in self.on_node:
                self.touch(name)

    def selects(self, labels: Mapping[str, str], templates: Templates) -> bool:
        """Whether the selector matches; an empty one matches nothing here."""
        self.read(templates)
        return not self.selector.empty and self.selector.matches(labels)

    def fenceposts(self, desired: int) -> tuple[int, int]:
        """(surge, unavailable) for ``desired`` nodes; percentages round up, and not both may be 0.

        Source: kubernetes/pkg/controller/daemon/update.go:updatedDesiredNodeCounts, v1.34.1.
        """
        surge = scaled_value(self.surge, desired, True)
        unavailable = scaled_value(self.unavailable, desired, True)
        return surge, 1 if desired > 0 and surge == 0 and unavailable == 0 else unavailable

    def pod_maker(self, node: str, pin: Callable[[PodSpec, str], PodSpec]) -> Callable[[str, str], Pod]:
        """What makes a pod for ``node`` from name and uid."""
        metadata = self._template.get("metadata") or {}
        if not self._labels:
            self._labels = {**(metadata.get("labels") or {}), REVISION_HASH_LABEL: self.hash}
            if self.generation:
                self._labels[GENERATION_LABEL] = self.generation
        labels, spec, annotations = self._labels, pin(self.spec, node), metadata.get("annotations")

        def make(name: str, uid: str) -> Pod:
            return Pod(
                self.obj.namespace, name, spec, labels, uid=uid, annotations=annotations, owner=self.owner,
                node=spec.node_name,
            )  # fmt: skip

        return make

    # -- pods and nodes -----------------------------------------------------------------------------------------------

    def place(self, pod: Pod) -> None:
        """The pod is there, or has changed."""
        name = target_node_name(pod)
        pods = self.on_node.get(name)
        if pods is None:
            pods = self.on_node[name] = {}
        pods[pod.key] = pod
        if pod.ready:
            self.ready[pod.key] = None
        else:
            self.ready.pop(pod.key, None)
        if pod.labels is not self._labels and self._source and not self.selector.matches(pod.labels):
            self.mismatched[pod.key] = pod
        elif self.mismatched:
            self.mismatched.pop(pod.key, None)
        self.touch(name)

    def counts_the_same(self, pod: Pod) -> bool:
        """Whether a changed pod, alone on its node, counts as it did before."""
        if self.min_ready_s or pod.ready != (pod.key in self.ready) or pod.phase in ("Failed", "Succeeded"):
            return False
        pods = self.on_node.get(target_node_name(pod))
        return pods is not None and len(pods) == 1 and pod.key in pods

    def remove(self, pod: Pod) -> None:
        """The pod is gone, or belongs to somebody else."""
        name = target_node_name(pod)
        pods = self.on_node.get(name)
        if pods is not None and pods.pop(pod.key, None) is not None and not pods:
            del self.on_node[name]
        self.ready.pop(pod.key, None)
        self.mismatched.pop(pod.key, None)
        self.touch(name)

    def touch(self, node: str) -> None:
        """Something about the node changed."""
        self._changed[node] = None
        self._uncounted[node] = None

    def refit(self, node: str) -> None:
        """The node's labels or taints changed, or it is gone."""
        self._fits.pop(node, None)
        self.touch(node)

    def look_again(self, node: str) -> None:
        """The next sync has to look at the node even if nothing changes."""
        self._changed[node] = None

    def fit(self, node: Node) -> tuple[bool, bool]:
        """(a pod should run on the node, one may stay)."""
        found = self._fits.get(node.name)
        if found is None:
            found = self._fits[node.name] = node_should_run_daemon_pod(node, self.spec)
        return found

    def take_changed(self) -> list[str]:
        """The nodes to look at now, each once."""
        out = list(self._changed)
        self._changed.clear()
        return out

    def take_uncounted(self) -> list[str]:
        """The nodes to count now, each once."""
        out = list(self._uncounted)
        self._uncounted.clear()
        return out

    # -- counts -------------------------------------------------------------------------------------------------------

    def count(self, name: str, node: Node | None, is_available: Callable[[DaemonState, Pod], bool]) -> None:
        """Count a node anew. The oldest pod stands for it; a node that is gone counts nothing."""
        pods = self.on_node.get(name)
        old = 0
        for pod in (pods or {}).values():
            if pod.deletion_s is None and not is_pod_updated(pod.labels, self.hash, self.generation):
                old += 1
        counts: Counts = (0, 0, 0, 0, 0, 0, old)
        if node is not None:
            run = self.fit(node)[0]
            if not pods:
                counts = (int(run), 0, 0, 0, 0, 0, 0)
            elif not run:
                counts = (0, 0, 1, 0, 0, 0, old)
            else:
                pod = min(pods.values(), key=by_creation_and_phase)
                updated = is_pod_updated(pod.labels, self.hash, self.generation)
                available = is_available(self, pod)
                counts = (1, 1, 0, int(pod.ready), int(updated), int(available), old)
                if pod.ready and not available:
                    self.touch(name)  # time alone will change this
        totals, before = self._totals, self._counts.get(name, NOTHING)
        if counts != before:
            for i in range(7):
                totals[i] += counts[i] - before[i]
            if counts == NOTHING:
                del self._counts[name]
            else:
                self._counts[name] = counts

    def has_old_pods(self) -> bool:
        """Whether a pod of another revision is there."""
        return self._totals[6] > 0

    def ready_not_available(self) -> bool:
        """Whether a ready pod has not been so for minReadySeconds."""
        return self._totals[3] != self._totals[5]

    def status(self) -> Json:
        """``status`` as counted; zeros are left out where the API leaves them out."""
        desired, current, misscheduled, ready, updated, available, _ = self._totals
        status: Json = {
            "currentNumberScheduled": current,
            "desiredNumberScheduled": desired,
            "numberMisscheduled": misscheduled,
            "numberReady": ready,
            "observedGeneration": self.obj.generation,
        }
        if updated:
            status["updatedNumberScheduled"] = updated
        if available:
            status["numberAvailable"] = available
        if desired > available:
            status["numberUnavailable"] = desired - available
        if "collisionCount" in self.obj.status:
            status["collisionCount"] = self.obj.status["collisionCount"]
        return status
