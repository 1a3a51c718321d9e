"""An independent reading of the scheduler's rules, as plain as it can be: every node, every pod, every time.

Written from the reference texts, on manifests, sharing no code with the simulation's scheduler. Knows the default profile
of 1.34 and of 1.21 for what the generator of ``test_scheduler_brute`` makes.
"""

from __future__ import annotations

import math
from typing import Any

Json = dict[str, Any]
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


class Cluster:
    """Nodes and pods as manifests; pods have ``node`` set when placed."""

    def __init__(self, nodes: list[Json], placed: list[Json], replica_sets: dict[str, Json], today: bool) -> None:
        self.nodes = nodes
        self.placed = placed
        self.replica_sets = replica_sets
        self.today = today

    def on(self, node: Json) -> list[Json]:
        return [pod for pod in self.placed if pod["node"] == node["name"]]


def selects(selector: Json | None, labels: Json) -> bool:
    if selector is None:
        return False
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for e in selector.get("matchExpressions", []):
        value = labels.get(e["key"])
        fine = {
            "In": value in e.get("values", []),
            "NotIn": value not in e.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[e["operator"]]
        if not fine:
            return False
    return True


def tolerated(taint: Json, tolerations: list[Json]) -> bool:
    for t in tolerations:
        if t.get("effect") and t["effect"] != taint["effect"]:
            continue
        if t.get("key") and t["key"] != taint["key"]:
            continue
        if t.get("operator") == "Exists" or t.get("value", "") == taint.get("value", ""):
            return True
    return False


def request(pod: Json, resource: str, default: int = 0) -> int:
    return sum(c.get(resource, default) for c in pod["containers"])


def has_requests(pod: Json) -> bool:
    return any(c.get(r) for c in pod["containers"] for r in c) or any(r.count("/") for c in pod["containers"] for r in c)


def node_matches(pod: Json, node: Json) -> bool:
    return all(node["labels"].get(k) == v for k, v in pod.get("nodeSelector", {}).items())


def matching(pods: list[Json], selector: Json | None, namespace: str = "default") -> int:
    return sum(selects(selector, p["labels"]) for p in pods)


# -- filters ---------------------------------------------------------------------------------------------------------


def refusal(c: Cluster, pod: Json, node: Json) -> tuple[str, tuple[str, ...]] | None:
    """(plugin, reasons) of the first filter that says no."""
    tolerations = pod.get("tolerations", [])
    cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if node.get("unschedulable") and not tolerated(cordon, tolerations):
        return "NodeUnschedulable", ("node(s) were unschedulable",)
    for taint in node.get("taints", []):
        if taint["effect"] != "PreferNoSchedule" and not tolerated(taint, tolerations):
            what = f"{{{taint['key']}: {taint.get('value', '')}}}"
            words = f"untolerated taint {what}" if c.today else f"taint {what}, that the pod didn't tolerate"
            return "TaintToleration", (f"node(s) had {words}",)
    if not node_matches(pod, node):
        return "NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",)
    used = {port for other in c.on(node) for port in other.get("hostPorts", [])}
    if any(port in used for port in pod.get("hostPorts", [])):
        return "NodePorts", ("node(s) didn't have free ports for the requested pod ports",)
    reasons = []
    here = c.on(node)
    if len(here) + 1 > node["pods"]:
        reasons.append("Too many pods")
    if has_requests(pod):
        for resource in ("cpu", "memory", "example.com/gpu"):
            wanted = request(pod, resource)
            taken = sum(request(p, resource) for p in here)
            if resource == "example.com/gpu" and not any(resource in k for k in pod["containers"]):
                continue
            if taken + wanted > node.get(resource, 0) and (wanted or not c.today):
                reasons.append(f"Insufficient {resource}")
    if reasons:
        return "NodeResourcesFit", tuple(reasons)
    return spread_refusal(c, pod, node) or affinity_refusal(c, pod, node)


