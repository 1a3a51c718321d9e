"""The controller manager: builds the controllers, starts them, knows when they are quiet.

Mimics kube-controller-manager as far as pods and their addresses depend on it; controllers are picked by their names.
Called by whoever builds a cluster, and by the replay of recorded runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.kube.controllers.base import ApiClient, ControllerSettings, Namer, StreamNamer, TokenBucket, WorkQueue
from eksim.kube.controllers.daemonset import DaemonSetController
from eksim.kube.controllers.deployment import DeploymentController
from eksim.kube.controllers.garbage import GarbageCollector
from eksim.kube.controllers.informers import Informers, Templates
from eksim.kube.controllers.podgc import PodCollector
from eksim.kube.controllers.replicaset import ReplicaSetController
from eksim.parts import EventRecorder
from eksim.state.objects import Pod
from eksim.state.store import Store
from eksim.versions import KubernetesRules


class Controller(Protocol):
    """What the manager asks of a controller."""

    queue: WorkQueue

    def start(self) -> None:
        """Take up what is in the store."""

    @property
    def busy(self) -> bool:
        """Whether there is work that will still change something."""


class Controllers:
    """All controllers over one store.

    ``recorder_for(component)`` gives the recorder for ``deployment-controller``, ``replicaset-controller``, …. ``names``:
    which controllers run. ``shuffled``: the order in which pods are seen where the real one is arbitrary (default: drawn
    from the stream ``controllers/order``). ``refuse(kind, generate_name)``: admission's answer to a creation.
    """

    def __init__(
        self,
        clock: Clock,
        store: Store,
        streams: Streams,
        rules: KubernetesRules,
        recorder_for: Callable[[str], EventRecorder],
        settings: ControllerSettings | None = None,
        *,
        names: Iterable[str] = ("deployment", "replicaset", "daemonset", "garbage", "podgc"),
        namer: Namer | None = None,
        shuffled: Callable[[Sequence[Pod]], Sequence[Pod]] | None = None,
        refuse: Callable[[str, str], Refused | None] | None = None,
    ) -> None:
        self.settings = settings or ControllerSettings()
        self.rules = rules
        self.clock = clock
        self.store = store
        self.namer: Namer = namer or StreamNamer(streams["names"])
        self.informers = Informers(store)
        self.templates = Templates(rules)
        self.recorder_for = recorder_for
        self.refuse = refuse
        if shuffled is None:
            order = streams["controllers/order"]
            shuffled = order.shuffled
        self.shuffled = shuffled
        self.running: dict[str, Controller] = {}
        wanted = list(names)
        for name in wanted:
            if name not in FACTORIES:
                raise ValueError(f"no controller is called {name!r}; there are {', '.join(FACTORIES)}")
        for name, factory in FACTORIES.items():
            if name in wanted:
                self.running[name] = factory(self)

    def start(self) -> None:
        """Take up what the store holds."""
        for controller in self.running.values():
            controller.start()

    def is_quiet(self) -> bool:
        """Whether no controller has work at hand; what waits for a later time (retries, deadlines) does not count."""
        for controller in self.running.values():  # noqa: SIM110 - half the cost of a generator
            if controller.busy:
                return False
        return True

    def client(self) -> ApiClient:
        """A client with a rate limit of its own, as each controller has."""
        bucket = TokenBucket(self.clock, self.settings.client_qps, self.settings.client_burst)
        return ApiClient(self.store, bucket, self.namer, self.refuse)


def _deployment(manager: Controllers) -> Controller:
    return DeploymentController(
        manager.clock,
        manager.store,
        manager.informers,
        manager.templates,
        manager.client(),
        manager.recorder_for("deployment-controller"),
        manager.rules.controllers,
        manager.settings,
    )


def _replicaset(manager: Controllers) -> Controller:
    return ReplicaSetController(
        manager.clock,
        manager.store,
        manager.informers,
        manager.templates,
        manager.client(),
        manager.recorder_for("replicaset-controller"),
        manager.rules.controllers,
        manager.settings,
        manager.shuffled,
    )


def _daemonset(manager: Controllers) -> Controller:
    return DaemonSetController(
        manager.clock,
        manager.store,
        manager.informers,
        manager.templates,
        manager.client(),
        manager.recorder_for("daemonset-controller"),
        manager.rules.controllers,
        manager.settings,
        manager.shuffled,
    )


def _garbage(manager: Controllers) -> Controller:
    return GarbageCollector(manager.clock, manager.store, manager.informers, manager.client())


def _podgc(manager: Controllers) -> Controller:
    return PodCollector(
        manager.clock,
        manager.store,
        manager.client(),
        sets_condition=manager.rules.scheduler.disruption_target,
    )


#: Controllers by name, in the order in which they are built (and hear of changes).
FACTORIES: dict[str, Callable[[Controllers], Controller]] = {
    "deployment": _deployment,
    "replicaset": _replicaset,
    "daemonset": _daemonset,
    "garbage": _garbage,
    "podgc": _podgc,
}
