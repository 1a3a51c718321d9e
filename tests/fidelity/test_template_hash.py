"""The pod-template-hash of real clusters: published values for every release, and recorded dumps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eksim.kube.quantity_dump import canonical, dump_quantity
from eksim.kube.template import default_pod_template, default_workload, dump_template, sum_template, template_hash
from eksim.testing.traces import read_recording
from eksim.versions import KubernetesRules

TABLES = Path(__file__).parents[1] / "recordings" / "controllers" / "tables.json.gz"

#: releases (first, last), nginx:alpine, nginx:1.14.2
PUBLISHED = [
    (19, 22, "7fb7fd49b4", "66b6c48dd5"),
    (23, 23, "9fbb7d78", "9456bbbf9"),
    (24, 24, "6fb79bc456", "6595874d85"),
    (25, 25, "965685897", "7fb96c846b"),
    (26, 26, "774f96d4d9", "85996f8dbd"),
    (27, 27, "f6dc544c7", "cbdccf466"),
    (28, 29, "f7f5c78c5", "86dcfdf4c6"),
    (30, 30, "6f999cfffb", "77d8468669"),
    (31, 31, "6c8cb99bb9", "d556bf558"),
    (32, 33, "f576985cc", "647677fc66"),
    (34, 34, "54fc99c8d", "bf744486c"),
    (35, 35, "86644db9cc", "77bc6bd484"),
    (36, 36, "cd54446c4", "6c5f67b5f7"),
]


def nginx(image: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "nginx", "image": image, "ports": [{"containerPort": 80}]}
    return {"metadata": {"labels": {"app": "nginx"}}, "spec": {"containers": [container], **spec}}


@pytest.mark.parametrize(
    ("minor", "alpine", "pinned"),
    [(minor, alpine, pinned) for first, last, alpine, pinned in PUBLISHED for minor in range(first, last + 1)],
)
def test_the_nginx_deployment_of_the_documentation_has_its_published_hash(
    minor: int, alpine: str, pinned: str
) -> None:
    assert template_hash(default_pod_template(nginx("nginx:alpine")), minor) == alpine
    assert template_hash(default_pod_template(nginx("nginx:1.14.2")), minor) == pinned


@pytest.mark.parametrize("row", read_recording(TABLES)["hash"], ids=lambda row: str(row["hash"][0]))
def test_recorded_templates_are_defaulted_dumped_and_hashed_as_by_the_real_controller(row: dict[str, Any]) -> None:
    template = default_pod_template(row["template"])
    assert dump_template(template, 34) == row["dump"]
    assert dump_template(row["defaulted"], 34) == row["dump"]
    assert [template_hash(template, 34, count) for count in (None, 0, 1, 2)] == row["hash"]


def test_a_field_no_release_knows_is_hashed_as_the_newest_with_a_warning() -> None:
    template = default_pod_template(nginx("nginx:alpine", quantumLane=3))
    result = sum_template(template, 21)
    assert result.hash() == "cd54446c4"
    assert result.warnings == ("unknown field v1.PodSpec.quantumLane; hashed as Kubernetes 1.36",)


def test_a_field_of_a_later_release_is_dropped_as_the_api_server_does() -> None:
    template = default_pod_template(nginx("nginx:alpine", hostUsers=False))
    result = sum_template(template, 21)
    assert result.hash() == "7fb7fd49b4"
    assert result.warnings == ("field v1.PodSpec.hostUsers is not of Kubernetes 1.21 and was dropped",)


def test_a_release_beyond_the_table_is_hashed_as_the_newest_with_a_warning() -> None:
    result = sum_template(default_pod_template(nginx("nginx:alpine")), 40)
    assert result.hash() == "cd54446c4" and "newer than the table" in result.warnings[0]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.14.2", "IfNotPresent"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:2", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert default_pod_template(nginx(image))["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_host_network_opens_host_ports_in_templates_only_up_to_1_27() -> None:
    spec = {"selector": {}, "template": nginx("nginx:alpine", hostNetwork=True)}
    for minor, port in ((27, 80), (28, None)):
        container = default_workload("DaemonSet", spec, KubernetesRules.of(f"1.{minor}"))["template"]["spec"]["containers"][0]
        assert container["ports"][0].get("hostPort") == port


def test_defaulting_leaves_the_manifest_alone_and_is_idempotent() -> None:
    manifest = nginx("nginx", volumes=[{"name": "v"}, {"name": "h", "hostPath": {"path": "/x"}}])
    before = repr(manifest)
    once = default_pod_template(manifest)
    assert repr(manifest) == before
    assert default_pod_template(once) == once
    assert once["spec"]["volumes"] == [
        {"name": "v", "emptyDir": {}},
        {"name": "h", "hostPath": {"path": "/x", "type": ""}},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1500Mi", "1500Mi"),
        ("12000", "12k"),
        ("0", "0"),
        ("0Mi", "0"),
        ("512", "512"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("1500e-3", "1500e-3"),
        ("-1.5", "-1500m"),
        ("100.5Mi", "102912Ki"),
    ],
)
def test_canonical_quantities(text: str, expected: str) -> None:
    assert canonical(text) == expected


def test_a_binary_quantity_keeps_its_text_only_if_no_multiple_of_eight() -> None:
    assert "s:(string)70Mi " in dump_quantity("70Mi")
    assert "s:(string) " in dump_quantity("128Mi")
    assert "value:(int64)134217728 " in dump_quantity("128Mi")
