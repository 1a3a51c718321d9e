"""From the store's changes to tables: rows as tuples first, spilled into typed columns when there are many.

Hears everything, writes nothing to the store. One row per change; text is interned by code. ``finish`` adds what only time
tells (the end of cool-downs) and gives the columns to ``result.py``.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from struct import pack
from typing import Any

from eksim.engine.clock import Clock
from eksim.record.tables import TABLES
from eksim.state.changes import Verb
from eksim.state.network import RESERVED
from eksim.state.objects import Node, Pod
from eksim.state.store import Store

#: Few enough to lie in the processor's cache when they are moved.
SPILL_ROWS = 1024


class _Codes(dict[str, int]):
    """text → code; an unknown text gets the next one."""

    def __missing__(self, text: str) -> int:
        code = self[text] = len(self)
        return code


class TextColumn:
    """Texts as codes into a list of the different ones, in order of first appearance."""

    __slots__ = ("_code_of", "codes")

    def __init__(self) -> None:
        self.codes = array("i")
        self._code_of = _Codes()

    def extend(self, values: tuple[str, ...]) -> None:
        """Append values (at least one)."""
        code_of = self._code_of
        count = len(values)
        if values.count(values[0]) == count:  # a column that says the same for long is common
            self.codes.extend(array("i", [code_of[values[0]]]) * count)
        else:
            self.codes.frombytes(pack(f"{count}i", *map(code_of.__getitem__, values)))

    @property
    def texts(self) -> list[str]:
        """The different texts, by code."""
        return list(self._code_of)

    def values(self) -> list[str]:
        """All values as texts."""
        texts = self.texts
        return [texts[c] for c in self.codes]


class Table:
    """One table under construction: ``append(tuple)`` row by row, ``spill`` now and then, then ``columns``."""

    __slots__ = ("append", "columns", "name", "rows")

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[tuple[Any, ...]] = []
        #: adds a row; the list stays the same object, so this may be kept
        self.append = self.rows.append
        self.columns: dict[str, Any] = {
            c.name: TextColumn() if c.kind == "s" else array("q" if c.kind == "i" else "d") for c in TABLES[name]
        }

    def spill(self) -> None:
        """Move the collected rows into the columns."""
        if self.rows:
            for column, values in zip(self.columns.values(), zip(*self.rows, strict=True), strict=True):
                column.extend(values if type(column) is TextColumn else array(column.typecode, values))
            self.rows.clear()

    def add(self, row: tuple[Any, ...]) -> None:
        """Append one row, spilling when there are many."""
        self.append(row)
        if len(self.rows) >= SPILL_ROWS:
            self.spill()

    def texts(self, column: str) -> list[str]:
        """A text column's values."""
        found = self.columns[column]
        assert isinstance(found, TextColumn)
        return found.values()


def pod_reason(pod: Pod) -> str:
    """Why a pod is not simply running: one word as kubectl's STATUS has it."""
    if pod.deletion_s is not None:
        return "Terminating"
    if pod.reason:
        return pod.reason
    if pod.waiting:
        return pod.waiting
    if pod.phase == "Pending" and not pod.node and pod.scheduled is not None:
        return pod.scheduled.reason
    return ""


