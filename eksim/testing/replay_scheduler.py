"""Replay of recorded decisions of the real kube-scheduler through the simulation's own queue, cycle and plugins.

A case (format ``scheduler-trace/1``) is a small cluster and a list of operations; each step says what the real scheduler
did. The replay performs the operations the way the recording harness did, follows only what is random in the real code
(which of the best nodes), and reports the first thing that differs. What belongs to the harness and not to a real
cluster stands in :class:`Harness`. Called by ``eksim conformance scheduler`` and by the tests.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eksim.engine.clock import Clock
from eksim.kube.scheduler.cycle import Attempt, Scheduler
from eksim.kube.scheduler.listers import Listers
from eksim.kube.scheduler.nodeinfo import NodeInfo
from eksim.kube.scheduler.profile import backoff_of, build_profiles
from eksim.kube.scheduler.queued_pod import QueuedPod
from eksim.state.objects import ApiObject, Condition, Node, Owner, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.testing.scheduler_paths import CheckedScheduler, Difference
from eksim.testing.traces import Outcome, replay_files
from eksim.units import resource_amounts
from eksim.versions import KubernetesRules

Json = dict[str, Any]

#: Families whose recordings hold the queue after each step.
_QUEUE_FAMILIES = ("lab", "preemption")
#: Fields of an attempt that may be left out when they are empty.
_MAY_BE_MISSING = ("feasible", "unschedulable_plugins", "scores", "total", "top", "prefilter_message", "absent", "nominated")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def replay_scheduler_files(files: Iterable[Path | str]) -> Iterator[Outcome]:
    """Replay every case of every file."""
    return replay_files(files, lambda case, whole: [replay_case(case, whole)])


def replay_case(case: Json, whole: Json | None = None, *, plain: bool = False) -> Outcome:
    """Replay one case. ``plain``: without the scheduler's fast path beside."""
    family = str(case.get("family") or (whole or {}).get("family") or "")
    try:
        Harness(case, plain=plain).run()
    except Difference as difference:
        return Outcome(str(case.get("id", "")), family, str(difference))
    return Outcome(str(case.get("id", "")), family, None)


def seconds_of(text: str | None) -> float | None:
    """An RFC 3339 time as seconds since the recordings' start."""
    if text is None:
        return None
    return (datetime.fromisoformat(text.replace("Z", "+00:00")) - _EPOCH).total_seconds()


