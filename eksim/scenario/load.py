"""From a scenario file to a checked scenario: every mistake is one InputError with file, line, field and what was expected.

``load_scenario`` is the only door; ``cluster.build`` takes what it returns.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from eksim.catalog import types as catalog
from eksim.engine.latency import latencies
from eksim.errors import InputError
from eksim.scenario.environment import NEWEST_CNI, NEWEST_MINOR, OLDEST_CNI, OLDEST_MINOR
from eksim.scenario.manifest import Manifest, read_manifest
from eksim.scenario.schema import NodeGroup, Scenario, Workload
from eksim.scenario.shapes import check_scheduler_config
from eksim.scenario.steps import check_environment, check_expectation, check_step, unknown
from eksim.scenario.yamlfile import Path_, YamlFile, dotted, is_file, parse_yaml, read_yaml
from eksim.versions import parse_version

#: AWS: subnets and VPC CIDRs are /16 to /28. Source: VPC user guide, "Subnet sizing for IPv4".
LARGEST_PREFIX, SMALLEST_PREFIX = 16, 28


@dataclass(slots=True)
class LoadedWorkload:
    """A workload's manifests, read and checked, with what the scenario says beside them."""

    manifests: list[Manifest]
    on_term: str
    image_size: int | None
    time_to_ready_s: float


@dataclass(slots=True)
class LoadedScenario:
    """A scenario that passed every check. ``data`` is the document as plain values; ``hash`` names it (sha256)."""

    scenario: Scenario
    file: str
    data: dict[str, Any]
    hash: str
    workloads: list[LoadedWorkload]
    #: index of the step → its workload, for apply steps
    applied: dict[int, LoadedWorkload] = field(default_factory=dict)
    #: the lines of the document's paths, for what only the run can find wrong
    lines: dict[Path_, int] = field(default_factory=dict, repr=False)

    def located(self, error: InputError, path: Path_) -> InputError:
        """An error that a run has found, with file, line and field of what set it off; one that has a file keeps it."""
        if error.file:
            return error
        line = YamlFile(self.file, lines=self.lines).line_of((0, *path))
        where = ": ".join(part for part in (dotted(path), error.field) if part)
        return type(error)(error.message, self.file, line, where, error.expected, error.nearest)


def load_scenario(path: Path | str) -> LoadedScenario:
    """Read and check a scenario file. Raises InputError."""
    return check_scenario(read_yaml(path), Path(path).parent)


def load_scenario_text(text: str, name: str = "<text>", folder: Path | str = ".") -> LoadedScenario:
    """The same from text; ``folder`` is where the files that it names lie."""
    return check_scenario(parse_yaml(text, name), Path(folder))


def load_scenario_data(data: dict[str, Any], name: str, folder: Path | str = ".") -> LoadedScenario:
    """The same from plain values (a patched document of a sweep): errors have no lines."""
    return check_scenario(YamlFile(name, [data]), Path(folder))


class _Checker:
    def __init__(self, file: YamlFile) -> None:
        self.file = file

    def fail(self, path: Path_, message: str, expected: str = "", nearest: str = "") -> InputError:
        return InputError(message, self.file.name, self.file.line_of((0, *path)), dotted(path), expected, nearest)


