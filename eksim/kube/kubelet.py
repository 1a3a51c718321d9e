"""The kubelet of every node: from the bound pod to the running pod, and back.

One object for all nodes; a node is a row (:class:`NodeAgent`), a pod on it a :class:`PodWorker`. Mimics
kubernetes/pkg/kubelet (pod workers, PLEG, status manager, image manager) with dockershim (then) or containerd (today) below
it: admission, sandbox with CNI ADD and its retries, image pulls, readiness, termination with CNI DEL and the delay until the
object goes. Leaves out: volumes that fail, liveness and startup probes, container restarts, eviction under pressure,
preemption for critical pods. Woken by bindings and deletions heard from the store; never polls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eksim.engine.clock import NODE_AGENT, Clock, Grid
from eksim.engine.streams import Latency, Stream, Streams, sampler
from eksim.errors import Refused, Standstill
from eksim.kube.node_agent import NodeAgent, PodWorker
from eksim.kube.prober import ready_at
from eksim.kube.status_manager import StatusManager
from eksim.parts import Cni, EventRecorder
from eksim.state.changes import Verb
from eksim.state.objects import Node, Pod, Taint
from eksim.state.podspec import ContainerSpec
from eksim.state.store import Store
from eksim.versions import KubeletRules

#: Pod worker's delay after an error, and after "network is not ready": d … 1.5 d.
#: Source: kubernetes/pkg/kubelet/pod_workers.go:completeWork (1.21: wrapUp), kubelet.go (backOffPeriod).
BACK_OFF_PERIOD_S = 10.0
NETWORK_NOT_READY_BACK_OFF_S = 1.0
WORKER_JITTER = 0.5
#: Retry of a failed sandbox with dockershim: the exited pause container is a PLEG event.
#: Source: kubernetes/pkg/kubelet/dockershim/docker_sandbox.go:RunPodSandbox, v1.21.
DOCKERSHIM_RETRY_S = 1.0
#: Looks at the pods' work queue, and the pause between two PLEG lists. Source: kubelet.go (syncLoop), pleg/generic.go.
SYNC_TICK_S = 1.0
RELIST_PERIOD_S = 1.0
MIB = 1024 * 1024
DEFAULT_IMAGE_BYTES = 50 * MIB
MINIMUM_GRACE_S = 2.0
#: More pods than any node has; so many refusals at once are a circle.
REFUSED_AT_ONCE = 10_000

NOT_READY = Taint("node.kubernetes.io/not-ready", "", "NoSchedule")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a manifest cannot say of a workload: whether it ends on SIGTERM, its image's bytes, seconds to ready."""

    on_term_exits: bool = True
    image_bytes: int = DEFAULT_IMAGE_BYTES
    time_to_ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """``timed``: real periods (PLEG, work-queue tick, API limits), off with latency none; ``events``: record Events."""

    latencies: Mapping[str, Latency]
    timed: bool = True
    events: bool = True


