"""The invariants held against a finished run: what its tables can tell.

Tables hold counts and times, not which sandbox had which address, so some invariants can only be judged while a
scenario runs (``invariants: history`` in its ``expect:``); :func:`check_result` says which were judged and which were
not, and why. Called by ``eksim check`` and by whoever has a :class:`~eksim.record.result.Result`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from eksim.catalog import types as catalog
from eksim.errors import InputError
from eksim.record.result import Result
from eksim.state.invariants import HOST_NETWORK_PODS, INVARIANTS, Violation
from eksim.state.watchdog import HISTORY, Turns

Row = dict[str, Any]


@dataclass(slots=True)
class Checked:
    """``judged``: invariant → rows looked at; ``left_out``: invariant → why; ``violations`` in the order found."""

    judged: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


class _Tables:
    """A result's rows as dictionaries, read once."""

    def __init__(self, result: Result) -> None:
        from eksim.record.tables import TABLES

        self.summary = result.summary
        self._rows: dict[str, list[Row]] = {}
        for name, columns in TABLES.items():
            names = [c.name for c in columns]
            try:
                rows = result.rows(name)
                self._rows[name] = [dict(zip(names, row, strict=True)) for row in rows]
            except InputError:
                raise
            except Exception as error:  # a truncated or foreign Parquet file fails in the reader's own ways
                where = result.directory / f"{name}.parquet" if result.directory is not None else name
                raise InputError(f"{where} cannot be read: {error}", expected="a whole table of eksim run") from None
        #: node → its type and its max-pods, by the nodes table; names that nodes of several types have borne are left out
        self.types: dict[str, catalog.InstanceType] = {}
        self.slots: dict[str, int] = {}
        borne: dict[str, dict[str, None]] = {}
        for row in self._rows["nodes"]:
            if row["instance_type"]:
                self.types[row["node"]] = catalog.lookup(row["instance_type"])
                borne.setdefault(row["node"], {})[row["instance_type"]] = None
            self.slots[row["node"]] = row["max_pods"]
        for node, types in borne.items():
            if len(types) > 1:
                del self.types[node], self.slots[node]

    def __getitem__(self, name: str) -> list[Row]:
        return self._rows[name]


Judge = Callable[[_Tables], Iterable[str]]
#: invariant → (table that it is judged by, judge)
JUDGES: dict[str, tuple[str, Judge]] = {}


def _judges(name: str, table: str) -> Callable[[Judge], Judge]:
    def register(judge: Judge) -> Judge:
        assert name in INVARIANTS or name in HISTORY, name
        JUDGES[name] = (table, judge)
        return judge

    return register


def check_result(result: Result) -> Checked:
    """Judge every invariant that the tables can tell. Raises InputError if a table cannot be read."""
    tables = _Tables(result)
    checked = Checked()
    for name in (*INVARIANTS, *HISTORY):
        if name in TURNS and tables.summary.get("env_changes", 1):
            checked.left_out[name] = RESTARTS
        elif name == "address-in-one-place" and tables.summary.get("losses", 1):
            checked.left_out[name] = LOSSES
        elif name == "address-in-one-place" and tables.summary.get("env_changes", 1):
            checked.left_out[name] = FORGOTTEN
        elif name in JUDGES:
            table, judge = JUDGES[name]
            checked.judged[name] = len(tables[table])
            checked.violations += [Violation(name, detail) for detail in judge(tables)]
        else:
            checked.left_out[name] = LEFT_OUT[name]
    return checked


_LIVE = "needs the cluster itself: judged by expect: {invariants: true} while a scenario runs"
_SANDBOXES = "tables hold no sandboxes: judged by expect: {invariants: history} while a scenario runs"
#: why turns are not judged where aws-node's environment was changed on the way
RESTARTS = "ipamd started anew on the way, and tables do not hold when: judged by expect: {invariants: history}"
LOSSES = "others took addresses that pods had, which may then be somebody else's too"
FORGOTTEN = "ipamd started anew on the way, and forgets whose an address is that it does not find then"
TURNS = ("one-growth-per-turn", "one-eni-freed-per-turn", "decreases-30-s-apart")
#: invariant → why tables cannot tell
LEFT_OUT = {
    "released-is-free": _SANDBOXES,
    "no-reuse-within-cool-down": _SANDBOXES,
    "address-in-use-stays": _SANDBOXES,
    "scheduler-counts-what-is-there": _LIVE,
    "pending-for-a-reason": _LIVE,
    "refused-for-a-reason": _LIVE,
    "admitted-if-it-fits": _LIVE,
}


