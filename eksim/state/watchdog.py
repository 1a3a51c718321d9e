"""Invariants that need history: cool-downs, turns of ipamd's loop, the life of an ENI, what a refusal was true of.

A :class:`Watchdog` hears the store's changes and writes nothing; what it asks of the components it asks through
:class:`Facts`. From the watchdog's own start on it knows each address's last release, each node's last growth, decrease
and freed ENI. ``eksim check`` feeds :class:`Turns` from a finished run's tables instead. The rules are those of ipamd
alone: what others do to its ENIs (a scenario's faults) and what a daemon that starts anew has forgotten is let pass.
"""

from __future__ import annotations

from typing import Any, Protocol

from eksim.engine.clock import Clock
from eksim.state.changes import Verb
from eksim.state.invariants import Violation, unfinished
from eksim.state.network import PREFIX, PREFIX_SIZE, format_address, format_item
from eksim.state.objects import Pod
from eksim.state.picture import Picture
from eksim.state.room import Room
from eksim.state.store import Store

_IPAMD = "amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:"
_DATASTORE = "amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:"

#: name → source of the rule
HISTORY: dict[str, str] = {
    "no-reuse-within-cool-down": _DATASTORE + "AddressInfo.inCoolingPeriod, v1.23.1",
    "one-growth-per-turn": _IPAMD + "increaseDatastorePool, StartNodeIPPoolManager, v1.23.1",
    "one-eni-freed-per-turn": _IPAMD + "updateIPPoolIfRequired, tryFreeENI, v1.23.1",
    "decreases-30-s-apart": _IPAMD + "shouldSkipDataStorePoolDecrease (decreaseIPPoolInterval), v1.23.1",
    "primary-eni-stays": _DATASTORE + "getDeletableENI, v1.23.1",
    "young-eni-stays": _DATASTORE + "isTooYoung (minENILifeTime), v1.23.1",
    "address-in-use-stays": _DATASTORE + "FindFreeableCidrs, getDeletableENI, v1.23.1",
    "bound-within-max-pods": "kubernetes/pkg/scheduler/framework/plugins/noderesources/fit.go:fitsRequest, v1.34.1",
    "admitted-if-it-fits": "kubernetes/pkg/kubelet/lifecycle/predicate.go:generalFilter, v1.34.1",
    "refused-for-a-reason": "kubernetes/pkg/scheduler/schedule_one.go:schedulePod, v1.34.1",
}

#: From the end of one update of the pool to the beginning of the next. Source: ipamd.go (ipPoolMonitorInterval).
TURN_S = 5.0
DECREASE_INTERVAL_S = 30.0
MIN_ENI_LIFETIME_S = 60.0
#: Calls of one decrease follow one another at once.
SAME_DECREASE_S = 1.0
EPSILON_S = 1e-6
#: The longest that a binding takes to fail.
BINDING_S = 1.0
NEVER = float("-inf")


