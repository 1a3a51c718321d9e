"""What must hold at any moment, each with a name, its rule's source and the offending rows in words.

Judges read the store and what the components hand them (a :class:`Picture`); they serve property tests, ``expect:`` and
:mod:`eksim.testing`. What needs history (cool-downs, turns of ipamd's loop, the life of an ENI) is judged by
:mod:`eksim.state.watchdog`. A judge skips what the picture does not show (a Picture may be made by hand), and never
calls wrong what the real components do too: a pod whose address EC2 took away keeps it, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from eksim.state.network import format_address
from eksim.state.picture import Picture, SandboxPicture, WorkerPicture
from eksim.state.room import Room, bound
from eksim.state.store import Store

#: aws-node and kube-proxy: they take a pod slot each, and no address.
#: Source: amazon-vpc-cni-k8s/misc/eni-max-pods.txt (header), v1.23.1.
HOST_NETWORK_PODS = 2

#: How long a kubelet that has just registered may take to hear of pods that are bound to its node already (a node may
#: bear the name of one that is gone).
HEARS_OF_PODS_S = 1.0



@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that does not hold."""

    invariant: str
    detail: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.detail}"


Judge = Callable[[Store, Picture], Iterable[str]]
#: name → (judge, source of the rule)
INVARIANTS: dict[str, tuple[Judge, str]] = {}


def invariant(name: str, source: str) -> Callable[[Judge], Judge]:
    """Register a judge."""

    def register(judge: Judge) -> Judge:
        INVARIANTS[name] = (judge, source)
        return judge

    return register


def violations(store: Store, picture: Picture) -> list[Violation]:
    """Every invariant that does not hold, with what offends it."""
    found: list[Violation] = []
    for name, (judge, _) in INVARIANTS.items():
        found += [Violation(name, detail) for detail in judge(store, picture)]
    return found


# -- addresses ------------------------------------------------------------------------------------------------------


@invariant("address-in-one-place", "AWS: a private address belongs to one ENI; data_store.go: to one sandbox")
def address_in_one_place(store: Store, picture: Picture) -> Iterator[str]:
    """No address on two ENIs, none assigned to two sandboxes (unless EC2 took it from one of them behind ipamd's back)."""
    seen: dict[int, str] = {}
    for eni in picture.enis:
        for address in (eni.own, *eni.addresses):
            if address in seen:
                yield f"address {format_address(address)} is on {seen[address]} and on {eni.id}"
            seen[address] = eni.id
    holders: dict[int, tuple[str, str]] = {}
    for node, sandbox, address, held_on in picture.assigned:
        if (held_on and seen and seen.get(address) != held_on) or (node, address) in picture.taken:
            continue
        if address in holders:
            first = holders[address]
            yield f"address {format_address(address)} is assigned to {' '.join(first)} and to {node} {sandbox}"
        holders[address] = (node, sandbox)


@invariant("assigned-within-usable", "amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:AssignPodIPv4Address")
def assigned_within_usable(store: Store, picture: Picture) -> Iterator[str]:
    """No more addresses assigned than an ENI's slots hold, nor than the node's.

    An ENI that still has /28s from prefix mode holds what they hold.
    """
    usable: dict[str, int] = {}
    nodes: dict[str, int] = {}
    for eni in picture.enis:
        enis, slots = picture.limits.get(eni.node, (1 << 15, 1 << 15))
        usable[eni.id] = max(slots, len(eni.addresses))
        nodes[eni.node] = max(nodes.get(eni.node, enis * slots), len(eni.addresses))
    per_eni: dict[str, int] = {}
    per_node: dict[str, int] = {}
    for node, _, address, held_on in picture.assigned:
        if (node, address) in picture.taken:
            continue
        per_node[node] = per_node.get(node, 0) + 1
        if held_on:
            per_eni[held_on] = per_eni.get(held_on, 0) + 1
    for id, count in per_eni.items():
        if count > usable.get(id, 1 << 30):
            yield f"{id} has {count} addresses assigned, {usable[id]} usable"
    for node, count in per_node.items():
        enis, slots = picture.limits.get(node, (1 << 15, 1 << 15))
        limit = max(enis * slots, sum(usable[e.id] for e in picture.enis if e.node == node))
        if count > limit:
            yield f"{node} has {count} addresses assigned, {limit} usable"


@invariant("pool-adds-up", "amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:GetIPStats")
def pool_adds_up(store: Store, picture: Picture) -> Iterator[str]:
    """assigned + free + cooling = total, and total ≤ max ENIs × addresses of an ENI."""
    count: dict[str, int] = {}
    for node, _, _, _ in picture.assigned:
        count[node] = count.get(node, 0) + 1
    unsure = {node: None for node, _ in picture.taken}
    for node, (_, total, assigned, cooling) in picture.pools.items():
        if node in unsure:
            continue
        if assigned + cooling > total or assigned < 0 or cooling < 0:
            yield f"{node}: {assigned} assigned + {cooling} cooling of {total}"
        if assigned > count.get(node, 0):
            yield f"{node}: {assigned} counted as assigned, {count.get(node, 0)} are"
        enis, slots = picture.limits.get(node, (1 << 15, 1 << 15))
        if total > enis * slots:
            yield f"{node}: {total} addresses, {enis} ENIs hold {enis * slots}"


