"""The clock: a SimPy environment with timers by absolute time and a fixed order within an instant.

SimPy keeps the heap and runs processes; eksim adds what a simulation of periodic real components needs: instants given
absolutely (a delay added to "now" misses its instant by one float step now and then, enough to reorder two equal
instants), light timers for the many short reactions, and a declared order of component kinds at equal times.
Called by every component; calls nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import heappop, heappush
from typing import Any, Protocol

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

    __slots__ = ("args", "fn", "when")

    def __init__(self, when: float, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.when = when
        self.fn: Callable[..., None] | None = fn
        self.args = args

    @property
    def pending(self) -> bool:
        """Whether the call is still to come."""
        return self.fn is not None

    def cancel(self) -> None:
        """Do nothing when due. The heap entry stays until then (it costs one pop)."""
        self.fn = None

    def fire(self) -> None:
        """Make the call, unless cancelled; the clock's own loop has this written out."""
        fn = self.fn
        if fn is not None:
            self.fn = None
            args, self.args = self.args, ()  # what is done holds nothing
            fn(*args)


class Busy(Protocol):
    """What says by a count whether it has work at hand."""

    @property
    def busy(self) -> int:
        """How many things it is doing."""


class _Never:
    """Has no work."""

    __slots__ = ()
    busy = 0


_NEVER_BUSY = _Never()


class _Environment(simpy.Environment):
    """SimPy's environment, whose time is the clock's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__()

    @property
    def _now(self) -> float:
        return self._clock.now

    @_now.setter
    def _now(self, when: float) -> None:
        self._clock.now = when


class Clock:
    """Simulated time in float seconds since the start of the run; ``env`` is the SimPy environment behind it.

    Two heaps share one order (time, rank, sequence): SimPy's own, for processes, and that of the light timers, whose entries
    are bare tuples. ``now`` is kept equal in both.
    """

    __slots__ = ("_next", "_queue", "_timers", "env", "now")

    def __init__(self) -> None:
        self.env = _Environment(self)
        #: Seconds since the start of the run; read-only for everybody else.
        self.now = 0.0
        # SimPy has no public way to schedule at an absolute time; its heap of (time, priority, sequence, event) is the
        # structure that its processes wait in, and its counter gives the order within an instant.
        self._queue: Any = self.env._queue
        self._next = self.env._eid.__next__
        # (time, rank, sequence, function, arguments), or (time, rank, sequence, timer, None); no two sequences are equal,
        # in SimPy's heap neither, so that entries of both compare as they are
        self._timers: list[tuple[float, int, int, Any, Any]] = []

    def arm(self, when: float, rank: int, fn: Callable[..., None], *args: Any) -> None:
        """Call ``fn(*args)`` at the absolute time ``when`` (not before now), in the order of ``rank``; not to be cancelled."""
        if when < self.now:
            when = self.now
        heappush(self._timers, (when, rank, self._next(), fn, args))

    def call_at(self, when: float, rank: int, fn: Callable[..., None], *args: Any) -> Timer:
        """Like :meth:`arm`, with a handle that can cancel it."""
        now = self.now
        if when < now:
            when = now
        timer = Timer(when, fn, args)
        heappush(self._timers, (when, rank, self._next(), timer, None))
        return timer

    def call_after(self, delay_s: float, rank: int, fn: Callable[..., None], *args: Any) -> Timer:
        """Call ``fn(*args)`` ``delay_s`` seconds from now, with a handle that can cancel it."""
        return self.call_at(self.now + delay_s, rank, fn, *args)

    def process(self, generator: ProcessGenerator) -> simpy.Process:
        """Run a generator as a SimPy process; it yields SimPy events (``clock.sleep_until(t)``, other processes)."""
        return self.env.process(generator)

    def sleep_until(self, when: float, rank: int = NETWORK) -> simpy.Event:
        """An event that a process may yield: happens at the absolute time ``when``."""
        event = simpy.Event(self.env)
        event._ok = True
        event._value = None
        heappush(self._queue, (when if when > self.now else self.now, rank, self._next(), event))
        return event

    def sleep(self, delay_s: float, rank: int = NETWORK) -> simpy.Event:
        """An event that a process may yield: happens ``delay_s`` seconds from now."""
        return self.sleep_until(self.now + delay_s, rank)

    def next_time(self) -> float:
        """Time of the next event; infinity if there is none."""
        timers = self._timers[0][0] if self._timers else INFINITY
        return min(timers, self._queue[0][0]) if self._queue else timers

    def run_instant(self) -> bool:
        """Run everything at the next instant, what arises there included; False if nothing is left."""
        when = self.next_time()
        if when == INFINITY:
            return False
        self.run_until(when)
        return True

    def run_until(self, when: float) -> None:
        """Run every event up to and including ``when``; then the time is ``when``."""
        if when < self.now:
            return
        self._run(None, when, _NEVER_BUSY)
        if self.now < when < INFINITY:
            self.now = when

    def run_till(self, holds: Callable[[], bool], until: float, unless: Busy | None = None) -> bool:
        """Run instant by instant until ``holds()`` after one; False if it does not by ``until`` or when nothing is left.

        ``unless``: while its ``busy`` is not 0, ``holds()`` is known to be false and not asked.
        """
        return self._run(holds, until, _NEVER_BUSY if unless is None else unless)

    def _run(self, holds: Callable[[], bool] | None, until: float, unless: Busy) -> bool:
        queue = self._queue
        timers = self._timers
        now = self.now
        pop = heappop
        while True:
            if timers and not (queue and queue[0] < timers[0]):
                when = timers[0][0]
                if when != now:
                    if holds is not None and not unless.busy and holds():
                        return True
                    if when > until:
                        return False
                    self.now = now = when
                _, _, _, fn, args = pop(timers)
                if args is not None:
                    if len(args) == 1:  # the interpreter makes plain calls without one of its own
                        fn(args[0])
                    elif args:
                        fn(*args)
                    else:
                        fn()
                    continue
                call = fn.fn
                if call is not None:
                    args = fn.args
                    fn.fn = None
                    fn.args = ()  # what is done holds nothing
                    call(*args)
            elif queue:
                when = queue[0][0]
                if when != now:
                    if holds is not None and not unless.busy and holds():
                        return True
                    if when > until:
                        return False
                    self.now = now = when
                event = pop(queue)[3]
                callbacks, event.callbacks = event.callbacks, None
                for callback in callbacks:
                    callback(event)
                if not event._ok and not hasattr(event, "_defused"):
                    raise event._value
            else:
                return holds is not None and holds()

    def clear(self) -> None:
        """Forget everything that was still to come: the run is over."""
        self._timers.clear()
        self._queue.clear()


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
