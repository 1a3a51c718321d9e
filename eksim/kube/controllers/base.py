"""What every controller stands on: the work queue with client-go's rate limits, and the throttled API client.

Mimics client-go's ``util/workqueue`` (dirty and processing sets, delayed adds, exponential and overall rate limit) and
``util/flowcontrol`` on the engine's clock. A queue with nothing to do costs nothing: a turn is armed when a key becomes
ready. Workers are not processes: keys are worked on one after another at the same instant, and a sync that must wait
for its client keeps its key in processing. Called by the controllers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from eksim.engine.clock import CONTROLLER, Clock, Timer
from eksim.engine.streams import Stream
from eksim.errors import Refused
from eksim.names import generate_name, uid
from eksim.state.objects import ApiObject, Pod
from eksim.state.store import Store

#: First retry of a failing key after 5 ms, doubling up to 1,000 s.
#: Source: kubernetes/staging/src/k8s.io/client-go/util/workqueue/default_rate_limiters.go, v1.34.1.
BASE_DELAY_S = 0.005
MAX_DELAY_S = 1000.0
QUEUE_QPS = 10.0
QUEUE_BURST = 100


class TokenBucket:
    """golang.org/x/time/rate's limiter: ``qps`` tokens a second, at most ``burst``; qps 0: no limit."""

    __slots__ = ("_clock", "burst", "last_s", "qps", "tokens")

    def __init__(self, clock: Clock, qps: float, burst: int) -> None:
        self._clock = clock
        self.qps = qps
        self.burst = burst
        self.tokens = float(burst)
        self.last_s = clock.now

    def reserve(self) -> float:
        """Take a token; the seconds to wait until it is there."""
        if self.qps <= 0:
            return 0.0
        now = self._clock.now
        tokens = self.tokens + (now - self.last_s) * self.qps
        if tokens > self.burst:
            tokens = float(self.burst)
        self.last_s = now
        self.tokens = tokens = tokens - 1.0
        return -tokens / self.qps if tokens < 0 else 0.0

    def debt(self) -> float:
        """Seconds until what has been taken is paid for."""
        if self.qps <= 0:
            return 0.0
        tokens = self.tokens + (self._clock.now - self.last_s) * self.qps
        # a debt too small to move the clock is none
        return -tokens / self.qps if tokens < -1e-6 else 0.0


class WorkQueue:
    """client-go's rate-limited delaying queue of keys; ``process(key)`` is called for each key whose turn it is.

    ``process`` calls :meth:`done` when the sync has ended. A key that is added while it is processed comes again after.
    Source: kubernetes/staging/src/k8s.io/client-go/util/workqueue/queue.go, delaying_queue.go, v1.34.1.
    """

    __slots__ = (
        "_armed",
        "_bucket",
        "_clock",
        "_dirty",
        "_failures",
        "_process",
        "_processing",
        "_queue",
        "_waiting",
        "_workers",
    )

    def __init__(self, clock: Clock, process: Callable[[str], None], workers: int = 1) -> None:
        self._clock = clock
        self._process = process
        self._workers = workers
        self._queue: deque[str] = deque()
        self._dirty: dict[str, None] = {}
        self._processing: dict[str, None] = {}
        self._waiting: dict[str, tuple[float, Timer]] = {}
        self._failures: dict[str, int] = {}
        self._bucket = TokenBucket(clock, QUEUE_QPS, QUEUE_BURST)
        self._armed = False

    def add(self, key: str) -> None:
        """Have the key processed now; it stands in the queue at most once."""
        if key in self._dirty:
            return
        self._dirty[key] = None
        if key in self._processing:
            return
        self._queue.append(key)
        if not self._armed and len(self._processing) < self._workers:
            self._arm()

    def add_after(self, key: str, delay_s: float) -> None:
        """Add the key in ``delay_s`` seconds. A key waits only once: the earlier time holds."""
        if delay_s <= 0:
            self.add(key)
            return
        when = self._clock.now + delay_s
        waiting = self._waiting.get(key)
        if waiting is not None:
            if waiting[0] <= when:
                return
            waiting[1].cancel()
        self._waiting[key] = (when, self._clock.call_at(when, CONTROLLER, self._waited, key))

    def add_rate_limited(self, key: str) -> None:
        """Add the key after its back-off, or when the overall limit allows it, whichever is later."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = BASE_DELAY_S * 2**failures if failures < 32 else MAX_DELAY_S
        self.add_after(key, max(min(delay, MAX_DELAY_S), self._bucket.reserve()))

    def forget(self, key: str) -> None:
        """The key's back-off starts anew."""
        if self._failures:
            self._failures.pop(key, None)

    def requeues(self, key: str) -> int:
        """How often in a row the key was added rate limited."""
        return self._failures.get(key, 0)

    def done(self, key: str) -> None:
        """The key's sync has ended."""
        del self._processing[key]
        if key in self._dirty:
            self._queue.append(key)
        if self._queue and not self._armed:
            self._arm()

    @property
    def busy(self) -> bool:
        """Whether a key is ready or being processed; what waits for a later time does not count."""
        return bool(self._queue or self._processing)

    @property
    def retrying(self) -> bool:
        """Whether a key waits for a retry after a failure."""
        return bool(self._failures)

    def _waited(self, key: str) -> None:
        del self._waiting[key]
        self.add(key)

    def _arm(self) -> None:
        self._armed = True
        clock = self._clock
        clock.arm(clock.now, CONTROLLER, self._turn)

    def _turn(self) -> None:
        self._armed = False
        if not self._queue or len(self._processing) >= self._workers:
            return
        key = self._queue.popleft()
        self._processing[key] = None
        del self._dirty[key]
        self._process(key)
        if self._queue and not self._armed and len(self._processing) < self._workers:
            self._arm()


