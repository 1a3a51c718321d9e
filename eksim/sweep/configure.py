"""A configuration's scenario: the base document with the axes' values put in, checked once per different shape.

The frequent axes (instance type, node count, replicas, seed) are put into the checked models directly; a field by path goes
through the whole check, once per combination of such fields.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from eksim.errors import InputError
from eksim.scenario.load import LoadedScenario, LoadedWorkload, load_scenario_data
from eksim.scenario.manifest import Manifest
from eksim.scenario.schema import Cluster, NodeGroup, Scenario

DIRECT = ("instance_type", "nodes", "replicas", "seed")


class Base:
    """The base scenario of a sweep, from which configurations are made."""

    def __init__(self, document: dict[str, Any], folder: str, node_group: str | None = None) -> None:
        self.document = document
        self.folder = folder
        self.node_group = node_group
        self._shapes: dict[str, tuple[dict[str, Any], LoadedScenario, int]] = {}

    def shape(self, fields: dict[str, Any]) -> tuple[dict[str, Any], LoadedScenario, int]:
        """(document, checked scenario, index of the node group) with the fields by path put in. Raises InputError."""
        key = json.dumps(fields, sort_keys=True)
        found = self._shapes.get(key)
        if found is None:
            document = copy.deepcopy(self.document)
            for path, value in fields.items():
                set_path(document, path, value)
            loaded = load_scenario_data(document, str(self.document.get("name", "scenario")), self.folder)
            found = self._shapes[key] = (document, loaded, _group_index(loaded.scenario, self.node_group))
        return found

    def configure(self, values: dict[str, Any]) -> LoadedScenario:
        """The scenario of a configuration (column → value). Raises InputError."""
        document, loaded, index = self.shape({k: v for k, v in values.items() if k not in DIRECT})
        document = dict(document)
        scenario = loaded.scenario
        workloads = loaded.workloads
        if "instance_type" in values or "nodes" in values:
            group_update: dict[str, Any] = {}
            shown: dict[str, Any] = {}
            if "instance_type" in values:
                group_update["instance_type"] = shown["instanceType"] = values["instance_type"]
            if "nodes" in values:
                group_update["size"] = shown["size"] = values["nodes"]
                group_update["nodes"] = None
            groups = list(scenario.cluster.node_groups)
            groups[index] = groups[index].model_copy(update=group_update)
            cluster = scenario.cluster.model_copy(update={"node_groups": groups})
            scenario = scenario.model_copy(update={"cluster": cluster})
            entries = list(document["cluster"]["nodeGroups"])
            entries[index] = {
                k: v for k, v in {**entries[index], **shown}.items() if k != "nodes" or "nodes" not in values
            }
            document["cluster"] = {**document["cluster"], "nodeGroups": entries}
        if "replicas" in values:
            document, workloads = _with_replicas(document, workloads, values["replicas"])
        if "seed" in values:
            scenario = scenario.model_copy(update={"seed": values["seed"]})
            document["seed"] = values["seed"]
        out = LoadedScenario(scenario, loaded.file, document, "", workloads, loaded.applied, loaded.lines)
        out.hash = scenario_hash(out)
        return out


def scenario_hash(loaded: LoadedScenario) -> str:
    """The hash of a scenario and its manifests, as ``eksim run`` of the same file gives it."""
    manifests = [[m.document for m in w.manifests] for w in [*loaded.workloads, *loaded.applied.values()]]
    text = json.dumps([loaded.data, *manifests], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _group_index(scenario: Scenario, name: str | None) -> int:
    groups = scenario.cluster.node_groups
    if name is None:
        if len(groups) > 1:
            raise InputError(
                f"the scenario has {len(groups)} node groups",
                field="--node-group",
                expected="--node-group " + " or ".join(g.name for g in groups),
            )
        return 0
    for i, group in enumerate(groups):
        if group.name == name:
            return i
    raise InputError(
        f"no node group is called {name!r}",
        field="--node-group",
        expected="one of " + ", ".join(g.name for g in groups),
    )


def _with_replicas(
    document: dict[str, Any], workloads: list[LoadedWorkload], replicas: int
) -> tuple[dict[str, Any], list[LoadedWorkload]]:
    """The scenario's only Deployment at another size."""
    places = [
        (i, k)
        for i, w in enumerate(workloads)
        for k, m in enumerate(w.manifests)
        if m.kind in ("Deployment", "ReplicaSet")
    ]
    if len(places) != 1:
        raise InputError(
            f"the scenario's workloads hold {len(places)} Deployments",
            field="replicas",
            expected="exactly one to scale",
        )
    i, k = places[0]
    old = workloads[i].manifests[k]
    manifest = {**old.document, "spec": {**old.document["spec"], "replicas": replicas}}
    changed = list(workloads)
    manifests = list(changed[i].manifests)
    manifests[k] = Manifest(old.kind, old.namespace, old.name, manifest)
    changed[i] = LoadedWorkload(manifests, changed[i].on_term, changed[i].image_size, changed[i].time_to_ready_s)
    entries = list(document["workloads"])
    if entries[i].get("manifest") is not None:
        entries[i] = {**entries[i], "manifest": manifest}
        document["workloads"] = entries
    return document, changed


