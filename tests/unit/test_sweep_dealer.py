"""The dealer: what is handed out to be run, and how chunks become whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eksim.catalog import types as catalog
from eksim.sweep.configure import Base, base_from_file
from eksim.sweep.dealer import Dealer, Rows, Task
from eksim.sweep.row import run_row
from eksim.sweep.shortcut import Shortcut, type_key

BASE = Base(*base_from_file(Path(__file__).parents[2] / "scenarios" / "scale-to-30.yaml"))


def alike(count: int) -> list[str]:
    """Instance types that a run cannot tell apart."""
    groups: dict[Any, list[str]] = {}
    for one in catalog.match("m*.large"):
        names = groups.setdefault(type_key(one), [])
        names.append(one.name)
        if len(names) == count:
            return names
    raise AssertionError("no such types")


ONE, TWO, THREE = alike(3)


def config(name: str, nodes: int = 1) -> dict[str, Any]:
    return {"instance_type": name, "nodes": nodes}


def tasks_of(dealer: Dealer) -> list[Task]:
    """All that can be run now."""
    found = []
    while (task := dealer.next()) is not None:
        if task.values:
            found.append(task)
    return found


def run(task: Task) -> Rows:
    return [run_row(BASE, values) for values in task.values]


def as_kept(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in run_row(BASE, values).items() if not name.startswith("_")}


def test_equal_configurations_are_run_once_even_while_the_first_is_under_way() -> None:
    chunks = [[config(ONE), config(ONE, 2)], [config(TWO)], [config(TWO, 2), config(THREE, 3)], []]
    dealer = Dealer(iter(enumerate(chunks)), Shortcut(BASE))
    tasks = tasks_of(dealer)
    assert [task.values for task in tasks] == [[config(ONE), config(ONE, 2)], [config(THREE, 3)]]
    assert dict(dealer.whole()) == {3: []}
    dealer.take(tasks[1], run(tasks[1]))
    assert not list(dealer.whole())
    dealer.take(tasks[0], run(tasks[0]))
    assert dict(dealer.whole()) == {n: [as_kept(values) for values in chunks[n]] for n in range(3)}
    assert dealer.next() is None


def test_what_is_known_is_not_dealt_at_all() -> None:
    shortcut = Shortcut(BASE)
    shortcut.row(config(ONE))
    dealer = Dealer(iter([(7, [config(TWO), config(THREE)])]), shortcut)
    assert tasks_of(dealer) == []
    assert dict(dealer.whole()) == {7: [as_kept(config(TWO)), as_kept(config(THREE))]}


def test_who_waited_for_one_that_failed_is_run_himself() -> None:
    dealer = Dealer(iter(enumerate([[config(ONE)], [config(TWO)]])), Shortcut(BASE))
    (task,) = tasks_of(dealer)
    dealer.take(task, [{**config(ONE), "error": "out of luck"}])
    assert dict(dealer.whole()) == {0: [{**config(ONE), "error": "out of luck"}]}
    (task,) = tasks_of(dealer)
    assert task == Task(1, [0], [config(TWO)])
    dealer.take(task, run(task))
    assert dict(dealer.whole()) == {1: [as_kept(config(TWO))]}


def test_without_a_shortcut_everything_is_run() -> None:
    dealer = Dealer(iter(enumerate([[config(ONE), config(ONE)], [config(TWO)]])), None)
    assert [len(task.values) for task in tasks_of(dealer)] == [2, 1]