@invariant("pod-has-its-address", "kubernetes/pkg/kubelet/kubelet_pods.go:generateAPIPodStatus; CNI specification, ADD")
def pod_has_its_address(store: Store, picture: Picture) -> Iterator[str]:
    """A pod with an address is bound, and the address is its sandbox's own (on the host's network: the node's).

    A running pod has exactly one sandbox with an address; a Running pod is known to its node's kubelet.
    """
    for pod in store.pods.values():
        if pod.ip and not pod.node:
            yield f"{pod.key} has address {pod.ip} and no node"
    if not picture.full:
        return
    held: dict[tuple[str, str], list[SandboxPicture]] = {}
    for row in picture.sandboxes:
        held.setdefault((row.node, row.pod), []).append(row)
    known: dict[str, WorkerPicture] = {}
    for worker in picture.workers:
        pod = worker.pod
        if store.pods.get(pod.key) is pod:
            known[pod.key] = worker
        if worker.stage != "running":
            continue
        if pod.spec.host_network:
            node = store.nodes.get(worker.node)
            own = "" if node is None else node.facts.get("ip", "")
            if pod.ip and own and pod.ip != own:
                yield f"{pod.key} is on the host's network of {worker.node} ({own}) with address {pod.ip}"
            continue
        mine = [row for row in held.get((worker.node, pod.key), ()) if row.sandbox == worker.sandbox]
        if len(mine) != 1 or format_address(mine[0].address) != worker.address:
            texts = ", ".join(format_address(row.address) for row in mine) or "none"
            yield f"{pod.key} runs on {worker.node} with {worker.address or 'no address'}; the CNI gave it {texts}"
        elif pod.ip and pod.ip != worker.address:
            yield f"{pod.key} says {pod.ip}, its sandbox has {worker.address}"
    for pod in store.pods.values():
        if pod.phase != "Running" or pod.node not in store.nodes or pod.key in known:
            continue
        if store.clock.now - store.nodes[pod.node].created_s > HEARS_OF_PODS_S:
            yield f"{pod.key} is Running on {pod.node}, whose kubelet does not know it"


@invariant("released-is-free", "amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:UnassignPodIPAddress")
def released_is_free(store: Store, picture: Picture) -> Iterator[str]:
    """A sandbox that ended holds no address any longer: neither with the plugin nor in ipamd's datastore.

    (Unless it ended while ipamd was down and its file had been read: then the real one keeps the address too.)
    """
    if not picture.full:
        return
    live: dict[tuple[str, str], None] = {}
    for worker in picture.workers:
        if worker.stage != "ended":
            live[(worker.node, worker.sandbox)] = None
    for row in picture.sandboxes:
        if (row.node, row.sandbox) not in live:
            yield (
                f"{row.pod}'s sandbox {row.sandbox[:12]} on {row.node} has ended and still holds "
                f"{format_address(row.address)}"
            )
    given = {(row.node, row.sandbox): None for row in picture.sandboxes}
    for node, sandbox, address, _ in picture.assigned:
        if (node, sandbox) not in given and sandbox not in picture.unheard:
            yield f"{format_address(address)} on {node} stays assigned to {sandbox[:12]}, which was released"


# -- limits ---------------------------------------------------------------------------------------------------------


@invariant("enis-within-limit", "EC2: maximum network interfaces of the instance type")
def enis_within_limit(store: Store, picture: Picture) -> Iterator[str]:
    """No node has more ENIs than its type takes, no device number twice."""
    devices: dict[str, dict[int, str]] = {}
    for eni in picture.enis:
        taken = devices.setdefault(eni.node, {})
        if eni.device in taken:
            yield f"{eni.node} has device {eni.device} twice"
        taken[eni.device] = eni.id
    for node, taken in devices.items():
        limit = picture.limits.get(node, (1 << 15, 0))[0]
        if len(taken) > limit:
            yield f"{node} has {len(taken)} ENIs, {limit} allowed"


@invariant("pods-within-max-pods", "kubernetes/pkg/scheduler/framework/plugins/noderesources/fit.go:fitsRequest")
def pods_within_max_pods(store: Store, picture: Picture) -> Iterator[str]:
    """No node holds more unfinished pods than its allocatable pods, neither bound nor started by its kubelet.

    Pods of a node of the same name that is gone do not count before the kubelet has taken them.
    """
    started: dict[str, int] = {}
    for worker in picture.workers:
        if worker.pod.phase not in ("Succeeded", "Failed"):
            started[worker.node] = started.get(worker.node, 0) + 1
    for name, node in store.nodes.items():
        count = unfinished(store, name, since_s=node.created_s)
        limit = node.allocatable.get("pods", 0)
        if count > limit:
            yield f"{name} holds {count} pods, max-pods {limit}"
        if started.get(name, 0) > limit:
            yield f"{name}'s kubelet has started {started[name]} pods, max-pods {limit}"


