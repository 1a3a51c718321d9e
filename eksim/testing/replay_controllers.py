"""Replay of runs of the real controllers, and of tables of their functions, through the simulation's own controllers.

Every step of a recorded case is done to a store on which the controllers run; then every object, event and write must be
what was recorded. What the recording says is random there is followed (which of equal pods is deleted, how far the
controllers came while an operation went through its pods) or left out (``varies``). Families whose controllers are not
modelled count as different. Called by ``eksim conformance controllers`` and by the tests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eksim.kube.controllers.deployment_rules import (
    max_unavailable,
    new_rs_new_replicas,
    replica_set_fraction,
    replica_set_proportion,
    resolve_fenceposts,
    scaled_value,
)
from eksim.kube.controllers.manager import FACTORIES
from eksim.kube.template import default_pod_template, dump_template, template_hash
from eksim.state.objects import Pod
from eksim.testing.controller_state import (
    blank_events,
    differences,
    multiset_difference,
    show_pod,
    snapshot_state,
)
from eksim.testing.controller_world import World
from eksim.testing.traces import Outcome, read_recording, runs_in, unbroken
from eksim.versions import parse_version

Json = dict[str, Any]

#: Families in which pods are compared by name; in the others as a multiset without name, node and uid.
BY_NAME = ("rs_delete_order", "hash", "ds_nodes", "hpa_decide", "pdb_bare", "statefulset", "cronjob", "endpoints")

SETTLE = 1_000_000

#: Most replays of one case in search of an interleaving.
MAX_RUNS = 600


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far the controllers come when: what the real runs leave to chance.

    ``pauses``: after the i-th pod of an operation, how many turns happen before the next. ``first``: of two controllers
    whose turns are due at one instant, this one goes first, from turn ``start`` of the step on for ``count`` turns.
    """

    pauses: tuple[tuple[int, int], ...] = ()
    first: str = ""
    start: int = 0
    count: int = 0


AT_ONCE = Schedule()


def replay_controller_files(files: Iterable[Path | str]) -> Iterator[Outcome]:
    """One outcome for each case of a recording, and one for each row of recorded tables."""
    for path in files:
        data = read_recording(path)
        if str(data.get("format", "")).startswith("controller-tables/"):
            yield from unbroken(data, _replay_tables, data)
        else:
            for case in runs_in(data, path):
                yield from unbroken(case, lambda one: [replay_case(one)], case)


def replay_case(case: Json) -> Outcome:
    """Replay one case: first with every operation at once, then, where that differs, in other interleavings."""
    family = str(case["family"])
    missing = [name for name in case["controllers"] if name not in FACTORIES]
    if missing:
        return Outcome(case["id"], family, f"family {family} is not modelled yet (controller {', '.join(missing)})")
    schedules: dict[int, Schedule] = {}
    runs = itertools.count(1)
    try:
        step, difference = _run(case, schedules)
        while difference is not None and step > 0:
            better = _other_interleaving(case, schedules, step, runs)
            if better is None:
                break
            step, difference = better
    except NotImplementedError as error:
        return Outcome(case["id"], family, f"family {family} is not modelled yet ({error})")
    return Outcome(case["id"], family, None if difference is None else f"step {step}: {difference}")


def _other_interleaving(
    case: Json, schedules: dict[int, Schedule], step: int, runs: Iterator[int]
) -> tuple[int, str | None] | None:
    """Find a schedule for an operation up to ``step`` with which the replay gets further; None if there is none."""
    for index in range(step - 1, max(-1, step - 3), -1):
        if index in schedules:
            continue
        for schedule in _interleavings(_pods_of(case["ops"][index]), case["controllers"]):
            if next(runs) > MAX_RUNS:
                return None
            schedules[index] = schedule
            reached, difference = _run(case, schedules)
            if difference is None or reached > step:
                return reached, difference
            del schedules[index]
    return None


def _pods_of(op: Json) -> int:
    """How many pods an operation goes through (for a tick: at most)."""
    if op.get("op") == "pods":
        return len(op["names"])
    return 8 if op.get("op") == "tick" else 0


def _interleavings(pods: int, controllers: Sequence[str]) -> Iterator[Schedule]:
    """Pauses within an operation: everywhere, or in one place for a while; then another order of the controllers."""
    if pods > 1:
        yield Schedule(tuple((i, SETTLE) for i in range(pods - 1)))
        for turns in (SETTLE, 1, 2, 3):
            for i in range(min(pods - 1, 6)):
                yield Schedule(((i, turns),))
    if len(controllers) > 1:
        for name in reversed(controllers):
            for start in range(10):
                for count in (1, 2, 4, SETTLE):
                    yield Schedule(first=name, start=start, count=count)


