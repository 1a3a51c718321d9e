"""What the scheduler does when a pod or node changes: cache and queue are told, waiting pods may move.

Mimics ``eventhandlers.go``. Each method is one informer handler; who calls them decides when, and in which order. Called
by the component (from the store's changes) and by the replay.
"""

from __future__ import annotations

from collections.abc import Callable

from eksim.kube.scheduler import events as ev
from eksim.kube.scheduler.cache import Cache
from eksim.kube.scheduler.events import node_scheduling_properties_change, pod_scheduling_properties_change
from eksim.kube.scheduler.facts import facts_of
from eksim.kube.scheduler.nodeinfo import NodeInfo, PodInfo
from eksim.kube.scheduler.plugins.node_affinity import required_node_affinity_matches
from eksim.kube.scheduler.plugins.node_ports import fits_ports
from eksim.kube.scheduler.plugins.node_resources_fit import fits_request
from eksim.kube.scheduler.plugins.taint_toleration import find_untolerated_taint
from eksim.kube.scheduler.queue import PriorityQueue
from eksim.kube.scheduler.queued_pod import QueuedPod
from eksim.state.objects import Node, Pod
from eksim.versions import SchedulerRules


class EventHandlers:
    """The scheduler's ears."""

    def __init__(self, rules: SchedulerRules, cache: Cache, queue: PriorityQueue) -> None:
        self.rules = rules
        self.cache = cache
        self.queue = queue

    # -- pending pods ---------------------------------------------------------------------------------------------

    def add_pod_to_scheduling_queue(self, pod: Pod) -> None:
        """Source: kubernetes/pkg/scheduler/eventhandlers.go:addPodToSchedulingQueue, v1.34.1."""
        self.queue.add(pod)

    def update_pod_in_scheduling_queue(self, old: Pod, pod: Pod, *, updated: bool) -> None:
        """``updated``: whether anything but status (and what does not count) differs.

        Source: eventhandlers.go:updatePodInSchedulingQueue, v1.34.1.
        """
        if pod.key in self.cache.assumed:
            return
        self.queue.update(old, pod, updated=updated)
        if self.rules.queueing_hints and old.nominated_node and old.nominated_node != pod.nominated_node:
            self._nomination_went(old)

    def delete_pod_from_scheduling_queue(self, pod: Pod) -> None:
        """The pending form of a pod is gone: it was deleted, or bound.

        Source: eventhandlers.go:deletePodFromSchedulingQueue, v1.34.1.
        """
        self.queue.delete(pod.key)
        if self.rules.queueing_hints and pod.nominated_node:
            self._nomination_went(pod)

    def _nomination_went(self, pod: Pod) -> None:
        """For pods of lower or equal priority it is as if a placed pod had gone (getLEPriorityPreCheck)."""
        priority = pod.spec.priority
        self.queue.move_all(ev.ASSIGNED_POD_DELETE, pod, None, lambda queued: queued.info.priority <= priority)

    # -- placed pods ----------------------------------------------------------------------------------------------

    def add_pod_to_cache(self, pod: Pod) -> None:
        """Source: eventhandlers.go:addPodToCache, v1.34.1, v1.21.9."""
        if not self.cache.confirm_pod(pod):
            self.cache.add_pod(PodInfo(pod))
        queue = self.queue
        if self.rules.queueing_hints:
            if queue.unschedulable or queue.in_flight or queue.gated:
                queue.move_all(ev.ASSIGNED_POD_ADD, None, pod)
        else:
            self.queue.move_with_cross_topology_term(pod, ev.ASSIGNED_POD_ADD, None)

    def update_pod_in_cache(self, old: Pod, pod: Pod) -> None:
        """Source: eventhandlers.go:updatePodInCache, v1.34.1, v1.21.9."""
        self.cache.update_pod(PodInfo(pod))
        for event in pod_scheduling_properties_change(pod, old):
            if self.rules.queueing_hints:
                self.queue.move_all(event, old, pod)
            else:
                self.queue.move_with_cross_topology_term(pod, event, old)

    def refresh_pod_in_cache(self, pod: Pod) -> None:
        """A bound pod's status changed, which matters to nobody who waits: of today's plugins none registers for it.

        Source: eventhandlers.go:updatePodInCache with framework/events.go:PodSchedulingPropertiesChange, v1.34.1.
        """
        self.cache.refresh_pod(pod)
        if not self.rules.queueing_hints:
            self.queue.move_with_cross_topology_term(pod, ev.ASSIGNED_POD_UPDATE, pod)

    def delete_pod_from_cache(self, pod: Pod) -> None:
        """Source: eventhandlers.go:deletePodFromCache, v1.34.1."""
        self.cache.remove_pod(pod.key)
        self.queue.move_all(ev.ASSIGNED_POD_DELETE, pod, None)

    # -- nodes ----------------------------------------------------------------------------------------------------

    def add_node_to_cache(self, node: Node) -> None:
        """Source: eventhandlers.go:addNodeToCache, v1.34.1."""
        info = self.cache.add_node(node)
        self.queue.move_all(ev.NODE_ADD, None, node, self._pre_check_for_node(info))

    def update_node_in_cache(self, old: Node, node: Node, *, taints_differ: bool | None = None) -> None:
        """Source: eventhandlers.go:updateNodeInCache, v1.34.1, v1.21.9."""
        info = self.cache.update_node(old, node)
        events = node_scheduling_properties_change(node, old, taints_differ=taints_differ)
        if not self.rules.node_events_all:
            events = [event for event in events if event.action != ev.NODE_ANNOTATION][:1]
        for event in events:
            self.queue.move_all(event, old, node, self._pre_check_for_node(info))

    def node_condition_changed(self, node: Node) -> None:
        """A condition's status changed, and nothing else: today no plugin registers for that.

        Source: eventhandlers.go:updateNodeInCache, nodeConditionsChanged, v1.21.9.
        """
        if not self.rules.queueing_hints:
            info = self.cache.nodes[node.name]
            if info.node is not None:
                self.queue.move_all(ev.NODE_CONDITION_CHANGE, node, node, self._pre_check_for_node(info))

    def delete_node_from_cache(self, node: Node) -> None:
        """Source: eventhandlers.go:deleteNodeFromCache, v1.34.1; then it moved nobody."""
        if self.rules.queueing_hints:
            self.queue.move_all(ev.NODE_DELETE, node, None)
        self.cache.remove_node(node)

    def _pre_check_for_node(self, info: NodeInfo) -> Callable[[QueuedPod], bool] | None:
        """Source: eventhandlers.go:preCheckForNode, AdmissionCheck, v1.34.1 (without hints)."""
        if not self.rules.node_precheck:
            return None
        node = info.node
        assert node is not None
        return lambda queued: admits(queued.pod, info, self.rules) and (
            find_untolerated_taint(node.taints, queued.pod.spec.tolerations) is None
        )

    # -- others ---------------------------------------------------------------------------------------------------

    def on_service_change(self) -> None:
        """A Service came, changed or went: up to 1.21 that moves pods.

        Source: eventhandlers.go:onServiceAdd, onServiceUpdate, onServiceDelete, v1.21.9.
        """
        if not self.rules.events_by_plugin:
            self.queue.move_all(ev.SERVICE_CHANGE)


def admits(pod: Pod, node: NodeInfo, rules: SchedulerRules) -> bool:
    """Whether resources, node affinity, node name and host ports of the node suit the pod.

    Source: kubernetes/pkg/scheduler/eventhandlers.go:AdmissionCheck, v1.34.1.
    """
    spec = pod.spec
    return (
        not fits_request(facts_of(spec), node, rules)[0]
        and required_node_affinity_matches(spec, node.labels, node.name)
        and (not spec.node_name or spec.node_name == node.name)
        and fits_ports(spec.host_ports, node.ports)
    )