def spread_refusal(c: Cluster, pod: Json, node: Json) -> tuple[str, tuple[str, ...]] | None:
    hard = [s for s in pod.get("spread", []) if s["hard"]]
    words = "node(s) didn't match pod topology spread constraints"
    eligible = [n for n in c.nodes if node_matches(pod, n) and all(s["key"] in n["labels"] for s in hard)]
    for s in hard:
        value = node["labels"].get(s["key"])
        if value is None:
            return "PodTopologySpread", (f"{words} (missing required label)",)
        domains = {n["labels"][s["key"]] for n in eligible}
        counts = {}
        for domain in domains:
            nodes = eligible if c.today else c.nodes
            inside = [n for n in nodes if n["labels"].get(s["key"]) == domain]
            same_key = [s] if c.today else [o for o in hard if o["key"] == s["key"]]
            counts[domain] = sum(matching(c.on(n), o["selector"]) for n in inside for o in same_key)
        lowest = min(counts.values()) if counts else (0 if c.today else math.inf)
        if c.today and len(counts) < s.get("minDomains", 1):
            lowest = 0
        skew = counts.get(value, 0) + selects(s["selector"], pod["labels"]) - lowest
        if skew > s["maxSkew"]:
            return "PodTopologySpread", (words,)
    return None


def affinity_refusal(c: Cluster, pod: Json, node: Json) -> tuple[str, tuple[str, ...]] | None:
    by_name = {n["name"]: n for n in c.nodes}

    def near(other: Json, key: str) -> bool:
        theirs = by_name[other["node"]]["labels"].get(key)
        return theirs is not None and theirs == node["labels"].get(key)

    def say(reason: str) -> tuple[str, tuple[str, ...]]:
        general = () if c.today else ("node(s) didn't match pod affinity/anti-affinity rules",)
        return "InterPodAffinity", (*general, reason)

    terms = pod.get("affinity", [])
    if terms:
        if any(t["key"] not in node["labels"] for t in terms):
            return say("node(s) didn't match pod affinity rules")
        friends = [p for p in c.placed if all(selects(t["selector"], p["labels"]) for t in terms)]
        known = [p for p in friends if any(t["key"] in by_name[p["node"]]["labels"] for t in terms)]
        alone = not known and all(selects(t["selector"], pod["labels"]) for t in terms)
        if not alone and not all(any(near(p, t["key"]) for p in friends) for t in terms):
            return say("node(s) didn't match pod affinity rules")
    for t in pod.get("anti", []):
        if any(selects(t["selector"], p["labels"]) and near(p, t["key"]) for p in c.placed):
            return say("node(s) didn't match pod anti-affinity rules")
    for p in c.placed:
        if any(selects(t["selector"], pod["labels"]) and near(p, t["key"]) for t in p.get("anti", [])):
            return say("node(s) didn't satisfy existing pods anti-affinity rules")
    return None


# -- scores ----------------------------------------------------------------------------------------------------------


def scores(c: Cluster, pod: Json, feasible: list[Json]) -> list[int]:
    """The total of each feasible node."""
    if c.today:
        weights = {"taints": 3, "prefer": 2, "affinity": 2, "spread": 2, "least": 1, "balanced": 1}
    else:
        weights = {"taints": 1, "prefer": 1, "affinity": 1, "spread": 2, "least": 1, "balanced": 1}
    parts = {
        "taints": taints(pod, feasible),
        "prefer": prefers(pod, feasible),
        "affinity": affinities(c, pod, feasible),
        "spread": spreads(c, pod, feasible),
        "least": [least(c, pod, n) for n in feasible],
        "balanced": [balanced(c, pod, n) for n in feasible],
    }
    constant = 0 if c.today else 100 * 10_000
    return [constant + sum(weights[k] * part[i] for k, part in parts.items()) for i in range(len(feasible))]


