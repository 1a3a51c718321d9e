"""ipamd's arithmetic as tables of cases, and its environment as the real code reads it."""

from __future__ import annotations

import pytest

from eksim.cni.datastore import PoolStats
from eksim.cni.pool import (
    Limits,
    datastore_target_state,
    get_eni_resources_to_allocate,
    get_items_needed,
    get_max_eni,
    growth_is_gated,
    has_surplus_for_eni,
    is_datastore_pool_too_high,
    is_datastore_pool_too_low,
    surplus,
)
from eksim.cni.settings import Settings, refusal_to_start
from eksim.versions import CniRules

TODAY = CniRules.of("v1.23.1")
T3_MEDIUM = Limits(3, 5)


def want(rules: CniRules = TODAY, **env: str) -> Settings:
    return Settings.from_env(env, rules)


@pytest.mark.parametrize(
    ("total", "assigned", "env", "short_over"),
    [
        (5, 0, {"WARM_IP_TARGET": "2"}, (0, 3)),
        (5, 4, {"WARM_IP_TARGET": "2"}, (1, 0)),
        (5, 5, {"WARM_IP_TARGET": "2", "MINIMUM_IP_TARGET": "12"}, (7, 0)),
        (12, 2, {"WARM_IP_TARGET": "2", "MINIMUM_IP_TARGET": "12"}, (0, 0)),
        (14, 2, {"WARM_IP_TARGET": "2", "MINIMUM_IP_TARGET": "12"}, (0, 2)),
        (5, 5, {"MINIMUM_IP_TARGET": "5"}, (0, 0)),
        (8, 5, {"MINIMUM_IP_TARGET": "5"}, (0, 3)),
        (5, 0, {}, None),
        (5, 0, {"WARM_IP_TARGET": "0"}, None),
    ],
)
def test_ip_targets_in_addresses(
    total: int, assigned: int, env: dict[str, str], short_over: tuple[int, int] | None
) -> None:
    assert datastore_target_state(PoolStats(total, assigned, 0, 0), want(**env), False) == short_over


@pytest.mark.parametrize(
    ("total", "assigned", "prefixes", "free", "env", "short_over"),
    [
        (16, 0, 1, 1, {"WARM_IP_TARGET": "5"}, (0, 0)),
        (16, 12, 1, 0, {"WARM_IP_TARGET": "5"}, (1, 0)),
        (48, 1, 3, 2, {"WARM_IP_TARGET": "15"}, (0, 2)),
        (48, 1, 3, 2, {"WARM_IP_TARGET": "16"}, (0, 1)),
        (48, 3, 3, 0, {"WARM_IP_TARGET": "1"}, (0, 0)),
        (48, 0, 3, 3, {"WARM_IP_TARGET": "1", "MINIMUM_IP_TARGET": "33"}, (0, 0)),
        (16, 0, 1, 1, {"MINIMUM_IP_TARGET": "33"}, (2, 1)),
    ],
)
def test_ip_targets_in_prefixes(
    total: int, assigned: int, prefixes: int, free: int, env: dict[str, str], short_over: tuple[int, int]
) -> None:
    state = datastore_target_state(PoolStats(total, assigned, prefixes, free), want(**env), True)
    if "MINIMUM_IP_TARGET" in env and prefixes == 1:
        assert state == (2, 0)  # over is held down by the minimum's three /28s
    else:
        assert state == short_over


