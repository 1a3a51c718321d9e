"""The datastore's rules of choice: Go's map order, cool-down, what may be given back and which ENI may go."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest

from eksim.cni.datastore import Datastore
from eksim.cni.eni import DatastoreEni
from eksim.cni.gomap import GROUP, GoMap, MapOrder
from eksim.engine.streams import Streams
from eksim.state.network import PREFIX
from eksim.versions import CniRules

RULES = CniRules.of("v1.23.1")
DRAWS = 8000
#: A draw's share may be so many standard deviations off: a right one fails less than once in a million (5 σ: 5.7e-7).
SIGMA = 5.0


def order(seed: int = 1) -> MapOrder:
    return MapOrder(Streams(seed)["order"])


def datastore(*sizes: int, prefix: bool = False, cooldown_s: int = 30, seed: int = 1) -> Datastore:
    """ENIs eth0, eth1, … with so many items each; addresses 100…, 200…, /28s at 1600…, 3200…"""
    ds = Datastore("n", prefix, cooldown_s, RULES, order(seed))
    for device, size in enumerate(sizes):
        eni = ds.add_eni(f"eni-{device}", device, "a", 0.0, primary=device == 0)
        for i in range(size):
            ds.add_cidr(eni, (1600 * (device + 1) + 16 * i) | PREFIX if prefix else 100 * (device + 1) + i)
    return ds


def near(count: int, share: float) -> bool:
    return abs(count - DRAWS * share) <= SIGMA * math.sqrt(DRAWS * share * (1 - share))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_first_of_a_small_map_is_favoured(n: int) -> None:
    """With n entries added in order and none removed: (9 − n)/8 for the first, 1/8 for each other."""
    map_order = order()
    go_map = GoMap()
    for key in range(n):
        map_order.add(go_map, key)
    first = Counter(map_order.walk("", go_map, "")[0] for _ in range(DRAWS))
    assert near(first[0], (9 - n) / 8)
    assert all(near(first[key], 1 / 8) for key in range(1, n))


def test_after_the_first_come_the_others_round_the_slots() -> None:
    map_order = order()
    go_map = GoMap()
    for key in range(4):
        map_order.add(go_map, key)
    walks = {tuple(map_order.walk("", go_map, "")) for _ in range(200)}
    assert walks == {(0, 1, 2, 3), (1, 2, 3, 0), (2, 3, 0, 1), (3, 0, 1, 2)}


def test_a_freed_slot_is_the_next_key_s() -> None:
    map_order = order()
    go_map = GoMap()
    for key in range(3):
        map_order.add(go_map, key)
    go_map.remove(1)
    map_order.add(go_map, 7)
    assert list(go_map) == [0, 7, 2]
    go_map.remove(0)
    first = Counter(map_order.walk("", go_map, "")[0] for _ in range(DRAWS))
    assert near(first[2], 1 / 8)
    assert near(first[7], 7 / 8)


def test_a_map_that_outgrew_its_group_is_even() -> None:
    map_order = order()
    go_map = GoMap()
    for key in range(GROUP + 4):
        map_order.add(go_map, key)
    first = Counter(map_order.walk("", go_map, "")[0] for _ in range(DRAWS))
    assert all(near(first[key], 1 / (GROUP + 4)) for key in range(GROUP + 4))


def test_the_walk_over_a_copy_compounds_the_bias() -> None:
    """Two ENIs: the copy begins with ENI 1 in 7/8 of cases and its walk with the copy's first in 7/8 again."""
    map_order = order()
    go_map = GoMap()
    for key in (0, 1):
        map_order.add(go_map, key)
    first = Counter(map_order.walk_copy("", go_map, "")[0] for _ in range(DRAWS))
    assert near(first[0], 49 / 64 + 1 / 64)


@pytest.mark.parametrize(("enis", "shares"), [(2, (7 / 8, 1 / 8)), (3, (6 / 8, 1 / 8, 1 / 8))])
def test_pods_land_mostly_on_the_primary_while_it_has_room(enis: int, shares: tuple[float, ...]) -> None:
    devices: Counter[int] = Counter()
    ds = datastore(*[5] * enis)
    for i in range(DRAWS):
        held = ds.assign(f"s{i}", 1000.0 * i)
        assert held is not None
        devices[held[1].device] += 1
        ds.unassign(f"s{i}", 1000.0 * i)
    assert all(near(devices[device], share) for device, share in enumerate(shares))


def test_the_same_sandbox_gets_the_same_address_again() -> None:
    ds = datastore(3)
    assert ds.assign("a", 0.0) == ds.assign("a", 5.0)
    assert ds.stats().assigned == 1


@pytest.mark.parametrize(
    ("cooldown_s", "after_s", "free"),
    [(30, 30.0, False), (30, 30.001, True), (0, 0.0, False), (0, 0.001, True), (-1, 0.0, True), (120, 100.0, False)],
)
def test_an_address_cools_up_to_and_including_the_period(cooldown_s: int, after_s: float, free: bool) -> None:
    ds = datastore(1, cooldown_s=cooldown_s)
    ds.assign("a", 100.0)
    ds.unassign("a", 200.0)
    assert (ds.assign("b", 200.0 + after_s) is not None) == free