def _run(case: Json, schedules: dict[int, Schedule]) -> tuple[int, str | None]:
    """(step of the first difference, the difference); (steps, None) if there is none."""
    chosen: dict[str, None] = {}

    forced = False

    def follow(pods: Sequence[Pod]) -> Sequence[Pod]:
        """Between equals, the pods that the record chose; where the choice varies from run to run, those alone."""
        first = [pod for pod in pods if pod.name in chosen or f"on {pod.node}" in chosen]
        return first if forced and first else first + [pod for pod in pods if pod not in first]

    world = World(case, follow)
    judge = _Judge(case)
    steps = case["steps"]
    for index, step in enumerate(steps):
        op = case["ops"][index - 1] if index else None
        schedule = schedules.get(index - 1, AT_ONCE)
        begin = float(step["t"])
        chosen.clear()
        chosen.update(dict.fromkeys(judge.victims(step)))
        forced = bool((step.get("varies") or {}).get("Pod"))
        world.run_until(begin)
        world.order(schedule.first, schedule.start, schedule.count)
        if op is not None:
            pauses = dict(schedule.pauses)

            def pause(i: int, pauses: dict[int, int] = pauses) -> None:
                world.turns(pauses.get(i, 0))

            world.apply(op, pause)
        if index + 1 < len(steps):
            end = float(steps[index + 1]["t"])
        else:
            end = begin + float(op.get("s") or case.get("step") or 1 if op is not None else 1)
        world.run_until(max(begin, end - 0.1))
        events, world.events = world.events, []
        writes, world.writes = world.writes, []
        difference = judge.compare(index, step, snapshot_state(world), events, writes)
        if difference is not None:
            return index, difference
        if judge.over:
            break
    return len(steps), None


class _Judge:
    """Compares a replay with its record, step by step."""

    def __init__(self, case: Json) -> None:
        self._by_name = case["family"] in BY_NAME
        self._equal = case.get("runs_equal") == case.get("runs_compared")
        self._recreates = '"Recreate"' in str(case).replace("'", '"')
        self._ops = case["ops"]
        self._state: dict[str, Json] = {}
        #: sizes vary from here on: the rest cannot be compared
        self.over = False
        #: how often a size was written is no longer comparable
        self._counts_masked = False
        self._pods_vary = False

    def victims(self, step: Json) -> list[str]:
        """Pods whose deletion the record tells of in this step, and ``on NODE`` where a DaemonSet's pod was made."""
        names = [e[5].rsplit(" ", 1)[-1] for e in step.get("events") or () if e[2] == "SuccessfulDelete"]
        names += step.get("gone", {}).get("Pod", ())
        before = self._state.get("Pod", {})
        for name, pod in step.get("changed", {}).get("Pod", {}).items():
            if "deleting" in pod:
                names.append(name)
            if name not in before and "for_node" in pod:
                names.append(f"on {pod['for_node']}")
        return names

    def compare(
        self, index: int, step: Json, state: dict[str, Json], events: list[list[str]], writes: list[list[Any]]
    ) -> str | None:
        """The first difference of this step in words."""
        for kind, objects in step.get("changed", {}).items():
            self._state.setdefault(kind, {}).update(objects)
        for kind, names in step.get("gone", {}).items():
            for name in names:
                self._state.get(kind, {}).pop(name, None)
        varies: Json = step.get("varies") or {}
        if self._sizes_vary(varies):
            self.over = True
            return None
        if varies.get("Pod"):
            self._pods_vary = True
        op = self._ops[index - 1] if index else {}
        if not self._equal and _pods_of(op) > 1:
            self._counts_masked = True
        for kind, recorded in self._state.items():
            if kind == "Node":
                continue
            mine = state.get(kind, {})
            if kind == "Pod":
                difference = self._compare_pods(recorded, mine)
            else:
                difference = self._compare_objects(kind, recorded, mine, varies)
            if difference is not None:
                return difference
        extra = [f"{kind} {name}" for kind, room in state.items() for name in room if kind not in self._state]
        if extra:
            return f"{extra[0]} exists, recorded is none"
        return self._compare_events(step, events, varies) or self._compare_writes(step, writes, varies)

    def _sizes_vary(self, varies: Json) -> bool:
        return any(
            isinstance(paths, dict)
            and any(path == "*" or path.endswith(("eplicas", "NumberScheduled")) for path in paths)
            for key, paths in varies.items()
        )

    def _compare_pods(self, recorded: dict[str, Json], mine: dict[str, Pod]) -> str | None:
        if self._by_name and not self._pods_vary:
            for name, pod in recorded.items():
                if name not in mine:
                    return f"Pod {name} does not exist"
                difference = differences(pod, show_pod(mine[name], pod))
                if difference is not None:
                    return f"Pod {name}: {difference}"
            for name in mine:
                if name not in recorded:
                    return f"Pod {name} exists, recorded is none"
            return None
        likeness = next(iter(recorded.values()), {})
        return multiset_difference(
            list(recorded.values()),
            [show_pod(pod, recorded.get(name, likeness)) for name, pod in mine.items()],
        )

    def _compare_objects(self, kind: str, recorded: dict[str, Json], mine: dict[str, Json], varies: Json) -> str | None:
        for name, obj in recorded.items():
            if name not in mine:
                return f"{kind} {name} does not exist"
            accepted = dict(varies.get(f"{kind}/{name}") or {})
            masked: tuple[str, ...] = ()
            if self._counts_masked:
                masked += ("generation", "status.observedGeneration")
            if kind == "Deployment" and self._recreates:
                masked += tuple(
                    f"status.conditions.Progressing.{f}"
                    for f in ("reason", "message", "lastUpdateTime", "lastTransitionTime")
                )
            difference = differences(obj, mine[name], accepted, masked)
            if difference is not None:
                return f"{kind} {name}: {difference}"
        for name in mine:
            if name not in recorded:
                return f"{kind} {name} exists, recorded is none"
        return None

    def _compare_events(self, step: Json, events: list[list[str]], varies: Json) -> str | None:
        if varies.get("events"):
            return None
        names = self._by_name and not self._pods_vary
        recorded = blank_events(step.get("events") or (), names, scaling=not self._counts_masked)
        mine = blank_events(events, names, scaling=not self._counts_masked)
        for key, wanted in recorded.items():
            if mine.get(key) != wanted:
                return f"events of {'/'.join(key)}: {mine.get(key)}, recorded {wanted}"
        for key, found in mine.items():
            if key not in recorded:
                return f"events of {'/'.join(key)}: {found}, recorded none"
        return None

    def _compare_writes(self, step: Json, writes: list[list[Any]], varies: Json) -> str | None:
        recorded = step.get("writes") or []
        if varies.get("writes") or self._counts_masked or recorded == writes:
            return None
        return f"writes: {writes}, recorded {recorded}"