class Turns:
    """What the calls of one node's ipamd tell of its turns. Fed in the order in which the calls were answered.

    ``attached`` and ``call`` give the broken rules as (name, detail). ``restarted`` forgets the marks, as ipamd does.
    """

    __slots__ = ("_attached", "_decrease", "_decrease_end", "_freed_end", "_grown", "_modify_failed_s", "_refused", "_since",
                 "node")  # fmt: skip

    def __init__(self, node: str) -> None:
        self.node = node
        #: device → when an ENI was attached there last
        self._attached: dict[int, float] = {}
        self._modify_failed_s = NEVER
        self._since = NEVER
        self.restarted(NEVER)

    def restarted(self, now: float) -> None:
        """ipamd has started anew: its marks are gone, and calls that began before are not its own."""
        self._since = now
        self._grown: tuple[str, float] | None = None
        self._freed_end = NEVER
        self._decrease = NEVER
        self._decrease_end = NEVER
        self._refused = False

    def attached(self, device: int, now: float) -> None:
        """An ENI is attached as ``device``."""
        self._attached[device] = now

    def call(
        self, api: str, start_s: float, end_s: float, device: int, count: int, error: str, *, leftovers: bool = False
    ) -> list[tuple[str, str]]:
        """A call of the node's was answered. ``leftovers``: it gives back what another mode has left."""
        if error and api == "ModifyNetworkInterfaceAttribute":
            self._modify_failed_s = end_s
        if start_s < self._since:
            return []
        if api == "UnassignPrivateIpAddresses" and not leftovers:
            return self._shrinks(start_s, end_s, count, error)
        if error:
            return []
        if api in ("AssignPrivateIpAddresses", "CreateNetworkInterface"):
            return self._grows(api, start_s, end_s)
        if api == "DetachNetworkInterface":
            return self._frees(start_s, end_s, device)
        return []

    def _grows(self, api: str, start_s: float, end_s: float) -> list[tuple[str, str]]:
        before, self._grown = self._grown, (api, end_s)
        if before is None or start_s >= before[1] + TURN_S - EPSILON_S:
            return []
        if before[0] == "CreateNetworkInterface" and api == "AssignPrivateIpAddresses":
            # up to v1.15.3 a new ENI gets its addresses by a call of their own
            self._grown = ("both", end_s)
            return []
        return [
            (
                "one-growth-per-turn",
                f"{self.node}: {api} at {start_s:g} s in the turn whose {before[0]} was answered at {before[1]:g} s",
            )
        ]

    def _frees(self, start_s: float, end_s: float, device: int) -> list[tuple[str, str]]:
        found = []
        if device == 0:
            found.append(("primary-eni-stays", f"{self.node}: eth0 is detached at {start_s:g} s"))
        attached_s = self._attached.get(device, NEVER)
        if self._modify_failed_s >= attached_s > NEVER:
            return found  # an ENI whose making failed half-way is taken back at once
        if start_s - attached_s < MIN_ENI_LIFETIME_S - EPSILON_S:
            found.append(
                ("young-eni-stays", f"{self.node}: eth{device}, attached at {attached_s:g} s, is freed at {start_s:g} s")
            )
        if start_s < self._freed_end + TURN_S - EPSILON_S:
            found.append(
                (
                    "one-eni-freed-per-turn",
                    f"{self.node}: eth{device} is detached at {start_s:g} s, another one was at {self._freed_end:g} s",
                )
            )
        self._freed_end = end_s
        return found

    def _shrinks(self, start_s: float, end_s: float, count: int, error: str) -> list[tuple[str, str]]:
        before, interval = self._decrease, start_s - self._decrease
        # a refused call is tried again by the SDK; the decrease began with the first try
        same = start_s - self._decrease_end < SAME_DECREASE_S or self._refused
        self._decrease_end = end_s
        self._refused = bool(error)
        if same:
            return []
        self._decrease = start_s
        if interval > DECREASE_INTERVAL_S - EPSILON_S:
            return []
        return [
            (
                "decreases-30-s-apart",
                f"{self.node}: {count} given back at {start_s:g} s, the decrease before was at {before:g} s",
            )
        ]


class Facts(Protocol):
    """What a watchdog asks of the components."""

    def is_serving(self, node: str) -> bool:
        """Whether ipamd answers on the node."""

    def prefix_mode(self, node: str) -> bool:
        """Whether ipamd gives out addresses of /28s there."""

    def cooldown_s(self, node: str) -> float:
        """The cool-down that aws-node's environment asks for, seconds."""

    def assigned(self, node: str) -> dict[str, int]:
        """ipamd's datastore: sandbox → address."""

    def assumed_on(self, pod: str) -> str:
        """The node on which the scheduler assumes the pod (namespace/name) to be; "" if it does not."""

    def picture(self) -> Picture:
        """The whole picture of this moment."""


