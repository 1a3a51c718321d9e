"""The catalogue agrees with its sources, and max-pods with the published list and the rules of the calculator."""

import csv
from pathlib import Path

import pytest

from eksim.catalog import build, types
from eksim.catalog.limits import max_pods
from eksim.errors import InputError

SOURCES = Path(build.__file__).parent / "sources"
MULTI_CARD = {
    "i7ie.48xlarge": (15, 8),
    "i7ie.metal-48xl": (15, 8),
    "i8ge.48xlarge": (24, 12),
    "i8ge.metal-48xl": (24, 12),
}


def _limits():
    with (SOURCES / "vpc_limits.csv").open() as file:
        return {r["instance_type"]: r for r in csv.DictReader(file)}


def test_every_type_of_the_cni_has_the_published_max_pods():
    for name, row in _limits().items():
        wanted = int(row["max_enis_default_card"]) * (int(row["ipv4_per_eni"]) - 1) + 2
        assert max_pods(types.lookup(name)).pods == wanted, name


@pytest.mark.parametrize("name", sorted(MULTI_CARD))
def test_types_whose_listed_enis_span_cards_say_what_the_default_card_gives(name):
    listed, default = MULTI_CARD[name]
    figure = max_pods(types.lookup(name))
    assert figure.pods == listed * 49 + 2
    assert f"would give {default * 49 + 2}" in figure.notes[0]


@pytest.mark.parametrize(
    ("name", "options", "pods"),
    [
        ("t3.medium", {}, 17),
        ("m5.large", {}, 29),
        ("m5.large", {"prefix_delegation": True}, 434),
        ("m5.large", {"prefix_delegation": True, "cap": True}, 110),
        ("m5.large", {"prefix_delegation": True, "cni_version": "v1.8.0"}, 29),
        ("m5.24xlarge", {}, 737),
        ("m5.24xlarge", {"cap": True}, 250),
        ("c5.4xlarge", {}, 234),
        ("c5.4xlarge", {"cap": True}, 110),
        ("m5.large", {"custom_networking": True}, 20),
        ("m5.large", {"max_eni": 1}, 11),
        ("m5.large", {"max_eni": 2, "custom_networking": True}, 11),
        ("m5.large", {"max_eni": 9}, 29),
        ("m4.large", {"prefix_delegation": True}, 20),
        ("m5.metal", {"prefix_delegation": True}, 737),
        ("p5.48xlarge", {}, 100),
    ],
)
def test_max_pods_by_the_rules(name, options, pods):
    assert max_pods(types.lookup(name), **options).pods == pods


def test_prices_memory_and_architecture_come_from_the_sources():
    t3 = types.lookup("t3.medium")
    assert (t3.vcpu, t3.memory_mib, t3.architecture, t3.usd_per_hour, t3.hypervisor) == (
        2,
        4096,
        "x86_64",
        0.0416,
        "nitro",
    )
    assert types.lookup("m7g.large").architecture == "arm64"


def test_what_no_source_knows_stays_empty_and_is_said_when_needed():
    unknown = types.lookup("p3.2xlarge")
    assert unknown.vcpu is None
    assert unknown.memory_mib is None
    with pytest.raises(InputError, match=r"p3\.2xlarge: vcpu is not in any"):
        max_pods(unknown, cap=True)


def test_at_least_the_published_list_is_known():
    assert len(types.names()) >= 1391


def test_a_misspelt_type_is_answered_with_the_nearest():
    with pytest.raises(InputError) as caught:
        types.lookup("t3.medum")
    assert caught.value.nearest == "t3.medium"


def test_globs_list_a_family_from_small_to_large():
    assert [t.name for t in types.match("t3.*")] == [
        "t3.nano",
        "t3.micro",
        "t3.small",
        "t3.medium",
        "t3.large",
        "t3.xlarge",
        "t3.2xlarge",
    ]


def test_the_table_is_what_its_script_builds(monkeypatch, tmp_path):
    kept = build.TABLE.read_text()
    monkeypatch.setattr(build, "TABLE", tmp_path / "table.tsv")
    build.build()
    assert (tmp_path / "table.tsv").read_text() == kept