class Recorder:
    """Hears the store and fills the tables of a run."""

    def __init__(self, clock: Clock, store: Store) -> None:
        self.clock = clock
        self.store = store
        self.tables: dict[str, Table] = {name: Table(name) for name in TABLES}
        self._last_pod: dict[str, tuple[str, str, str, str]] = {}
        self._open_enis: dict[str, tuple[str, str, str, float]] = {}
        self._closed_enis: list[tuple[Any, ...]] = []
        self._subnet_rows: dict[str, tuple[int, int]] = {}
        for verb, watcher in (
            (Verb.EVENT_RECORDED, self._event),
            (Verb.POD_CREATED, self._pod),
            (Verb.POD_BOUND, self._pod),
            (Verb.POD_STATUS, self._pod),
            (Verb.POD_CONDITION, self._pod),
            (Verb.POD_DELETING, self._pod),
            (Verb.POD_DELETED, self._pod_deleted),
            (Verb.NODE_ADDED, self._node),
            (Verb.NODE_UPDATED, self._node),
            (Verb.NODE_READY, self._node),
            (Verb.NODE_DELETED, self._node_deleted),
            (Verb.ENI_ATTACHED, self._eni_attached),
            (Verb.ENI_DETACHED, self._eni_detached),
            (Verb.POOL_CHANGED, self._pool),
            (Verb.ADDRESS_ASSIGNED, self._pool_of),
            (Verb.ADDRESS_RELEASED, self._released),
            (Verb.SUBNET_CHANGED, self._subnet),
            (Verb.EC2_CALL, self._call),
        ):
            store.watch(verb, watcher)
        self._releases: dict[str, list[float]] = {}
        #: seconds an address cools; set by the cluster
        self.cooldown_s: Callable[[str], float] = lambda _: 30.0
        #: node name → (enis, total, assigned, cooling); set by the cluster
        self.pool_stats: Callable[[str], tuple[int, int, int, int]] | None = None
        self._node_marks: dict[str, tuple[Any, ...]] = {}

    # -- watchers -----------------------------------------------------------------------------------------------

    def _event(self, event: Any, _: Any) -> None:
        first = event.first_s if event.first_s is not None else event.event_time_s
        last = event.last_s if event.last_s is not None else event.series_last_s
        self.tables["events"].add(
            (
                self.clock.now,
                event.type,
                event.reason,
                event.object,
                event.message,
                event.times,
                first,
                first if last is None else last,
            )
        )

    def _pod(self, pod: Pod, _: Any) -> None:
        row = (pod.phase, pod_reason(pod), pod.node, pod.ip)
        key = pod.key
        if self._last_pod.get(key) != row:
            self._last_pod[key] = row
            self.tables["pods"].add((self.clock.now, key, *row))

    def _pod_deleted(self, pod: Pod, _: Any) -> None:
        self._last_pod.pop(pod.key, None)
        self.tables["pods"].add((self.clock.now, pod.key, "Deleted", "", pod.node, ""))

    def _node(self, node: Node, _: Any) -> None:
        state = "Ready" if node.ready else "NotReady"
        if node.unschedulable:
            state = "SchedulingDisabled" if node.ready else "NotReady,SchedulingDisabled"
        mark = (state, node.allocatable.get("pods", 0))
        if self._node_marks.get(node.name) != mark:
            self._node_marks[node.name] = mark
            self._node_row(node, state)

    def _node_row(self, node: Node, state: str) -> None:
        facts = node.facts
        self.tables["nodes"].add(
            (
                self.clock.now,
                node.name,
                state,
                facts.get("instance_type", ""),
                facts.get("zone", ""),
                node.allocatable.get("pods", 0),
                sum(
                    p.phase not in ("Succeeded", "Failed") for p in self.store.pods_by_node.get(node.name, {}).values()
                ),
            )
        )

    def _node_deleted(self, node: Node, _: Any) -> None:
        self._node_marks.pop(node.name, None)
        self._node_row(node, "Deleted")

    def _eni_attached(self, eni: Any, _: Any) -> None:
        self._open_enis[eni.id] = (eni.node, eni.device_name, eni.id, self.clock.now)

    def _eni_detached(self, eni: Any, _: Any) -> None:
        row = self._open_enis.pop(eni.id, None)
        if row is not None:
            self._closed_enis.append((*row, self.clock.now))

    def _pool_of(self, node: str, _: Any) -> None:
        self._pool(node, None)

    def _released(self, node: str, _: Any) -> None:
        self._releases.setdefault(node, []).append(self.clock.now)
        self._pool(node, None)

    def _pool(self, node: str, _: Any) -> None:
        assert self.pool_stats is not None
        enis, total, assigned, cooling = self.pool_stats(node)
        self.tables["addresses"].add((self.clock.now, node, enis, total, assigned, total - assigned - cooling, cooling))

    def _subnet(self, subnet: Any, _: Any) -> None:
        row = (subnet.free, subnet.size - subnet.free - RESERVED)
        if self._subnet_rows.get(subnet.id) != row:
            self._subnet_rows[subnet.id] = row
            self.tables["subnets"].add((self.clock.now, subnet.id, *row))

    def _call(self, call: Any, _: Any) -> None:
        self.tables["ec2_calls"].add(
            (call.start_s, call.end_s, call.node, call.api, call.device, max(call.count, 0), call.error)
        )

    # -- the end ------------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Table]:
        """Write what is still open, and give the tables."""
        enis = self.tables["enis"]
        rows = [*self._closed_enis, *((*row, float("nan")) for row in self._open_enis.values())]
        for row in sorted(rows, key=lambda r: (r[3], r[0], r[1])):
            enis.add(row)
        self._closed_enis.clear()
        self._open_enis.clear()
        for table in self.tables.values():
            table.spill()
        if self._releases:
            self._add_cooled_rows()
        return self.tables

    def _add_cooled_rows(self) -> None:
        """Rows for the moments at which addresses have cooled: only time passes then, and no component acts."""
        table = self.tables["addresses"]
        names = [c.name for c in TABLES["addresses"]]
        columns = [c.values() if isinstance(c, TextColumn) else list(c) for c in table.columns.values()]
        by_node: dict[str, list[tuple[Any, ...]]] = {}
        for row in zip(*columns, strict=True):
            by_node.setdefault(row[1], []).append(row)
        more: list[tuple[Any, ...]] = []
        for node, releases in self._releases.items():
            cool = self.cooldown_s(node)
            ends = sorted(t + cool for t in releases)
            rows = by_node.get(node, [])
            for i, row in enumerate(rows):
                until = rows[i + 1][0] if i + 1 < len(rows) else self.clock.now
                _, _, enis, total, assigned, warm, cooling = row
                for end in ends:
                    if row[0] < end < until and cooling > 0:
                        cooling, warm = cooling - 1, warm + 1
                        more.append((end, node, enis, total, assigned, warm, cooling))
        if more:
            everything = sorted([*(r for rows in by_node.values() for r in rows), *more], key=lambda r: r[0])
            fresh = Table("addresses")
            fresh.rows.extend(everything)
            fresh.spill()
            self.tables["addresses"] = fresh
            assert list(fresh.columns) == names
