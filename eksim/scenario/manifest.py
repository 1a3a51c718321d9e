"""Kubernetes manifests at the door: which kinds eksim takes, and the mistakes the API server would refuse.

Only checks; defaulting and what the objects become is ``kube``'s business. An error is made by the caller's ``fail`` so that
it names file, line and field.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eksim.errors import InputError
from eksim.scenario.shapes import check_shape
from eksim.state.affinity import Affinity, TopologySpreadConstraint
from eksim.state.podspec import Toleration
from eksim.state.selectors import LabelSelector

Fail = Callable[..., InputError]
Path_ = tuple[str | int, ...]

#: kind → (apiVersion, namespaced)
KINDS: dict[str, tuple[str, bool]] = {
    "Deployment": ("apps/v1", True),
    "ReplicaSet": ("apps/v1", True),
    "DaemonSet": ("apps/v1", True),
    "Pod": ("v1", True),
    "Service": ("v1", True),
    "Namespace": ("v1", False),
    "ConfigMap": ("v1", True),
    "ServiceAccount": ("v1", True),
    "PriorityClass": ("scheduling.k8s.io/v1", False),
    "PodDisruptionBudget": ("policy/v1", True),
}
WORKLOADS = ("Deployment", "ReplicaSet", "DaemonSet")
_SHORT_NAMES = {
    "po": "Pod",
    "deploy": "Deployment",
    "rs": "ReplicaSet",
    "ds": "DaemonSet",
    "svc": "Service",
    "ns": "Namespace",
    "cm": "ConfigMap",
    "sa": "ServiceAccount",
    "pc": "PriorityClass",
    "pdb": "PodDisruptionBudget",
    "no": "Node",
}
_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")


def kind_named(text: str) -> str | None:
    """The kind that kubectl's ``pod``, ``pods``, ``deploy`` or ``Deployment`` means, nodes included; None if none."""
    names = {name.lower(): name for name in (*KINDS, "Node")}
    word = text.lower()
    for singular in (word, word.removesuffix("s"), word.removesuffix("es")):
        found = _SHORT_NAMES.get(singular) or names.get(singular)
        if found is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checked manifest; ``namespace`` is empty for cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str
    document: dict[str, Any]


def read_manifest(document: Any, fail: Fail) -> Manifest:
    """Check one manifest. ``fail(path, message, expected, nearest)`` makes the InputError that is raised."""
    if not isinstance(document, dict):
        raise fail((), "is not a mapping", "a Kubernetes manifest")
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1, cutoff=0.5)
        raise fail(
            ("kind",) if "kind" in document else (),
            f"kind {kind!r} is not supported" if kind else "lacks a kind",
            "one of " + ", ".join(KINDS),
            near[0] if near else "",
        )
    api_version, namespaced = KINDS[kind]
    if document.get("apiVersion") != api_version:
        raise fail(
            ("apiVersion",) if "apiVersion" in document else (),
            f"apiVersion of a {kind} is {document['apiVersion']!r}" if "apiVersion" in document else "lacks 'apiVersion'",
            f"apiVersion: {api_version}",
            api_version,
        )
    check_shape(document, kind, (), fail)
    metadata = _mapping(document, ("metadata",), fail, "metadata with a name")
    name = metadata.get("name")
    if not isinstance(name, str) or len(name) > 253 or not _SUBDOMAIN.match(name):
        raise fail(
            ("metadata", "name") if "name" in metadata else ("metadata",),
            "lacks a name" if name is None else f"name is {name!r}",
            "a lower case name",
        )
    namespace = metadata.get("namespace", "default") if namespaced else ""
    if namespaced and (not isinstance(namespace, str) or not _SUBDOMAIN.match(namespace)):
        raise fail(("metadata", "namespace"), f"namespace is {namespace!r}", "a lower case name")
    for part in ("labels", "annotations"):
        _texts(metadata.get(part), ("metadata", part), fail)
    if kind == "Pod":
        check_pod_spec(_mapping(document, ("spec",), fail, "a pod's spec"), ("spec",), fail)
    elif kind in WORKLOADS:
        _check_workload(kind, _mapping(document, ("spec",), fail, f"a {kind}'s spec"), fail)
    return Manifest(kind, namespace, name, document)