# -- addresses ------------------------------------------------------------------------------------------------------


@_judges("address-in-one-place", "pods")
def _address_in_one_place(tables: _Tables) -> Iterator[str]:
    """No two running pods with one address, those on the host's network apart."""
    has: dict[str, str] = {}
    holders: dict[str, dict[str, None]] = {}
    for row in tables["pods"]:
        pod, ip = row["pod"], row["ip"]
        if row["phase"] != "Running" or row["reason"] == "Terminating" or row["node"].startswith(_node_prefix(ip)):
            ip = ""
        before = has.get(pod, "")
        if before == ip:
            continue
        if before:
            holders[before].pop(pod, None)
        has[pod] = ip
        if ip:
            there = holders.setdefault(ip, {})
            there[pod] = None
            if len(there) > 1:
                yield f"{' and '.join(there)} have {ip} at {row['time_s']:g} s"


def _node_prefix(ip: str) -> str:
    """How the name begins of the node that has this address."""
    return f"ip-{ip.replace('.', '-')}." if ip else "?"


@_judges("pool-adds-up", "addresses")
def _pool_adds_up(tables: _Tables) -> Iterator[str]:
    for row in tables["addresses"]:
        parts = (row["assigned"], row["warm"], row["cooling"])
        if sum(parts) != row["total"] or min(parts) < 0:
            yield (
                f"{row['node']} at {row['time_s']:g} s: {parts[0]} assigned + {parts[1]} warm + {parts[2]} cooling "
                f"of {row['total']}"
            )


@_judges("assigned-within-usable", "addresses")
def _assigned_within_usable(tables: _Tables) -> Iterator[str]:
    for row in tables["addresses"]:
        kind = tables.types.get(row["node"])
        if kind is None:
            continue
        # a slot holds one address, or a /28 with prefix delegation
        most = kind.listed_enis * (kind.ipv4_per_eni - 1) * (16 if kind.is_nitro or kind.bare_metal else 1)
        if row["assigned"] > min(most, row["total"]):
            yield f"{row['node']} at {row['time_s']:g} s: {row['assigned']} assigned, {min(most, row['total'])} usable"


@_judges("pod-has-its-address", "pods")
def _pod_has_its_address(tables: _Tables) -> Iterator[str]:
    for row in tables["pods"]:
        if row["ip"] and not row["node"]:
            yield f"{row['pod']} at {row['time_s']:g} s has address {row['ip']} and no node"
        elif row["phase"] == "Running" and not row["ip"]:
            yield f"{row['pod']} at {row['time_s']:g} s is Running without an address"


# -- limits ---------------------------------------------------------------------------------------------------------


def _attachments(tables: _Tables) -> dict[str, list[tuple[float, int, Row]]]:
    """node → (time, +1 or −1, ENI's row), in order; what leaves at an instant does so before what comes."""
    changes: dict[str, list[tuple[float, int, Row]]] = {}
    for row in tables["enis"]:
        if row["detached_s"] == row["attached_s"]:
            continue  # it came and went in one instant
        rows = changes.setdefault(row["node"], [])
        rows.append((row["attached_s"], 1, row))
        if not _missing(row["detached_s"]):
            rows.append((row["detached_s"], -1, row))
    for rows in changes.values():
        rows.sort(key=lambda change: change[:2])
    return changes


@_judges("enis-within-limit", "enis")
def _enis_within_limit(tables: _Tables) -> Iterator[str]:
    for node, changes in _attachments(tables).items():
        kind = tables.types.get(node)
        there: dict[str, str] = {}
        for when, change, row in changes:
            if change < 0:
                there.pop(row["device"], None)
                continue
            if row["device"] in there:
                yield f"{node} at {when:g} s has {row['device']} twice: {there[row['device']]} and {row['eni_id']}"
            there[row["device"]] = row["eni_id"]
            if kind is not None and len(there) > kind.max_enis:
                yield f"{node} at {when:g} s has {len(there)} ENIs, {kind.max_enis} allowed"


@_judges("pods-within-max-pods", "pods")
def _pods_within_max_pods(tables: _Tables) -> Iterator[str]:
    return _most_pods(tables, "holds")


@_judges("bound-within-max-pods", "pods")
def _bound_within_max_pods(tables: _Tables) -> Iterator[str]:
    """The same by the table: a row per binding."""
    return _most_pods(tables, "is given")