@pytest.mark.parametrize(
    ("version", "total", "assigned", "env", "low"),
    [
        ("v1.23.1", 5, 0, {}, False),
        ("v1.23.1", 5, 1, {}, True),
        ("v1.23.1", 10, 5, {}, False),
        ("v1.23.1", 15, 15, {}, True),
        ("v1.23.1", 17, 17, {}, False),
        ("v1.16.2", 17, 17, {}, True),
        ("v1.23.1", 5, 4, {"WARM_ENI_TARGET": "0"}, False),
        ("v1.23.1", 5, 5, {"WARM_ENI_TARGET": "0"}, True),
        ("v1.23.1", 10, 1, {"WARM_ENI_TARGET": "2"}, True),
        ("v1.23.1", 5, 5, {"MINIMUM_IP_TARGET": "5"}, False),
    ],
)
def test_low_with_secondary_addresses(version: str, total: int, assigned: int, env: dict[str, str], low: bool) -> None:
    rules = CniRules.of(version)
    stats = PoolStats(total, assigned, 0, 0)
    assert is_datastore_pool_too_low(stats, want(rules, **env), T3_MEDIUM, 17, False, rules) == low


@pytest.mark.parametrize(
    ("total", "assigned", "free", "env", "low", "high"),
    [
        (16, 0, 1, {"WARM_PREFIX_TARGET": "1"}, False, False),
        (16, 1, 0, {"WARM_PREFIX_TARGET": "1"}, True, False),
        (32, 16, 1, {"WARM_PREFIX_TARGET": "1"}, False, False),
        (32, 17, 0, {"WARM_PREFIX_TARGET": "1"}, True, False),
        (48, 1, 2, {"WARM_PREFIX_TARGET": "1"}, False, True),
        (16, 15, 0, {}, False, False),
        (16, 16, 0, {}, True, False),
        (32, 16, 1, {}, False, True),
    ],
)
def test_low_and_high_with_prefixes(
    total: int, assigned: int, free: int, env: dict[str, str], low: bool, high: bool
) -> None:
    stats = PoolStats(total, assigned, total // 16, free)
    assert is_datastore_pool_too_low(stats, want(**env), T3_MEDIUM, 110, True, TODAY) == low
    assert is_datastore_pool_too_high(stats, want(**env), True) == high
    assert surplus(stats, want(**env), True) == (free - int(env.get("WARM_PREFIX_TARGET", "0")) if high else 0)


def test_secondary_mode_without_ip_targets_is_never_too_high() -> None:
    assert not is_datastore_pool_too_high(PoolStats(100, 0, 0, 0), want(), False)


@pytest.mark.parametrize(
    ("available", "env", "prefix", "surplus_there"),
    [
        (9, {}, False, False),
        (10, {}, False, True),
        (5, {"WARM_ENI_TARGET": "0"}, False, True),
        (0, {"WARM_IP_TARGET": "1"}, False, True),
        (159, {"WARM_PREFIX_TARGET": "1"}, True, False),
        (160, {"WARM_PREFIX_TARGET": "1"}, True, True),
    ],
)
def test_a_whole_eni_too_many(available: int, env: dict[str, str], prefix: bool, surplus_there: bool) -> None:
    assert has_surplus_for_eni(PoolStats(available, 0, 0, 0), want(**env), T3_MEDIUM, prefix) == surplus_there


@pytest.mark.parametrize(
    ("version", "env", "prefix", "stats", "existing", "new"),
    [
        ("v1.23.1", {}, False, (5, 5, 0, 0), 5, 5),
        ("v1.23.1", {"WARM_IP_TARGET": "7"}, False, (5, 5, 0, 0), 7, 5),
        ("v1.9.0", {"WARM_IP_TARGET": "7"}, False, (5, 5, 0, 0), 7, 7),
        ("v1.23.1", {"WARM_PREFIX_TARGET": "3"}, True, (16, 16, 1, 0), 3, 3),
        ("v1.23.1", {"WARM_PREFIX_TARGET": "0"}, True, (16, 16, 1, 0), 1, 1),
        ("v1.23.1", {"WARM_IP_TARGET": "17"}, True, (16, 16, 1, 0), 2, 2),
    ],
)
def test_how_much_is_asked_for(
    version: str, env: dict[str, str], prefix: bool, stats: tuple[int, int, int, int], existing: int, new: int
) -> None:
    rules = CniRules.of(version)
    assert get_items_needed(PoolStats(*stats), want(rules, **env), T3_MEDIUM, prefix) == existing
    assert get_eni_resources_to_allocate(PoolStats(*stats), want(rules, **env), T3_MEDIUM, prefix, rules) == new


def test_the_first_releases_with_prefixes_never_grow_with_warm_prefix_target_0() -> None:
    stats = PoolStats(0, 0, 0, 0)
    for version, gated in (("v1.9.0", True), ("v1.16.2", True), ("v1.16.3", False), ("v1.23.1", False)):
        rules = CniRules.of(version)
        assert growth_is_gated(stats, want(rules), True, rules) == gated


@pytest.mark.parametrize(("max_eni", "enis"), [("", 3), ("2", 2), ("3", 3), ("4", 3), ("0", 3), ("-1", 3), ("x", 3)])
def test_max_eni_lowers_only(max_eni: str, enis: int) -> None:
    assert get_max_eni(3, want(MAX_ENI=max_eni).max_eni) == enis


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("+7", 7), ("-7", 0), ("7 ", 0), ("x", 0), ("", 0), ("٧", 0), ("1e1", 0)]
)
def test_numbers_are_read_as_go_reads_them(text: str, value: int) -> None:
    assert want(WARM_IP_TARGET=text).warm_ip_target == value