def check_scenario(file: YamlFile, folder: Path) -> LoadedScenario:
    """Check a parsed file and read the manifests it names."""
    check = _Checker(file)
    if not file.documents or file.documents[0] is None:
        raise InputError("is empty", file.name, expected="a scenario (apiVersion: eksim/v1, kind: Scenario)")
    if len(file.documents) > 1:
        raise InputError("holds several documents", file.name, expected="one scenario")
    data = file.documents[0]
    if not isinstance(data, dict):
        raise InputError("is not a mapping", file.name, 1, expected="a scenario (apiVersion: eksim/v1, kind: Scenario)")
    for key, wanted in (("apiVersion", "eksim/v1"), ("kind", "Scenario")):
        if data.get(key) != wanted:
            found = f"{key} is {data[key]!r}" if data.get(key) is not None else f"lacks {key!r}"
            raise check.fail((key,) if key in data else (), found, f"{key}: {wanted}")
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise _first_mistake(error, data, check) from None
    _check_versions(scenario, check)
    _check_cluster(scenario, check)
    if scenario.cluster.scheduler.config is not None:
        check_scheduler_config(scenario.cluster.scheduler.config, ("cluster", "scheduler", "config"), check.fail)
    for name, text in scenario.latency.items() if isinstance(scenario.latency, dict) else ():
        try:
            latencies({name: text})
        except ValueError as error:
            raise check.fail(("latency", name), str(error), "2s, uniform(1s, 2s) or lognormal(1s, 3s)") from None
    workloads = [_load_workload(w, check, ("workloads", i), folder) for i, w in enumerate(scenario.workloads)]
    applied: dict[int, LoadedWorkload] = {}
    last = 0.0
    for i, step in enumerate(scenario.steps):
        last = check_step(step, scenario.cluster, check.fail, ("steps", i), last)
        if step.apply is not None:
            applied[i] = _load_workload(step.apply, check, ("steps", i, "apply"), folder)
    for i, expectation in enumerate(scenario.expect):
        check_expectation(expectation, check.fail, ("expect", i))
    parts = [data, *([m.document for m in w.manifests] for w in [*workloads, *applied.values()])]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return LoadedScenario(scenario, file.name, data, digest, workloads, applied, file.lines)


