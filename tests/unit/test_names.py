"""Names: each rule against a published example, and the random ones against their alphabet and distribution."""

from __future__ import annotations

import re

import pytest

from eksim import names
from eksim.engine.streams import Streams


def stream() -> names.Stream:
    return Streams(7)["names"]


def test_host_veth_names_are_those_of_the_lab_and_of_the_plugin() -> None:
    assert names.host_veth_name("default", "pod-1") == "eni83dbd022cd5"
    assert names.host_veth_name("default", "pod-2") == "enifbd243bfedd"
    assert names.host_veth_name("kube-system", "coredns-57ff979f67-qqbdh") == "enib5faff8a083"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default/kubernetes:httpstcp", "NPX46M4PTMTKRN6Y"),
        ("default/kubernetes:httpstcp192.168.2.121:443", "UYES2HJ7BEZOI3HM"),
        ("kube-system/kube-dns:dnsudp", "TCOU7JCQXEZGVUNU"),
        ("kube-system/kube-dns:dns-tcptcp", "ERIFXISQEP7F7OF4"),
    ],
)
def test_chain_names_are_those_of_a_real_cluster(text: str, expected: str) -> None:
    assert names.port_chain_hash(text) == expected


def test_node_names_have_the_short_domain_only_in_the_oldest_region() -> None:
    assert names.node_name("192.168.1.90", "ap-northeast-2") == "ip-192-168-1-90.ap-northeast-2.compute.internal"
    assert names.node_name("10.0.0.4", "us-east-1") == "ip-10-0-0-4.ec2.internal"


def test_a_generated_name_is_cut_to_leave_room_for_its_suffix() -> None:
    name = names.generate_name("x" * 80 + "-", stream())
    assert len(name) == 63 and name.startswith("x" * 58)
    assert re.fullmatch(r"web-[bcdfghjklmnpqrstvwxz2456789]{5}", names.generate_name("web-", stream()))


def test_every_character_of_the_alphabet_comes_up_about_equally_often_at_every_place() -> None:
    """27 characters, 54,000 draws: chi-squared with 26 degrees of freedom exceeds 70 once in 200,000 runs."""
    source = stream()
    suffixes = [names.random_suffix(source) for _ in range(54_000)]
    for place in range(5):
        counts = dict.fromkeys(names.ALPHANUMS, 0)
        for suffix in suffixes:
            counts[suffix[place]] += 1
        assert sum((n - 2000) ** 2 / 2000 for n in counts.values()) < 70


def test_ids_have_their_real_shape() -> None:
    source = stream()
    assert re.fullmatch(r"eni-0[0-9a-f]{16}", names.eni_id(source))
    assert re.fullmatch(r"i-0[0-9a-f]{16}", names.instance_id(source))
    uids = [names.uid(source) for _ in range(200)]
    assert all(re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", u) for u in uids)
    assert len(dict.fromkeys(uids)) == 200


@pytest.mark.parametrize(
    ("name", "valid"), [("nginx-1.abc", True), ("Nginx", False), ("-a", False), ("a" * 254, False), ("a..b", False)]
)
def test_dns_subdomains(name: str, valid: bool) -> None:
    assert names.is_dns_subdomain(name) is valid
