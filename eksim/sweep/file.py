"""Sweep files (``kind: Sweep``) and the same from command-line flags, read into a checked plan."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from eksim.errors import InputError
from eksim.scenario.yamlfile import YamlFile, dotted, is_file, read_yaml
from eksim.sweep.configure import Base, base_from_file
from eksim.sweep.plan import Axis, Plan, check_plan, instance_type_axis, path_axis, set_axis, whole_numbers

_FIELDS = ("apiVersion", "kind", "name", "description", "base", "axes", "mode", "nodeGroup")
_NUMBERS = "3, 1..20, 1..20/5, or a list of these"
_AXIS_VALUES = {
    "instanceType": "globs of instance types, or a filter",
    "nodes": _NUMBERS,
    "replicas": _NUMBERS,
    "seed": _NUMBERS,
    "set": "scenario fields by path, each with a list of values",
}
_AXES = tuple(_AXIS_VALUES)


def is_sweep_file(path: Path | str) -> bool:
    """Whether a YAML file says ``kind: Sweep``. Raises InputError if it cannot be read."""
    file = read_yaml(path)
    data = file.documents[0] if file.documents else None
    kind = data.get("kind") if isinstance(data, dict) else "Scenario"
    if kind not in ("Sweep", "Scenario"):
        found = "lacks 'kind'" if kind is None else f"kind is {kind!r}"
        raise _wrong(file, ("kind",), found, "kind: Sweep, or kind: Scenario with axes as options")
    return bool(kind == "Sweep")


def plan_from_file(path: Path | str) -> Plan:
    """The plan of a ``kind: Sweep`` file. Raises InputError with file and line."""
    file = read_yaml(path)
    data = file.documents[0] if file.documents else None
    if not isinstance(data, dict):
        raise InputError("is empty", file.name, expected="a sweep (apiVersion: eksim/v1, kind: Sweep)")
    for key in data:
        _known(file, key, (key,), _FIELDS)
    for key, fits, expected in (
        ("apiVersion", lambda v: v == "eksim/v1", "apiVersion: eksim/v1"),
        ("base", lambda v: isinstance(v, str), "the file of the base scenario"),
        ("axes", lambda v: isinstance(v, dict) and v, "one or more of " + ", ".join(_AXES)),
        ("mode", lambda v: v in ("grid", "zip", None), "grid or zip"),
        ("nodeGroup", lambda v: v is None or isinstance(v, str), "the name of a node group"),
        (
            "name",
            lambda v: v is None or (isinstance(v, str) and _NAME.fullmatch(v)),
            "letters, digits, '-', '_' and '.'",
        ),
    ):
        value = data.get(key)
        if not fits(value):
            raise _wrong(file, (key,), f"lacks {key!r}" if value is None else f"is {_short(value)}", expected)
    axes_data = data["axes"]
    axes: list[Axis] = []
    for key, value in axes_data.items():
        _known(file, key, ("axes", key), _AXES)
        try:
            axes += _axis(key, value)
        except InputError as error:
            raise _wrong(file, ("axes", key), error.message, error.expected, error.nearest) from None
    base = Path(path).parent / data["base"]
    if not is_file(base):
        raise _wrong(file, ("base",), f"{data['base']} is no file", "a scenario, from the sweep's folder")
    document, folder = base_from_file(base)
    name = data.get("name") or Path(path).stem
    plan = Plan(name, document, folder, axes, data.get("mode") or "grid", data.get("nodeGroup"))
    try:
        return check_axes(check_plan(plan))
    except InputError as error:
        if error.field == "--node-group":
            raise _wrong(file, ("nodeGroup",), error.message, error.expected.removeprefix("--node-group ")) from None
        line = file.line_of((0, "axes", "set", error.field))
        field = ": ".join(part for part in ("axes", error.field) if part)
        raise InputError(error.message, file.name, line, field, error.expected, error.nearest) from None


_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _axis(key: str, value: Any) -> list[Axis]:
    if key != "set":
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bool) or not isinstance(item, str | int):
                raise InputError(f"is {'null' if item is None else _short(item)}", expected=_AXIS_VALUES[key])
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if key == "instanceType":
        return [instance_type_axis(text)]
    if key in ("nodes", "replicas", "seed"):
        return [Axis(key, whole_numbers(text, key))]
    if not isinstance(value, dict):
        raise InputError(f"is {_short(value)}", expected="scenario fields by path, each with a list of values")
    return [
        path_axis(str(path), tuple(values) if isinstance(values, list) else (values,)) for path, values in value.items()
    ]


def _known(file: YamlFile, key: str, path: tuple[str, ...], names: tuple[str, ...]) -> None:
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
        raise _wrong(file, path, "unknown field", "one of " + ", ".join(names), near[0] if near else "")


def _wrong(file: YamlFile, path: tuple[str, ...], message: str, expected: str, nearest: str = "") -> InputError:
    return InputError(message, file.name, file.line_of((0, *path)), dotted(path), expected, nearest)


def plan_from_flags(
    scenario: Path | str,
    *,
    instance_type: str | None = None,
    nodes: str | None = None,
    replicas: str | None = None,
    seeds: str | None = None,
    settings: list[str] | None = None,
    zipped: bool = False,
    node_group: str | None = None,
) -> Plan:
    """The plan of flags on a scenario. Raises InputError."""
    document, folder = base_from_file(scenario)
    axes: list[Axis] = []
    if instance_type is not None:
        axes.append(instance_type_axis(instance_type))
    if nodes is not None:
        axes.append(Axis("nodes", whole_numbers(nodes, "--nodes")))
    if replicas is not None:
        axes.append(Axis("replicas", whole_numbers(replicas, "--replicas")))
    axes += [set_axis(s) for s in settings or ()]
    if seeds is not None:
        axes.append(Axis("seed", whole_numbers(seeds, "--seeds")))
    parts = [str(document["name"]), *(re.sub(r"[^A-Za-z0-9]+", "-", a.name).strip("-").lower() for a in axes)]
    plan = Plan(
        "-by-".join([parts[0], "-".join(parts[1:])]) if axes else parts[0],
        document,
        folder,
        axes,
        "zip" if zipped else "grid",
        node_group,
    )
    return check_axes(check_plan(plan))


def check_axes(plan: Plan) -> Plan:
    """Try the first configuration's scenario, so that a mistake in an axis is said before anything runs."""
    first = next(iter(plan.configurations()))
    base = Base(plan.base, plan.folder, plan.node_group)
    base.configure(first)
    return plan