#: pydantic's words for a value of another type, in ours
_EXPECTED = {
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float", "finite_number"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}


def _first_mistake(error: ValidationError, data: Any, check: _Checker) -> InputError:
    """pydantic's errors, the most telling one, in eksim's form."""
    mistakes = error.errors(include_url=False)
    # of a union's branches the one that went deepest says what was meant
    mistake = max(mistakes, key=lambda m: (m["type"] == "extra_forbidden", len(_in_data(m["loc"], data))))
    path = _in_data(mistake["loc"], data)
    kind = mistake["type"]
    if kind == "extra_forbidden":
        known = _fields_at(path[:-1])
        near = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        return check.fail(path, "unknown field", "one of " + ", ".join(known), near[0] if near else "")
    if kind == "missing":
        return check.fail(path, f"lacks {mistake['loc'][-1]!r}", f"the field {mistake['loc'][-1]}")
    message = mistake["msg"].removeprefix("Value error, ")
    found = mistake.get("input")
    if kind == "value_error":
        return check.fail(path, message)
    shown = json.dumps(found, default=str)
    if len(shown) > 60:
        shown = shown[:57] + "..."
    near_value = ""
    expected = message[:1].lower() + message[1:]
    if kind in ("model_type", "model_attributes_type"):
        expected = "a mapping with " + ", ".join(_fields_at(path)[:6])
    elif kind == "string_type" and isinstance(found, int | float):
        expected, near_value = "text (put it in quotes)", f'"{shown}"'
    elif kind in _EXPECTED:
        expected = _EXPECTED[kind]
    elif kind == "literal_error":
        options = re.findall(r"'([^']*)'", str(mistake.get("ctx", {}).get("expected", "")))
        expected = "one of " + ", ".join(options)
        near = difflib.get_close_matches(str(found), options, n=1, cutoff=0.4)
        near_value = near[0] if near else ""
    elif kind in ("greater_than_equal", "greater_than", "less_than_equal"):
        bound = next(iter(mistake.get("ctx", {}).values()))
        near_value = str(bound)
    return check.fail(path, f"is {shown}", expected.removeprefix("input should be "), near_value)


def _in_data(loc: tuple[str | int, ...], data: Any) -> Path_:
    """The part of pydantic's location that stands in the document (its union branches do not)."""
    path: list[str | int] = []
    for part in loc:
        if isinstance(data, dict):
            found = part in data
        else:
            found = isinstance(data, list) and isinstance(part, int) and part < len(data)
        if found:
            data = data[part]
            path.append(part)
    return tuple(path)


def _fields_at(path: Path_) -> list[str]:
    """Names of the fields allowed at a path of the schema."""
    model: Any = Scenario
    for part in path:
        if isinstance(part, int):
            continue
        info = next((f for n, f in model.model_fields.items() if (f.alias or n) == part), None)
        if info is None:
            return []
        model = _model_in(info.annotation)
        if model is None:
            return []
    return [f.alias or n for n, f in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _check_versions(scenario: Scenario, check: _Checker) -> None:
    cluster = scenario.cluster
    major, minor, _ = parse_version(cluster.kubernetes_version)
    if major != 1 or not OLDEST_MINOR <= minor <= NEWEST_MINOR:
        nearest = min(max(minor if major == 1 else NEWEST_MINOR, OLDEST_MINOR), NEWEST_MINOR)
        raise check.fail(
            ("cluster", "kubernetesVersion"),
            f"{cluster.kubernetes_version} is not known",
            f"1.{OLDEST_MINOR} to 1.{NEWEST_MINOR}",
            f"1.{nearest}",
        )
    version = parse_version(cluster.vpc_cni.version)
    if not OLDEST_CNI <= version <= NEWEST_CNI:
        nearest_cni = "v1.7.5" if version < OLDEST_CNI else "v1.23.1"
        raise check.fail(
            ("cluster", "vpcCni", "version"), f"{cluster.vpc_cni.version} is not known", "v1.7.5 to v1.23", nearest_cni
        )
    check_environment(cluster.vpc_cni.env, check.fail, ("cluster", "vpcCni", "env"))


def _check_cluster(scenario: Scenario, check: _Checker) -> None:
    cluster = scenario.cluster
    vpc = _networks(cluster.vpc_cidrs, check, ("cluster", "vpcCidrs"), "the VPC's CIDRs")
    subnets = _networks(
        [s.cidr for s in cluster.subnets], check, ("cluster", "subnets"), "the cluster's subnets", tail=("cidr",)
    )
    names: dict[str, ipaddress.IPv4Network] = {}
    for i, (subnet, network) in enumerate(zip(cluster.subnets, subnets, strict=True)):
        path: Path_ = ("cluster", "subnets", i)
        if not any(network.subnet_of(v) for v in vpc):
            raise check.fail((*path, "cidr"), f"{network} is outside the VPC", f"a part of {', '.join(map(str, vpc))}")
        if subnet.name in names:
            raise check.fail((*path, "name"), f"{subnet.name!r} is the name of another subnet", "a name of its own")
        names[subnet.name] = network
        _check_taken(subnet.taken, network, check, (*path, "taken"))
    groups: dict[str, int] = {}
    addresses: dict[str, str] = {}
    for i, group in enumerate(cluster.node_groups):
        _check_group(group, scenario, names, addresses, check, ("cluster", "nodeGroups", i))
        if group.name in groups:
            raise check.fail(
                ("cluster", "nodeGroups", i, "name"),
                f"{group.name!r} is the name of another group",
                "a name of its own",
            )
        groups[group.name] = i


def _networks(
    cidrs: list[str], check: _Checker, path: Path_, what: str, tail: Path_ = ()
) -> list[ipaddress.IPv4Network]:
    networks: list[ipaddress.IPv4Network] = []
    for i, cidr in enumerate(cidrs):
        network = ipaddress.IPv4Network(cidr)
        if not LARGEST_PREFIX <= network.prefixlen <= SMALLEST_PREFIX:
            nearest = ipaddress.IPv4Network(
                (
                    int(network.network_address),
                    LARGEST_PREFIX if network.prefixlen < LARGEST_PREFIX else SMALLEST_PREFIX,
                ),
                strict=False,
            )
            size = "too small" if network.prefixlen > SMALLEST_PREFIX else "too large"
            raise check.fail((*path, i, *tail), f"{cidr} is {size}", "a size from /16 to /28", str(nearest))
        for other in networks:
            if network.overlaps(other):
                raise check.fail((*path, i, *tail), f"{cidr} overlaps {other}", f"{what} apart from each other")
        networks.append(network)
    return networks


def _check_taken(taken: int | list[str], network: ipaddress.IPv4Network, check: _Checker, path: Path_) -> None:
    usable = network.num_addresses - 5
    if isinstance(taken, int):
        if not 0 <= taken <= usable:
            raise check.fail(
                path, f"is {taken}", f"0 to {usable} (a {network} less AWS's five)", str(max(0, min(taken, usable)))
            )
        return
    for j, text in enumerate(taken):
        try:
            first, last = parse_range(text)
        except ValueError:
            raise check.fail(
                (*path, j), f"{text!r} is no address, CIDR or range", "192.168.1.27, or 192.168.1.16/28"
            ) from None
        if first > last:
            raise check.fail((*path, j), f"{text} runs backwards", "a range from low to high")
        if not (int(network.network_address) <= first <= last <= int(network.broadcast_address)):
            raise check.fail((*path, j), f"{text} is outside {network}", "addresses of the subnet")


def parse_range(text: str) -> tuple[int, int]:
    """``a``, ``a/28`` or ``a-b`` → first and last address as integers. Raises ValueError."""
    if "-" in text:
        first, _, last = text.partition("-")
        return int(ipaddress.IPv4Address(first.strip())), int(ipaddress.IPv4Address(last.strip()))
    network = ipaddress.IPv4Network(text)
    return int(network.network_address), int(network.broadcast_address)


def _check_group(
    group: NodeGroup,
    scenario: Scenario,
    subnets: dict[str, ipaddress.IPv4Network],
    addresses: dict[str, str],
    check: _Checker,
    path: Path_,
) -> None:
    try:
        catalog.lookup(group.instance_type)
    except InputError as error:
        raise check.fail((*path, "instanceType"), error.message, error.expected, error.nearest) from None
    if (group.size is None) == (group.nodes is None):
        raise check.fail(path, "needs either size or nodes", "size: 2, or a list of nodes")
    for j, name in enumerate(group.subnets or []):
        if name not in subnets:
            raise unknown("subnet", name, subnets, check.fail, (*path, "subnets", j))
    for j, entry in enumerate(group.nodes or []):
        if entry.subnet is not None and entry.subnet not in subnets:
            raise unknown("subnet", entry.subnet, subnets, check.fail, (*path, "nodes", j, "subnet"))
        if entry.address is not None:
            where: Path_ = (*path, "nodes", j, "address")
            address = ipaddress.IPv4Address(entry.address)
            inside = [n for n, s in subnets.items() if address in s]
            if not inside or (entry.subnet is not None and entry.subnet not in inside):
                raise check.fail(
                    where, f"{address} is outside the node's subnet", f"an address of {entry.subnet or 'a subnet'}"
                )
            network = subnets[inside[0]]
            offset = int(address) - int(network.network_address)
            if offset < 4 or offset == network.num_addresses - 1:
                raise check.fail(
                    where,
                    f"{address} is one of AWS's five reserved addresses",
                    f"an address of {network} from the fifth on",
                )
            if entry.address in addresses:
                raise check.fail(where, f"{address} is {addresses[entry.address]}'s", "an address of its own")
            addresses[entry.address] = f"{group.name} node {j}"
    daemons = scenario.cluster.addons.aws_node + scenario.cluster.addons.kube_proxy + group.host_network_pods
    if group.max_pods is not None and group.max_pods < daemons:
        raise check.fail(
            (*path, "maxPods"), f"is {group.max_pods}", f"at least the {daemons} daemon pods of each node", str(daemons)
        )


def _load_workload(workload: Workload, check: _Checker, path: Path_, folder: Path) -> LoadedWorkload:
    if (workload.manifest is None) == (workload.file is None):
        raise check.fail(path, "needs either manifest or file", "a manifest, or a file of manifests")
    manifests: list[Manifest] = []
    if workload.manifest is not None:
        where = _Where(check.file, (0, *path, "manifest"), (*path, "manifest"))
        manifests.append(read_manifest(workload.manifest, where.fail))
    else:
        assert workload.file is not None
        target = folder / workload.file
        if not is_file(target):
            raise check.fail((*path, "file"), f"{workload.file} does not exist", "a file beside the scenario")
        file = read_yaml(target)
        for i, document in enumerate(file.documents):
            if document is not None:
                manifests.append(read_manifest(document, _Where(file, (i,), ()).fail))
        if not manifests:
            raise check.fail((*path, "file"), f"{workload.file} is empty", "one or more manifests")
    return LoadedWorkload(manifests, workload.on_term, workload.image_size, workload.time_to_ready)


@dataclass(slots=True)
class _Where:
    """Where a manifest stands, for its errors."""

    file: YamlFile
    lines_at: Path_
    shown_at: Path_

    def fail(self, path: Path_, message: str, expected: str = "", nearest: str = "") -> InputError:
        return InputError(
            message,
            self.file.name,
            self.file.line_of((*self.lines_at, *path)),
            dotted((*self.shown_at, *path)),
            expected,
            nearest,
        )
