"""``expect:``: what must hold at a moment, compared with what is there; every miss says expected against actual."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

from eksim.cluster import Cluster
from eksim.play.judge import judge
from eksim.record.result import Failure
from eksim.scenario.schema import EventExpectation, Expectation


def check(cluster: Cluster, expectation: Expectation, where: str) -> list[Failure]:
    """The expectations that do not hold now. ``where`` names the place in the scenario."""
    return [Failure(where, *miss) for miss in _misses(cluster, expectation)]


Miss = tuple[str, str, str]


def pod_counts(cluster: Cluster) -> dict[str, int]:
    """Pods by phase, and total, scheduled, unscheduled, stuck (bound, without an address)."""
    counts = {"total": 0, "scheduled": 0, "unscheduled": 0, "stuck": 0}
    for pod in cluster.store.pods.values():
        counts["total"] += 1
        counts[pod.phase] = counts.get(pod.phase, 0) + 1
        counts["scheduled" if pod.node else "unscheduled"] += 1
        if pod.node and pod.phase == "Pending" and not pod.ip:
            counts["stuck"] += 1
    return counts


def _misses(cluster: Cluster, expectation: Expectation) -> Iterator[Miss]:
    counts = pod_counts(cluster)
    for name, wanted in expectation.pods.items():
        actual = counts.get(name, 0)
        if actual != wanted:
            yield f"pods {name}", str(wanted), str(actual)
    for owner, wanted in expectation.pods_of.items():
        actual = sum(
            1
            for pod in cluster.store.pods.values()
            if pod.phase == "Running" and pod.owner is not None and cluster.workload_of(pod)[2] == owner
        )
        if actual != wanted:
            yield f"Running pods of {owner}", str(wanted), str(actual)
    yield from _per_node(cluster, expectation)
    if expectation.enis is not None:
        enis = {name: len(cluster.devices_of(name)) for name in cluster.store.nodes}
        if expectation.enis.total is not None and sum(enis.values()) != expectation.enis.total:
            yield "ENIs", str(expectation.enis.total), str(sum(enis.values()))
        if expectation.enis.per_node is not None:
            for node, actual in enis.items():
                if actual != expectation.enis.per_node:
                    yield f"ENIs of {node}", str(expectation.enis.per_node), str(actual)
    if expectation.addresses_assigned is not None:
        actual = sum(cluster.pool_stats(n)[2] for n in cluster.store.nodes)
        if actual != expectation.addresses_assigned:
            yield "addresses assigned", str(expectation.addresses_assigned), str(actual)
    for event in expectation.events:
        yield from _event(cluster, event)
    if expectation.invariants:
        for violation in judge(cluster):
            yield f"invariant {violation.invariant}", "it holds", violation.detail


def _per_node(cluster: Cluster, expectation: Expectation) -> Iterator[Miss]:
    wanted = expectation.pods_per_node
    if wanted is None:
        return
    actual = {
        name: sum(p.phase not in ("Succeeded", "Failed") for p in cluster.store.pods_by_node.get(name, {}).values())
        for name in cluster.store.nodes
    }
    if isinstance(wanted, int):
        for name, count in actual.items():
            if count != wanted:
                yield f"pods on {name}", str(wanted), str(count)
    elif isinstance(wanted, list):
        if sorted(wanted) != sorted(actual.values()):
            yield "pods per node", str(sorted(wanted)), str(sorted(actual.values()))
    else:
        for name, number in wanted.items():
            if actual.get(name) != number:
                yield f"pods on {name}", str(number), str(actual.get(name, "no such node"))


def _event(cluster: Cluster, wanted: EventExpectation) -> Iterator[Miss]:
    def fits(event: Any) -> bool:
        return (
            (wanted.reason is None or event.reason == wanted.reason)
            and (wanted.message is None or event.message == wanted.message)
            and (wanted.contains is None or wanted.contains in event.message)
            and (
                wanted.object is None
                or fnmatch.fnmatchcase(f"{event.involved_kind.lower()}/{event.involved_name}", wanted.object)
            )
        )

    found = [e for e in cluster.events() if fits(e)]
    what = ", ".join(
        f"{n} {v!r}"
        for n, v in (("reason", wanted.reason), ("message", wanted.message), ("with", wanted.contains))
        if v
    )
    if wanted.count is not None:
        if len(found) != wanted.count:
            yield f"events {what}", str(wanted.count), str(len(found))
    elif not found:
        near = [e for e in cluster.events() if wanted.reason is None or e.reason == wanted.reason]
        yield (
            f"events {what}",
            "at least one",
            f"none; {len(near)} of that reason" + (f", the last {near[-1].message!r}" if near else ""),
        )
    if wanted.times is not None and found and max(e.times for e in found) != wanted.times:
        yield f"count of event {what}", str(wanted.times), str(max(e.times for e in found))
