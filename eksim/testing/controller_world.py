"""The world in which the real controllers were recorded, around the simulation's own store and controllers.

What belongs to the recordings' harness stands here and not in the simulation: running numbers for names, uids by hash,
refused creations, pods that start only by operations, a clock that is driven from step to step. Called by
:mod:`eksim.testing.replay_controllers`.
"""

from __future__ import annotations

import calendar
import heapq
import time
from collections.abc import Callable, Sequence
from typing import Any

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.kube.controllers.base import ControllerSettings, WorkQueue
from eksim.kube.controllers.manager import Controllers
from eksim.kube.template import default_annotations, default_workload
from eksim.names import fnv1a_32
from eksim.state.changes import Verb
from eksim.state.objects import ApiObject, Node, Owner, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules

Json = dict[str, Any]

WORKLOADS = ("Deployment", "ReplicaSet", "DaemonSet")
#: 2000-01-01T00:00:00Z, the recordings' zero.
EPOCH = 946684800


def seconds(timestamp: str) -> float:
    """``1999-12-31T23:59:20Z`` → −40.0."""
    return float(calendar.timegm(time.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ")) - EPOCH)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, without changing ``target``."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge_patch(out.get(key), value)
    return out


class TurnClock(Clock):
    """A clock that can be driven timer by timer, out of order within an instant."""

    def turn(self, owner: object) -> None:
        """Do the next timer; or, of those due at the same instant, the first that is a method of ``owner``."""
        timers = self._timers
        when = timers[0][0]
        chosen = 0
        if owner is not None:
            due = [i for i, entry in enumerate(timers) if entry[0] == when]
            due.sort(key=lambda i: timers[i][:3])
            chosen = next((i for i in due if getattr(timers[i][3], "__self__", None) is owner), due[0])
        _, _, _, fn, args = timers.pop(chosen)
        heapq.heapify(timers)
        self.now = when
        if args is None:
            fn.fire()
        else:
            fn(*args)


class World:
    """Store, clock and controllers of one recorded case; ``follow(pods)`` puts the pods that the record chose first."""

    def __init__(self, case: Json, follow: Callable[[Sequence[Pod]], Sequence[Pod]]) -> None:
        self.case = case
        self.clock = TurnClock()
        self.store = Store(self.clock)
        self.rules = KubernetesRules.of(case["version"])
        self.events: list[list[str]] = []
        self.writes: list[list[Any]] = []
        self._numbers: dict[str, int] = {}
        self._made: dict[str, int] = {}
        self._bound = 0
        self._specs: dict[int, tuple[PodSpec, Json]] = {}
        self._failing: dict[str, list[Any]] = {}
        self._by_user = False
        self._first: WorkQueue | None = None
        self._turn = self._from = self._to = 0
        for manifest in case["objects"]:
            self.create(manifest, initial=True)
        watch = self.store.watch
        watch(Verb.OBJECT_CREATED, self._created)
        watch(Verb.OBJECT_UPDATED, self._updated)
        watch(Verb.OBJECT_DELETED, self._deleted)
        settings = ControllerSettings(
            client_qps=0,
            burst_replicas=case.get("burst") or 500,
            deployment_workers=1,
            replicaset_workers=1,
            daemonset_workers=1,
            skip_idle_syncs=False,
        )
        self.controllers = Controllers(
            self.clock,
            self.store,
            Streams(0),
            self.rules,
            lambda component: _Recorder(self, component),
            settings,
            names=case["controllers"],
            namer=self,
            shuffled=follow,
            refuse=self._refuse,
        )
        self.controllers.start()

    # -- time -----------------------------------------------------------------------------------------------------------

    def order(self, first: str, start: int, count: int) -> None:
        """From now on, of several controllers whose turns are due at one instant, ``first`` goes first: from turn
        ``start`` on, ``count`` turns long ("": in the order in which they came to be due)."""
        self._first = self.controllers.running[first].queue if first else None
        self._turn, self._from, self._to = 0, start, start + count

    def run_until(self, when: float) -> None:
        """Let time pass up to and including ``when``."""
        clock = self.clock
        if self._first is None:
            clock.run_until(when)
            return
        while clock.next_time() <= when:
            self._step()
        clock.run_until(when)

    def turns(self, count: int) -> None:
        """Let the controllers have up to ``count`` turns at this instant."""
        clock = self.clock
        while count > 0 and clock.next_time() <= clock.now:
            self._step()
            count -= 1

    def _step(self) -> None:
        """The next turn, of the controller that goes first if it has one due."""
        first = self._first if self._from <= self._turn < self._to else None
        self._turn += 1
        self.clock.turn(first)

    # -- what the harness's API server does differently ------------------------------------------------------------

    def generate(self, prefix: str, node: str = "") -> str:
        """Running numbers: five digits for each prefix; a DaemonSet's pod is numbered on its node, unpadded."""
        if node:
            prefix = f"{prefix}{node}-"
        number = self._numbers[prefix] = self._numbers.get(prefix, 0) + 1
        return f"{prefix}{number}" if node else f"{prefix}{number:05d}"

    def uid(self, kind: str, namespace: str, name: str) -> str:
        """From the FNV-1a hash of kind, namespace and name, and how often there was such an object."""
        key = f"{kind}/{namespace}/{name}"
        count = self._made[key] = self._made.get(key, 0) + 1
        text = key if count == 1 else f"{key}#{count}"
        return f"{fnv1a_32(text.encode()):08x}-0000-4000-8000-000000000000"

    def _refuse(self, kind: str, name: str) -> Refused | None:
        plan = self._failing.get(kind)
        if plan is None:
            return None
        if plan[0] > 0:
            plan[0] -= 1
            return None
        if plan[1] == 0:
            return None
        if plan[1] > 0:
            plan[1] -= 1
        code, message = plan[2], plan[3]
        if code == "internal":
            return Refused("InternalError", f"Internal error occurred: {message}")
        if code == "invalid":
            return Refused("Invalid", message)
        resource = {"Pod": "pods", "ReplicaSet": "replicasets.apps"}.get(kind, kind.lower() + "s")
        return Refused("Forbidden", f'{resource} "{name}" is forbidden: {message}')

    def _created(self, obj: ApiObject, _: object) -> None:
        if not self._by_user and obj.kind in WORKLOADS:
            self.writes.append(["create", obj.kind, obj.name, obj.spec.get("replicas")])
        elif not self._by_user:
            self.writes.append(["create", obj.kind, obj.name])

    def _updated(self, obj: ApiObject, old: ApiObject) -> None:
        if self._by_user or obj.status is not old.status or obj.kind in ("Deployment", "DaemonSet"):
            return  # of these a controller writes only the status, with the annotations
        before, after = old.spec.get("replicas"), obj.spec.get("replicas")
        if before != after:
            self.writes.append(["scale", obj.kind, obj.name, before, after])
        else:
            self.writes.append(["update", obj.kind, obj.name])

    def _deleted(self, obj: ApiObject, _: object) -> None:
        if not self._by_user:
            self.writes.append(["delete", obj.kind, obj.name])

    # -- operations ---------------------------------------------------------------------------------------------------

    def apply(self, op: Json, pause: Callable[[int], None]) -> None:
        """Do what ``op`` says at the present time; ``pause(i)`` is called after the i-th pod of several."""
        self._by_user = True
        try:
            self._apply(op, pause)
        finally:
            self._by_user = False

    def _apply(self, op: Json, pause: Callable[[int], None]) -> None:
        kind = op["op"]
        if kind == "create":
            self.create(op["object"])
        elif kind == "scale":
            self._edit(op, {"spec": {"replicas": op["n"]}})
        elif kind == "image":
            obj = self._object(op)
            containers = [dict(c) for c in obj.spec["template"]["spec"]["containers"]]
            containers[0]["image"] = op["image"]
            self._edit(op, {"spec": {"template": {"spec": {"containers": containers}}}})
        elif kind == "patch":
            if op["kind"] == "Node":
                self._edit_node(self.store.nodes[op["name"]], op["patch"])
            else:
                self._edit(op, op["patch"])
        elif kind == "pods":
            for i, name in enumerate(op["names"]):
                pod = self.store.pods.get(f"default/{name}")
                if pod is not None:
                    self._pod_op(pod, op)
                if i + 1 < len(op["names"]):
                    self._by_user = False
                    pause(i)
                    self._by_user = True
        elif kind == "tick":
            self._tick(self.case["kubelet"], pause)
        elif kind == "fail":
            self._failing[op["kind"]] = [
                op.get("after") or 0, op.get("n") or 0, op.get("error") or "forbidden", op.get("message") or ""
            ]
        elif kind != "advance":
            raise NotImplementedError(f"operation {kind!r}")

    def _object(self, op: Json) -> ApiObject:
        obj = self.store.get(op["kind"], f"default/{op['name']}")
        if obj is None:
            raise NotImplementedError(f"no {op['kind']} {op['name']}")
        return obj

    def _edit(self, op: Json, patch: Json) -> None:
        """A user's change of a workload: generation rises with the spec, a Deployment's also with annotations."""
        obj = self._object(op)
        spec = obj.spec
        if "spec" in patch:
            spec = default_workload(obj.kind, merge_patch(obj.spec, patch["spec"]), self.rules)
        metadata = patch.get("metadata") or {}
        annotations = merge_patch(obj.annotations, metadata.get("annotations") or {})
        labels = merge_patch(obj.labels, metadata.get("labels") or {})
        bump = spec != obj.spec or (obj.kind == "Deployment" and annotations != obj.annotations)
        if spec == obj.spec:
            spec = obj.spec
        elif spec["template"] == obj.spec["template"]:
            spec = {**spec, "template": obj.spec["template"]}
        else:
            annotations = default_annotations(obj.kind, annotations, former=obj.annotations, template_changed=True)
        self.store.update_object(obj, bump_generation=bump, spec=spec, annotations=annotations, labels=labels)

    def _edit_node(self, node: Node, patch: Json) -> None:
        fields: Json = {}
        metadata, spec = patch.get("metadata") or {}, patch.get("spec") or {}
        if "labels" in metadata:
            fields["labels"] = merge_patch(node.labels, metadata["labels"])
        if "taints" in spec:
            fields["taints"] = tuple(_taint(t) for t in spec["taints"] or ())
        if "unschedulable" in spec:
            fields["unschedulable"] = bool(spec["unschedulable"])
        if any(getattr(node, name) != value for name, value in fields.items()):
            self.store.update_node(node, **fields)

    def _pod_op(self, pod: Pod, op: Json) -> None:
        do, store, now = op["do"], self.store, self.clock.now
        if do in ("bind", "run", "start"):
            self._bind(pod)
            if do != "bind":
                self._run(pod, ready=do == "start")
        elif do in ("ready", "unready"):
            store.set_pod_status(pod, ready=do == "ready")
        elif do in ("fail", "succeed"):
            phase = "Failed" if do == "fail" else "Succeeded"
            store.set_pod_status(pod, phase=phase, ready=False, reason=op.get("value") or "", finished_s=now)
        elif do == "restart":
            store.set_pod_status(pod, restarts=pod.restarts + int(op.get("n") or 1))
        elif do == "cost":
            cost = {"controller.kubernetes.io/pod-deletion-cost": str(op.get("value"))}
            store.update_pod(pod, annotations={**pod.annotations, **cost})
        elif do == "label":
            key, sign, value = str(op["value"]).partition("=")
            labels = {k: v for k, v in pod.labels.items() if k != key}
            if sign:
                labels[key] = value
            if labels != pod.labels:
                store.update_pod(pod, labels=labels)
        elif do == "delete":
            store.begin_pod_deletion(pod)
        elif do == "reap":
            store.delete_pod(pod)
        else:
            raise NotImplementedError(f"pods {do!r}")

    def _bind(self, pod: Pod) -> None:
        if pod.node:
            return
        node = target_node(pod)
        if not node:
            nodes = self.case["nodes"]
            node = nodes[self._bound % len(nodes)]
            self._bound += 1
        self.store.bind_pod(pod, node)

    def _run(self, pod: Pod, *, ready: bool) -> None:
        self.store.set_pod_status(pod, phase="Running", ready=ready, started_s=self.clock.now)

    def _tick(self, kubelet: Json, pause: Callable[[int], None]) -> None:
        """A second of the case's kubelet: pods go, start and become ready in the order of their creation."""
        now, done = self.clock.now, 0

        def next_pod() -> None:
            nonlocal done
            self._by_user = False
            pause(done)
            self._by_user = True
            done += 1

        for pod in self._by_age():
            if pod.deletion_s is not None and now - pod.deletion_s >= kubelet.get("gone_after", 0):
                self.store.delete_pod(pod)
                next_pod()
        slots = kubelet.get("slots")
        bad = kubelet.get("bad_images") or ()
        bound = sum(1 for pod in self.store.pods.values() if pod.node)
        for pod in self._by_age():
            if pod.deletion_s is not None or pod.phase in ("Failed", "Succeeded"):
                continue
            image = pod.spec.containers[0].image
            if not pod.node:
                if now - pod.created_s >= kubelet.get("start_after", 0) and (slots is None or bound < slots):
                    bound += 1
                    self._bind(pod)
                    self._run(pod, ready=not kubelet.get("ready_after") and image not in bad)
                    next_pod()
            elif (
                not pod.ready
                and pod.started_s is not None
                and now - pod.started_s >= kubelet.get("ready_after", 0)
                and image not in bad
            ):
                self.store.set_pod_status(pod, ready=True)
                next_pod()

    def _by_age(self) -> list[Pod]:
        return sorted(self.store.pods.values(), key=lambda pod: (int(pod.created_s // 1), pod.name))

    # -- creation -----------------------------------------------------------------------------------------------------

    def create(self, manifest: Json, *, initial: bool = False) -> None:
        """A user creates an object; an ``initial`` one brings status and creation time."""
        kind = manifest["kind"]
        metadata = manifest["metadata"]
        namespace = metadata.get("namespace") or "default"
        name = metadata["name"]
        created = seconds(metadata["creationTimestamp"]) if "creationTimestamp" in metadata else self.clock.now
        if kind == "Node":
            spec = manifest.get("spec") or {}
            node = Node(
                name,
                {},
                labels=metadata.get("labels") or {},
                taints=tuple(_taint(t) for t in spec.get("taints") or ()),
                unschedulable=bool(spec.get("unschedulable")),
                uid=metadata.get("uid") or self.uid("Node", "", name),
            )
            self.store.add_node(node)
            return
        uid = metadata.get("uid") or self.uid(kind, namespace, name)
        owner = _owner(metadata)
        if kind == "Pod":
            pod = self._pod(manifest, namespace, name, uid, owner)
            self.store.create_pod(pod)
            if initial:
                pod.created_s = created
            return
        if kind not in WORKLOADS:
            raise NotImplementedError(f"objects of kind {kind}")
        given: dict[str, str] = metadata.get("annotations") or {}
        annotations = default_annotations(kind, given, former=given)
        obj = ApiObject(
            kind,
            namespace,
            name,
            default_workload(kind, manifest["spec"], self.rules),
            labels=metadata.get("labels") or {},
            annotations=annotations,
            owner=owner,
            status=_status(manifest.get("status") or {}),
            uid=uid,
        )
        obj.generation = metadata.get("generation") or 1
        self.store.create_object(obj)
        if initial:
            obj.created_s = created

    def _pod(self, manifest: Json, namespace: str, name: str, uid: str, owner: Owner | None) -> Pod:
        metadata, spec, status = manifest["metadata"], manifest["spec"], manifest.get("status") or {}
        pod = Pod(
            namespace,
            name,
            PodSpec.parse(spec, self.rules),
            metadata.get("labels") or {},
            uid=uid,
            annotations=metadata.get("annotations"),
            owner=owner,
            node=spec.get("nodeName") or "",
        )
        pod.phase = status.get("phase") or "Pending"
        for condition in status.get("conditions") or ():
            if condition["type"] == "Ready":
                pod.ready = condition["status"] == "True"
                if "lastTransitionTime" in condition:
                    pod.ready_s = seconds(condition["lastTransitionTime"])
        pod.restarts = max([0, *(c.get("restartCount") or 0 for c in status.get("containerStatuses") or ())])
        if "startTime" in status:
            pod.started_s = seconds(status["startTime"])
        if "deletionTimestamp" in metadata:
            grace = float(metadata.get("deletionGracePeriodSeconds") or 30)
            pod.deletion_s, pod.grace_s = seconds(metadata["deletionTimestamp"]) - grace, grace
        return pod


class _Recorder:
    """Notes events as they are emitted."""

    def __init__(self, world: World, component: str) -> None:
        self._world = world
        self._component = component

    def event(
        self,
        obj: Pod | Node | ApiObject,
        type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        related: Pod | None = None,
        field_path: str = "",
    ) -> None:
        kind = obj.kind if isinstance(obj, ApiObject) else "Pod" if isinstance(obj, Pod) else "Node"
        self._world.events.append([self._component, type, reason, kind, obj.name, message])


def target_node(pod: Pod) -> str:
    """The node that a DaemonSet's pod is pinned to."""
    for term in pod.spec.affinity.node_required or ():
        for requirement in term.fields:
            if requirement.key == "metadata.name" and requirement.operator == "In":
                return requirement.values[0]
    return ""


def _taint(manifest: Json) -> Taint:
    return Taint(manifest["key"], manifest.get("value") or "", manifest["effect"])


def _owner(metadata: Json) -> Owner | None:
    for reference in metadata.get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(reference["kind"], reference["name"], reference["uid"], reference["apiVersion"])
    return None


def _status(status: Json) -> Json:
    """A manifest's status with its times in seconds and its zeros left out."""
    out = {key: value for key, value in status.items() if value not in (0, None)}
    if "conditions" in status:
        out["conditions"] = [
            {k: seconds(v) if k.startswith("last") else v for k, v in condition.items()}
            for condition in status["conditions"]
        ]
    return out
