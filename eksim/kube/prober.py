"""When a pod becomes Ready: its process's own time, then the readiness probes' ticks.

Mimics kubernetes/pkg/kubelet/prober/worker.go. Leaves out probes that fail once they have succeeded. Called by ``kubelet``.
"""

from __future__ import annotations

from eksim.engine.clock import Grid
from eksim.engine.streams import Stream
from eksim.state.podspec import PodSpec


def ready_at(spec: PodSpec, started_s: float, time_to_ready_s: float, jitter: Stream | None) -> float:
    """The time at which a pod started at ``started_s`` is Ready: when its process is, then the first tick of each readiness
    probe that succeeds. Without ``jitter`` probes take no time.

    Source: kubernetes/pkg/kubelet/prober/worker.go:run, doProbe.
    """
    ready_s = started_s + time_to_ready_s
    latest = ready_s
    if jitter is not None:
        for container in spec.containers:
            probe = container.readiness_probe
            if probe:
                period = float(probe.get("periodSeconds") or 10)
                delay = float(probe.get("initialDelaySeconds") or 0)
                first = started_s + delay + jitter.random() * min(period, 1.0)
                successes = max(int(probe.get("successThreshold") or 1), 1) - 1
                latest = max(latest, Grid(first, period).at_or_after(max(ready_s, first)) + successes * period)
    return latest