@invariant("max-pods-by-formula", "amazon-eks-ami/files/max-pods-calculator.sh; nodeadm kubelet/eni_max_pods.go")
def max_pods_by_formula(store: Store, picture: Picture) -> Iterator[str]:
    """A node's max-pods is ENIs × (IPv4 per ENI − 1) + 2, unless the scenario sets it."""
    for name, kind in picture.types.items():
        node = store.nodes.get(name)
        if node is None:
            continue
        formula = kind.enis * (kind.ipv4_per_eni - 1) + HOST_NETWORK_PODS
        expected = formula if kind.override is None else kind.override
        for what, amounts in (("allocatable", node.allocatable), ("capacity", node.capacity)):
            if amounts.get("pods") != expected:
                how = f"{kind.enis} × ({kind.ipv4_per_eni} − 1) + 2" if kind.override is None else "as set"
                yield f"{name} ({kind.name}) has {what} pods {amounts.get('pods')}, should have {expected} ({how})"


@invariant("subnet-adds-up", "VPC user guide: five addresses of every subnet are reserved")
def subnet_adds_up(store: Store, picture: Picture) -> Iterator[str]:
    """free + used + reserved = size."""
    for name, (size, free, used, reserved) in picture.subnets.items():
        if free + used + reserved != size or free < 0:
            yield f"{name}: {free} free + {used} used + {reserved} reserved of {size}"


# -- scheduling -----------------------------------------------------------------------------------------------------


def unfinished(store: Store, node: str, since_s: float = 0.0) -> int:
    """How many pods are bound to the node, since that time, and have not ended."""
    return sum(
        p.phase not in ("Succeeded", "Failed") and (p.bound_s is None or p.bound_s >= since_s)
        for p in store.pods_by_node.get(node, {}).values()
    )


@invariant("scheduler-counts-what-is-there", "kubernetes/pkg/scheduler/backend/cache/interface.go (Cache)")
def scheduler_counts_what_is_there(store: Store, picture: Picture) -> Iterator[str]:
    """The scheduler's sums of a node are those of the pods bound or assumed there."""
    if not picture.requested:
        return
    # a pod that is deleted while its binding is under way counts until the binding has failed
    unsure = {node: None for key, node in picture.assumed.items() if key not in store.pods}
    for name, total in bound(store, picture).items():
        if name in unsure:
            continue
        counted = picture.requested.get(name)
        if counted is None:
            yield f"the scheduler does not know {name}"
            continue
        for resource in ("pods", "cpu", "memory"):
            if counted.get(resource, 0) != total.get(resource, 0):
                yield (
                    f"{name}: the scheduler counts {counted.get(resource, 0)} {resource}, "
                    f"there are {total.get(resource, 0)}"
                )


@invariant("pending-for-a-reason", "kubernetes/pkg/scheduler/backend/queue/scheduling_queue.go:PriorityQueue")
def pending_for_a_reason(store: Store, picture: Picture) -> Iterator[str]:
    """A Pending pod fits nowhere, or it is in activeQ or backoffQ (or being tried, or bound).

    Nearly all that makes room on a node is an event that the plugin which refused the node has registered for; so a pod
    that waits among the unschedulable ones and fits a node was refused without reason, or an event was lost. Left out:
    pods that want others near (pod affinity) or spread, and room that comes of what no event tells of.
    """
    if not picture.full:
        return
    waiting = []
    for pod in store.pods.values():
        if pod.node or pod.deletion_s is not None or pod.key in picture.assumed:
            continue
        if pod.spec.scheduler_name not in picture.schedulers or pod.phase != "Pending":
            continue
        place = picture.places.get(pod.key)
        if place is None:
            yield f"{pod.key} is pending, and the scheduler does not know it"
        elif place[0] == "unschedulable" and place[1] > 0:
            waiting.append((pod, place))
    if not waiting:
        return
    room = Room(store, picture)
    for pod, (_, attempts, since) in waiting:
        if picture.silent is None and store.clock.now - since <= picture.leftover_s:
            continue
        silent = picture.silent or {}
        node = next((name for name in room.nodes_for(pod) if silent.get(name, -1.0) < since), None)
        if node is not None:
            said = pod.scheduled.message if pod.scheduled is not None else "nothing"
            yield (
                f"{pod.key} waits as unschedulable since {since:g} s (attempt {attempts} said {said!r}), "
                f"and fits {node}: {room.words(node)}"
            )