def _most_pods(tables: _Tables, verb: str) -> Iterator[str]:
    slots = tables.slots
    where: dict[str, str] = {}
    there: dict[str, dict[str, None]] = {}
    for row in tables["pods"]:
        pod, node = row["pod"], row["node"] if row["phase"] in ("Pending", "Running") else ""
        before = where.get(pod, "")
        if before == node:
            continue
        if before:
            there[before].pop(pod, None)
        where[pod] = node
        if node:
            pods = there.setdefault(node, {})
            pods[pod] = None
            if node in slots and len(pods) > slots[node]:
                yield f"{node} {verb} {len(pods)} pods at {row['time_s']:g} s ({pod}), max-pods {slots[node]}"


@_judges("max-pods-by-formula", "nodes")
def _max_pods_by_formula(tables: _Tables) -> Iterator[str]:
    chosen = tables.summary.get("max_pods_set", [])
    seen: dict[tuple[str, int], None] = {}
    for row in tables["nodes"]:
        kind = tables.types.get(row["node"])
        if kind is None or (row["node"], row["max_pods"]) in seen:
            continue
        seen[(row["node"], row["max_pods"])] = None
        expected = kind.listed_enis * (kind.ipv4_per_eni - 1) + HOST_NETWORK_PODS
        if row["max_pods"] != expected and row["max_pods"] not in chosen:
            yield f"{row['node']} ({kind.name}) has max-pods {row['max_pods']}, should have {expected}"


@_judges("subnet-adds-up", "subnets")
def _subnet_adds_up(tables: _Tables) -> Iterator[str]:
    sizes: dict[str, int] = {}
    for row in tables["subnets"]:
        size = sizes.setdefault(row["subnet"], row["free"] + row["used"])
        if row["free"] < 0 or row["used"] < 0 or row["free"] + row["used"] != size:
            yield f"{row['subnet']} at {row['time_s']:g} s: {row['free']} free + {row['used']} used of {size}"
        if (size + 5) & (size + 4):
            yield f"{row['subnet']}: {size} addresses and five reserved are no subnet's size"


# -- turns of ipamd ---------------------------------------------------------------------------------------------------


def _turns(tables: _Tables, wanted: str) -> Iterator[str]:
    """The calls of each node's ipamd through the very judge that watches a running cluster."""
    stream: list[tuple[float, int, Row]] = [(row["attached_s"], 0, row) for row in tables["enis"]]
    stream += [(row["end_s"], 1, row) for row in tables["ec2_calls"]]
    stream += [(row["time_s"], 2, row) for row in tables["addresses"]]
    stream += [(row["time_s"], 3, row) for row in tables["nodes"] if row["state"] == "Deleted"]
    stream.sort(key=lambda entry: entry[:2])
    turns: dict[str, Turns] = {}
    serving: dict[str, None] = {}
    for when, kind, row in stream:
        node = row["node"]
        if node not in turns:
            turns[node] = Turns(node)
        if kind == 0:
            turns[node].attached(int(row["device"].removeprefix("eth")), when)
        elif kind == 2 and node not in serving:
            # its first row is the end of ipamd's start
            serving[node] = None
            turns[node].restarted(when)
        elif kind == 3:
            serving.pop(node, None)
        if kind != 1 or node not in serving:
            continue
        found = turns[node].call(row["api"], row["time_s"], row["end_s"], row["device"], row["count"], row["error"])
        for name, detail in found:
            if name == wanted:
                yield detail


@_judges("primary-eni-stays", "ec2_calls")
def _primary_eni_stays(tables: _Tables) -> Iterator[str]:
    return _turns(tables, "primary-eni-stays")


@_judges("young-eni-stays", "ec2_calls")
def _young_eni_stays(tables: _Tables) -> Iterator[str]:
    return _turns(tables, "young-eni-stays")


@_judges("one-eni-freed-per-turn", "ec2_calls")
def _one_eni_freed_per_turn(tables: _Tables) -> Iterator[str]:
    return _turns(tables, "one-eni-freed-per-turn")


@_judges("decreases-30-s-apart", "ec2_calls")
def _decreases_apart(tables: _Tables) -> Iterator[str]:
    return _turns(tables, "decreases-30-s-apart")


@_judges("one-growth-per-turn", "ec2_calls")
def _one_growth_per_turn(tables: _Tables) -> Iterator[str]:
    return _turns(tables, "one-growth-per-turn")


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