class Kubelet:
    """Starts and stops the pods of every node."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        streams: Streams,
        rules: KubeletRules,
        cni: Cni,
        recorder: Callable[[str], EventRecorder],
        settings: KubeletSettings,
        behaviour_of: Callable[[Pod], Behaviour],
    ) -> None:
        self.clock = clock
        self.store = store
        self.rules = rules
        self.cni = cni
        self.settings = settings
        self.behaviour_of = behaviour_of
        self._recorder_for = recorder
        self._events = settings.events
        self._recorders: dict[str, EventRecorder] = {}
        self._agents: dict[str, NodeAgent] = {}
        self._phase: Stream = streams["kubelet/phase"]
        self._jitter: Stream = streams["kubelet/jitter"]
        self._ids: Stream = streams["kubelet/sandbox-id"]

        def draw(what: str) -> Callable[[], float]:
            return sampler(settings.latencies["kubelet/" + what], streams["kubelet/" + what])

        self._draw_watch = draw("watch")
        self._draw_volumes = draw("volumes")
        self._draw_sandbox = draw("sandbox")
        self._draw_cni_add = draw("cni-add")
        self._draw_cni_del = draw("cni-del")
        self._draw_start = draw("start")
        self._draw_stop = draw("stop")
        self._draw_gone = draw("gone-then" if rules.dockershim else "gone-today")
        self._draw_network_ready = draw("network-ready")
        self._draw_pull_overhead = draw("pull-overhead")
        self._draw_pull_mib = draw("pull-mib")
        self._status = StatusManager(clock, store, rules, timed=settings.timed)
        self._report = self._status.report
        #: pods on their way between two states; retries of a refused CNI ADD do not count
        self._moving = 0
        self._waiting_for_address: dict[str, PodWorker] = {}
        #: node name → pods on it whose CNI ADD was refused and will be retried
        self.waiting_nodes: dict[str, int] = {}
        store.watch(Verb.POD_CREATED, self._mark_created)
        store.watch(Verb.POD_BOUND, self._mark_bound)
        store.watch(Verb.POD_DELETING, self._mark_deleting)
        store.watch(Verb.POD_DELETED, self._mark_deleted)
        store.watch(Verb.NODE_DELETED, self._mark_node_deleted)

    # -- nodes --------------------------------------------------------------------------------------------------

    def register(self, node: Node) -> NodeAgent:
        """The kubelet starts on a node and registers it; admission adds the not-ready taint.

        Source: kubernetes/plugin/pkg/admission/nodetaint/admission.go:Admit.
        """
        now = self.clock.now
        timed = self.settings.timed
        agent = NodeAgent(
            node.name,
            Grid(now + (self._phase.random() if timed else 0.0) * RELIST_PERIOD_S - RELIST_PERIOD_S, RELIST_PERIOD_S),
            Grid(now + (self._phase.random() if timed else 0.0) * SYNC_TICK_S - SYNC_TICK_S, SYNC_TICK_S),
            self.rules.kubelet_api_burst,
        )
        self._agents[node.name] = agent
        node.ready = False
        node.taints = (*node.taints, NOT_READY)
        self.store.add_node(node)
        # a node that bears the name of one that is gone finds that one's pods, if they are still there, and starts them
        for pod in self.store.pods_by_node[node.name].values():
            if pod.deletion_s is not None:
                self._mark_deleting(pod, None)
            elif pod.phase not in ("Succeeded", "Failed"):
                self._mark_bound(pod, None)
        return agent

    def network_ready(self, name: str) -> None:
        """The CNI's configuration appeared on the node: the next look of the runtime state turns the node Ready."""
        self._moving += 1
        self.clock.arm(self.clock.now + self._draw_network_ready(), NODE_AGENT, self._set_ready, name)

    def _set_ready(self, name: str) -> None:
        self._moving -= 1
        node = self.store.nodes.get(name)
        agent = self._agents.get(name)
        if node is None or agent is None or agent.network_ready:
            return
        agent.network_ready = True
        self.store.set_node_ready(node, True)
        # the node lifecycle controller takes the taint away on the watch event, without a period
        # (nodelifecycle/node_lifecycle_controller.go:doNoScheduleTaintingPass)
        self.store.update_node(node, taints=tuple(t for t in node.taints if t != NOT_READY))
        self._node_event(node, "NodeReady", f"Node {name} status is now: NodeReady")

    def _node_event(self, node: Node, reason: str, message: str) -> None:
        self._recorder(node.name).event(node, "Normal", reason, message)

    @property
    def busy(self) -> int:
        """How many pods are on their way between two states, and on how many nodes status writes wait."""
        return self._moving + self._status.busy

    def is_quiet(self) -> bool:
        """No pod is changing state; pods whose address was refused stand in ``waiting_nodes`` instead."""
        return not self.busy

    def workers(self) -> Iterator[tuple[str, PodWorker]]:
        """(node, worker) of every pod that a kubelet knows of; to be read only."""
        for agent in self._agents.values():
            for worker in agent.workers.values():
                yield agent.name, worker

    def workers_of(self, node: str) -> list[PodWorker]:
        """The pods that the node's kubelet knows of; to be read only."""
        agent = self._agents.get(node)
        return [] if agent is None else list(agent.workers.values())

    # -- hearing of pods ----------------------------------------------------------------------------------------

    def _mark_created(self, pod: Pod, _: Any) -> None:
        if pod.node:
            self._mark_bound(pod, None)

    def _mark_bound(self, pod: Pod, _: Any) -> None:
        self._moving += 1
        clock = self.clock
        clock.arm(clock.now + self._draw_watch(), NODE_AGENT, self._add_pod, pod)

    def _mark_deleting(self, pod: Pod, _: Any) -> None:
        agent = self._agents.get(pod.node)
        if agent is not None:
            self._moving += 1
            self.clock.arm(self.clock.now + self._draw_watch(), NODE_AGENT, self._terminate, agent, pod)

    def _mark_deleted(self, pod: Pod, _: Any) -> None:
        """Gone without us (force, pod GC): the containers are killed afterwards."""
        agent = self._agents.get(pod.node)
        worker = agent.workers.get(pod.key) if agent is not None else None
        if agent is not None and worker is not None and worker.pod is pod and worker.stage != "ended":
            self._moving += 1
            self.clock.arm(self.clock.now + self._draw_watch(), NODE_AGENT, self._terminate, agent, pod)

    def _mark_node_deleted(self, node: Node, _: Any) -> None:
        agent = self._agents.pop(node.name, None)
        if agent is None:
            return
        for worker in agent.workers.values():
            self._settle(worker)
            pending = worker.timer is not None and worker.timer.pending
            if worker.stage in ("terminating", "ended") or (worker.stage == "running" and pending):
                self._moving -= 1
            for timer in (worker.timer, worker.kill_timer):
                if timer is not None:
                    timer.cancel()
        self._status.stop(agent)

    # -- starting -----------------------------------------------------------------------------------------------

    def _add_pod(self, pod: Pod) -> None:
        agent = self._agents.get(pod.node)
        if agent is None or self.store.pods.get(pod.key) is not pod or pod.key in agent.workers:
            self._moving -= 1
            return
        refusal = agent.admit(self.store.nodes[agent.name], pod, self.rules)
        if refusal is not None:
            reason, message = refusal
            self._moving -= 1
            self._count_refusal(agent, message)
            self._event(pod, "Warning", reason, message)
            text = self.rules.kubelet_reject_prefix + message
            self.store.set_pod_status(
                pod, phase="Failed", reason=reason, status_message=text, started_s=self.clock.now, ready=False
            )
            return
        worker = agent.take(pod)
        ran_before = {"phase": "Pending", "ip": "", "ready": False} if pod.phase == "Running" else {}
        self._report(
            agent,
            pod,
            **ran_before,
            waiting="PodInitializing" if pod.spec.init_containers else "ContainerCreating",
            started_s=self.clock.now,
            host_ip=self.store.nodes[agent.name].facts.get("ip", ""),
        )
        if not agent.network_ready and not pod.spec.host_network:
            self._network_not_ready(agent, worker)
            return
        delay = self._draw_volumes() + self._draw_sandbox()
        self._next(worker, delay, self._run_sandbox, agent, worker)

    def _count_refusal(self, agent: NodeAgent, message: str) -> None:
        """A controller replaces a refused pod at once; where that takes no time, it goes on for ever.

        Raises Standstill.
        """
        now = self.clock.now
        if agent.count_refusal(now) > REFUSED_AT_ONCE:
            raise Standstill(
                f"at {now:g} s node {agent.name} has refused {REFUSED_AT_ONCE:,} pods in one instant ({message.rstrip('. ')}):"
                " they are replaced as fast as they are refused; expected latencies other than none, or pods that the node"
                " has room for"
            )

    def _network_not_ready(self, agent: NodeAgent, worker: PodWorker) -> None:
        self._event(worker.pod, "Warning", "NetworkNotReady", self.rules.network_not_ready_message)
        self._retry(agent, worker, NETWORK_NOT_READY_BACK_OFF_S, self._sync_again)

    def _sync_again(self, agent: NodeAgent, worker: PodWorker) -> None:
        if not agent.network_ready and not worker.pod.spec.host_network:
            self._network_not_ready(agent, worker)
            return
        self._next(worker, self._draw_sandbox(), self._run_sandbox, agent, worker)

    def _retry(self, agent: NodeAgent, worker: PodWorker, period_s: float, fn: Callable[..., None]) -> None:
        """The worker's next time after an error: jittered, and looked at by the 1 s ticker."""
        due = self.clock.now + period_s * (1.0 + WORKER_JITTER * self._jitter.random())
        if self.settings.timed:
            due = agent.ticks.at_or_after(due)
        worker.timer = self.clock.call_at(due, NODE_AGENT, fn, agent, worker)

    def _next(self, worker: PodWorker, delay_s: float, fn: Callable[..., None], *args: Any) -> None:
        clock = self.clock
        worker.timer = clock.call_at(clock.now + delay_s, NODE_AGENT, fn, *args)

    def _run_sandbox(self, agent: NodeAgent, worker: PodWorker) -> None:
        """RunPodSandbox: network namespace, then CNI ADD (not for host-network pods)."""
        pod = worker.pod
        if pod.spec.host_network:
            self._sandbox_up(agent, worker)
            return
        worker.sandbox = self._ids.bits(256).to_bytes(32, "big").hex()
        self._next(worker, self._draw_cni_add(), self._cni_add, agent, worker)

    def _cni_add(self, agent: NodeAgent, worker: PodWorker) -> None:
        pod = worker.pod
        answer = self.cni.add(agent.name, pod.namespace, pod.name, worker.sandbox)
        if not isinstance(answer, Refused):
            if self._waiting_for_address:
                self._unwait(worker)
            worker.address = answer
            self._sandbox_up(agent, worker)
            return
        worker.attempts += 1
        self._wait(worker)
        if self._events:
            text = sandbox_error(self.rules, worker.sandbox, pod, answer.message)
            text = "Failed to create pod sandbox: rpc error: code = Unknown desc = " + text
            self._event(pod, "Warning", "FailedCreatePodSandBox", text)
        self.cni.delete(agent.name, pod.namespace, pod.name, worker.sandbox)
        if not self.rules.dockershim:
            self._retry(agent, worker, BACK_OFF_PERIOD_S, self._try_sandbox_again)
            return
        due = self.clock.now + DOCKERSHIM_RETRY_S
        if self.settings.timed:
            due = agent.relist.after(due)
        worker.timer = self.clock.call_at(due, NODE_AGENT, self._try_sandbox_again, agent, worker)

    def _try_sandbox_again(self, agent: NodeAgent, worker: PodWorker) -> None:
        if self.rules.dockershim:
            self._event(
                worker.pod, "Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created."
            )
        self._next(worker, self._draw_sandbox(), self._run_sandbox, agent, worker)

    def _wait(self, worker: PodWorker) -> None:
        if worker.pod.key not in self._waiting_for_address:
            self._waiting_for_address[worker.pod.key] = worker
            node = worker.pod.node
            self.waiting_nodes[node] = self.waiting_nodes.get(node, 0) + 1
            self._moving -= 1

    def _unwait(self, worker: PodWorker) -> bool:
        """The worker no longer waits for an address; whether it did."""
        if self._waiting_for_address.pop(worker.pod.key, None) is None:
            return False
        node = worker.pod.node
        self.waiting_nodes[node] -= 1
        if not self.waiting_nodes[node]:
            del self.waiting_nodes[node]
        self._moving += 1
        return True

    def _settle(self, worker: PodWorker) -> None:
        """The worker stops counting as busy, whatever it was doing."""
        self._unwait(worker)
        if worker.stage in ("sandbox", "containers"):
            self._moving -= 1

    def _sandbox_up(self, agent: NodeAgent, worker: PodWorker) -> None:
        worker.stage = "containers"
        worker.container = 0
        self._pull(agent, worker)

    def _container(self, worker: PodWorker) -> ContainerSpec:
        return worker.pod.spec.all_containers[worker.container]

    def _pull(self, agent: NodeAgent, worker: PodWorker) -> None:
        """EnsureImageExists for the next container. Source: kubelet/images/image_manager.go:EnsureImageExists."""
        container = self._container(worker)
        now = self.clock.now
        ready_at = agent.images.get(container.image)
        present = ready_at is not None and ready_at <= now
        if present and container.image_pull_policy != "Always":
            if self._events:
                self._container_event(worker, "Pulled", self.rules.image_present_message.format(image=container.image))
            self._next(worker, self._draw_start(), self._started, agent, worker)
            return
        if self.settings.timed and not agent.take_pull_token(now):
            message = f'Failed to pull image "{container.image}": pull QPS exceeded'
            self._container_event(worker, "Failed", message, "Warning")
            self._container_event(worker, "Failed", "Error: ErrImagePull", "Warning")
            self._report(agent, worker.pod, waiting="ErrImagePull")
            self._retry(agent, worker, BACK_OFF_PERIOD_S, self._pull)
            return
        if self._events:
            self._container_event(worker, "Pulling", f'Pulling image "{container.image}"')
        size = self.behaviour_of(worker.pod).image_bytes
        duration = self._draw_pull_overhead()
        if not present:
            duration += round(self._draw_pull_mib() * size / MIB, 6)
        done = now + duration
        if ready_at is not None and ready_at > now:
            done = max(ready_at, now + self._draw_pull_overhead())
        agent.images[container.image] = min(done, ready_at) if ready_at is not None else done
        worker.timer = self.clock.call_at(done, NODE_AGENT, self._pulled, agent, worker, now, size)

    def _pulled(self, agent: NodeAgent, worker: PodWorker, began: float, size: int) -> None:
        if self._events:
            image = self._container(worker).image
            message = self.rules.pulled_message(image, self.clock.now - began, size)
            self._container_event(worker, "Pulled", message)
        self._next(worker, self._draw_start(), self._started, agent, worker)

    def _started(self, agent: NodeAgent, worker: PodWorker) -> None:
        if self._events:
            name = self._container(worker).name
            self._container_event(worker, "Created", self.rules.created_message.format(container=name))
            self._container_event(worker, "Started", f"Started container {name}")
        worker.container += 1
        if worker.container < len(worker.pod.spec.all_containers):
            self._pull(agent, worker)
            return
        # PLEG's next list sees the containers; the sync after it reports Running
        now = self.clock.now
        due = agent.relist.after(now) if self.settings.timed else now
        worker.timer = self.clock.call_at(due, NODE_AGENT, self._running, agent, worker, now)

    def _running(self, agent: NodeAgent, worker: PodWorker, started_s: float) -> None:
        worker.stage = "running"
        pod = worker.pod
        now = self.clock.now
        jitter = self._jitter if self.settings.timed else None
        ready_in = ready_at(pod.spec, started_s, self.behaviour_of(pod).time_to_ready_s, jitter) - now
        node = self.store.nodes.get(agent.name)
        address = worker.address or (node.facts.get("ip", "") if node is not None else "")
        self._report(agent, pod, phase="Running", waiting="", ip=address, ready=ready_in <= 0.0)
        if ready_in > 0.0:
            worker.timer = self.clock.call_after(ready_in, NODE_AGENT, self._ready, agent, worker)
        else:
            self._moving -= 1

    def _ready(self, agent: NodeAgent, worker: PodWorker) -> None:
        self._moving -= 1
        self._report(agent, worker.pod, ready=True)

    # -- stopping -----------------------------------------------------------------------------------------------

    def _terminate(self, agent: NodeAgent, pod: Pod) -> None:
        """SyncTerminatingPod: SIGTERM to all containers at once, SIGKILL after the grace, then the sandbox.

        Source: kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go:killContainer.
        """
        worker = agent.workers.get(pod.key)
        if worker is None or worker.pod is not pod or worker.stage in ("ended",):
            self._moving -= 1
            if worker is None and self.store.pods.get(pod.key) is pod:
                self.store.delete_pod(pod)
            return
        now = self.clock.now
        grace = max(pod.grace_s, MINIMUM_GRACE_S if pod.grace_s else 1.0)
        deadline = (pod.deletion_s if pod.deletion_s is not None else now) + grace
        if worker.stage == "terminating":
            self._moving -= 1
            if worker.kill_timer is not None and worker.kill_timer.pending and deadline < worker.kill_timer.when:
                worker.kill_timer.cancel()
                worker.kill_timer = self.clock.call_at(deadline, NODE_AGENT, self._containers_ended, agent, worker)
            return
        running = worker.stage == "running"
        if running and worker.timer is not None and worker.timer.pending:
            self._moving -= 1  # it was still to become ready
        self._settle(worker)
        if worker.timer is not None:
            worker.timer.cancel()
        worker.stage = "terminating"
        if not running:
            self._next(worker, 0.0, self._containers_ended, agent, worker)
            return
        for container in pod.spec.containers:
            self._event(
                pod, "Normal", "Killing", f"Stopping container {container.name}", f"spec.containers{{{container.name}}}"
            )
        ends = deadline
        if self.behaviour_of(pod).on_term_exits:
            ends = min(deadline, now + self._draw_stop())
        worker.kill_timer = self.clock.call_at(ends, NODE_AGENT, self._containers_ended, agent, worker)

    def _containers_ended(self, agent: NodeAgent, worker: PodWorker) -> None:
        self._next(worker, self._draw_cni_del(), self._sandbox_stopped, agent, worker)

    def _sandbox_stopped(self, agent: NodeAgent, worker: PodWorker) -> None:
        """StopPodSandbox: here the address is released and begins to cool; the slot follows with the object."""
        pod = worker.pod
        worker.stage = "ended"
        if worker.sandbox:
            self.cni.delete(agent.name, pod.namespace, pod.name, worker.sandbox)
        if self.store.pods.get(pod.key) is not pod:
            agent.drop(pod)
            self._moving -= 1
            return
        if pod.ready:
            self.store.set_pod_status(pod, ready=False)
        delay = self._draw_gone()
        self._next(worker, delay, self._gone, agent, worker)

    def _gone(self, agent: NodeAgent, worker: PodWorker) -> None:
        """The status manager deletes the object with grace 0. Source: status_manager.go:canBeDeleted."""
        self._moving -= 1
        agent.drop(worker.pod)
        self._status.forget(agent, worker.pod.key)
        self.store.delete_pod(worker.pod)

    # -- events -------------------------------------------------------------------------------------------------

    def _recorder(self, node: str) -> EventRecorder:
        recorder = self._recorders.get(node)
        if recorder is None:
            recorder = self._recorders[node] = self._recorder_for(node)
        return recorder

    def _event(self, pod: Pod, type: str, reason: str, message: str, field_path: str = "") -> None:
        if not self._events:
            return
        self._recorder(pod.node).event(pod, type, reason, message, field_path=field_path)

    def _container_event(self, worker: PodWorker, reason: str, message: str, type: str = "Normal") -> None:
        if not self._events:
            return
        part = "initContainers" if worker.container < len(worker.pod.spec.init_containers) else "containers"
        self._event(worker.pod, type, reason, message, f"spec.{part}{{{self._container(worker).name}}}")


def sandbox_error(rules: KubeletRules, sandbox: str, pod: Pod, plugin_error: str) -> str:
    """The runtime's error text around the CNI plugin's.

    Source: kubernetes/pkg/kubelet/dockershim/docker_sandbox.go:RunPodSandbox, v1.21; containerd internal/cri/server.
    """
    if rules.dockershim:
        return (
            f'failed to set up sandbox container "{sandbox}" network for pod "{pod.name}": networkPlugin cni failed to set '
            f'up pod "{pod.name}_{pod.namespace}" network: {plugin_error}'
        )
    return f'failed to setup network for sandbox "{sandbox}": plugin type="aws-cni" name="aws-cni" failed (add): {plugin_error}'
