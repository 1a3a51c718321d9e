"""Where the nodes of each class stand in the snapshot's order, and what a search from some node on meets.

A small cluster, and a large one whose samples are always the same nodes, are kept as blocks (class → its nodes); any
other large cluster as arrays of class numbers, from which a sample is counted. Called by ``classes``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from eksim.kube.scheduler.framework import Status
from eksim.kube.scheduler.nodeinfo import NodeInfo

#: From this many nodes on, places of nodes are kept in arrays.
MANY_NODES: Final = 100


class NodeClass:
    """Nodes that are equal for a kind of pod. ``base``: weighted scores that need no normalising; ``norms``: raw scores
    that do; ``spread``: per soft constraint the domain, or for the hostname the node's own count; None without label."""

    __slots__ = ("base", "count", "ignored", "key", "norms", "number", "spread", "status", "uneven")

    def __init__(self, key: Any) -> None:
        self.key = key
        #: its mark in the arrays while it has nodes
        self.number = -1
        self.count = 0
        self.status: Status | None = None
        self.base = 0
        self.norms: tuple[int, ...] = ()
        self.spread: tuple[Any, ...] = ()
        self.ignored = False
        #: some raw score to normalise is not 0
        self.uneven = False


#: the nodes of each class among neighbours in the snapshot's order
Block = dict[NodeClass, list[NodeInfo]]


class Verdict:
    """What a cycle finds. ``feasible``: how many of the nodes looked at; ``best``: the highest total (None if one node
    was taken unseen); ``ties``: the classes that have it; ``count``: their nodes in the sample; ``block``: the sample,
    if it is one of the blocks."""

    __slots__ = ("best", "block", "count", "evaluated", "feasible", "start", "ties")

    def __init__(self, start: int, evaluated: int, feasible: int, block: Block | None = None) -> None:
        self.start = start
        self.evaluated = evaluated
        self.feasible = feasible
        self.block = block
        self.best: int | None = None
        self.ties: list[NodeClass] = []
        self.count = 0