class SyncFailed(Exception):
    """Leaves a sync early, as the real code returns its error up the stack; caught where the sync was called.

    Not an error of the simulation: ``refused`` is the API server's answer, and the key is tried again.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


class Namer(Protocol):
    """Gives new objects their random parts."""

    def generate(self, prefix: str, node: str = "") -> str:
        """The name for ``metadata.generateName``; ``node``: the node that a DaemonSet's pod is for."""

    def uid(self, kind: str, namespace: str, name: str) -> str:
        """``metadata.uid`` of a new object."""


class StreamNamer:
    """Names as the API server gives them, from a stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def generate(self, prefix: str, node: str = "") -> str:
        """See :class:`Namer`."""
        return generate_name(prefix, self._stream)

    def uid(self, kind: str, namespace: str, name: str) -> str:
        """See :class:`Namer`."""
        return uid(self._stream)


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a kube-controller-manager is started with, as far as it matters here.

    ``client_qps``, ``client_burst``: each controller's client (20 and 30 upstream; EKS publishes no figure; 0: no
    limit). ``burst_replicas``: pods made or deleted in one sync. ``skip_idle_syncs``: leave out syncs that would find
    nothing to do (the outcome is the same; off: every update syncs, as the real controllers do).
    """

    client_qps: float = 20.0
    client_burst: int = 30
    burst_replicas: int = 500
    deployment_workers: int = 5
    replicaset_workers: int = 5
    daemonset_workers: int = 2
    skip_idle_syncs: bool = True


class ApiClient:
    """A controller's client: the store's verbs for creations, with its own rate limit.

    ``refuse(kind, generate_name)``: the admission's answer to a creation, None to let it pass (quotas, webhooks).
    """

    __slots__ = ("_store", "bucket", "namer", "refuse")

    def __init__(
        self,
        store: Store,
        bucket: TokenBucket,
        namer: Namer,
        refuse: Callable[[str, str], Refused | None] | None = None,
    ) -> None:
        self._store = store
        self.bucket = bucket
        self.namer = namer
        self.refuse = refuse

    def create_pod(self, prefix: str, make: Callable[[str, str], Pod], namespace: str, node: str = "") -> Pod | Refused:
        """POST pods with ``generateName``; ``make(name, uid)`` builds the pod."""
        if self.refuse is not None:
            refused = self.refuse("Pod", prefix)
            if refused is not None:
                return refused
        for _ in range(8):  # the real server retries a clash of generated names, too
            name = self.namer.generate(prefix, node)
            created = self._store.create_pod(make(name, self.namer.uid("Pod", namespace, name)))
            if not isinstance(created, Refused):
                return created
        return created

    def create_object(self, obj: ApiObject) -> ApiObject | Refused:
        """POST of any other object with a name of its own; gives it its uid."""
        self.bucket.reserve()
        if self.refuse is not None:
            refused = self.refuse(obj.kind, obj.name)
            if refused is not None:
                return refused
        if not obj.uid:
            obj.uid = self.namer.uid(obj.kind, obj.namespace, obj.name)
        return self._store.create_object(obj)
