"""The VPC CNI of a simulated cluster: aws-node on every node, and the plugin that the container runtime calls.

One object for all nodes. The kubelet's runtime calls :meth:`VpcCni.add` and :meth:`VpcCni.delete` (the contract ``Cni`` of
:mod:`eksim.parts`); a scenario starts, restarts and reconfigures ipamd. Leaves out: the init container, routes and rules,
the probes of the aws-node pod. Called by ``cluster.py`` and the kubelet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from eksim.aws.ec2 import Ec2
from eksim.cni.awsutils import LEAK_FIRST_DELAY_S, LEAK_INTERVAL_S, AwsUtils
from eksim.cni.gomap import MapOrder
from eksim.cni.ipamd import Ipamd
from eksim.cni.loop import WORK_S, PoolLoop
from eksim.cni.node import Assignment, NodeIpam
from eksim.cni.sdk import Sdk, Steps, Waits
from eksim.cni.settings import MANIFEST_ENV, refusal_to_start
from eksim.engine.clock import NETWORK, Clock
from eksim.engine.streams import NO_LATENCY, Latency, Streams
from eksim.errors import Refused
from eksim.state.changes import Verb
from eksim.state.network import PREFIX_SIZE, Eni, format_address
from eksim.state.objects import Node
from eksim.state.store import Store
from eksim.versions import CniRules

#: The plugin's error texts. Source: amazon-vpc-cni-k8s/cmd/routed-eni-cni-plugin/cni.go:add, v1.23.1.
NO_ADDRESS = Refused("NoAddress", "add cmd: failed to assign an IP address to container")
_UNREACHABLE = "add cmd: Error received from AddNetwork gRPC call: rpc error: code = Unavailable desc = connection error: "
UNREACHABLE_UNIX = Refused(
    "Unavailable",
    _UNREACHABLE
    + 'desc = "transport: Error while dialing: dial unix /var/run/aws-node/ipamd.sock: connect: connection refused"',
)
UNREACHABLE_TCP = Refused(
    "Unavailable",
    _UNREACHABLE + 'desc = "transport: Error while dialing dial tcp 127.0.0.1:50051: connect: connection refused"',
)

#: The kubelet's back-off for a container that keeps ending. Source: kubernetes/pkg/kubelet/kubelet.go
#: (backOffPeriod, MaxContainerBackOff), v1.34.1.
CRASH_BACKOFF_S = 10.0
CRASH_BACKOFF_MAX_S = 300.0


class VpcCni:
    """aws-node on all nodes. ``env``: the DaemonSet's environment, over what the add-on's manifest sets."""

    def __init__(
        self,
        clock: Clock,
        store: Store,
        streams: Streams,
        ec2: Ec2,
        rules: CniRules,
        env: Mapping[str, str] | None = None,
        latencies: Mapping[str, Latency] | None = None,
        *,
        polling: bool = False,
        work_s: float = WORK_S,
    ) -> None:
        self.clock = clock
        self.store = store
        self.ec2 = ec2
        self.rules = rules
        self.nodes: dict[str, NodeIpam] = {}
        self._env: dict[str, str] = {**MANIFEST_ENV, **(env or {})}
        self._start_latency = (latencies or {}).get("ipamd/start", NO_LATENCY)
        self._stream = streams["ipamd/start"]
        sdk = Sdk(clock, Waits(streams["ipamd/waits"]), streams["ipamd/sdk"])
        self.ipamd = Ipamd(clock, store, ec2, AwsUtils(clock, ec2, sdk), MapOrder(streams["ipamd/map-order"]))
        self.loop = PoolLoop(self.ipamd, polling=polling, work_s=work_s)
        ec2.faults.on_change = self._fault_changed
        store.watch(Verb.NODE_UPDATED, self._node_updated)
        for verb in (Verb.ENI_ATTACHED, Verb.ENI_DETACHED, Verb.ENI_ADDRESSES):
            store.watch(verb, self._eni_changed)

    # -- nodes --------------------------------------------------------------------------------------------------

    def add_node(
        self, name: str, *, listed_enis: int | None = None, eni_config: str = "", env: Mapping[str, str] | None = None
    ) -> NodeIpam:
        """A node whose instance EC2 has; ipamd is started by :meth:`start_node`.

        ``listed_enis``: the type's limit in the CNI's own table, where that differs from EC2's. ``eni_config``: the
        subnet id of its ENIConfig (custom networking). ``env``: over the DaemonSet's environment, on this node alone.
        """
        node = NodeIpam(name, self.ec2.network.instances[name], {**self._env, **(env or {})}, self.rules)
        node.eni_config = eni_config
        if listed_enis is not None:
            node.eni_limit = listed_enis
        self.nodes[name] = node
        return node

    def start_node(self, name: str, on_serving: Callable[[str], None] | None = None) -> None:
        """aws-node's container starts; ``on_serving(name)`` is called when ipamd first serves (the node may be Ready)."""
        node = self.nodes[name]
        node.on_serving = on_serving
        self._start(node, self._start_latency.draw(self._stream))

    def remove_node(self, name: str) -> None:
        """The node is gone, and its ipamd with it."""
        node = self.nodes.pop(name, None)
        if node is not None:
            node.start += 1
            self.loop.end(node)
            node.serving = False
            node.datastore = None

    def set_env(self, env: Mapping[str, str], node: str | None = None) -> None:
        """Variables of aws-node change on one node, or on all: ipamd restarts there with its checkpoint.

        On all nodes at once; a rolling update's one-after-another is left out.
        """
        if node is None:
            self._env.update(env)
        for row in list(self.nodes.values()) if node is None else [self.nodes[node]]:
            row.env = {**row.env, **env}
            if row.start:
                self.restart_node(row.name)

    def restart_node(self, name: str) -> None:
        """aws-node's container ends and starts anew; pods that end meanwhile are noticed by the new one."""
        node = self.nodes[name]
        self.loop.end(node)
        node.serving = False
        self.ipamd.stop(node)
        node.restarts = 0
        self._start(node, self._start_latency.draw(self._stream))

    def _start(self, node: NodeIpam, delay_s: float) -> None:
        node.start += 1
        self.clock.arm(self.clock.now + delay_s, NETWORK, self._started, node, node.start)

    def _started(self, node: NodeIpam, start: int) -> None:
        if node.start == start:
            node.running = self._init(node)
            self.clock.process(node.running)

    def _init(self, node: NodeIpam) -> Steps[None]:
        """Start ipamd; if that fails, the kubelet does it again, later each time."""
        running = node.running
        problem = refusal_to_start(node.env, node.rules)
        error: Refused | None
        if problem:
            error = Refused("", problem)
        else:
            error = yield from self.ipamd.node_init(node, running)
        node.running = None
        if error is not None:
            node.restarts += 1
            self.store.emit(Verb.NOTE, f"aws-node on {node.name} failed to start: {error.message}")
            self._start(node, min(CRASH_BACKOFF_S * 2 ** (node.restarts - 1), CRASH_BACKOFF_MAX_S))
            return
        node.serving = True
        node.restarts = 0
        if node.settings.leak_cleanup:
            self._arm_sweep(node, 0.0)
        self.loop.begin(node)
        if node.on_serving is not None:
            node.on_serving(node.name)

    def _arm_sweep(self, node: NodeIpam, after_s: float) -> None:
        delay = after_s + self._stream.randrange(LEAK_FIRST_DELAY_S)
        self.clock.arm(self.clock.now + delay, NETWORK, self._sweep, node, node.start)

    def _sweep(self, node: NodeIpam, start: int) -> None:
        if node.start == start:
            self.clock.process(self._clean_up(node, start))

    def _clean_up(self, node: NodeIpam, start: int) -> Steps[None]:
        yield from self.ipamd.aws.clean_up_leaked_enis(node)
        if node.start == start:
            self._arm_sweep(node, LEAK_INTERVAL_S)

    # -- the plugin ---------------------------------------------------------------------------------------------

    def add(self, node: str, namespace: str, pod: str, sandbox_id: str) -> str | Refused:
        """CNI ADD: an address, or the plugin's error text. Never waits, and never makes the pool grow by itself."""
        row = self.nodes[node]
        if not row.serving:
            return UNREACHABLE_UNIX if self.rules.unix_socket else UNREACHABLE_TCP
        known = row.sandboxes.get(sandbox_id)
        held = self.ipamd.add_network(row, sandbox_id)
        if held is None:
            return NO_ADDRESS
        if known is None:
            assignment = Assignment(held[0], sandbox_id, namespace, pod)
            row.sandboxes[sandbox_id] = assignment
            self.store.emit(Verb.ADDRESS_ASSIGNED, node, assignment)
            self.loop.arm(row)
        return format_address(held[0])

    def delete(self, node: str, namespace: str, pod: str, sandbox_id: str) -> None:
        """CNI DEL: the address cools from now on. Without ipamd the plugin reports success all the same."""
        row = self.nodes.get(node)
        assignment = row.sandboxes.pop(sandbox_id, None) if row is not None else None
        if row is None or assignment is None:
            return
        if not row.serving:
            row.gone[sandbox_id] = None
            self.store.emit(Verb.ADDRESS_RELEASED, node, assignment)
            return
        held = self.ipamd.release(row, sandbox_id)
        self.store.emit(Verb.ADDRESS_RELEASED, node, assignment)
        if held is None:
            return
        if held[1].excluded or held[0] in held[1].cidrs or (row.rules.prefix_delegation and not row.prefix_mode):
            self._follow_up(row, *held)
        self.loop.arm(row)

    def _follow_up(self, row: NodeIpam, address: int, eni: Any) -> None:
        """What a DEL entails, mostly nothing; it runs beside the loop."""
        steps = self.ipamd.del_network(row, address, eni)
        try:
            event = next(steps)
        except StopIteration:
            return

        def rest() -> Steps[None]:
            yield event
            yield from steps
            self.loop.look(row)

        self.clock.process(rest())

    # -- hearing of changes -------------------------------------------------------------------------------------

    def _node_updated(self, api_node: Node, old: Node) -> None:
        if api_node.taints is not old.taints:
            node = self.nodes.get(api_node.name)
            if node is not None:
                self.loop.look(node)

    def _eni_changed(self, eni: Eni, _: Any) -> None:
        node = self.nodes.get(eni.node)
        if node is not None and node.running is None and node.serving:
            self.clock.arm(self.clock.now, NETWORK, self.loop.look, node)

    def _fault_changed(self) -> None:
        for node in self.nodes.values():
            self.loop.look(node)

    # -- asking -------------------------------------------------------------------------------------------------

    def is_quiet(self, node: str) -> bool:
        """No EC2 call of the node's ipamd is out and none is due; retries that cannot succeed do not count."""
        row = self.nodes[node]
        if not row.serving:
            return row.start == 0 or (row.running is None and bool(refusal_to_start(row.env, row.rules)))
        return row.running is None and self.loop.is_quiet(row)

    def is_serving(self, node: str) -> bool:
        """Whether ipamd answers on the node."""
        return self.nodes[node].serving

    def pool_stats(self, node: str) -> tuple[int, int, int, int]:
        """The node's datastore: (ENIs, total, assigned, cooling) addresses; zeros while ipamd has none."""
        ds = self.nodes[node].datastore
        if ds is None:
            return 0, 0, 0, 0
        stats = ds.stats()
        return len(ds.enis), stats.total, stats.assigned, ds.cooling(self.clock.now)

    def cooldown_s(self, node: str) -> float:
        """The node's cool-down, seconds."""
        return float(self.nodes[node].settings.cooldown_s)

    def marks(self, node: str) -> tuple[float, float, float]:
        """ipamd's marks: last pool action, last decrease, last "insufficient" (seconds; minus infinity: never)."""
        row = self.nodes[node]
        return self.loop.last_pool_action_s(row), row.last_decrease_s, row.last_insufficient_s

    def addresses_per_eni(self, node: str) -> int:
        """Addresses for pods that one full ENI of the node has."""
        row = self.nodes[node]
        slots = row.instance.ipv4_per_eni - 1
        return slots * PREFIX_SIZE if row.settings.prefix_delegation and row.instance.nitro else slots

    def address_limit(self, node: str) -> int:
        """Addresses for pods that the node can have at most: its ENIs, unmanaged and unusable ones left out, times
        their slots."""
        row = self.nodes[node]
        want = row.settings
        enis = min(want.max_eni if 1 <= want.max_eni < row.eni_limit else row.eni_limit, row.instance.max_enis)
        excluded = sum(e.excluded for e in row.datastore.enis.values()) if row.datastore is not None else 0
        usable = enis - row.unmanaged_count - excluded - (1 if want.custom_networking else 0)
        return max(usable, 0) * self.addresses_per_eni(node)

    def assignments(self, node: str) -> list[tuple[str, int, str]]:
        """ipamd's assignments on the node: (sandbox, address, ENI id)."""
        ds = self.nodes[node].datastore
        return [] if ds is None else [(key, address, eni.id) for key, (address, eni) in ds.by_key.items()]