# -- tables -----------------------------------------------------------------------------------------------------------


def _replay_tables(data: Json) -> Iterator[Outcome]:
    _, minor, _ = parse_version(data["version"])
    tables: dict[str, Callable[[Json, int], str | None]] = {
        "hash": _hash_row,
        "fenceposts": _fenceposts_row,
        "proportion": _proportion_row,
        "daemonset": _daemonset_row,
    }
    for name, rows in data.items():
        if isinstance(rows, list):
            for i, row in enumerate(rows):
                check = tables.get(name)
                difference = f"table {name} is not modelled yet" if check is None else check(row, minor)
                yield Outcome(f"{name}-{i + 1:03d}", f"tables/{name}", difference)


def _expect(**pairs: tuple[Any, Any]) -> str | None:
    for name, (mine, recorded) in pairs.items():
        if mine != recorded:
            return f"{name}: {mine}, recorded {recorded}"
    return None


def _hash_row(row: Json, minor: int) -> str | None:
    template = default_pod_template(row["template"])
    return _expect(
        dump=(dump_template(template, minor), row["dump"]),
        dump_of_defaulted=(dump_template(row["defaulted"], minor), row["dump"]),
        hash=([template_hash(template, minor, count) for count in (None, 0, 1, 2)], row["hash"]),
    )


def _fenceposts_row(row: Json, minor: int) -> str | None:
    desired = row["replicas"]
    surge, unavailable = resolve_fenceposts(row["maxSurge"], row["maxUnavailable"], desired)
    most = max_unavailable(unavailable, desired)
    sizes = [[new, old, new_rs_new_replicas(desired, surge, new + old, new)] for new, old, _ in row["new_rs"]]
    return _expect(
        surge=(surge, row["surge"]),
        unavailable=(unavailable, row["unavailable"]),
        MaxSurge=(surge, row["MaxSurge"]),
        MaxUnavailable=(most, row["MaxUnavailable"]),
        MinAvailable=(desired - most, row["MinAvailable"]),
        new_rs=(sizes, row["new_rs"]),
    )


def _proportion_row(row: Json, minor: int) -> str | None:
    annotated = row["rs_max_replicas_annotation"]
    desired, size = row["deployment_replicas"], row["rs_replicas"]
    fraction = replica_set_fraction(
        size, desired, row["max_surge"], int(annotated) if annotated else None, desired
    )
    return _expect(
        proportion=(replica_set_proportion(size, fraction, row["to_add"], row["added"]), row["proportion"])
    )


def _daemonset_row(row: Json, minor: int) -> str | None:
    nodes, most = row["nodes"], row["maxUnavailable"]
    return _expect(
        surge=(scaled_value(row["maxSurge"], nodes, True), row["surge"]),
        unavailable=(scaled_value(most, nodes, True), row["unavailable"]),
        value_rounded_down=(scaled_value(most, nodes, False), row["value_rounded_down"]),
        value_rounded_up=(scaled_value(most, nodes, True), row["value_rounded_up"]),
    )