class Places:
    """The nodes in the snapshot's order, by class. ``class_of``: row → class, and ``by_number``, are the table's own."""

    def __init__(self, class_of: dict[int, NodeClass], by_number: list[NodeClass]) -> None:
        self._class_of = class_of
        self._by_number = by_number
        self._order: Sequence[NodeInfo] = ()
        self._large = False
        self._numbers: Any = None
        self._ok: Any = None
        self._blocks: list[Block] | None = None
        self._length = 0
        #: row → place of the node among its class's members in its block
        self._slot: dict[int, int] = {}

    def forget(self) -> None:
        """The order changed: nothing is kept until :meth:`arrange`."""
        self._numbers = self._ok = self._blocks = None
        self._slot.clear()

    def arrange(self, order: Sequence[NodeInfo], feasible: int, sample: int) -> None:
        """Make the blocks: all nodes of a small cluster; in a large one, as long as every node is feasible and a whole
        number of samples makes up the cluster, the samples, which then are always the same."""
        self._order = order
        nodes = length = len(order)
        of = self._class_of
        self._large = nodes >= MANY_NODES
        if self._large:
            length = sample
            if feasible < nodes or nodes % length:
                self._renumber()
                return
        blocks: list[Block] = []
        slot = self._slot
        for start in range(0, nodes, length or 1):
            block: Block = {}
            for node in order[start : start + length]:
                row = node.row
                one = of[row]
                members = block.get(one)
                if members is None:
                    members = block[one] = []
                slot[row] = len(members)
                members.append(node)
            blocks.append(block)
        self._blocks = blocks
        self._length = length

    def _renumber(self) -> None:
        """Fill the arrays, which are not kept while there are blocks."""
        import numpy as np

        order, of = self._order, self._class_of
        self._numbers = np.array([of[node.row].number for node in order], np.intp)
        self._ok = np.array([of[node.row].status is None for node in order], np.bool_)

    def move(self, node: NodeInfo, was: NodeClass | None, now: NodeClass) -> None:
        """A node went from one class to another."""
        if self._blocks is not None and was is not None:
            if now.status is not None and self._large:
                # A large cluster's samples are no longer always the same.
                self._blocks = None
                self._renumber()
            else:
                self._move_in_block(self._blocks[node.order_index // self._length], node, was, now)
        elif self._numbers is not None:
            self._numbers[node.order_index] = now.number
            self._ok[node.order_index] = now.status is None

    def _move_in_block(self, block: Block, node: NodeInfo, was: NodeClass, now: NodeClass) -> None:
        members = block[was]
        slot = self._slot[node.row]
        last = members.pop()
        if last is not node:
            members[slot] = last
            self._slot[last.row] = slot
        elif not members:
            del block[was]
        joined = block.get(now)
        if joined is None:
            joined = block[now] = []
        self._slot[node.row] = len(joined)
        joined.append(node)

    def look(
        self, start: int, enough: int, feasible: int, live: Iterable[NodeClass]
    ) -> tuple[Verdict, list[NodeClass], list[int]]:
        """Look from ``start`` until ``enough`` nodes are feasible: (the verdict's frame, the feasible classes met, how
        many nodes of each). ``feasible``: how many nodes of the cluster are; at least one."""
        nodes = len(self._order)
        start %= nodes
        blocks, length = self._blocks, self._length
        if blocks is not None and (length == nodes or (length == enough and start % length == 0)):
            block = blocks[0 if length == nodes else start // length]
            if feasible == nodes:
                classes, counts = list(block), [len(members) for members in block.values()]
            else:
                classes = [c for c in block if c.status is None]
                counts = [len(block[c]) for c in classes]
            return Verdict(start, length, feasible if length == nodes else length, block), classes, counts
        if blocks is not None and self._large:
            self._blocks = None
            self._renumber()
        if feasible <= enough:
            classes = [c for c in live if c.status is None]
            return Verdict(start, nodes, feasible), classes, [c.count for c in classes]
        return self._sample(start, enough, feasible == nodes)

    def _sample(self, start: int, enough: int, all_feasible: bool) -> tuple[Verdict, list[NodeClass], list[int]]:
        import numpy as np

        nodes = len(self._order)
        if all_feasible:
            evaluated = enough
            numbers = _window(self._numbers, start, enough)
        else:
            # The search stops at one feasible node more than enough, which is not counted.
            length = min(nodes, enough + enough // 8 + 64)
            while True:
                places = _window(self._ok, start, length).nonzero()[0]
                if len(places) > enough:
                    break
                length = min(nodes, length * 2)
            evaluated = int(places[enough])
            numbers = _window(self._numbers, start, evaluated)[places[:enough]]
        found = np.bincount(numbers).tolist()
        present = [number for number, count in enumerate(found) if count]
        by_number = self._by_number
        verdict = Verdict(start, evaluated, enough)
        return verdict, [by_number[number] for number in present], [found[number] for number in present]

    def member(self, verdict: Verdict, index: int) -> NodeInfo:
        """One of the tied nodes, ``index`` below the verdict's ``count``."""
        ties = verdict.ties
        block = verdict.block
        if block is not None:
            for one in ties:
                members = block[one]
                if index < len(members):
                    return members[index]
                index -= len(members)
            raise AssertionError("fewer tied nodes than counted")
        import numpy as np

        order = self._order
        numbers = _window(self._numbers, verdict.start, verdict.evaluated)
        if len(ties) == 1:
            places = (numbers == ties[0].number).nonzero()[0]
        else:
            tied = np.zeros(len(self._by_number), np.bool_)
            for one in ties:
                tied[one.number] = True
            places = tied[numbers].nonzero()[0]
        return order[(verdict.start + int(places[index])) % len(order)]


def _window(places: Any, start: int, length: int) -> Any:
    """``length`` places from ``start`` on, around the end."""
    end = start + length
    nodes = len(places)
    if end <= nodes:
        return places[start:end]
    import numpy as np

    return np.concatenate((places[start:], places[: end - nodes]))
