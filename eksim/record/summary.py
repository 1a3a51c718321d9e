"""The figures of a run without its tables: what a sweep keeps of each configuration.

Hears only of what it counts, so that thousands of runs a second stay possible.
"""

from __future__ import annotations

from typing import Any

from eksim.engine.clock import Clock
from eksim.record.recorder import Table
from eksim.state.changes import Verb
from eksim.state.objects import Pod
from eksim.state.store import Store


class SummaryRecorder:
    """Counts of a run: ``ec2_calls``, ``subnet_free_min``, and the start-up time of each pod (created to Running)."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self.clock = clock
        self.ec2_calls = 0
        self.subnet_free_min: int | None = None
        self.starts_s: list[float] = []
        self._waiting: dict[str, Pod] = {}
        store.watch(Verb.POD_CREATED, self._created)
        store.watch(Verb.POD_STATUS, self._status)
        store.watch(Verb.SUBNET_CHANGED, self._subnet)
        store.watch(Verb.EC2_CALL, self._call)

    def _created(self, pod: Pod, _: Any) -> None:
        self._waiting[pod.key] = pod

    def _status(self, pod: Pod, _: Any) -> None:
        if pod.phase == "Running" and self._waiting.pop(pod.key, None) is not None:
            self.starts_s.append(self.clock.now - pod.created_s)

    def _subnet(self, subnet: Any, _: Any) -> None:
        if self.subnet_free_min is None or subnet.free < self.subnet_free_min:
            self.subnet_free_min = subnet.free

    def _call(self, _call: Any, _: Any) -> None:
        self.ec2_calls += 1

    def start_quantile_s(self, q: float) -> float | None:
        """The q-th quantile of the start-up times (the smallest value that at least that share does not exceed)."""
        times = sorted(self.starts_s)
        return times[max(0, min(len(times) - 1, int(-(-q * len(times) // 1)) - 1))] if times else None

    def finish(self) -> dict[str, Table]:
        """No tables."""
        return {}
