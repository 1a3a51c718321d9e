"""What must hold at any moment, each with a name, its rule's source and the offending rows in words.

Judges read the store and what the components hand them (a :class:`Picture`); they serve property tests, ``expect:`` and
``eksim check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from eksim.state.store import Store


@dataclass(slots=True)
class EniPicture:
    """An ENI as EC2 has it: its own address and what was assigned to it; addresses as integers."""

    id: str
    node: str
    device: int
    subnet: str
    own: int
    addresses: list[int]


@dataclass(slots=True)
class Picture:
    """A moment of the network: EC2's truth, ipamd's assignments, subnets."""

    enis: list[EniPicture] = field(default_factory=list)
    #: (node, sandbox, address, ENI id or "" if unknown)
    assigned: list[tuple[str, str, int, str]] = field(default_factory=list)
    #: node → (max ENIs, slots per ENI × addresses per slot)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: subnet → (size, free, used, reserved)
    subnets: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)


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


@invariant("address-in-one-place", "AWS: a private address belongs to one ENI; data_store.go: to one sandbox")
def address_in_one_place(store: Store, picture: Picture) -> Iterator[str]:
    """No address on two ENIs, none assigned to two sandboxes."""
    seen: dict[int, str] = {}
    for eni in picture.enis:
        for address in (eni.own, *eni.addresses):
            if address in seen:
                yield f"address {address} is on {seen[address]} and on {eni.id}"
            seen[address] = eni.id
    holders: dict[int, str] = {}
    for node, sandbox, address, _ in picture.assigned:
        if address in holders:
            yield f"address {address} is assigned to {holders[address]} and to {node} {sandbox}"
        holders[address] = f"{node} {sandbox}"


@invariant("assigned-within-usable", "amazon-vpc-cni-k8s/pkg/ipamd/datastore/data_store.go:AssignPodIPv4Address")
def assigned_within_usable(store: Store, picture: Picture) -> Iterator[str]:
    """No more addresses assigned than an ENI's slots hold, nor than the node's."""
    per_eni: dict[str, int] = {}
    per_node: dict[str, int] = {}
    for node, _, _, eni in picture.assigned:
        per_node[node] = per_node.get(node, 0) + 1
        if eni:
            per_eni[eni] = per_eni.get(eni, 0) + 1
    nodes = {e.id: e.node for e in picture.enis}
    for eni, count in per_eni.items():
        limit = picture.limits.get(nodes.get(eni, ""), (0, 1 << 30))[1]
        if count > limit:
            yield f"{eni} has {count} addresses assigned, {limit} usable"
    for node, count in per_node.items():
        enis, slots = picture.limits.get(node, (1 << 15, 1 << 15))
        if count > enis * slots:
            yield f"{node} has {count} addresses assigned, {enis * slots} usable"


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
    """No node holds more unfinished pods than its allocatable pods."""
    for name, node in store.nodes.items():
        count = sum(p.phase not in ("Succeeded", "Failed") for p in store.pods_by_node.get(name, {}).values())
        limit = node.allocatable.get("pods", 0)
        if count > limit:
            yield f"{name} holds {count} pods, max-pods {limit}"


@invariant("subnet-adds-up", "VPC user guide: five addresses of every subnet are reserved")
def subnet_adds_up(store: Store, picture: Picture) -> Iterator[str]:
    """free + used + reserved = size."""
    for name, (size, free, used, reserved) in picture.subnets.items():
        if free + used + reserved != size or free < 0:
            yield f"{name}: {free} free + {used} used + {reserved} reserved of {size}"


def violations(store: Store, picture: Picture) -> list[Violation]:
    """Every invariant that does not hold, with what offends it."""
    found: list[Violation] = []
    for name, (judge, _) in INVARIANTS.items():
        found += [Violation(name, detail) for detail in judge(store, picture)]
    return found
