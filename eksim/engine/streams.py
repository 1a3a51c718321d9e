"""Seeded randomness by name, and latency distributions.

Each component is handed streams by name; a stream's seed is a hash of (run seed, name), so adding a component leaves the
others' draws alone. Values come from raw uniform draws with eksim's own transforms, so that they do not change with a
library's release. Latencies are rounded to 1 µs.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

T = TypeVar("T")


class Stream:
    """One named sequence of random draws."""

    __slots__ = ("_bits", "_seed", "random")

    #: Uniform in [0, 1); documented to be stable over Python releases.
    random: Callable[[], float]
    _bits: Callable[[int], int]

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __getattr__(self, name: str) -> Any:
        """The generator is made when first needed: seeding one costs as much as a hundred draws, and most are never used."""
        if name not in ("random", "_bits"):
            raise AttributeError(name)
        generator = random.Random(self._seed)
        self.random = generator.random
        self._bits = generator.getrandbits
        return getattr(self, name)

    def randrange(self, n: int) -> int:
        """Uniform in 0 … n − 1."""
        return int(self.random() * n) if n < 1 << 32 else self._bits(n.bit_length() + 64) % n

    def bits(self, count: int) -> int:
        """``count`` random bits."""
        return self._bits(count)

    def choice(self, items: Sequence[T]) -> T:
        """One of ``items``, each with the same probability."""
        return items[int(self.random() * len(items))]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """A copy in random order (Fisher–Yates)."""
        out = list(items)
        for i in range(len(out) - 1, 0, -1):
            j = int(self.random() * (i + 1))
            out[i], out[j] = out[j], out[i]
        return out

    def normal(self) -> float:
        """Standard normal (Box–Muller, the cosine half)."""
        return math.sqrt(-2.0 * math.log(1.0 - self.random())) * math.cos(2.0 * math.pi * self.random())


class Streams:
    """The run's streams: ``streams["kubelet/pull"]`` is the same sequence in every run with the same seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._made: dict[str, Stream] = {}

    def __getitem__(self, name: str) -> Stream:
        stream = self._made.get(name)
        if stream is None:
            stream = self._made[name] = Stream(_seed_of(self.seed, name))
        return stream


@lru_cache(maxsize=4096)
def _seed_of(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def microseconds(seconds: float) -> float:
    """A duration (not negative) to the nearest whole microsecond, in seconds; half the cost of ``round``."""
    return int(seconds * 1e6 + 0.5) / 1e6


@dataclass(frozen=True, slots=True)
class Latency:
    """A duration's distribution: ``constant`` (a), ``uniform`` (a … b) or ``lognormal`` (a median, b 95th percentile).

    Seconds. ``Latency("constant", 0)`` draws nothing from its stream.
    """

    kind: str
    a: float
    b: float = 0.0

    def draw(self, stream: Stream) -> float:
        """One duration in seconds, rounded to 1 µs."""
        kind = self.kind
        if kind == "constant":
            return self.a
        if kind == "uniform":
            return microseconds(self.a + (self.b - self.a) * stream.random())
        sigma = math.log(self.b / self.a) / 1.6448536269514722
        return microseconds(self.a * math.exp(sigma * stream.normal()))


def sampler(latency: Latency, stream: Stream) -> Callable[[], float]:
    """A function that draws, for a latency that is drawn often; the same values as :meth:`Latency.draw`."""
    a = latency.a
    if latency.kind == "constant":
        return lambda: a
    if latency.kind == "uniform":
        span = latency.b - a
        return lambda: int((a + span * stream.random()) * 1e6 + 0.5) / 1e6  # microseconds, written out
    return lambda: latency.draw(stream)


NO_LATENCY = Latency("constant", 0.0)
