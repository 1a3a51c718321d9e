"""The work queue keeps client-go's times."""

from __future__ import annotations

import pytest

from eksim.engine.clock import Clock
from eksim.kube.controllers.base import TokenBucket, WorkQueue


class Worker:
    """Notes when its keys are processed; fails the first ``failures`` times."""

    def __init__(self, failures: int = 0) -> None:
        self.clock = Clock()
        self.failures = failures
        self.seen: list[tuple[float, str]] = []
        self.queue = WorkQueue(self.clock, self.process)

    def process(self, key: str) -> None:
        self.seen.append((round(self.clock.now, 6), key))
        if self.failures > 0:
            self.failures -= 1
            self.queue.add_rate_limited(key)
        else:
            self.queue.forget(key)
        self.queue.done(key)


def test_a_failing_key_comes_back_after_5_ms_doubling() -> None:
    worker = Worker(failures=6)
    worker.queue.add("a")
    worker.clock.run_until(100.0)
    assert [t for t, _ in worker.seen] == pytest.approx([0, 0.005, 0.015, 0.035, 0.075, 0.155, 0.315])


def test_a_key_added_twice_is_processed_once() -> None:
    worker = Worker()
    for key in ("a", "b", "a"):
        worker.queue.add(key)
    worker.clock.run_until(1.0)
    assert worker.seen == [(0.0, "a"), (0.0, "b")]


def test_of_two_delays_the_earlier_holds() -> None:
    worker = Worker()
    worker.queue.add_after("a", 5.0)
    worker.queue.add_after("a", 9.0)
    worker.queue.add_after("b", 9.0)
    worker.queue.add_after("b", 5.0)
    worker.clock.run_until(20.0)
    assert worker.seen == [(5.0, "a"), (5.0, "b")]


def test_a_key_added_while_it_is_processed_comes_again() -> None:
    worker = Worker()
    original = worker.process

    def process(key: str) -> None:
        if len(worker.seen) == 0:
            worker.queue.add(key)
        original(key)

    worker.queue = WorkQueue(worker.clock, process)
    worker.queue.add("a")
    worker.clock.run_until(0.0)
    assert worker.seen == [(0.0, "a"), (0.0, "a")]
    assert not worker.queue.busy


def test_a_client_of_20_a_second_and_30_at_once_makes_1000_requests_in_48_and_a_half_seconds() -> None:
    bucket = TokenBucket(Clock(), 20.0, 30)
    waits = [bucket.reserve() for _ in range(1000)]
    assert waits[29] == 0.0
    assert waits[30] == pytest.approx(0.05)
    assert waits[-1] == pytest.approx(48.5)