def node_of(manifest: Json) -> Node:
    """A Node manifest; without a hostname label it gets one."""
    meta, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    labels = dict(meta.get("labels") or {})
    labels.setdefault("kubernetes.io/hostname", meta["name"])
    node = Node(
        meta["name"],
        resource_amounts(status.get("allocatable")),
        labels=labels,
        annotations=dict(meta.get("annotations") or {}),
        taints=tuple(Taint(t["key"], t.get("value") or "", t["effect"]) for t in spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        images=tuple((tuple(i.get("names") or ()), int(i.get("sizeBytes") or 0)) for i in status.get("images") or ()),
    )
    node.conditions = {c["type"]: Condition(c["type"], c["status"]) for c in status.get("conditions") or ()}
    # reflect.DeepEqual tells an empty list of taints from none; only the recordings' comparison asks.
    node.facts = {"taints": None if spec.get("taints") is None else "list"}
    return node


class Choices:
    """Follows the recording where the real code draws."""

    def __init__(self) -> None:
        self.chosen: str | None = None
        self.nominated: str | None = None

    def host(self, top: Sequence[str]) -> int:
        """The recorded node, which must be among the best."""
        if self.chosen not in top:
            raise Difference(f"chosen {self.chosen}, but the best are {list(top)}")
        return list(top).index(str(self.chosen))

    def offset(self, nodes: int) -> int:
        """The recordings do not say where preemption began."""
        return 0

    def candidate(self, nodes: Sequence[str]) -> int:
        """The recorded node, which must be among the equally good ones."""
        if self.nominated not in nodes:
            raise Difference(f"nominated {self.nominated}, but the best are {list(nodes)}")
        return list(nodes).index(str(self.nominated))


class Harness:
    """The recording harness: a virtual clock, the objects, and the order in which it told the scheduler of changes.

    Its own habits: the scheduler's flushes run as the clock passes whole seconds and multiples of 30 s; up to 1.21 only
    the first status update of a pod counts as an update of it, a bound pod has no start time in the cache until it is
    updated, budgets are not seen, and taints are compared with ``reflect.DeepEqual``.
    """

    def __init__(self, case: Json, *, plain: bool = False) -> None:
        self.case = case
        self.rules = KubernetesRules.of(case["scheduler_version"])
        rules = self.rules.scheduler
        self.then = rules.status_patch_moves
        self.ms = 0
        self.objects = Store(Clock())
        self.pods: dict[str, Pod] = {}
        self.nodes: dict[str, Node] = {}
        self.evicted: dict[str, None] = {}
        #: pods whose first status update has come back
        self.updated_once: dict[str, None] = {}
        #: pods whose nomination another pod's preemption cleared, unknown to the scheduler as yet
        self.cleared: dict[str, None] = {}
        self.choices = Choices()
        self.order: list[str] = []
        self.plain = plain
        self.scheduler = (Scheduler if plain else CheckedScheduler)(
            rules,
            build_profiles(rules, case.get("config")),
            Listers(self.objects, budgets_count=not self.then),
            now=lambda: self.now,
            alive=self.pods.get,
            choices=self.choices,
            backoff_limits=backoff_of(case.get("config")),
        )
        family = str(case.get("family"))
        self.with_queue = family in _QUEUE_FAMILIES or family.startswith("queue_")

    @property
    def now(self) -> float:
        """The virtual clock in seconds."""
        return self.ms / 1000

    # -- time -----------------------------------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        """Move the clock, running the flushes that it passes."""
        target = self.ms + ms
        while self.ms // 1000 < target // 1000:
            self.ms = (self.ms // 1000 + 1) * 1000
            self.scheduler.queue.flush_backoff_completed()
            if self.ms % 30_000 == 0:
                self.scheduler.queue.flush_unschedulable_leftover()
        self.ms = target

    # -- the case -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Perform all operations and compare all steps; raises Difference."""
        case = self.case
        steps = case["steps"]
        handlers = self.scheduler.handlers
        for manifest in case.get("objects") or ():
            self._add_object(manifest)
        for manifest in case.get("nodes") or ():
            self._add_node(manifest)
        for manifest in case.get("pods") or ():
            pod = self._pod(manifest)
            self.pods[pod.key] = pod
            handlers.add_pod_to_cache(pod)
        self._compare_state(steps[0], 0)
        for index, (op, step) in enumerate(zip(case["ops"], steps[1:], strict=True), 1):
            if abs(step["t"] - self.now) > 1e-9:
                raise Difference(f"step {index}: begins at {step['t']}, replayed at {self.now}")
            if step["op"] != op["op"]:
                raise Difference(f"step {index}: recorded {step['op']}, asked for {op['op']}")
            self._perform(op, step, index)
            self._compare_state(step, index)

    def _perform(self, op: Json, step: Json, index: int) -> None:
        kind = op["op"]
        handlers = self.scheduler.handlers
        if kind == "create":
            self.advance(1)
            pod = self._pod(op["pod"])
            pod.created_s = self.now
            self.pods[pod.key] = pod
            handlers.add_pod_to_scheduling_queue(pod)
        elif kind == "schedule":
            self._schedule(int(op["max"]), step, index)
        elif kind == "delete":
            self._delete(op["name"])
        elif kind == "update":
            self._update(op["pod"])
        elif kind == "add_node":
            self._add_node(op["node"])
        elif kind == "update_node":
            old = self.nodes[op["node"]["metadata"]["name"]]
            new = self.nodes[old.name] = node_of(op["node"])
            differ = None
            if self.then:
                differ = old.taints != new.taints or old.facts["taints"] != new.facts["taints"]
            handlers.update_node_in_cache(old, new, taints_differ=differ)
        elif kind == "advance":
            self.advance(round(float(op["s"]) * 1000))
        elif kind == "reap":
            gone = [key for key in self.evicted if key in self.pods]
            self.evicted.clear()
            for key in gone:
                self._delete(key)
        else:
            raise Difference(f"step {index}: unknown operation {kind!r}")

    def _add_object(self, manifest: Json) -> None:
        meta = manifest["metadata"]
        extra = {k: v for k, v in manifest.items() if k not in ("apiVersion", "kind", "metadata", "spec", "status")}
        self.objects.create_object(
            ApiObject(
                manifest["kind"],
                "" if manifest["kind"] == "Namespace" else meta.get("namespace") or "default",
                meta["name"],
                manifest.get("spec") or {},
                api_version=manifest.get("apiVersion") or "v1",
                labels=dict(meta.get("labels") or {}),
                status=manifest.get("status") or {},
                uid=meta.get("uid") or "",
                extra=extra,
            )
        )

    def _add_node(self, manifest: Json) -> None:
        node = node_of(manifest)
        self.nodes[node.name] = node
        self.scheduler.handlers.add_node_to_cache(node)

    def _pod(self, manifest: Json) -> Pod:
        meta, status = manifest["metadata"], manifest.get("status") or {}
        spec = PodSpec.parse(manifest["spec"], self.rules, defaulted=False)
        owner = next((o for o in meta.get("ownerReferences") or () if o.get("controller")), None)
        pod = Pod(
            meta.get("namespace") or "default",
            meta["name"],
            spec,
            dict(meta.get("labels") or {}),
            uid=meta.get("uid") or "",
            owner=None if owner is None else Owner(owner["kind"], owner["name"], owner["uid"], owner["apiVersion"]),
            node=spec.node_name,
        )
        pod.started_s = seconds_of(status.get("startTime"))
        pod.phase = status.get("phase") or "Pending"
        return pod

    def _delete(self, key: str) -> None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return
        self.cleared.pop(key, None)
        self.updated_once.pop(key, None)
        self.evicted.pop(key, None)
        if pod.node:
            self.scheduler.handlers.delete_pod_from_cache(pod)
        else:
            self.scheduler.handlers.delete_pod_from_scheduling_queue(pod)

    def _update(self, manifest: Json) -> None:
        meta = manifest["metadata"]
        key = f"{meta.get('namespace') or 'default'}/{meta['name']}"
        old = self.pods.get(key)
        if old is None:
            return
        new = copy.copy(old)
        new.labels = dict(meta.get("labels") or {})
        spec = manifest.get("spec") or {}
        fields = {name: spec.get(name) for name in ("tolerations", "schedulingGates")}
        wanted = {**old.spec.manifest, **fields}
        new.spec = PodSpec.parse({k: v for k, v in wanted.items() if v is not None}, self.rules, defaulted=False)
        self.pods[key] = new
        if new.node:
            self.scheduler.handlers.update_pod_in_cache(old, new)
        else:
            before = (old.labels, old.spec.manifest.get("tolerations"), old.spec.scheduling_gates)
            after = (new.labels, new.spec.manifest.get("tolerations"), new.spec.scheduling_gates)
            self.scheduler.handlers.update_pod_in_scheduling_queue(old, new, updated=before != after)

    # -- attempts -------------------------------------------------------------------------------------------------

    def _schedule(self, most: int, step: Json, index: int) -> None:
        recorded = step.get("attempts") or []
        done = 0
        evicted: list[str] = []
        while done < most and self.scheduler.queue.has_due():
            self.advance(1)
            want = recorded[done] if done < len(recorded) else None
            if want is None:
                raise Difference(f"step {index}: attempt {done + 1} at {self.now} is not in the recording")
            if "order" in step:
                self.order = step["order"]
            self.choices.chosen = self._name(want.get("chosen"))
            self.choices.nominated = want.get("nominated")
            attempt = self._attempt(index, done, evicted)
            done += 1
            self._compare_attempt(attempt, want, f"step {index}, attempt {done}")
            self._effects(attempt, evicted)
        if done < len(recorded):
            raise Difference(f"step {index}: {len(recorded)} attempts recorded, {done} replayed")
        if evicted != (step.get("evicted") or []):
            raise Difference(f"step {index}: evicted {step.get('evicted') or []}, replayed {evicted}")

    def _attempt(self, index: int, done: int, evicted: list[str]) -> Attempt:
        try:
            attempt = self.scheduler.schedule_one(detail=True)
        except Difference as difference:
            raise Difference(f"step {index}, attempt {done + 1}: {difference}") from None
        if attempt is None:
            raise Difference(f"step {index}, attempt {done + 1}: nothing to try")
        return attempt

    def _effects(self, attempt: Attempt, evicted: list[str]) -> None:
        """What the API server would do: bind, or status, evictions; then the scheduler hears of it."""
        key = attempt.pod.key
        old = self.pods[key]
        handlers = self.scheduler.handlers
        if attempt.chosen is not None:
            new = self.pods[key] = copy.copy(old)
            new.node = attempt.chosen.name
            new.started_s = self.now
            handlers.add_pod_to_cache(new)
            handlers.delete_pod_from_scheduling_queue(old)
            return
        new = copy.copy(old)
        if key in self.cleared:
            del self.cleared[key]
            new.nominated_node = ""
        if attempt.nominated is not None and attempt.nominated != attempt.pod.nominated_node:
            new.nominated_node = attempt.nominated
        condition = (attempt.reason, attempt.message)
        before = old.scheduled and (old.scheduled.reason, old.scheduled.message)
        if condition != before or new.nominated_node != old.nominated_node:
            new.scheduled = Condition("PodScheduled", "False", attempt.reason, attempt.message)
            self.pods[key] = new
            first = key not in self.updated_once
            self.updated_once[key] = None
            handlers.update_pod_in_scheduling_queue(old, new, updated=first)
        if attempt.candidate is not None:
            self._evict(attempt, evicted)

    def _evict(self, attempt: Attempt, evicted: list[str]) -> None:
        assert attempt.candidate is not None
        # Nominations of less important pods to that node go.
        for other in self.scheduler.nominator.pods_for_node(attempt.candidate.node):
            if other.priority < attempt.queued.info.priority and other.pod.nominated_node:
                self.cleared[other.key] = None
        for victim in sorted(attempt.candidate.victims, key=lambda v: v.key):
            old = self.pods[victim.key]
            if old.deletion_s is not None:
                continue
            new = self.pods[victim.key] = copy.copy(old)
            new.deletion_s = self.now
            new.grace_s = new.spec.termination_grace_s
            if self.rules.scheduler.disruption_target:
                target = Condition("DisruptionTarget", "True", "PreemptionByScheduler")
                new.conditions = {**old.conditions, "DisruptionTarget": target}
            evicted.append(victim.key)
            self.evicted[victim.key] = None
            self.scheduler.handlers.update_pod_in_cache(old, new)

    # -- comparing ------------------------------------------------------------------------------------------------

    def _name(self, index: int | None) -> str | None:
        return None if index is None else self.order[index]

    def _compare_attempt(self, attempt: Attempt, want: Json, where: str) -> None:
        got = self._described(attempt)
        if want.get("absent"):
            want = self._in_order(want, got["feasible"])
        for field in (
            "t", "pod", "start", "find", "rejected", "prefilter_message", "absent", "feasible", "scores", "total",
            "top", "chosen", "nominated", "message", "unschedulable_plugins", "next_start",
        ):  # fmt: skip
            wanted, found = want.get(field), got.get(field)
            if field == "rejected":
                wanted = self._rejections(want.get("rejected") or [])
            if field == "scores" and wanted and found:
                for plugin in sorted({*wanted, *found}):
                    if wanted.get(plugin) != found.get(plugin):
                        raise Difference(
                            f"{where}: scores of {plugin}: recorded {wanted.get(plugin)}, replayed {found.get(plugin)}"
                        )
            if wanted != found and not (field in _MAY_BE_MISSING and not wanted and not found):
                raise Difference(f"{where} ({want.get('pod')}): {field}: recorded {wanted}, replayed {found}")

    @staticmethod
    def _in_order(want: Json, feasible: list[int]) -> Json:
        """The recorded attempt as if it had looked at the nodes in this order: nodes named by matchFields are looked at
        in the order of a Go set, any."""
        recorded = want.get("feasible") or []
        if recorded == feasible or sorted(recorded) != sorted(feasible):
            return want
        places = [recorded.index(node) for node in feasible]
        want = {**want, "feasible": feasible}
        if want.get("scores"):
            want["total"] = [want["total"][place] for place in places]
            want["top"] = [node for node in feasible if node in want["top"]]
            want["scores"] = {
                plugin: {**figures, **{k: [figures[k][place] for place in places] for k in ("raw", "norm")}}
                for plugin, figures in want["scores"].items()
            }
        return want

    @staticmethod
    def _rejections(groups: Sequence[Json]) -> Json:
        return {
            str(node): [group["plugin"], group["code"], list(group["reasons"])]
            for group in groups
            for node in group["nodes"]
        }

    def _described(self, attempt: Attempt) -> Json:
        index = {name: i for i, name in enumerate(self.order)}

        def of(nodes: Iterable[NodeInfo]) -> list[int]:
            return [index[node.name] for node in nodes]

        got: Json = {
            "t": self.now,
            "pod": attempt.pod.key,
            "start": attempt.start,
            "next_start": attempt.next_start,
            "find": attempt.find,
            "rejected": {
                str(index[name]): [status.plugin, status.code, list(status.reasons)]
                for name, status in attempt.rejected.items()
            },
            "feasible": of(attempt.feasible),
            "chosen": None if attempt.chosen is None else index[attempt.chosen.name],
        }
        if attempt.scores is not None:
            got["scores"] = {
                plugin: {"weight": weight, "raw": raw, "norm": norm}
                for plugin, (weight, raw, norm) in attempt.scores.by_plugin.items()
            }
            got["total"] = attempt.scores.total
            got["top"] = [index[name] for name in attempt.scores.top]
        if attempt.chosen is None:
            got["message"] = attempt.message
            diagnosis = attempt.diagnosis
            if diagnosis is not None:
                got["unschedulable_plugins"] = sorted(diagnosis.plugins)
                if diagnosis.pre_filter_message:
                    got["prefilter_message"] = diagnosis.pre_filter_message
                absent = diagnosis.absent
                if absent is not None:
                    got["absent"] = {"code": absent.code, "message": ", ".join(absent.reasons)}
            changed = not self.then or attempt.nominated != attempt.pod.nominated_node
            if attempt.nominated and changed:
                got["nominated"] = attempt.nominated
        elif attempt.diagnosis is not None and attempt.diagnosis.absent is not None:
            absent = attempt.diagnosis.absent
            got["absent"] = {"code": absent.code, "message": ", ".join(absent.reasons)}
        return got

    def _compare_state(self, step: Json, index: int) -> None:
        if "order" in step:
            self.order = step["order"]
            order = [node.name for node in self.scheduler.cache.update_snapshot()]
            if order != self.order:
                raise Difference(f"step {index}: order of nodes: recorded {self.order}, replayed {order}")
        if self.with_queue:
            want, got = step["queue"], self._queue()
            for place in ("active", "backoff", "unschedulable", "gated"):
                if want.get(place, []) != got[place]:
                    raise Difference(
                        f"step {index} ({step['op']}): {place}: recorded {want.get(place, [])}, replayed {got[place]}"
                    )

    def _queue(self) -> Json:
        queue = self.scheduler.queue

        def of(queued: QueuedPod, *, expires: bool = False) -> Json:
            row: Json = {"pod": queued.key}
            if expires:
                row["expires"] = queue.backoff.ends(queued)
            if queued.plugins:
                row["plugins"] = sorted(queued.plugins)
            return {**row, "since": queued.since, "attempts": queued.attempts}

        backoff = sorted(queue.backoff_pods(), key=lambda q: (queue.backoff.ends(q), q.key))
        return {
            "active": [of(q) for q in queue.active_pods()],
            "backoff": [of(q, expires=True) for q in backoff],
            "unschedulable": [of(queue.unschedulable[key]) for key in sorted(queue.unschedulable)],
            "gated": [of(queue.gated[key]) for key in sorted(queue.gated)],
        }