def scale(raw: list[int], reverse: bool = False) -> list[int]:
    top = max(raw)
    if top == 0:
        return [100 if reverse else 0 for _ in raw]
    return [100 - 100 * r // top if reverse else 100 * r // top for r in raw]


def taints(pod: Json, feasible: list[Json]) -> list[int]:
    soft = [t for t in pod.get("tolerations", []) if t.get("effect", "") in ("", "PreferNoSchedule")]
    raw = [
        sum(t["effect"] == "PreferNoSchedule" and not tolerated(t, soft) for t in n.get("taints", [])) for n in feasible
    ]
    return scale(raw, reverse=True)


def prefers(pod: Json, feasible: list[Json]) -> list[int]:
    raw = [sum(p["weight"] for p in pod.get("prefer", []) if n["labels"].get(p["key"]) == p["value"]) for n in feasible]
    return scale(raw)


def nonzero(pod: Json, resource: str) -> int:
    return request(pod, resource, 100 if resource == "cpu" else 200 << 20)


def least(c: Cluster, pod: Json, node: Json) -> int:
    parts = []
    for resource in ("cpu", "memory"):
        capacity = node[resource]
        wanted = sum(nonzero(p, resource) for p in [*c.on(node), pod])
        parts.append(0 if wanted > capacity else (capacity - wanted) * 100 // capacity)
    return sum(parts) // 2


def balanced(c: Cluster, pod: Json, node: Json) -> int:
    if c.today:
        if not request(pod, "cpu") and not request(pod, "memory"):
            return 0
        part = [
            min(sum(request(p, r) for p in [*c.on(node), pod]) / node[r], 1.0) for r in ("cpu", "memory")
        ]
        return int((1 - abs((part[0] - part[1]) / 2)) * 100.0)
    part = [sum(nonzero(p, r) for p in [*c.on(node), pod]) / node[r] for r in ("cpu", "memory")]
    return 0 if max(part) >= 1 else int((1 - abs(part[0] - part[1])) * 100.0)


def affinities(c: Cluster, pod: Json, feasible: list[Json]) -> list[int]:
    by_name = {n["name"]: n for n in c.nodes}
    weights: dict[tuple[str, str], int] = {}

    def add(node: Json, key: str, weight: int) -> None:
        if key in node["labels"]:
            pair = (key, node["labels"][key])
            weights[pair] = weights.get(pair, 0) + weight

    for other in c.placed:
        node = by_name[other["node"]]
        for t in pod.get("near", []):
            if selects(t["selector"], other["labels"]):
                add(node, t["key"], t["weight"])
        for t in other.get("near", []):
            if selects(t["selector"], pod["labels"]):
                add(node, t["key"], t["weight"])
        for t in other.get("affinity", []):
            if selects(t["selector"], pod["labels"]):
                add(node, t["key"], 1)
    raw = [sum(w for (k, v), w in weights.items() if n["labels"].get(k) == v) for n in feasible]
    low, high = min(raw), max(raw)
    return [int(100.0 * ((r - low) / (high - low))) if high > low else 0 for r in raw]


def spreads(c: Cluster, pod: Json, feasible: list[Json]) -> list[int]:
    own = pod.get("spread", [])
    if own:
        soft = [s for s in own if not s["hard"]]
    else:
        replica_set = c.replica_sets.get(pod.get("owner", ""))
        soft = []
        if replica_set is not None:
            soft = [
                {"key": HOST, "maxSkew": 3, "selector": replica_set},
                {"key": ZONE, "maxSkew": 5, "selector": replica_set},
            ]
    if not soft:
        return [0 if c.today else 100 for _ in feasible]
    ignored = [bool(own) and any(s["key"] not in n["labels"] for s in soft) for n in feasible]
    counted = [n for n, skip in zip(feasible, ignored, strict=True) if not skip]
    sources = [
        n for n in c.nodes if node_matches(pod, n) and (not own or all(s["key"] in n["labels"] for s in soft))
    ]
    raw = []
    for node, skip in zip(feasible, ignored, strict=True):
        if skip:
            raw.append(None)
            continue
        score = 0.0
        seen: dict[str, int] = {}
        for s in soft:
            key = s["key"]
            if key == HOST:
                size = len(counted)
            else:
                size = len({n["labels"].get(key, "") for n in counted})
                if not c.today and key in seen:
                    size = 0
            seen[key] = 1
            if key not in node["labels"]:
                continue
            if key == HOST:
                count = matching(c.on(node), s["selector"])
            else:
                inside = [n for n in sources if n["labels"].get(key) == node["labels"][key]]
                same = [s] if c.today else [o for o in soft if o["key"] == key]
                count = sum(matching(c.on(n), o["selector"]) for n in inside for o in same)
            score += float(count) * math.log(size + 2) + float(s["maxSkew"] - 1)
        raw.append(math.floor(score + 0.5) if c.today else int(score))
    known = [r for r in raw if r is not None]
    low, high = (min(known), max(known)) if known else (0, 0)
    return [0 if r is None else 100 if high == 0 else 100 * (high + low - r) // high for r in raw]


def decide(c: Cluster, pod: Json) -> tuple[list[str], dict[str, tuple[str, tuple[str, ...]]]]:
    """(the best nodes, the refusals of the others) for a cluster small enough that every node is looked at."""
    refused = {}
    feasible = []
    for node in c.nodes:
        why = refusal(c, pod, node)
        if why is None:
            feasible.append(node)
        else:
            refused[node["name"]] = why
    if len(feasible) <= 1:
        return [n["name"] for n in feasible], refused
    total = scores(c, pod, feasible)
    return [n["name"] for n, t in zip(feasible, total, strict=True) if t == max(total)], refused


