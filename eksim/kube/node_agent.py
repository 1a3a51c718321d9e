"""What a kubelet knows of its node: the pods it has taken, images, and its rate limits.

Called by ``kubelet`` and ``status_manager``.
"""

from __future__ import annotations

from typing import Any

from eksim.engine.clock import Grid, Timer
from eksim.state.objects import Node, Pod
from eksim.state.podspec import tolerates
from eksim.versions import KubeletRules

#: registryPullQPS, registryBurst: a surplus pull fails. Source: kubelet/images/helpers.go:throttledImageService.
PULL_QPS = 5.0
PULL_BURST = 10.0


class NodeAgent:
    """One node's kubelet: what it knows and its rate limits."""

    __slots__ = (
        "api_at",
        "api_tokens",
        "images",
        "name",
        "network_ready",
        "pull_at",
        "pull_tokens",
        "refused",
        "refused_at",
        "relist",
        "report_timer",
        "reports",
        "requested",
        "ticks",
        "workers",
    )  # fmt: skip

    def __init__(self, name: str, relist: Grid, ticks: Grid, burst: float) -> None:
        self.name = name
        self.workers: dict[str, PodWorker] = {}
        #: sums of the admitted pods' requests
        self.requested: dict[str, int] = {}
        self.network_ready = False
        #: image → when its pull ends or ended
        self.images: dict[str, float] = {}
        self.relist = relist
        self.ticks = ticks
        self.api_tokens = burst
        self.api_at = 0.0
        self.pull_tokens = PULL_BURST
        self.pull_at = 0.0
        #: when it last refused a pod, and how many at that instant
        self.refused_at = -1.0
        self.refused = 0
        #: status writes that wait for the API's rate limit, merged per pod
        self.reports: dict[str, tuple[Pod, dict[str, Any]]] = {}
        self.report_timer: Timer | None = None

    def admit(self, node: Node, pod: Pod, rules: KubeletRules) -> tuple[str, str] | None:
        """The kubelet's own predicates; the first failing one is reported: (reason, message). None: admitted.

        Source: kubernetes/pkg/kubelet/lifecycle/predicate.go:Admit, generalFilter.
        """
        # a terminating pod counts until its containers have ended; none here ends by itself
        active = len(self.workers)
        slots = node.allocatable.get("pods", 110)
        if active + 1 > slots:
            return _out_of("pods", 1, active, slots)
        for resource, asked in pod.spec.requests.items():
            if asked and resource in node.allocatable:
                used = self.requested.get(resource, 0)
                if used + asked > node.allocatable[resource]:
                    return _out_of(resource, asked, used, node.allocatable[resource])
        for taint in node.taints:
            if taint.effect == "NoExecute" and not tolerates(pod.spec.tolerations, taint):
                reason = rules.taint_reason(taint.key, taint.value)
                return "TaintToleration", f"Predicate TaintToleration failed: {reason}"
        return None

    def count_refusal(self, now: float) -> int:
        """A pod was refused; how many have been at this instant."""
        if now != self.refused_at:
            self.refused_at = now
            self.refused = 0
        self.refused += 1
        return self.refused

    def take_pull_token(self, now: float) -> bool:
        """Whether an image may be pulled now."""
        tokens = self.pull_tokens + (now - self.pull_at) * PULL_QPS
        self.pull_tokens = PULL_BURST if tokens > PULL_BURST else tokens
        self.pull_at = now
        if self.pull_tokens < 1.0:
            return False
        self.pull_tokens -= 1.0
        return True

    def take(self, pod: Pod) -> PodWorker:
        """A pod is admitted: it counts against the next from now on."""
        worker = self.workers[pod.key] = PodWorker(pod)
        for resource, amount in pod.spec.requests.items():
            self.requested[resource] = self.requested.get(resource, 0) + amount
        return worker

    def drop(self, pod: Pod) -> None:
        """The kubelet forgets a pod."""
        if self.workers.pop(pod.key, None) is not None:
            for resource, amount in pod.spec.requests.items():
                self.requested[resource] -= amount


class PodWorker:
    """One pod on its node. ``stage``: sandbox, containers, running, terminating, ended."""

    __slots__ = ("address", "attempts", "container", "kill_timer", "pod", "sandbox", "stage", "timer")

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self.stage = "sandbox"
        self.sandbox = ""
        self.address = ""
        self.attempts = 0
        self.container = 0
        self.timer: Timer | None = None
        self.kill_timer: Timer | None = None


def _out_of(resource: str, requested: int, used: int, capacity: int) -> tuple[str, str]:
    return (
        f"OutOf{resource}",
        f"Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}",
    )
