"""The kubelet's status manager: writes pods' statuses, as fast as the kubelet's limit on API calls lets it.

Mimics kubernetes/pkg/kubelet/status/status_manager.go. Writes that must wait are merged per pod and sent in the order in
which their pods first had to wait. Called by ``kubelet``.
"""

from __future__ import annotations

from typing import Any

from eksim.engine.clock import NODE_AGENT, Clock
from eksim.kube.node_agent import NodeAgent
from eksim.state.objects import Pod
from eksim.state.store import Store
from eksim.versions import KubeletRules

#: One status change costs a GET and a PATCH. Source: kubelet/status/status_manager.go:syncPod.
CALLS_PER_STATUS = 2.0


class StatusManager:
    """The status writes of every node. ``timed``: whether the API's limit holds; ``busy``: nodes whose writes wait."""

    def __init__(self, clock: Clock, store: Store, rules: KubeletRules, *, timed: bool) -> None:
        self._clock = clock
        self._store = store
        self._timed = timed
        self._qps = rules.kubelet_api_qps
        self._burst = rules.kubelet_api_burst
        self.busy = 0

    def report(self, agent: NodeAgent, pod: Pod, **fields: Any) -> None:
        """Queue a status write; it goes at once unless the kubelet's API rate limit holds it back."""
        if not self._timed or (not agent.reports and self._take_api_tokens(agent)):
            if self._store.pods.get(pod.key) is pod:
                self._store.set_pod_status(pod, **fields)
            return
        waiting = agent.reports.get(pod.key)
        if waiting is not None and waiting[0] is pod:
            waiting[1].update(fields)
        else:
            agent.reports[pod.key] = (pod, fields)
        if agent.report_timer is None:
            self.busy += 1
            self._arm(agent)

    def forget(self, agent: NodeAgent, key: str) -> None:
        """The pod's object goes: nothing is left to be said of it."""
        agent.reports.pop(key, None)

    def stop(self, agent: NodeAgent) -> None:
        """The node is gone."""
        if agent.report_timer is not None:
            agent.report_timer.cancel()
            self.busy -= 1

    def _take_api_tokens(self, agent: NodeAgent) -> bool:
        now = self._clock.now
        tokens = agent.api_tokens + (now - agent.api_at) * self._qps
        if tokens > self._burst:
            tokens = self._burst
        agent.api_at = now
        enough = tokens >= CALLS_PER_STATUS - 1e-9
        agent.api_tokens = tokens - CALLS_PER_STATUS if enough else tokens
        return enough

    def _arm(self, agent: NodeAgent) -> None:
        missing = max(CALLS_PER_STATUS - agent.api_tokens, 0.0) / self._qps
        agent.report_timer = self._clock.call_at(agent.api_at + missing, NODE_AGENT, self._send, agent)

    def _send(self, agent: NodeAgent) -> None:
        agent.report_timer = None
        while agent.reports and self._take_api_tokens(agent):
            key = next(iter(agent.reports))
            pod, fields = agent.reports.pop(key)
            if self._store.pods.get(pod.key) is pod:
                self._store.set_pod_status(pod, **fields)
        if agent.reports:
            self._arm(agent)
        else:
            self.busy -= 1
