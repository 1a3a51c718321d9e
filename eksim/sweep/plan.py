"""From axes to configurations: what a sweep varies, in which order, and the row each configuration gives.

A configuration is a scenario with some fields replaced. Axes are instance types (globs or a filter), node counts, replicas,
seeds, and any scenario field by path; all combinations (grid) or value by value (zip).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from eksim.catalog import types as catalog
from eksim.errors import InputError
from eksim.sweep.conditions import parse_condition

#: What a filter of instance types may compare, and its kind: text, whole number, number, truth value.
TYPE_FIELDS = {
    "type": "s",
    "family": "s",
    "vcpu": "i",
    "memory_mib": "i",
    "memory_gib": "f",
    "arch": "s",
    "hypervisor": "s",
    "max_enis": "i",
    "ipv4_per_eni": "i",
    "max_pods": "i",
    "usd_per_hour": "f",
    "bare_metal": "b",
}
#: Columns that have an axis of their own → its names in options and files.
OWN_AXES = {
    "nodes": "--nodes (nodes)",
    "replicas": "--replicas (replicas)",
    "instance_type": "--instance-type (instanceType)",
}
MAX_CONFIGURATIONS = 5_000_000


@dataclass(frozen=True, slots=True)
class Axis:
    """One thing that varies. ``name``: the row's column; ``path``: the scenario field, or a name the plan knows."""

    name: str
    values: tuple[Any, ...]


@dataclass(slots=True)
class Plan:
    """A sweep: the base document, its folder, the axes, and how they combine."""

    name: str
    base: dict[str, Any]
    folder: str
    axes: list[Axis] = field(default_factory=list)
    mode: str = "grid"
    node_group: str | None = None

    def __len__(self) -> int:
        if not self.axes:
            return 1
        if self.mode == "zip":
            return max(len(a.values) for a in self.axes)
        total = 1
        for axis in self.axes:
            total *= len(axis.values)
        return total

    def configurations(self) -> Iterator[dict[str, Any]]:
        """Each configuration as column → value, the last axis varying fastest."""
        names = [a.name for a in self.axes]
        if self.mode == "zip":
            length = len(self)
            columns = [a.values * length if len(a.values) == 1 else a.values for a in self.axes]
            for values in itertools.islice(zip(*columns, strict=False), length):
                yield dict(zip(names, values, strict=True))
            return
        for values in itertools.product(*(a.values for a in self.axes)):
            yield dict(zip(names, values, strict=True))

    def identity(self) -> str:
        """A hash of everything that decides the rows: two plans with the same identity are the same sweep."""
        content = [self.base, [[a.name, list(a.values)] for a in self.axes], self.mode, self.node_group]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def check_plan(plan: Plan) -> Plan:
    """Raise InputError for axes that do not fit together."""
    seen: dict[str, int] = {}
    for axis in plan.axes:
        if not axis.values:
            raise InputError(f"axis {axis.name} is empty", expected="at least one value")
        if axis.name in seen:
            raise InputError(f"axis {axis.name} is given twice", expected="it once")
        seen[axis.name] = len(axis.values)
    if plan.mode == "zip":
        lengths = {n: k for n, k in seen.items() if k != 1}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{n}: {k}" for n, k in lengths.items())
            raise InputError(f"zip needs axes of one length, got {shown}", expected="equally many values on each axis")
    if len(plan) > MAX_CONFIGURATIONS:
        raise InputError(f"{len(plan):,} configurations", expected=f"at most {MAX_CONFIGURATIONS:,}")
    return plan