def _mapping(document: dict[str, Any], path: Path_, fail: Fail, expected: str) -> dict[str, Any]:
    value = document.get(str(path[-1]))
    if not isinstance(value, dict):
        found = f"lacks {path[-1]!r}" if value is None else f"{path[-1]} is {value!r}"
        raise fail(path if path[-1] in document else path[:-1], found, expected)
    return value


def _texts(value: Any, path: Path_, fail: Fail) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise fail(path, f"is {value!r}", "names and texts")
    for key, text in value.items():
        if not isinstance(text, str):
            raise fail((*path, key), f"is {text!r}", "text (put it in quotes)", f'"{text}"')
    return value


def _check_workload(kind: str, spec: dict[str, Any], fail: Fail) -> None:
    template = _mapping(spec, ("spec", "template"), fail, "a pod template")
    labels = _texts((template.get("metadata") or {}).get("labels"), ("spec", "template", "metadata", "labels"), fail)
    selector = _mapping(spec, ("spec", "selector"), fail, "selector.matchLabels, found in the template's labels")
    wanted = _texts(selector.get("matchLabels"), ("spec", "selector", "matchLabels"), fail)
    if not wanted and not selector.get("matchExpressions"):
        raise fail(("spec", "selector"), "selects nothing", "matchLabels, found in the template's labels")
    for key, value in wanted.items():
        if labels.get(key) != value:
            raise fail(
                ("spec", "selector", "matchLabels", key),
                f"selector {key}={value} does not match the template's labels",
                f"{key}: {labels.get(key)!r}" if key in labels else f"a label {key} on the template",
            )
    parsed = _parsed(LabelSelector.parse, selector, ("spec", "selector"), fail)
    if not parsed.matches(labels):
        raise fail(
            ("spec", "selector"), "does not select the template's labels", "expressions that those labels fulfil"
        )
    pod_spec = _mapping(template, ("spec", "template", "spec"), fail, "a pod's spec")
    check_pod_spec(pod_spec, ("spec", "template", "spec"), fail)
    policy = pod_spec.get("restartPolicy", "Always")
    if policy != "Always":
        raise fail(("spec", "template", "spec", "restartPolicy"), f"is {policy!r} in a {kind}", "Always", "Always")


def check_pod_spec(spec: dict[str, Any], path: Path_, fail: Fail) -> None:
    """The parts of a pod's spec that eksim reads."""
    containers = spec.get("containers")
    if not isinstance(containers, list) or not containers:
        raise fail(
            (*path, "containers") if "containers" in spec else path, "has no containers", "a list of one or more"
        )
    names: dict[str, int] = {}
    for part in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(part) or ()):
            where: Path_ = (*path, part, i)
            if not isinstance(container, dict):
                raise fail(where, "is not a mapping", "a container")
            for key in ("name", "image"):
                if not isinstance(container.get(key), str) or not container[key]:
                    raise fail(
                        (*where, key) if key in container else where,
                        f"lacks {key!r}" if container.get(key) is None else f"{key} is {container[key]!r}",
                        f"a container's {key}",
                    )
            if container["name"] in names:
                raise fail((*where, "name"), f"{container['name']!r} is another container's name", "a name of its own")
            names[container["name"]] = i
    for part, parse in (
        ("tolerations", Toleration.parse),
        ("topologySpreadConstraints", TopologySpreadConstraint.parse),
    ):
        for i, entry in enumerate(spec.get(part) or ()):
            _parsed(parse, entry, (*path, part, i), fail)
    for part, entry in (spec.get("affinity") or {}).items():
        _parsed(Affinity.parse, {part: entry}, (*path, "affinity", part), fail)


def _parsed(parse: Callable[[Any], Any], entry: Any, path: Path_, fail: Fail) -> Any:
    """What the simulation makes of an entry; its complaint becomes an error with file, line and field."""
    try:
        return parse(entry)
    except ValueError as error:
        raise fail(path, str(error), "what the API server would accept") from None
