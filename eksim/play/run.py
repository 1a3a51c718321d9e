"""Build, play, record, finish: the way of every run, from the command line, a sweep or a notebook.

Ctrl-C (:class:`KeyboardInterrupt`) keeps what is whole: the result is marked incomplete. So does a step that waits for
what does not come about, and a run whose time stands still; the result says what stopped it.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from eksim import __version__
from eksim.cluster import Cluster, build
from eksim.engine.calm import calm_gc
from eksim.engine.clock import INFINITY
from eksim.errors import EksimError, NotReached, Standstill
from eksim.play.expect import check, pod_counts
from eksim.play.judge import watch
from eksim.play.steps import Player
from eksim.record.result import Result
from eksim.scenario.load import LoadedScenario, load_scenario
from eksim.scenario.schema import Expectation, Step
from eksim.views.explain import NOTHING

#: The longest a run goes on after its last step while waiting to settle, in simulated seconds.
SETTLE_LIMIT_S = 3600.0

Progress = Callable[[float, dict[str, int]], None]


def run(
    path: Path | str | LoadedScenario,
    *,
    seed: int | None = None,
    results: Path | str | None = None,
    progress: Progress | None = None,
) -> Result:
    """Run a scenario file and return its :class:`Result`.

    ``seed``: instead of the scenario's; ``results``: a directory to write to (none: nothing is written); ``progress`` is
    called with (simulated seconds, pods by phase) after each instant. Raises InputError for a scenario that cannot be
    used or a step that cannot be done; NotReached or Standstill for a run that cannot go on, after what came before is
    written.
    """
    loaded = path if isinstance(path, LoadedScenario) else load_scenario(path)
    chosen = loaded.scenario.seed if seed is None else seed
    result = play_so_far(loaded, chosen, progress)
    if results is not None:
        result.save(results)
    if result.stopped is not None:
        raise result.stopped
    return result


def play(loaded: LoadedScenario, seed: int, progress: Progress | None = None) -> Result:
    """Play a loaded scenario to its end; nothing is written. Raises InputError or Standstill if a step cannot be done."""
    result = play_so_far(loaded, seed, progress)
    if result.stopped is not None:
        raise result.stopped
    return result


def play_so_far(loaded: LoadedScenario, seed: int, progress: Progress | None = None) -> Result:
    """Play a loaded scenario to its end, or to where it has to stop (``Result.stopped`` says why)."""
    with calm_gc():
        return _play(loaded, seed, progress)


def _play(loaded: LoadedScenario, seed: int, progress: Progress | None) -> Result:
    cluster = build(loaded, seed, prepare=watch if _asks_for_history(loaded) else None)
    player = Player(cluster, loaded)
    timed = [(float(e.at), i, e) for i, e in enumerate(loaded.scenario.expect) if e.at != "end"]
    stage = _Stage(cluster, player, sorted(timed, key=lambda p: p[:2]), progress)
    complete = True
    stopped: EksimError | None = None
    try:
        stage.play()
        if stage.pending:
            stage.advance_to(stage.pending[-1][0])
        for i, expectation in enumerate(loaded.scenario.expect):
            if expectation.at == "end":
                player.failures += check(cluster, expectation, f"expect[{i}]")
    except KeyboardInterrupt:
        complete = False
    except (NotReached, Standstill) as error:
        complete = False
        stopped = error
    result = _finish(cluster, player, loaded, seed, complete)
    result.stopped = stopped
    return result


def _asks_for_history(loaded: LoadedScenario) -> bool:
    """Whether an expectation wants the invariants judged that need all of the run."""
    scenario = loaded.scenario
    expectations = [*scenario.expect, *(step.expect for step in scenario.steps if step.expect is not None)]
    return any(expectation.invariants == "history" for expectation in expectations)


def perform(cluster: Cluster, loaded: LoadedScenario) -> float | None:
    """Play a scenario's steps on a built cluster without judging its expectations.

    Returns the simulated seconds at which it was settled, or None if it was not within the limit.
    """
    return _Stage(cluster, Player(cluster, loaded), [], None).play()


class _Stage:
    """Moves the clock to where the next step wants it, judging timed expectations on the way."""

    def __init__(
        self,
        cluster: Cluster,
        player: Player,
        pending: list[tuple[float, int, Expectation]],
        progress: Progress | None,
    ) -> None:
        self.cluster = cluster
        self.player = player
        self.pending = pending
        self.progress = progress

    def play(self) -> float | None:
        """All steps, then the run's length or until it is settled; returns when it was settled (None: it is not)."""
        scenario = self.player.loaded.scenario
        for index, step in enumerate(scenario.steps):
            self.reach(step, index)
            self.player.act(index, step)
        if scenario.run_for is not None:
            self.advance_to(scenario.run_for)
            return self.cluster.clock.now if self.cluster.is_settled() else None
        return self.cluster.clock.now if self._wait_for(self.cluster.is_settled, SETTLE_LIMIT_S) else None

    def reach(self, step: Step, index: int) -> None:
        """Wait as the step says."""
        if step.at is not None:
            self.advance_to(step.at)
        if step.until is not None:
            self._until(step, index)
        if step.after is not None:
            self.advance_to(self.cluster.clock.now + step.after)

    def advance_to(self, when: float) -> None:
        """Run everything up to and including ``when``."""
        clock = self.cluster.clock
        while self.pending and self.pending[0][0] <= when:
            at, i, expectation = self.pending.pop(0)
            self._run_to(at)
            self.player.failures += check(self.cluster, expectation, f"expect[{i}] at {at:g} s")
        if when > clock.now or clock.next_time() <= when:
            self._run_to(when)

    def _run_to(self, when: float) -> None:
        clock = self.cluster.clock
        if self.progress is None:
            clock.run_until(when)
            return
        while clock.next_time() <= when:
            clock.run_instant()
            self.progress(clock.now, pod_counts(self.cluster))
        clock.run_until(when)

    def _wait_for(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Advance instant by instant until the condition holds; False if it does not within the limit."""
        clock = self.cluster.clock
        deadline = clock.now + limit_s
        self.advance_to(clock.now)
        if self.progress is None and not self.pending:
            settling = condition == self.cluster.is_settled
            return clock.run_till(condition, deadline, self.cluster.kubelet if settling else None)
        while not condition():
            upcoming = clock.next_time()
            if upcoming > deadline or upcoming == INFINITY:
                return False
            self.advance_to(upcoming)
        return True

    def _until(self, step: Step, index: int) -> None:
        assert step.until is not None
        condition = self.cluster.condition(step.until)
        if not self._wait_for(condition, step.timeout):
            error = NotReached(
                f"{step.until!r} did not come about within {step.timeout:g} s of simulated time "
                f"(now {self.cluster.clock.now:g} s; {_counts_text(pod_counts(self.cluster))})",
                expected="a condition that comes about, or a longer timeout",
            )
            raise self.player.loaded.located(error, ("steps", index))


def _counts_text(counts: dict[str, int]) -> str:
    return ", ".join(f"{v} {k}" for k, v in counts.items() if v and k[0].isupper())


def _finish(cluster: Cluster, player: Player, loaded: LoadedScenario, seed: int, complete: bool) -> Result:
    counts = pod_counts(cluster)
    scenario = loaded.scenario
    tables = cluster.recorder.finish() if cluster.recorder is not None else {}
    player.remember("end")
    # what bound at the end, else when it last did
    binding = [m for m in player.moments if m["bound_by"] != NOTHING]
    cause = player.moments[-1] if not binding else binding[-1]
    usage = cluster.usage()
    nodes: list[dict[str, Any]] = []
    for name, node in cluster.store.nodes.items():
        enis, total, assigned, cooling = cluster.pool_stats(name)
        nodes.append(
            {
                "node": name,
                "instance_type": node.facts.get("instance_type"),
                "pods": sum(
                    p.phase not in ("Succeeded", "Failed") for p in cluster.store.pods_by_node.get(name, {}).values()
                ),
                "max_pods": node.allocatable.get("pods", 0),
                "devices": cluster.devices_of(name),
                "enis": enis,
                "addresses_total": total,
                "addresses_assigned": assigned,
                "addresses_cooling": cooling,
            }
        )
    summary: dict[str, Any] = {
        "scenario": scenario.name,
        "scenario_hash": loaded.hash,
        "seed": seed,
        "versions": {
            "eksim": __version__,
            "python": platform.python_version(),
            "kubernetes": scenario.cluster.kubernetes_version,
            "vpc_cni": scenario.cluster.vpc_cni.version,
        },
        "start": scenario.start,
        "complete": complete,
        "end_s": cluster.clock.now,
        "pods": counts,
        "max_pods_set": sorted({g.max_pods for g in scenario.cluster.node_groups if g.max_pods is not None}),
        "losses": sum(s.fault is not None and bool(s.fault.lose_eni or s.fault.lose_addresses) for s in scenario.steps),
        "env_changes": sum(step.set_env is not None for step in scenario.steps),
        "nodes": nodes,
        "cause": cause["cause"],
        "cause_at_s": cause["time_s"],
        "bound_by": cause["bound_by"],
        "pending": player.moments[-1]["pending"],
        "moments": [{k: v for k, v in m.items() if k != "pending"} for m in player.moments],
        "address_limit": sum(usage.address_limit.values()),
        "subnets": {
            name: {"free": free, "used": used} for name, (_, free, used, _) in cluster.picture().subnets.items()
        },
        "rows": {name: _length(table) for name, table in tables.items()},
        "looks": [{"time_s": k.time_s, "command": k.command, "text": k.text} for k in player.looks],
        "failures": [
            {"where": f.where, "what": f.what, "expected": f.expected, "actual": f.actual} for f in player.failures
        ],
    }
    return Result(summary, player.looks, player.failures, tables)


def _length(table: Any) -> int:
    first = next(iter(table.columns.values()))
    return len(first.codes) if hasattr(first, "codes") else len(first)