def instance_type_axis(text: str) -> Axis:
    """Globs joined by commas (``t3.*,m5.large``), or a filter (``vcpu<=8 and arch=arm64``). Raises InputError."""
    if re.search(r"[<>=~]", text):
        try:
            condition = parse_condition(text, TYPE_FIELDS)
            names = tuple(sorted(t.name for t in catalog.match("*") if condition(type_facts(t))))
        except ValueError as error:
            raise InputError(
                str(error), field="instance type", expected="a filter such as 'vcpu<=8 and arch=arm64'"
            ) from None
        if not names:
            raise InputError(
                f"no instance type fulfils {text!r}", field="instance type", expected="a filter that some type fulfils"
            )
        return Axis("instance_type", names)
    return Axis("instance_type", tuple(t.name for t in catalog.match(text)))


def type_facts(t: catalog.InstanceType) -> dict[str, Any]:
    """An instance type as filters see it; None where unknown."""
    from eksim.catalog.limits import max_pods

    return {
        "type": t.name,
        "family": t.family,
        "vcpu": t.vcpu,
        "memory_mib": t.memory_mib,
        "memory_gib": None if t.memory_mib is None else t.memory_mib / 1024,
        "arch": t.architecture,
        "hypervisor": t.hypervisor,
        "max_enis": t.max_enis,
        "ipv4_per_eni": t.ipv4_per_eni,
        "max_pods": max_pods(t).pods,
        "usd_per_hour": t.usd_per_hour,
        "bare_metal": t.bare_metal,
    }


#: The largest values of the axes that are put into a checked scenario, as its schema has them.
LARGEST = {"nodes": 100_000, "replicas": 1_000_000}


def whole_numbers(text: str, what: str, lowest: int = 0) -> tuple[int, ...]:
    """``1..20``, ``1..20/5`` (every fifth), ``3``, and several joined by commas. Raises InputError."""
    highest = LARGEST.get(what.removeprefix("--"), 2**63 - 1)
    out: list[int] = []
    for part in (p.strip() for p in str(text).split(",")):
        match = re.fullmatch(r"(\d+)(?:\.\.(\d+)(?:/(\d+))?)?", part)
        if not match:
            raise InputError(f"{part!r} is not a number or range", field=what, expected="3, 1..20, 1..20/5 or 1,2,5")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first:
            raise InputError(
                f"{part!r} runs backwards", field=what, expected="a range from low to high", nearest=f"{last}..{first}"
            )
        if step < 1:
            raise InputError(f"{part!r} has no step", field=what, expected="a step of at least 1")
        if first < lowest:
            raise InputError(
                f"{part!r} begins below {lowest}", field=what, expected=f"{lowest} or more", nearest=str(lowest)
            )
        if last > highest:
            raise InputError(f"{last} is too many", field=what, expected=f"at most {highest}", nearest=str(highest))
        if (last - first) // step > MAX_CONFIGURATIONS:
            raise InputError(
                f"{part!r} is {last - first:,} values", field=what, expected=f"at most {MAX_CONFIGURATIONS:,}"
            )
        out += range(first, last + 1, step)
    return tuple(dict.fromkeys(out))


def set_axis(text: str) -> Axis:
    """``path=value,value``: a scenario field by path. Raises InputError."""
    path, sign, values = text.partition("=")
    if not sign or not path.strip():
        raise InputError(f"{text!r} is not a setting", field="--set", expected="'vpcCni.env.WARM_IP_TARGET=1,2,5'")
    parts = tuple(_value(v.strip()) for v in values.split(","))
    if any(v == "" for v in parts):
        raise InputError(f"{text!r} has an empty value", field="--set", expected="'vpcCni.env.WARM_IP_TARGET=1,2,5'")
    return path_axis(path.strip(), parts)


def path_axis(path: str, values: tuple[Any, ...]) -> Axis:
    """An axis over a scenario field; what has an axis of its own is that axis. Raises InputError."""
    if path == "seed":
        return Axis(path, whole_numbers(",".join(map(str, values)), path))
    if path in OWN_AXES:
        raise InputError(f"{path} is no scenario field by path", field="set", expected=f"the axis {OWN_AXES[path]}")
    return Axis(path, values)


def _value(text: str) -> Any:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+\.\d+", text):
        return float(text)
    return {"true": True, "false": False}.get(text, text)
