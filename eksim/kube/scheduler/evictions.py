"""What comes of a preemption: victims are marked and deleted, and less important nominations for the node are cleared.

Mimics the API calls of ``framework/preemption/preemption.go``; who the victims are is decided in
:mod:`eksim.kube.scheduler.preemption`. Called by the scheduler's component.
"""

from __future__ import annotations

from eksim.engine.clock import Clock
from eksim.kube.scheduler.nominator import Nominator
from eksim.kube.scheduler.preemption import Candidate
from eksim.parts import EventRecorder
from eksim.state.objects import Condition, Pod
from eksim.state.store import Store
from eksim.versions import SchedulerRules


class Evictions:
    """The evictions of one scheduler."""

    def __init__(
        self, clock: Clock, store: Store, rules: SchedulerRules, recorder: EventRecorder, nominator: Nominator
    ) -> None:
        self._clock = clock
        self._store = store
        self._rules = rules
        self._recorder = recorder
        self._nominator = nominator

    def prepare_candidate(self, pod: Pod, candidate: Candidate) -> int:
        """Evict the victims and clear the nominations of less important pods; how many victims there still are, those
        included that were on their way out already.

        Source: preemption.go:prepareCandidate, v1.34.1; default_preemption.go:PrepareCandidate, v1.21.9.
        """
        left = 0
        for victim in candidate.victims:
            live = self._store.pods.get(victim.key)
            if live is None or live is not victim.pod:
                continue
            left += 1
            if self._rules.disruption_target:
                if live.deletion_s is not None:
                    continue
                self._mark_disrupted(live, pod)
            self._store.begin_pod_deletion(live)
            words = self._preempted_words(pod, candidate.node)
            self._recorder.event(live, "Normal", "Preempted", words, action="Preempting", related=pod)
        for other in self._nominator.pods_for_node(candidate.node):
            live = self._store.pods.get(other.key)
            if live is not None and other.priority < pod.spec.priority and live.nominated_node:
                self._store.patch_pod_scheduling(live, None, "")
        return left

    def _mark_disrupted(self, victim: Pod, pod: Pod) -> None:
        message = f"{pod.spec.scheduler_name}: preempting to accommodate a higher priority pod"
        target = Condition(
            "DisruptionTarget", "True", "PreemptionByScheduler", message, last_transition_s=self._clock.now
        )
        self._store.update_pod(victim, conditions={**victim.conditions, "DisruptionTarget": target})

    def _preempted_words(self, pod: Pod, node: str) -> str:
        if self._rules.preempted_words == "name":
            return f"Preempted by {pod.namespace}/{pod.name} on node {node}"
        if self._rules.preempted_words == "anonymous":
            return f"Preempted by a pod on node {node}"
        return f"Preempted by pod {pod.uid} on node {node}"
