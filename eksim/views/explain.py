"""Why pods are Pending, in plain words, and which limit binds.

Tells apart what people mix up: pod slots (the kubelet's max-pods, which the scheduler compares), addresses (what the CNI can
give), the subnet, and requests for cpu or memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eksim.state.objects import Node, Pod
from eksim.state.snapshot import Snapshot, Usage

#: The limits that can bind, in the words of ``bound_by``.
POD_SLOTS, ADDRESSES, SUBNET, CPU, MEMORY, NOTHING = "pod slots", "addresses", "subnet", "cpu", "memory", "nothing"
#: EC2's answers that mean the subnet: too few addresses, or no aligned /28.
SUBNET_CODES = ("InsufficientFreeAddressesInSubnet", "InsufficientCidrBlocks", "InvalidParameterValue")
_BY_REASON = {"Too many pods": POD_SLOTS, "Insufficient cpu": CPU, "Insufficient memory": MEMORY}
_COUNTED = re.compile(r"(\d+) ([^,.]+(?:\.[^ ,][^,.]*)*)")


@dataclass(frozen=True, slots=True)
class Explanation:
    """``sentence`` for a person; ``bound_by`` one of the limits; ``pending``: pod, state and message of each."""

    sentence: str
    bound_by: str
    pending: list[dict[str, Any]]


def explain(snapshot: Snapshot, pool_stats: Callable[[str], tuple[int, int, int, int]], usage: Usage) -> Explanation:
    """What binds at the snapshot's moment. ``pool_stats``: node → (enis, total, assigned, cooling)."""
    nodes = snapshot.nodes()
    waiting = [p for p in snapshot.pods() if p.phase == "Pending" and p.deletion_s is None]
    unscheduled = [p for p in waiting if not p.node]
    stuck = [p for p in waiting if p.node and not p.ip and not p.spec.host_network]
    pending = [
        {
            "pod": p.key,
            "state": "unscheduled" if not p.node else "no address" if p in stuck else "starting",
            "node": p.node,
            "message": p.scheduled.message if p.scheduled is not None and not p.node else p.waiting,
        }
        for p in waiting
    ]
    slots = _slots_text(snapshot, nodes)
    addresses = _addresses_text(nodes, pool_stats, usage)
    running = sum(p.phase == "Running" for p in snapshot.store.pods.values())
    if unscheduled:
        bound_by = _bound_by(unscheduled)
        what = f"{len(unscheduled)} of {len(snapshot.store.pods)} pods cannot be scheduled"
        if bound_by == POD_SLOTS:
            return Explanation(f"{slots}; {addresses}", bound_by, pending)
        message = next((p.scheduled.message for p in unscheduled if p.scheduled is not None), "no attempt yet")
        return Explanation(f"{what}: {message.split('.')[0]}; {slots}; {addresses}", bound_by, pending)
    if stuck:
        nodes_stuck = dict.fromkeys(p.node for p in stuck)
        codes = dict.fromkeys(usage.refused[n] for n in nodes_stuck if n in usage.refused)
        dry = [c for c in codes if c in SUBNET_CODES]
        if dry:
            free = ", ".join(f"{name} has {n} addresses free" for name, n in usage.subnet_free.items())
            why = f"EC2 refuses more with {' and '.join(dry)} ({free})"
        elif codes:
            why = f"EC2 refused more with {' and '.join(codes)}"
        else:
            why = "no free address on their nodes, although pod slots are left"
        sentence = f"{len(stuck)} pods are scheduled but have no address: {why}; {addresses}; {slots}"
        return Explanation(sentence, SUBNET if dry else ADDRESSES, pending)
    return Explanation(f"nothing binds: {running} pods run; {slots}; {addresses}", NOTHING, pending)


def _bound_by(unscheduled: list[Pod]) -> str:
    """The reason that keeps most nodes from the pods."""
    votes: dict[str, int] = {}
    for pod in unscheduled:
        if pod.scheduled is None:
            continue
        first = pod.scheduled.message.split(" preemption: ")[0]
        for count, reason in _COUNTED.findall(first.partition(":")[2]):
            votes[reason.strip()] = votes.get(reason.strip(), 0) + int(count)
    best = max(votes, key=lambda r: votes[r], default="")
    return _BY_REASON.get(best, best or NOTHING)


def _slots_text(snapshot: Snapshot, nodes: list[Node]) -> str:
    used = {
        n.name: sum(
            p.phase not in ("Succeeded", "Failed") for p in snapshot.store.pods_by_node.get(n.name, {}).values()
        )
        for n in nodes
    }
    total = sum(n.allocatable.get("pods", 0) for n in nodes)
    kinds: dict[tuple[int, str], int] = {}
    for n in nodes:
        key = (n.allocatable.get("pods", 0), str(n.facts.get("instance_type", "node")))
        kinds[key] = kinds.get(key, 0) + 1
    per = ", ".join(f"{pods} per {kind}" for pods, kind in kinds)
    return f"{sum(used.values())} of {total} pod slots used: max-pods {per}" if nodes else "no nodes"


def _addresses_text(nodes: list[Node], pool_stats: Callable[[str], tuple[int, int, int, int]], usage: Usage) -> str:
    assigned = {n.name: pool_stats(n.name)[2] for n in nodes}
    limit = {n.name: usage.address_limit.get(n.name, pool_stats(n.name)[1]) for n in nodes}
    text = f"addresses: {sum(assigned.values())} of {sum(limit.values())}"
    counts = list(assigned.values())
    if len(counts) > 1:
        if len(set(counts)) == 1:
            text += f", {counts[0]} on each node"
        else:
            text += f", {' and '.join(map(str, counts))} on the nodes" if len(counts) <= 4 else ""
    return text