@pytest.mark.parametrize(("text", "cooldown"), [("5", 5), ("-1", -1), ("0", 0), ("abc", 30), ("", 30)])
def test_only_an_unreadable_cooldown_is_the_default(text: str, cooldown: int) -> None:
    assert want(IP_COOLDOWN_PERIOD=text).cooldown_s == cooldown
    assert want(CniRules.of("v1.14.0"), IP_COOLDOWN_PERIOD=text).cooldown_s == 30


@pytest.mark.parametrize(("text", "value"), [("true", True), ("T", True), ("1", True), ("yes", False), ("", False)])
def test_flags_are_read_as_go_reads_them(text: str, value: bool) -> None:
    assert want(ENABLE_PREFIX_DELEGATION=text).prefix_delegation == value


def test_a_release_ignores_what_it_does_not_know() -> None:
    old = want(CniRules.of("v1.7.5"), ENABLE_PREFIX_DELEGATION="true", ENABLE_SUBNET_DISCOVERY="true")
    assert not old.prefix_delegation
    assert not old.subnet_discovery


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({}, ""),
        ({"ENABLE_PREFIX_DELEGATION": "true"}, "WARM_PREFIX_TARGET = 0"),
        ({"ENABLE_PREFIX_DELEGATION": "true", "WARM_PREFIX_TARGET": "1"}, ""),
        ({"ENABLE_PREFIX_DELEGATION": "true", "WARM_IP_TARGET": "1"}, ""),
        ({"IP_COOLDOWN_PERIOD": "-1"}, "IP_COOLDOWN_PERIOD"),
        ({"IP_COOLDOWN_PERIOD": "abc"}, "IP_COOLDOWN_PERIOD"),
        ({"AWS_VPC_K8S_CNI_VETHPREFIX": "toolong"}, "four characters"),
        ({"AWS_VPC_K8S_CNI_VETHPREFIX": "eth"}, "reserved values"),
    ],
)
def test_what_the_container_refuses_to_start_with(env: dict[str, str], word: str) -> None:
    problem = refusal_to_start(env, TODAY)
    assert (word.replace("four", "4") in problem) if word else problem == ""


def test_a_number_beyond_64_bits_is_none():
    # strconv.Atoi gives ErrRange, and the CNI its default
    env = {"WARM_ENI_TARGET": "9" * 5000, "WARM_IP_TARGET": "9223372036854775808", "MINIMUM_IP_TARGET": "0" * 30 + "7"}
    read = want(**env)
    assert (read.warm_eni_target, read.warm_ip_target, read.minimum_ip_target) == (1, 0, 7)
