"""Sweep files (``kind: Sweep``) and the same from command-line flags, read into a checked plan."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from eksim.errors import InputError
from eksim.scenario.yamlfile import YamlFile, dotted, read_yaml
from eksim.sweep.configure import Base, base_from_file
from eksim.sweep.plan import Axis, Plan, check_plan, instance_type_axis, path_axis, set_axis, whole_numbers

_FIELDS = ("apiVersion", "kind", "name", "description", "base", "axes", "mode", "nodeGroup")
_AXES = ("instanceType", "nodes", "replicas", "seed", "set")


def is_sweep_file(path: Path | str) -> bool:
    """Whether a YAML file says ``kind: Sweep``. Raises InputError if it cannot be read."""
    file = read_yaml(path)
    return bool(file.documents) and isinstance(file.documents[0], dict) and file.documents[0].get("kind") == "Sweep"


def plan_from_file(path: Path | str) -> Plan:
    """The plan of a ``kind: Sweep`` file. Raises InputError with file and line."""
    file = read_yaml(path)
    data = file.documents[0] if file.documents else None
    if not isinstance(data, dict):
        raise InputError("is empty", file.name, expected="a sweep (apiVersion: eksim/v1, kind: Sweep)")
    for key in data:
        _known(file, key, (key,), _FIELDS)
    if data.get("apiVersion") != "eksim/v1":
        raise _wrong(file, ("apiVersion",), f"apiVersion is {data.get('apiVersion')!r}", "apiVersion: eksim/v1")
    if not isinstance(data.get("base"), str):
        raise _wrong(file, ("base",), f"base is {data.get('base')!r}", "the file of the base scenario")
    axes_data = data.get("axes")
    if not isinstance(axes_data, dict) or not axes_data:
        raise _wrong(file, ("axes",), f"axes is {axes_data!r}", "one or more of " + ", ".join(_AXES))
    axes: list[Axis] = []
    for key, value in axes_data.items():
        _known(file, key, ("axes", key), _AXES)
        try:
            axes += _axis(key, value)
        except InputError as error:
            raise _wrong(file, ("axes", key), error.message, error.expected, error.nearest) from None
    mode = data.get("mode", "grid")
    if mode not in ("grid", "zip"):
        raise _wrong(file, ("mode",), f"mode is {mode!r}", "grid or zip")
    base = Path(path).parent / data["base"]
    document, folder = base_from_file(base)
    name = str(data.get("name") or Path(path).stem)
    plan = Plan(name, document, folder, axes, mode, data.get("nodeGroup"))
    return check_axes(check_plan(plan))


def _axis(key: str, value: Any) -> list[Axis]:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if key == "instanceType":
        return [instance_type_axis(text)]
    if key in ("nodes", "replicas", "seed"):
        return [Axis(key, whole_numbers(text, key))]
    if not isinstance(value, dict):
        raise InputError(f"is {value!r}", expected="scenario fields by path, each with a list of values")
    return [path_axis(str(path), tuple(values) if isinstance(values, list) else (values,)) for path, values in value.items()]


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