_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def set_path(document: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a path of the scenario (``cluster.`` and the only node group may be left out). Raises InputError."""
    parts: list[str | int] = [m[1] if m[1] is not None else int(m[2]) for m in _PART.finditer(path)]
    if not parts:
        raise InputError(f"{path!r} is not a path", expected="such as vpcCni.env.WARM_IP_TARGET")
    first = str(parts[0])
    tops, clusters, groups = (_names(m) for m in (Scenario, Cluster, NodeGroup))
    if first not in tops:
        if first in clusters:
            parts = ["cluster", *parts]
        elif first in groups:
            parts = ["cluster", "nodeGroups", 0, *parts]
        else:
            known = [*tops, *clusters, *groups]
            near = difflib.get_close_matches(first, known, n=1, cutoff=0.5)
            raise InputError(
                f"no scenario field is called {first!r}",
                field=path,
                expected="a field of the scenario, its cluster or its node group",
                nearest=near[0] if near else "",
            )
    here: Any = document
    for i, part in enumerate(parts[:-1]):
        here = _step(here, part, path, {} if not isinstance(parts[i + 1], int) else [])
    last = parts[-1]
    if isinstance(here, list):
        here[_index(here, last, path)] = value
    elif isinstance(here, dict):
        here[str(last)] = value
    else:
        raise InputError(f"{parts[-2]!r} is a single value", field=path, expected="a path to a field")


def _step(here: Any, part: str | int, path: str, default: Any) -> Any:
    if isinstance(here, list):
        return here[_index(here, part, path)]
    if not isinstance(here, dict):
        raise InputError(f"{part!r} stands below a single value", field=path, expected="a path to a field")
    return here.setdefault(str(part), default)


def _index(here: list[Any], part: str | int, path: str) -> int:
    if isinstance(part, int):
        if part < len(here):
            return part
    else:
        for i, item in enumerate(here):
            if isinstance(item, dict) and item.get("name") == part:
                return i
    names = [str(item.get("name", i)) if isinstance(item, dict) else str(i) for i, item in enumerate(here)]
    known = "one of " + ", ".join(names) if names else "a list that holds something"
    raise InputError(f"there is no {part!r}", field=path, expected=known)


def _names(model: Any) -> list[str]:
    return [f.alias or n for n, f in model.model_fields.items()]


def base_from_file(path: Path | str) -> tuple[dict[str, Any], str]:
    """(document, folder) of a scenario file that passes its checks. Raises InputError."""
    from eksim.scenario.load import load_scenario

    return load_scenario(path).data, str(Path(path).parent)
