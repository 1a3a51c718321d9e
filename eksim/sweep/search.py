"""The smallest node count, subnet or price that meets a condition: by bisection where the measure is monotone, else by sweep.

What is varied is a range of one axis (``nodes=1..50``, ``cluster.subnets[0]`` sizes, …); a bisection tests its own assumption at
the ends and at the answer, and falls back to trying every value when a finding contradicts it. Evidence: the runs just below
the answer and at it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eksim.errors import InputError
from eksim.sweep.columns import AXES, FIGURES
from eksim.sweep.conditions import ParsedCondition, parse_condition
from eksim.sweep.configure import Base
from eksim.sweep.plan import Axis, whole_numbers
from eksim.sweep.row import NODES_UP, run_row

#: With more of the varied thing these never rise; a condition that bounds them from above is monotone in it.
FALLING = ("pods_pending", "pods_stuck")
RISING = ("pods_running", "addresses_assigned")
#: Things of which more never leaves less room for pods.
GROWING_AXES = ("nodes", "subnet")


@dataclass(slots=True)
class Answer:
    """The outcome of a search. ``answer``: the smallest value that meets the condition, None if none does."""

    answer: Any
    instance_type: str | None
    nodes: int | None
    usd_per_hour: float | None
    method: str
    evidence: list[dict[str, Any]] = field(default_factory=list)
    varied: str = ""
    #: instance types that cannot be run → why
    left_out: dict[str, str] = field(default_factory=dict)


def vary_axis(text: str) -> Axis:
    """``nodes=1..50``, ``subnet=/24../28``, ``replicas=10..100/10`` or a scenario field by path with a range of numbers."""
    name, sign, values = text.partition("=")
    name = name.strip()
    if not sign:
        raise InputError(
            f"{text!r} is not a range to vary", field="--vary", expected="such as nodes=1..50 or subnet=/28../20"
        )
    if name == "subnet":
        match = re.fullmatch(r"/(\d+)\.\./?(\d+)", values.strip())
        if not match or not all(16 <= int(m) <= 28 for m in match.groups()):
            raise InputError(f"{values!r} is not a range of subnet sizes", field="--vary", expected="/28../16")
        small, large = max(int(match[1]), int(match[2])), min(int(match[1]), int(match[2]))
        return Axis("subnet", tuple(range(small, large - 1, -1)))
    if name in ("instance_type", "instanceType"):
        raise InputError(
            f"{name} is no range of numbers", field="--vary", expected="--instance-type beside --vary nodes=…"
        )
    try:
        return Axis(name, whole_numbers(values, name))
    except InputError as error:
        raise InputError(error.message, field="--vary", expected=error.expected, nearest=error.nearest) from None


def parse_until(text: str, extra: tuple[str, ...] = ()) -> ParsedCondition:
    """A condition on the columns of a row. Raises InputError."""
    known = {c.name: c.kind for c in (*AXES, *FIGURES)} | dict.fromkeys(extra, "")
    try:
        return parse_condition(text, known)
    except ValueError as error:
        raise InputError(str(error), field="--until", expected="a condition such as 'pods_pending == 0'") from None


def is_monotone(axis: Axis, condition: ParsedCondition) -> bool:
    """Whether a value that meets the condition is followed only by values that meet it too."""
    if axis.name not in GROWING_AXES or re.search(r"\b(not|or)\b|\(", condition.text):
        return False
    for name, operator, value in condition.comparisons:
        falling = name in FALLING and (operator in ("<", "<=") or (operator in ("=", "==") and value == 0))
        rising = name in RISING and operator in (">", ">=")
        if not (falling or rising):
            return False
    return True


def search(base: Base, fixed: dict[str, Any], axis: Axis, condition: ParsedCondition, types: tuple[str, ...]) -> Answer:
    """The cheapest instance type's smallest value that meets the condition; with one type, its smallest value.

    Of several types those that cannot be run are left out. Raises InputError if none can.
    """
    if len(types) < 2:
        return search_one(base, {**fixed, "instance_type": types[0]} if types else fixed, axis, condition)
    found: list[Answer] = []
    left_out: dict[str, str] = {}
    for name in types:
        try:
            found.append(search_one(base, {**fixed, "instance_type": name}, axis, condition))
        except CannotRun as error:
            left_out[name] = error.message
            if len(left_out) == len(types):
                raise
    answer = min((a for a in found if a.answer is not None), key=_cost, default=found[-1])
    answer.left_out = left_out
    return answer


class CannotRun(InputError):
    """A configuration of the search that gives no figures."""


def _cost(answer: Answer) -> tuple[float, int]:
    usd = answer.usd_per_hour
    return (float("inf") if usd is None else usd, answer.nodes or 0)


def search_one(base: Base, fixed: dict[str, Any], axis: Axis, condition: ParsedCondition) -> Answer:
    """The smallest value of the axis that meets the condition, for one set of fixed values."""
    rows: dict[int, dict[str, Any]] = {}

    def meets(index: int) -> bool:
        row = rows.get(index)
        if row is None:
            row = rows[index] = _run(base, fixed, axis.name, axis.values[index])
            if row["error"]:
                raise CannotRun(
                    f"{axis.name}={axis.values[index]}: {row['error']}", expected="a configuration that runs"
                )
        try:
            return condition(row)
        except ValueError as error:
            raise InputError(str(error), field="--until") from None

    count = len(axis.values)
    method = "sweep"
    index: int | None
    if is_monotone(axis, condition):
        index = _bisect(count, meets)
        method = "bisection"
        if _contradicted(rows, condition):
            index = None
            method = "sweep"
    if method == "sweep":
        index = next((i for i in range(count) if meets(i)), None)
    chosen = rows[index] if index is not None else rows[count - 1]
    shown = [i for i in ((index - 1, index) if index is not None else (count - 1,)) if i in rows or i >= 0]
    evidence = [{axis.name: axis.values[i], **_ensure(rows, i, meets), "meets": meets(i)} for i in shown]
    return Answer(
        None if index is None else axis.values[index],
        chosen.get("instance_type"),
        chosen.get("nodes"),
        chosen.get("usd_per_hour"),
        method,
        evidence,
        axis.name,
    )


def _ensure(rows: dict[int, dict[str, Any]], index: int, meets: Callable[[int], bool]) -> dict[str, Any]:
    meets(index)
    return rows[index]


def _bisect(count: int, meets: Callable[[int], bool]) -> int | None:
    low, high = 0, count - 1
    if not meets(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if meets(middle):
            high = middle
        else:
            low = middle + 1
    return low


def _contradicted(rows: dict[int, dict[str, Any]], condition: ParsedCondition) -> bool:
    """Whether a value that meets the condition was seen before one that does not."""
    met = False
    for index in sorted(rows):
        now = condition(rows[index])
        if met and not now:
            return True
        met = met or now
    return False


def _run(base: Base, fixed: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    values = dict(fixed)
    if name == "subnet":
        values |= subnet_sizes(base.document, int(value))
    else:
        values[name] = value
    row = run_row(base, values)
    row.pop(NODES_UP, None)
    return row


def subnet_sizes(document: dict[str, Any], prefix: int) -> dict[str, Any]:
    """Settings that give every subnet of the scenario the same size. Raises InputError if they would not fit."""
    import ipaddress

    out: dict[str, Any] = {}
    vpc = [ipaddress.IPv4Network(c) for c in document["cluster"].get("vpcCidrs", ["10.0.0.0/16"])]
    used: list[ipaddress.IPv4Network] = []
    for i in range(len(document["cluster"]["subnets"])):
        free = (n for v in vpc if v.prefixlen <= prefix for n in v.subnets(new_prefix=prefix))
        chosen = next((n for n in free if not any(n.overlaps(u) for u in used)), None)
        if chosen is None:
            raise InputError(
                f"{i + 1} subnets of /{prefix} do not fit the VPC", expected="smaller subnets or a larger VPC"
            )
        used.append(chosen)
        out[f"cluster.subnets[{i}].cidr"] = str(chosen)
    return out