class Watchdog:
    """Hears of everything from its making on; :meth:`violations` gives what was broken so far, each once."""

    def __init__(self, clock: Clock, store: Store, facts: Facts) -> None:
        self._clock = clock
        self._store = store
        self._facts = facts
        self._found: dict[Violation, None] = {}
        self._turns: dict[str, Turns] = {}
        #: (node, address) → when it was released, while that counts
        self._released: dict[tuple[str, int], float] = {}
        #: node → address → sandbox, of addresses that pods have and ipamd knows of
        self._in_use: dict[str, dict[int, str]] = {}
        #: ENI id → what is on it
        self._items: dict[str, dict[int, None]] = {}
        #: (node, device) → ENI's id, the last that was there
        self._devices: dict[tuple[str, int], str] = {}
        #: node → when, and which addresses left an ENI then with their sandboxes ("" for none); by whose doing is not known
        self._torn: dict[str, tuple[float, dict[int, str]]] = {}
        #: node → addresses that others took: ipamd may have them twice until it has looked
        self._taken: dict[str, dict[int, None]] = {}
        #: ENIs that ipamd is freeing
        self._freed: dict[str, None] = {}
        #: pod → attempts at which it was refused although it fitted, and the words
        self._suspects: dict[str, tuple[int, str]] = {}
        self._silent: dict[str, float] = {}
        for verb, watcher in (
            (Verb.ADDRESS_ASSIGNED, self._assigned),
            (Verb.ADDRESS_RELEASED, self._gave_back),
            (Verb.POOL_CHANGED, self._pool_changed),
            (Verb.ENI_ATTACHED, self._eni_attached),
            (Verb.ENI_DETACHED, self._eni_detached),
            (Verb.ENI_ADDRESSES, self._eni_addresses),
            (Verb.EC2_CALL, self._called),
            (Verb.NODE_ADDED, self._node_changed),
            (Verb.NODE_UPDATED, self._node_changed),
            (Verb.NODE_DELETED, self._node_deleted),
            (Verb.POD_BOUND, self._pod_bound),
            (Verb.POD_STATUS, self._pod_status),
            (Verb.POD_CONDITION, self._pod_condition),
            (Verb.POD_DELETED, self._pod_deleted),
        ):
            store.watch(verb, watcher)

    def violations(self) -> list[Violation]:
        """What was broken since the start, in the order in which it was."""
        self._settle_suspects()
        return list(self._found)

    def _break(self, name: str, detail: str) -> None:
        self._found[Violation(name, detail)] = None

    def turns_of(self, node: str) -> Turns:
        """The turns of a node's ipamd."""
        found = self._turns.get(node)
        if found is None:
            found = self._turns[node] = Turns(node)
        return found

    def taken(self) -> dict[tuple[str, int], None]:
        """(node, address) that others took from a node's ENIs, or that ipamd did not find when it started: pods go on using
        them, and ipamd may get them anew."""
        return {(node, address): None for node, addresses in self._taken.items() for address in addresses}

    def silent(self) -> dict[str, float]:
        """node → when last room was, or may have been, made there of which a scheduler without hints does not hear."""
        return self._silent

    def cooling(self) -> list[tuple[str, int, float]]:
        """(node, address, until when it cools) of what was released and not used since, oldest first."""
        return [(node, a, when + self._facts.cooldown_s(node)) for (node, a), when in self._released.items()]

    # -- addresses --------------------------------------------------------------------------------------------------

    def _assigned(self, node: str, assignment: Any) -> None:
        address, now = assignment.address, self._clock.now
        released = self._released.pop((node, address), None)
        if address in self._taken.get(node, ()):
            return
        if released is not None and now - released <= self._facts.cooldown_s(node):
            self._break(
                "no-reuse-within-cool-down",
                f"{node}: {format_address(address)}, released at {released:g} s, is {assignment.namespace}/"
                f"{assignment.pod}'s at {now:g} s; it cools {self._facts.cooldown_s(node):g} s",
            )
        self._in_use.setdefault(node, {})[address] = assignment.sandbox

    def _gave_back(self, node: str, assignment: Any) -> None:
        in_use = self._in_use.get(node, {})
        if in_use.get(assignment.address) != assignment.sandbox:
            return
        del in_use[assignment.address]
        if self._facts.is_serving(node):
            self._released[(node, assignment.address)] = self._clock.now

    def _pool_changed(self, node: str, _: Any) -> None:
        if self._facts.is_serving(node):
            return
        # a start: cool-downs and marks are forgotten, and perhaps pods whose addresses it could not find
        self.turns_of(node).restarted(self._clock.now)
        for key in [key for key in self._released if key[0] == node]:
            del self._released[key]
        known = self._facts.assigned(node)
        in_use = self._in_use.get(node, {})
        self._in_use[node] = {address: key for address, key in in_use.items() if known.get(key) == address}
        self._taken.setdefault(node, {}).update({a: None for a, key in in_use.items() if known.get(key) != a})

    # -- ENIs -------------------------------------------------------------------------------------------------------

    def _eni_attached(self, eni: Any, _: Any) -> None:
        self._devices[(eni.node, eni.device)] = eni.id
        self._items[eni.id] = dict(eni.items)
        self.turns_of(eni.node).attached(eni.device, self._clock.now)

    def _eni_detached(self, eni: Any, _: Any) -> None:
        own = self._freed.pop(eni.id, "") is None
        self._lose(eni.node, self._items.get(eni.id, {}), by_ipamd=own)

    def _eni_addresses(self, eni: Any, _: Any) -> None:
        before = self._items.get(eni.id, {})
        items = self._items[eni.id] = dict(eni.items)
        gone = {item: None for item in before if item not in items}
        if gone and eni.instance is not None:
            self._lose(eni.node, gone)

    def _lose(self, node: str, items: dict[int, None], *, by_ipamd: bool = False) -> None:
        """The items are on the node no longer: what they were used for is forgotten, and looked at by who did it."""
        in_use = self._in_use.get(node, {})
        torn: dict[int, str] = {}
        for address in _addresses(items):
            self._released.pop((node, address), None)
            torn[address] = in_use.pop(address, "")
        self._torn[node] = (self._clock.now, torn)
        if not by_ipamd:
            self._taken.setdefault(node, {}).update(dict.fromkeys(torn))

    def _called(self, call: Any, _: Any) -> None:
        node = call.node
        when, torn = self._torn.pop(node, (NEVER, {}))
        if when < self._clock.now:
            torn = {}
        if call.background:
            return
        taken = self._taken.get(node, {})
        if call.error and call.api == "UnassignPrivateIpAddresses":
            # the datastore has forgotten them all the same, and when they were released; they may come back as new ones
            for address in _addresses(call.items):
                self._released.pop((node, address), None)
        if not call.error and call.api == "UnassignPrivateIpAddresses":
            for address in _addresses(call.items):
                taken.pop(address, None)
                if torn.get(address) and self._knows(node, torn[address], address):
                    self._break(
                        "address-in-use-stays",
                        f"{node}: {format_address(address)} is given back at {self._clock.now:g} s while sandbox "
                        f"{torn[address][:12]} has it",
                    )
        elif not call.error and call.api == "DetachNetworkInterface":
            id = self._devices.get((node, call.device), "")
            self._freed[id] = None
            in_use = self._in_use.get(node, {})
            for address in _addresses(self._items.get(id, {})):
                sandbox = torn.get(address) or in_use.get(address, "")
                if address in torn:
                    taken.pop(address, None)
                if not sandbox or not self._knows(node, sandbox, address):
                    continue
                self._break(
                    "address-in-use-stays",
                    f"{node}: eth{call.device} is freed at {self._clock.now:g} s while sandbox {sandbox[:12]} has "
                    f"{format_address(address)} of it",
                )
        if not self._facts.is_serving(node):
            return
        prefix_mode = self._facts.prefix_mode(node)
        leftovers = bool(call.items) and all((item >= PREFIX) != prefix_mode for item in call.items)
        for name, detail in self.turns_of(node).call(
            call.api, call.start_s, call.end_s, call.device, call.count, call.error, leftovers=leftovers
        ):
            shown = ", ".join(map(format_item, call.items[:4]))
            self._break(name, f"{detail} ({shown})" if shown else detail)

    def _knows(self, node: str, sandbox: str, address: int) -> bool:
        """Whether the node's ipamd knows whose the address is; one that is just starting may not have found it."""
        return self._facts.is_serving(node) or self._facts.assigned(node).get(sandbox) == address

    def _node_changed(self, node: Any, _: Any) -> None:
        # 1.22 to 1.31 drop a node's event for pods that do not fit it then (preCheckForNode), and do not make up for it
        self._silent[node.name] = self._clock.now

    def _node_deleted(self, node: Any, _: Any) -> None:
        self._in_use.pop(node.name, None)
        self._taken.pop(node.name, None)
        self._turns.pop(node.name, None)

    # -- pods -------------------------------------------------------------------------------------------------------

    def _pod_bound(self, pod: Pod, _: Any) -> None:
        node = self._store.nodes.get(pod.node)
        if node is None or pod.spec.node_name:
            return
        count, limit = unfinished(self._store, pod.node), node.allocatable.get("pods", 0)
        if count > limit and not any(p.spec.node_name for p in self._store.pods_by_node[pod.node].values()):
            self._break("bound-within-max-pods", f"{pod.key} is bound to {pod.node} as number {count} of {limit}")

    def _pod_status(self, pod: Pod, _: Any) -> None:
        if pod.phase != "Failed" or not pod.reason.startswith("OutOf"):
            return
        node = self._store.nodes.get(pod.node)
        if node is None:
            return
        resource = pod.reason.removeprefix("OutOf")
        others = [
            w.pod
            for w in self._facts.picture().workers
            if w.node == pod.node and w.pod is not pod and w.pod.phase not in ("Succeeded", "Failed")
        ]
        limit = node.allocatable.get(resource, 0)
        if resource == "pods":
            used, asked = len(others), 1
        else:
            used, asked = sum(p.spec.requests.get(resource, 0) for p in others), pod.spec.requests.get(resource, 0)
        if used + asked <= limit:
            self._break(
                "admitted-if-it-fits",
                f"{pod.node}'s kubelet refuses {pod.key} ({pod.reason}) with {used} of {limit} used, {asked} asked",
            )

    def _pod_deleted(self, pod: Pod, _: Any) -> None:
        if pod.node:
            return
        if pod.nominated_node:
            self._silent[pod.nominated_node] = self._clock.now
        assumed_on = self._facts.assumed_on(pod.key)
        if assumed_on:
            # it counts there until its binding has failed
            self._silent[assumed_on] = self._clock.now + BINDING_S

    def _pod_condition(self, pod: Pod, old: Pod) -> None:
        if old.nominated_node and old.nominated_node != pod.nominated_node:
            self._silent[old.nominated_node] = self._clock.now
        condition = pod.scheduled
        if pod.node or condition is None or condition.reason != "Unschedulable" or condition is old.scheduled:
            return
        picture = self._facts.picture()
        place = picture.places.get(pod.key)
        if place is None or place[0] != "unschedulable":
            return
        room = Room(self._store, picture)
        node = next(iter(room.nodes_for(pod)), None)
        if node is not None:
            words = (
                f"{pod.key} is refused at {self._clock.now:g} s ({condition.message!r}) and fits {node}: "
                f"{room.words(node)}"
            )
            self._suspects[pod.key] = (place[1], words)

    def _settle_suspects(self) -> None:
        """A refusal that was wrong when it was written counts unless what came meanwhile has moved the pod."""
        if not self._suspects:
            return
        places = self._facts.picture().places
        for key, (attempts, words) in self._suspects.items():
            place = places.get(key)
            if place is not None and place[0] == "unschedulable" and place[1] == attempts:
                self._break("refused-for-a-reason", words)
        self._suspects.clear()


def _addresses(items: Any) -> list[int]:
    """The addresses of items, those of a /28 one by one."""
    found: list[int] = []
    for item in items:
        if item >= PREFIX:
            found += range(item ^ PREFIX, (item ^ PREFIX) + PREFIX_SIZE)
        else:
            found.append(item)
    return found
