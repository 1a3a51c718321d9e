"""What a pod asks for, however its manifest says it."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.state.objects import Taint
from eksim.state.podspec import PodSpec, default_pull_policy, tolerates
from eksim.state.selectors import LabelSelector, NodeSelectorTerm, Requirement, node_selector_matches
from eksim.versions import KubernetesRules

MI = 1 << 20


def container(cpu: str = "", memory: str = "", **fields: Any) -> dict[str, Any]:
    requests = {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text}
    return {"name": "c", "image": "i", "resources": {"requests": requests}, **fields}


def test_requests_are_sums_or_the_init_containers_maximum() -> None:
    """The larger of containers with sidecars and init containers with the sidecars before them, plus overhead."""
    spec = PodSpec.parse(
        {
            "containers": [container("100m", "64Mi"), container("200m")],
            "initContainers": [
                container("50m", restartPolicy="Always"), container("1", "32Mi"), container("500m", restartPolicy="Always"),
            ],
            "overhead": {"cpu": "10m", "memory": "1Mi"},
        }
    )  # fmt: skip
    # Containers and sidecars: 100 + 200 + 50 + 500 = 850; the init container beside the first sidecar: 1,050.
    assert spec.requests == {"cpu": 1060, "memory": 65 * MI}


def test_an_old_release_knows_no_sidecars() -> None:
    """Up to 1.28 restartPolicy of an init container is dropped, so it is one like the others."""
    manifest = {"containers": [container("100m")], "initContainers": [container("50m", restartPolicy="Always")]}
    assert PodSpec.parse(manifest).requests["cpu"] == 150
    assert PodSpec.parse(manifest, KubernetesRules.of("1.21")).requests["cpu"] == 100


def test_requests_for_scores() -> None:
    """A container that does not name cpu or memory counts 100m or 200 MiB, an explicit 0 stays 0, init ones too."""
    spec = PodSpec.parse({"containers": [container("10m"), container("0", "1Mi")], "initContainers": [container()]})
    assert (spec.nonzero_cpu, spec.nonzero_memory) == (100, 201 * MI)


def test_pod_level_requests_override() -> None:
    """From 1.34; before, the field is unknown. What the pod names is not made up for containers that do not."""
    manifest = {
        "containers": [container("100m"), container()],
        "resources": {"requests": {"memory": "900Mi"}, "limits": {"cpu": "2"}},
    }
    spec = PodSpec.parse(manifest)
    assert spec.requests == {"cpu": 100, "memory": 900 * MI}
    assert (spec.nonzero_cpu, spec.nonzero_memory) == (100, 900 * MI)
    assert PodSpec.parse(manifest, KubernetesRules.of("1.33")).requests == {"cpu": 100}


def test_what_the_api_server_fills_in() -> None:
    """A limit alone becomes a request; on the host network a port is a host port; not if read as written."""
    manifest = {
        "hostNetwork": True,
        "containers": [{"name": "c", "ports": [{"containerPort": 61678}], "resources": {"limits": {"cpu": "1"}}}],
    }
    spec = PodSpec.parse(manifest)
    assert spec.requests == {"cpu": 1000}
    assert spec.host_ports == (("0.0.0.0", "TCP", 61678),)
    raw = PodSpec.parse(manifest, defaulted=False)
    assert (raw.requests, raw.host_ports) == ({}, ())


def test_defaults() -> None:
    """Grace 30 s, the default scheduler, priority 0 or the system class's."""
    spec = PodSpec.parse({"containers": []})
    assert (spec.termination_grace_s, spec.scheduler_name, spec.priority) == (30.0, "default-scheduler", 0)
    assert PodSpec.parse({"containers": [], "priorityClassName": "system-node-critical"}).priority == 2_000_001_000
    assert PodSpec.parse({"containers": [], "terminationGracePeriodSeconds": 0}).termination_grace_s == 0.0


@pytest.mark.parametrize(
    ("image", "policy"),
    [("nginx", "Always"), ("nginx:latest", "Always"), ("nginx:alpine", "IfNotPresent"),
     ("host:5000/nginx", "Always"), ("host:5000/nginx:1", "IfNotPresent"), ("nginx@sha256:0", "IfNotPresent")],
)  # fmt: skip
def test_pull_policy(image: str, policy: str) -> None:
    """Always for the tag latest or none."""
    assert default_pull_policy(image) == policy


@pytest.mark.parametrize(
    ("toleration", "yes"),
    [
        ({"operator": "Exists"}, True), ({"key": "k", "operator": "Exists"}, True), ({"key": "k", "value": "v"}, True),
        ({"key": "k"}, False), ({"key": "k", "value": "w"}, False), ({"key": "l", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, True),
    ],
)  # fmt: skip
def test_tolerations(toleration: dict[str, Any], yes: bool) -> None:
    """Against the taint k=v:NoSchedule."""
    spec = PodSpec.parse({"containers": [], "tolerations": [toleration]})
    assert tolerates(spec.tolerations, Taint("k", "v", "NoSchedule")) is yes


@pytest.mark.parametrize(
    "spec",
    [
        {"containers": [{"name": "c", "resources": {"requests": {"cpu": "x"}}}]}, {"containers": ["c"]}, {"containers": 3},
        {"containers": [], "tolerations": [{"operator": "In"}]},
        {"containers": [], "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}},
        {"containers": [], "topologySpreadConstraints": [{"topologyKey": "z", "maxSkew": 0}]},
        {"containers": [], "topologySpreadConstraints": [{"topologyKey": "z", "maxSkew": 1, "whenUnsatisfiable": "No"}]},
        "containers",
    ],
)  # fmt: skip
def test_bad_specs(spec: Any) -> None:
    """What cannot be read is said in words."""
    with pytest.raises(ValueError) as caught:
        PodSpec.parse(spec)
    assert len(str(caught.value).split()) > 3


def test_replace_makes_a_new_spec() -> None:
    """Gates go; the old spec stays as it was."""
    spec = PodSpec.parse({"containers": [], "schedulingGates": [{"name": "g"}]})
    assert spec.replace(schedulingGates=None).scheduling_gates == ()
    assert spec.scheduling_gates == ("g",)


@pytest.mark.parametrize(
    ("selector", "labels", "yes"),
    [
        (None, {}, False), ({}, {"a": "b"}, True), ({"matchLabels": {"a": "b"}}, {"a": "b"}, True),
        ({"matchLabels": {"a": "b"}}, {"a": "c"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}, {"a": "b"}, False),
    ],
)  # fmt: skip
def test_label_selectors(selector: dict[str, Any] | None, labels: dict[str, str], yes: bool) -> None:
    """A missing selector selects nothing, an empty one everything."""
    assert LabelSelector.parse(selector).matches(labels) is yes


def test_node_selector_terms() -> None:
    """Numbers are compared as integers; fields by name; empty terms and an empty list match no node."""
    gt = NodeSelectorTerm((Requirement("gen", "Gt", ("3",)),), ())
    assert gt.matches({"gen": "4"}, "n") and not gt.matches({"gen": "x"}, "n") and not gt.matches({}, "n")
    field = NodeSelectorTerm((), (Requirement("metadata.name", "In", ("n",)),))
    assert node_selector_matches((NodeSelectorTerm((), ()), field), {}, "n")
    assert not node_selector_matches((NodeSelectorTerm((), ()),), {}, "n")
    assert not node_selector_matches((), {}, "n")