def test_cooling_addresses_count_as_available() -> None:
    ds = datastore(5)
    ds.assign("a", 0.0)
    ds.unassign("a", 1.0)
    assert ds.stats().available == 5
    assert (ds.cooling(1.0), ds.cooling(31.0), ds.cooling(31.1)) == (1, 1, 0)


def test_a_prefix_is_filled_upwards_and_cooled_addresses_come_first() -> None:
    ds = datastore(1, prefix=True)
    given = [ds.assign(f"s{i}", 0.0) for i in range(3)]
    assert [held[0] & 15 for held in given if held] == [0, 1, 2]
    ds.unassign("s1", 10.0)
    warm = ds.assign("x", 11.0)
    assert warm is not None
    assert warm[0] & 15 == 3
    cooled = ds.assign("y", 41.0)
    assert cooled is not None
    assert cooled[0] & 15 == 1


def test_of_several_cooled_addresses_any_is_given_and_all_are_forgotten() -> None:
    seen = set()
    for seed in range(40):
        ds = datastore(1, prefix=True, seed=seed)
        for i in range(4):
            ds.assign(f"s{i}", 0.0)
        for i in (0, 1, 2):
            ds.unassign(f"s{i}", 0.0)
        held = ds.assign("x", 100.0)
        assert held is not None
        seen.add(held[0] & 15)
        left = sorted({0, 1, 2} - {held[0] & 15})
        following = ds.assign("y", 100.0)
        assert following is not None
        assert following[0] & 15 == left[0]
    assert seen == {0, 1, 2}


def test_the_other_mode_s_addresses_are_not_given_out() -> None:
    ds = datastore(0, 0, prefix=True)
    ds.add_cidr(ds.enis["eni-0"], 7)
    assert ds.assign("a", 0.0) is None
    assert ds.stats().total == 0
    assert ds.freeable_cidrs(ds.enis["eni-0"]) == [7]


def test_an_excluded_eni_gives_nothing_and_counts_only_in_the_prefixes() -> None:
    ds = datastore(1, 1, prefix=True)
    ds.enis["eni-1"].excluded = True
    assert ds.stats() == (16, 0, 2, 2)
    devices = set()
    for i in range(16):
        held = ds.assign(f"s{i}", 0.0)
        assert held is not None
        devices.add(held[1].device)
    assert devices == {0}
    assert ds.assign("more", 0.0) is None


def test_removing_an_eni_with_pods_by_force_lowers_the_prefix_counter_twice() -> None:
    ds = datastore(1, 2, prefix=True)
    ds.restore("a", 3200)
    ds.remove_eni(ds.enis["eni-1"])
    assert ds.stats().prefixes == 1 + 2 - 4


def _pod_on_eth1(ds: Datastore) -> None:
    ds.restore("a", 200)


def _released_at_90(ds: Datastore) -> None:
    ds.restore("a", 200)
    ds.unassign("a", 90.0)


def _nothing(ds: Datastore) -> None:
    return None


def _trunk(ds: Datastore) -> None:
    ds.enis["eni-1"].trunk = True


def _efa(ds: Datastore) -> None:
    ds.enis["eni-1"].efa = True


@pytest.mark.parametrize(
    ("prepare", "now", "warm_ip", "minimum_ip", "may_go"),
    [
        (_nothing, 59.999, 0, 0, False),
        (_nothing, 60.0, 0, 0, True),
        (_pod_on_eth1, 300.0, 0, 0, False),
        (_released_at_90, 120.0, 0, 0, False),
        (_released_at_90, 120.001, 0, 0, True),
        (_nothing, 300.0, 5, 0, True),
        (_nothing, 300.0, 6, 0, False),
        (_nothing, 300.0, 0, 5, True),
        (_nothing, 300.0, 0, 6, False),
        (_trunk, 300.0, 0, 0, False),
        (_efa, 300.0, 0, 0, False),
    ],
)
def test_which_eni_may_go(
    prepare: Callable[[Datastore], None], now: float, warm_ip: int, minimum_ip: int, may_go: bool
) -> None:
    ds = datastore(5, 5)
    prepare(ds)
    found = ds.deletable_eni(now, warm_ip, minimum_ip, 0)
    assert (found.device if found else None) == (1 if may_go else None)


@pytest.mark.parametrize(("target", "may_go"), [(1, True), (2, False)])
def test_leftover_addresses_count_as_free_prefixes(target: int, may_go: bool) -> None:
    ds = datastore(0, 1, prefix=True)
    ds.add_cidr(ds.enis["eni-0"], 7)
    assert (ds.deletable_eni(300.0, 0, 0, target) is not None) == may_go


def test_any_eni_that_may_go_can_be_the_one() -> None:
    seen = Counter()
    for seed in range(60):
        ds = datastore(5, 5, 5, seed=seed)
        found = ds.deletable_eni(300.0, 0, 0, 0)
        assert isinstance(found, DatastoreEni)
        seen[found.device] += 1
    assert set(seen) == {1, 2}
    assert seen[1] > seen[2]  # eth1 is met first from seven of eight starts
