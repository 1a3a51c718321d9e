"""The clock: a SimPy environment with timers by absolute time and a fixed order within an instant.

SimPy keeps the heap and runs processes; eksim adds what a simulation of periodic real components needs: instants given
absolutely (a delay added to "now" misses its instant by one float step now and then, enough to reorder two equal
instants), light timers for the many short reactions, and a declared order of component kinds at equal times.
Called by every component; calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any

import simpy

#: Order at equal times: smaller first; then the order of arming. 0 and 1 are SimPy's own (URGENT, NORMAL: processes).
NETWORK = 2
NODE_AGENT = 3
CONTROLLER = 4
SCHEDULER = 5
STEPS = 6
OBSERVER = 7

INFINITY = float("inf")

ProcessGenerator = Generator[Any, Any, Any]


class Timer:
    """One armed call of ``fn(*args)`` at ``when``; ``cancel`` makes it do nothing. Made by :meth:`Clock.call_at`."""

    __slots__ = ("args", "callbacks", "fn", "when")
    _ok = True

    def __init__(self, when: float, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.when = when
        self.fn: Callable[..., None] | None = fn
        self.args = args
        self.callbacks: list[Callable[[Any], None]] | None = [_fire]

    @property
    def pending(self) -> bool:
        """Whether the call is still to come."""
        return self.fn is not None

    def cancel(self) -> None:
        """Do nothing when due. The heap entry stays until then (it costs one pop)."""
        self.fn = None


def _fire(timer: Timer) -> None:
    fn = timer.fn
    if fn is not None:
        timer.fn = None
        fn(*timer.args)


class Clock:
    """Simulated time in float seconds since the start of the run; ``env`` is the SimPy environment behind it."""

    def __init__(self) -> None:
        self.env = simpy.Environment()
        # SimPy has no public way to schedule at an absolute time; its heap of (time, priority, sequence, event) is
        # the one structure both kinds of event share.
        self._queue: Any = self.env._queue
        self._sequence = self.env._eid

    @property
    def now(self) -> float:
        """Seconds since the start of the run."""
        return self.env._now

    def call_at(self, when: float, rank: int, fn: Callable[..., None], *args: Any) -> Timer:
        """Call ``fn(*args)`` at the absolute time ``when`` (not before now), in the order of ``rank``."""
        now = self.env._now
        timer = Timer(when if when > now else now, fn, args)
        heappush(self._queue, (timer.when, rank, next(self._sequence), timer))
        return timer

    def call_after(self, delay_s: float, rank: int, fn: Callable[..., None], *args: Any) -> Timer:
        """Call ``fn(*args)`` ``delay_s`` seconds from now."""
        return self.call_at(self.env._now + delay_s, rank, fn, *args)

    def process(self, generator: ProcessGenerator) -> simpy.Process:
        """Run a generator as a SimPy process; it yields SimPy events (``clock.sleep_until(t)``, other processes)."""
        return self.env.process(generator)

    def sleep_until(self, when: float, rank: int = NETWORK) -> simpy.Event:
        """An event that a process may yield: happens at the absolute time ``when``."""
        event = simpy.Event(self.env)
        event._ok = True
        event._value = None
        now = self.env._now
        heappush(self._queue, (when if when > now else now, rank, next(self._sequence), event))
        return event

    def sleep(self, delay_s: float, rank: int = NETWORK) -> simpy.Event:
        """An event that a process may yield: happens ``delay_s`` seconds from now."""
        return self.sleep_until(self.env._now + delay_s, rank)

    def next_time(self) -> float:
        """Time of the next event; infinity if there is none."""
        return self._queue[0][0] if self._queue else INFINITY

    def run_instant(self) -> bool:
        """Run everything at the next instant, what arises there included; False if nothing is left."""
        if not self._queue:
            return False
        self.run_until(self._queue[0][0])
        return True

    def run_until(self, when: float) -> None:
        """Run every event up to and including ``when``; then the time is ``when``."""
        queue = self._queue
        env = self.env
        while queue and queue[0][0] <= when:
            item = heappop(queue)
            event = item[3]
            env._now = item[0]
            if type(event) is Timer:
                fn = event.fn
                if fn is not None:
                    event.fn = None
                    fn(*event.args)
            else:
                callbacks, event.callbacks = event.callbacks, None
                for callback in callbacks:
                    callback(event)
                if not event._ok and not hasattr(event, "_defused"):
                    raise event._value
        if env._now < when < INFINITY:
            env._now = when


class Grid:
    """The phase of a periodic loop: ``start + k * period``, reckoned by multiplication so that it never drifts."""

    __slots__ = ("period_s", "start_s")

    def __init__(self, start_s: float, period_s: float) -> None:
        self.start_s = start_s
        self.period_s = period_s

    def at_or_after(self, when: float) -> float:
        """The first grid point not before ``when``."""
        k = int((when - self.start_s) / self.period_s)
        point = self.start_s + k * self.period_s
        while point < when:
            k += 1
            point = self.start_s + k * self.period_s
        return point

    def after(self, when: float) -> float:
        """The first grid point strictly after ``when``."""
        point = self.at_or_after(when)
        if point > when:
            return point
        k = round((point - self.start_s) / self.period_s) + 1
        return self.start_s + k * self.period_s
