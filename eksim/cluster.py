"""Builds the house from a scenario: the only place that knows every component, and introduces them to each other.

Pydantic ends here: components get plain settings. After :func:`build` everything happens through the clock; ``play`` acts
through the methods of :class:`Cluster`.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from eksim.aws.ec2 import Ec2
from eksim.catalog import types as catalog
from eksim.cni.vpc_cni import VpcCni
from eksim.engine.clock import NODE_AGENT, Clock
from eksim.engine.latency import latencies
from eksim.engine.streams import Latency, Streams
from eksim.errors import InputError, Refused
from eksim.kube import addons
from eksim.kube.apply import Admission, Applier
from eksim.kube.controllers.base import ControllerSettings
from eksim.kube.controllers.manager import Controllers
from eksim.kube.events import EventRecorders, NoEvents
from eksim.kube.kubelet import DEFAULT_IMAGE_BYTES, Behaviour, Kubelet, KubeletSettings
from eksim.kube.node_object import eks_node, runs_al2023
from eksim.kube.scheduler.component import Scheduler, SchedulerSettings
from eksim.names import instance_id, node_name, uid
from eksim.scenario.load import LoadedScenario, LoadedWorkload, parse_range
from eksim.scenario.schema import NodeEntry, NodeGroup
from eksim.state.changes import Verb
from eksim.state.links import Links
from eksim.state.network import RESERVED, Network, Subnet, format_address
from eksim.state.objects import Pod, Taint
from eksim.state.picture import EniPicture, Picture
from eksim.state.snapshot import Snapshot, Usage
from eksim.state.store import Store
from eksim.state.watchdog import Watchdog
from eksim.versions import CniRules, KubeletRules, KubernetesRules


class NodeInfo:
    """What the house knows of a node beyond its Node object: its group, and the figures of its type."""

    __slots__ = ("group", "index", "instance", "ipamd_started", "name")

    def __init__(self, name: str, group: NodeGroup, index: int, instance: catalog.InstanceType) -> None:
        self.name = name
        self.group = group
        self.index = index
        self.instance = instance
        self.ipamd_started = False


class Cluster:
    """A cluster under simulation: its parts, and what a scenario's steps may do to it."""

    def __init__(
        self,
        loaded: LoadedScenario,
        seed: int,
        record: bool = True,
        prepare: Callable[[Cluster], None] | None = None,
        events: bool = True,
    ) -> None:
        scenario = loaded.scenario
        spec = scenario.cluster
        self.scenario = scenario
        self.spec = spec
        self.clock = clock = Clock()
        self.streams = streams = Streams(seed)
        self.store = store = Store(clock)
        self.epoch_s = datetime.datetime.fromisoformat(scenario.start).timestamp()
        self.rules = KubernetesRules.of(spec.kubernetes_version)
        cni_rules = CniRules.of(spec.vpc_cni.version)
        self._times = times = latencies(scenario.latency)
        timed = scenario.latency != "none"
        self.links = Links(store)
        self.recorder: Any = None
        if record:
            from eksim.record.recorder import Recorder

            self.recorder = Recorder(clock, store)
            self.recorder.pool_stats = self.pool_stats
            self.recorder.cooldown_s = self._cooldown_s
        #: judges of what came before, if somebody set them to watch (``play.judge.watch``)
        self.watchdog: Watchdog | None = None
        if prepare is not None:
            prepare(self)
        self.events_room: EventRecorders | NoEvents = (
            EventRecorders(clock, store, self.rules, self.epoch_s, streams) if events else NoEvents()
        )
        self.network = Network(store)
        self.ec2 = Ec2(clock, store, self.network, streams, times)
        self.cni = VpcCni(clock, store, streams, self.ec2, cni_rules, spec.vpc_cni.env, times)
        self.admission = Admission(store, self.rules)
        self.applier = Applier(store, self.rules, self.admission, streams["names"])
        try:
            self.scheduler = Scheduler(
                clock,
                store,
                streams,
                self.rules,
                self.events_room.recorder("default-scheduler"),
                SchedulerSettings(start_s=spec.scheduler.starts, config=spec.scheduler.config, latencies=times),
            )
        except InputError as error:
            raise loaded.located(error, ("cluster", "scheduler", "config")) from None
        self.controllers = Controllers(
            clock,
            store,
            streams,
            self.rules,
            self.events_room.recorder,
            ControllerSettings() if timed else ControllerSettings(client_qps=0.0),
        )
        self.controllers.templates.parse = self.admission.pod_spec
        self.kubelet = Kubelet(
            clock,
            store,
            streams,
            KubeletRules.of(spec.kubernetes_version),
            self.cni,
            lambda node: self.events_room.recorder("kubelet", node),
            KubeletSettings(times, timed, events),
            self.behaviour_of,
        )
        self._behaviours: dict[tuple[str, str, str], Behaviour] = {}
        self._nodes: dict[str, NodeInfo] = {}
        self._subnets: dict[str, Subnet] = {}
        self._group_sizes: dict[str, int] = {}
        #: the cool-downs of nodes that are gone: the record still tells of their addresses
        self._gone_cooldowns: dict[str, float] = {}
        self._joining = 0
        self._last_active = ""
        #: node → EC2's answer to its last call for more addresses ("" if it gave them)
        self._refused: dict[str, str] = {}
        store.watch(Verb.EC2_CALL, self._note_call)
        store.watch(Verb.POD_STATUS, self._mark_aws_node)
        self._make_vpc()
        self.controllers.start()
        self._make_addons()
        for number, workload in enumerate(loaded.workloads):
            try:
                self.apply_workload(workload)
            except InputError as error:
                raise loaded.located(error, ("workloads", number)) from None
        for group in spec.node_groups:
            entries = group.nodes if group.nodes is not None else [_PLAIN_ENTRY] * (group.size or 0)
            for entry in entries:
                self._join(group, entry, entry.joins)

    # -- building -----------------------------------------------------------------------------------------------

    def _make_vpc(self) -> None:
        for item in self.spec.subnets:
            base, prefix_length = _parse_network(item.cidr)
            subnet = self.network.add_subnet(Subnet(item.name, base, prefix_length, zone=item.zone, tags=dict(item.tags)))
            self._subnets[item.name] = subnet
        # addresses that nodes will have are not for others to take
        kept = [
            int(ipaddress.IPv4Address(entry.address))
            for group in self.spec.node_groups
            for entry in group.nodes or ()
            if entry.address is not None
        ]
        for item in self.spec.subnets:
            subnet = self._subnets[item.name]
            if isinstance(item.taken, int):
                reserved = [a - subnet.base for a in kept if subnet.contains(a)]
                self._take_scattered(subnet, item.taken, reserved)
            else:
                for text in item.taken:
                    first, last = parse_range(text)
                    offsets = [a - subnet.base for a in range(first, last + 1) if subnet.is_free(a - subnet.base)]
                    self.ec2.take_addresses(subnet, len(offsets), offsets=offsets)

    def _take_scattered(self, subnet: Subnet, count: int, reserved: list[int]) -> None:
        if not count:
            return
        free = [o for o in range(subnet.size) if subnet.is_free(o) and o not in reserved]
        chosen = self.streams["vpc/taken"].shuffled(free)[:count]
        self.ec2.take_addresses(subnet, len(chosen), offsets=chosen)

    def _make_addons(self) -> None:
        spec = self.spec
        version, region, today = spec.kubernetes_version, spec.region, runs_al2023(spec.kubernetes_version)
        if spec.addons.aws_node:
            self.applier.apply(addons.aws_node(spec.vpc_cni.version, region, today))
        if spec.addons.kube_proxy:
            self.applier.apply(addons.kube_proxy(version, region, today))
        coredns = spec.addons.coredns
        if coredns is not False:
            replicas = 2 if coredns is True else coredns.replicas
            self.applier.apply(addons.coredns(version, region, replicas, today))
        for number in range(1, max((g.host_network_pods for g in spec.node_groups), default=0) + 1):
            groups = [g.name for g in spec.node_groups if g.host_network_pods >= number]
            self.applier.apply(addons.host_agent(number, groups))

    def _join(self, group: NodeGroup, entry: NodeEntry, at_s: float) -> None:
        index = self._group_sizes.get(group.name, 0)
        self._group_sizes[group.name] = index + 1
        self._joining += 1
        self.clock.arm(max(at_s, self.clock.now), NODE_AGENT, self._register, group, entry, index)

    def _register(self, group: NodeGroup, entry: NodeEntry, index: int) -> None:
        """The instance runs and its kubelet registers the node."""
        self._joining -= 1
        names = group.subnets or list(self._subnets)
        address = int(ipaddress.IPv4Address(entry.address)) if entry.address is not None else None
        if entry.subnet is not None:
            subnet = self._subnets[entry.subnet]
        elif address is not None:
            subnet = next(s for s in self._subnets.values() if s.contains(address))
        else:
            subnet = self._subnets[names[index % len(names)]]
        instance = catalog.lookup(group.instance_type)
        identity = instance_id(self.streams["names"])
        if address is None and subnet.free > 0:
            address = subnet.base + self.ec2.placement.address(subnet)
        ip = "" if address is None else format_address(address)
        name = node_name(ip, self.spec.region)
        launched = self.ec2.launch_instance(
            name,
            identity,
            subnet,
            type=instance.name,
            max_enis=instance.max_enis,
            ipv4_per_eni=instance.ipv4_per_eni,
            nitro=instance.is_nitro or bool(instance.bare_metal),
            trunking=bool(instance.trunking),
            address=address,
        )
        if isinstance(launched, Refused):
            # an Auto Scaling group tries other zones and goes on trying; here the launch is lost and said so
            self.store.emit(
                Verb.NOTE, f"launch of a node of {group.name} failed: {launched.code} in subnet {subnet.id}"
            )
            return
        info = NodeInfo(name, group, index, instance)
        self._nodes[name] = info
        node = eks_node(
            name,
            instance,
            group.name,
            identity,
            uid(self.streams["names"]),
            region=self.spec.region,
            zone=subnet.zone,
            subnet=subnet.id,
            ip=ip,
            kubernetes_version=self.spec.kubernetes_version,
            max_pods=group.max_pods,
            labels=group.labels,
            taints=tuple(Taint(t.key, t.value, t.effect) for t in group.taints),
        )
        self.kubelet.register(node)
        self.cni.add_node(name, listed_enis=instance.listed_enis)
        if not self.spec.addons.aws_node:
            self._start_ipamd(name)

    # -- aws-node -----------------------------------------------------------------------------------------------

    def _mark_aws_node(self, pod: Pod, _: Any) -> None:
        """aws-node's container runs: ipamd starts on its node."""
        if pod.phase == "Running" and pod.labels.get("k8s-app") == "aws-node" and pod.namespace == "kube-system":
            info = self._nodes.get(pod.node)
            if info is not None and not info.ipamd_started:
                info.ipamd_started = True
                self.clock.arm(self.clock.now, NODE_AGENT, self._start_ipamd, pod.node)

    def _start_ipamd(self, name: str) -> None:
        if name in self._nodes:
            self.cni.start_node(name, self.kubelet.network_ready)

    def _cooldown_s(self, node: str) -> float:
        gone = self._gone_cooldowns.get(node)
        return self.cni.cooldown_s(node) if gone is None else gone

    # -- what a scenario does -----------------------------------------------------------------------------------

    def apply_workload(self, workload: LoadedWorkload) -> None:
        """Apply a workload's manifests, and remember what stands beside them."""
        behaviour = Behaviour(
            workload.on_term == "exits", workload.image_size or DEFAULT_IMAGE_BYTES, workload.time_to_ready_s
        )
        for manifest in workload.manifests:
            self._behaviours[(manifest.namespace, manifest.kind, manifest.name)] = behaviour
            answer = self.applier.apply(manifest.document)
            if isinstance(answer, Refused):
                raise InputError(
                    f"{manifest.kind} {manifest.name} at {self.clock.now:g} s: {answer.message}",
                    expected="a manifest that can be applied then",
                )

    def workload_of(self, pod: Pod) -> tuple[str, str, str]:
        """(namespace, kind, name) of the object a user made: the pod's Deployment, DaemonSet, … or itself."""
        owner = pod.owner
        if owner is None:
            return pod.namespace, "Pod", pod.name
        if owner.kind == "ReplicaSet":
            replica_set = self.store.get("ReplicaSet", f"{pod.namespace}/{owner.name}")
            if replica_set is not None and replica_set.owner is not None:
                return pod.namespace, replica_set.owner.kind, replica_set.owner.name
        return pod.namespace, owner.kind, owner.name

    def behaviour_of(self, pod: Pod) -> Behaviour:
        """What the scenario says of the pod's process and image."""
        return self._behaviours.get(self.workload_of(pod), _DEFAULT_BEHAVIOUR)

    def set_env(self, env: dict[str, str], node: str | None) -> None:
        """Change aws-node's environment on a node, or everywhere: ipamd restarts with it."""
        self.cni.set_env(env, node)

    def group(self, name: str | None) -> NodeGroup:
        """The node group of that name, or the only one. Raises InputError."""
        groups = {g.name: g for g in self.spec.node_groups}
        if name is None and len(groups) == 1:
            return self.spec.node_groups[0]
        if name not in groups:
            raise InputError(f"no node group is called {name!r}", expected="one of " + ", ".join(groups))
        return groups[name]

    def add_nodes(self, group: str | None, count: int) -> None:
        """Further nodes of a group join now."""
        chosen = self.group(group)
        for _ in range(count):
            self._join(chosen, _PLAIN_ENTRY, self.clock.now)

    def nodes_of_group(self, group: str | None) -> list[str]:
        """Names of the group's nodes in the order of joining."""
        chosen = self.group(group)
        return [n.name for n in self._nodes.values() if n.group.name == chosen.name]

    def remove_node(self, name: str) -> None:
        """The instance is terminated and its Node deleted; its pods are collected later."""
        node = self.store.nodes.get(name)
        if node is None:
            there = ", ".join(list(self.store.nodes)[:6])
            raise InputError(f"no node is called {name!r}", expected=f"one of {there}" if there else "a node that is there")
        self._gone_cooldowns[name] = self.cni.cooldown_s(name)
        self.store.delete_node(node)
        self.cni.remove_node(name)
        self.ec2.terminate_instance(name)
        self._nodes.pop(name, None)

    def set_metadata_lag(self, lag_s: float, for_s: float | None) -> None:
        """Instance metadata shows what changes from now on so much later, for a time or until it is healed."""
        lag = self.ec2.lag
        lag.eni = lag.cidr = lag.remove = Latency("constant", lag_s)
        if for_s is not None:
            self.clock.arm(self.clock.now + for_s, NODE_AGENT, self.reset_metadata_lag)

    def reset_metadata_lag(self) -> None:
        """Instance metadata is as late as the scenario's latencies say."""
        lag = self.ec2.lag
        lag.eni = self._times["metadata/eni"]
        lag.cidr = lag.remove = self._times["metadata/address"]

    def subnet(self, name: str) -> Subnet:
        """The subnet of that name."""
        return self._subnets[name]

    def subnets(self) -> list[Subnet]:
        """All subnets, in the scenario's order."""
        return list(self._subnets.values())

    def close(self) -> None:
        """Take the house apart: parts know each other in circles, which would keep it in memory until a collection."""
        clock = self.clock
        clock.clear()
        # EC2 stays whole: a turn of ipamd that is cut off here still hands it the request it had out
        for part in (self.scheduler, self.controllers, self.kubelet, self.cni, self.store, self.links):
            vars(part).clear()
        vars(self).clear()
        clock.clear()

    # -- asking -------------------------------------------------------------------------------------------------

    def is_settled(self) -> bool:
        """No pod is changing state, no EC2 call is out, no ipamd action is due."""
        if self.kubelet.busy or self._joining:
            return False
        # asked after each instant of the end, when ipamd of one node is mostly the last that has something to do
        if self._last_active in self._nodes and not self.cni.is_quiet(self._last_active):
            return False
        if not self.controllers.is_quiet() or not self.scheduler.is_quiet():
            return False
        for name in self._nodes:
            if not self.cni.is_quiet(name):
                self._last_active = name
                return False
        for name in self.kubelet.waiting_nodes:  # noqa: SIM110 - half the cost of a generator
            if self._address_left(name):
                return False
        return True

    def _address_left(self, node: str) -> bool:
        """Whether a refused CNI ADD of that node will succeed when it is tried again (cooling addresses come free)."""
        _, total, assigned, _ = self.cni.pool_stats(node)
        return total > assigned

    def condition(self, until: str) -> Callable[[], bool]:
        """A step's ``until`` as a question to ask again and again."""
        if until == "settled":
            return self.is_settled
        if until == "nodes ready":
            return lambda: not self._joining and all(n.ready for n in self.store.nodes.values())
        what, _, wanted = until.partition(" ")
        kind, _, name = what.partition("/")
        if kind in ("pod", "po"):
            if wanted == "gone":
                return lambda: not any(p.name == name for p in self.store.pods.values())
            return lambda: any(p.name == name and p.ready for p in self.store.pods.values())
        kinds = {"deployment": "Deployment", "deploy": "Deployment", "daemonset": "DaemonSet", "ds": "DaemonSet",
                 "replicaset": "ReplicaSet", "rs": "ReplicaSet"}  # fmt: skip
        if kind not in kinds:
            raise InputError(
                f"until: {until!r}", expected="deployment/NAME, daemonset/NAME, replicaset/NAME or pod/NAME"
            )
        return lambda: self._object_is(kinds[kind], name, wanted)

    def _object_is(self, kind: str, name: str, wanted: str) -> bool:
        found = [o for o in self.store.list(kind) if o.name == name]
        if wanted == "gone":
            return not found
        if not found:
            return False
        obj = found[0]
        status = obj.status
        if status.get("observedGeneration", 0) < obj.generation:
            return False
        if kind == "DaemonSet":
            return bool(status.get("numberAvailable", 0) >= status.get("desiredNumberScheduled", 0))
        replicas = obj.spec.get("replicas", 1)
        updated = status.get("updatedReplicas", replicas) if kind == "Deployment" else replicas
        return bool(status.get("availableReplicas", 0) >= replicas and updated >= replicas)

    def pool_stats(self, node: str) -> tuple[int, int, int, int]:
        """ipamd's datastore of a node: (ENIs, total, assigned, cooling)."""
        return self.cni.pool_stats(node)

    def devices_of(self, node: str) -> list[str]:
        """Interface names of the node's ENIs: eth0, eth1, …"""
        return [name for name in self.links.of(node) if name.startswith("eth")]

    def usage(self) -> Usage:
        """What the network could give at most."""
        return Usage(
            {name: self.cni.address_limit(name) for name in self._nodes},
            {name: subnet.free for name, subnet in self._subnets.items()},
            {name: code for name, code in self._refused.items() if code and name in self._nodes},
        )

    def _note_call(self, call: Any, _: Any) -> None:
        if call.api in ("AssignPrivateIpAddresses", "CreateNetworkInterface"):
            self._refused[call.node] = call.error

    def events(self) -> list[Any]:
        """Events stored now (expired ones are gone), in the order they were first stored."""
        return self.events_room.stored()

    def snapshot(self) -> Snapshot:
        """The cluster as views read it."""
        return Snapshot(
            self.store, self.clock.now, self.epoch_s, self.spec.kubernetes_version, self.rules.minor, self.events()
        )

    def picture(self) -> Picture:
        """The network as the judges read it."""
        picture = Picture()
        for name, instance in self.network.instances.items():
            for eni in instance.enis.values():
                addresses = eni.all_addresses()
                picture.enis.append(EniPicture(eni.id, name, eni.device, eni.subnet.id, eni.address, addresses))
            picture.limits[name] = (instance.max_enis, self.cni.addresses_per_eni(name))
            picture.assigned += [(name, sandbox, address, eni) for sandbox, address, eni in self.cni.assignments(name)]
        for name, subnet in self._subnets.items():
            picture.subnets[name] = (subnet.size, subnet.free, subnet.size - subnet.free - RESERVED, RESERVED)
        return picture


_DEFAULT_BEHAVIOUR = Behaviour()
_PLAIN_ENTRY = NodeEntry()


@lru_cache(maxsize=1024)
def _parse_network(cidr: str) -> tuple[int, int]:
    network = ipaddress.IPv4Network(cidr)
    return int(network.network_address), network.prefixlen


def build(
    loaded: LoadedScenario,
    seed: int,
    record: bool = True,
    prepare: Callable[[Cluster], None] | None = None,
    events: bool = True,
) -> Cluster:
    """Everything a scenario needs, at simulated second 0.

    ``record``: fill the tables; ``prepare`` is called once clock and store exist, to watch from the first change on;
    ``events``: off, components record no Events (nothing else depends on them).
    """
    return Cluster(loaded, seed, record, prepare, events)
