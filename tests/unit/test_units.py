"""Quantities, durations and ages as Kubernetes parses and prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eksim.units import (
    BINARY,
    DECIMAL,
    EXPONENT,
    Quantity,
    human_duration,
    parse_duration,
    parse_quantity,
    resource_amount,
    resource_amounts,
    short_human_duration,
)


@pytest.mark.parametrize(
    ("text", "canonical", "value", "milli"),
    [
        ("0", "0", 0, 0), ("0m", "0", 0, 0), ("0Ki", "0", 0, 0),
        ("1.93", "1930m", 2, 1930), ("1000m", "1", 1, 1000), ("1000", "1k", 1000, 10**6), ("0.1", "100m", 1, 100),
        ("100m", "100m", 1, 100), ("1500m", "1500m", 2, 1500), (".5", "500m", 1, 500), ("5.", "5", 5, 5000),
        ("3388364Ki", "3388364Ki", 3388364 << 10, (3388364 << 10) * 1000), ("1024Ki", "1Mi", 1 << 20, (1 << 20) * 1000),
        ("1.5Gi", "1536Mi", 3 << 29, (3 << 29) * 1000), ("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000),
        ("1Ki", "1Ki", 1024, 1024000), ("1e3", "1e3", 1000, 10**6), ("1E", "1E", 10**18, 10**21),
        ("1E3", "1e3", 1000, 10**6), ("1.0000000001", "1000000001n", 2, 1001), ("-1500m", "-1500m", -2, -1500),
        ("+2", "2", 2, 2000), ("100u", "100u", 1, 1),
    ],
)  # fmt: skip
def test_quantities(text: str, canonical: str, value: int, milli: int) -> None:
    """Canonical text, whole units and thousandths, both rounded up (kubernetes-scores-events-views, 8)."""
    quantity = parse_quantity(text)
    assert (str(quantity), quantity.value, quantity.milli_value) == (canonical, value, milli)


@pytest.mark.parametrize("text", ["", ".", "abc", "1.2.3", "1Kk", "1KI", "- 1", " 1", "1 ", "1e", "1e999999", "Mi", True])
def test_what_is_no_quantity(text: str) -> None:
    """The message names the text."""
    with pytest.raises(ValueError, match="quantity"):
        parse_quantity(text)


def test_a_sum_keeps_the_first_family() -> None:
    """0 has none of its own; mixed sums print what divides."""
    assert str(parse_quantity("0") + parse_quantity("70Mi")) == "70Mi"
    assert str(parse_quantity("100m") + parse_quantity("100m") + parse_quantity("10m")) == "210m"
    assert str(parse_quantity("70Mi") + parse_quantity("100M")) == "173400320"


def test_numbers_from_yaml() -> None:
    """cpu: 2 and cpu: 0.25 are what they look like."""
    assert resource_amount("cpu", 2) == 2000
    assert resource_amount("cpu", 0.25) == 250
    assert resource_amounts({"cpu": "0.1", "memory": "1Ki", "pods": 17}) == {"cpu": 100, "memory": 1024, "pods": 17}
    assert resource_amounts(None) == {}


@given(st.integers(0, 10**27), st.sampled_from([DECIMAL, BINARY, EXPONENT]))
def test_canonical_text_reads_back_as_the_same_amount(nano: int, family: str) -> None:
    """Printing loses nothing."""
    quantity = Quantity(nano, family)
    assert parse_quantity(str(quantity)) == quantity


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("500ms", 0.5), ("1.5h", 5400), ("-2m", -120), ("0", 0), ("1us", 1e-6),
     ("1µs", 1e-6), ("2m0.5s", 120.5)],
)  # fmt: skip
def test_durations(text: str, seconds: float) -> None:
    """Go's time.ParseDuration."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1h30", "1d", "s5", "--1s", "9999999999h"])
def test_what_is_no_duration(text: str) -> None:
    """A unit is needed, and nothing else may stand there."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (-2, "<invalid>", "<invalid>"), (-1.5, "0s", "0s"), (0, "0s", "0s"), (52.9, "52s", "52s"), (119, "119s", "1m"),
        (120, "2m", "2m"), (193, "3m13s", "3m"), (599, "9m59s", "9m"), (600, "10m", "10m"), (179 * 60, "179m", "2h"),
        (3 * 3600, "3h", "3h"), (8 * 3600 - 1, "7h59m", "7h"), (8 * 3600, "8h", "8h"), (48 * 3600 - 1, "47h", "1d"),
        (48 * 3600, "2d", "2d"), (8 * 86400 - 1, "7d23h", "7d"), (8 * 86400, "8d", "8d"), (730 * 86400 - 1, "729d", "1y"),
        (730 * 86400, "2y", "2y"), (8 * 365 * 86400 - 1, "7y364d", "7y"), (8 * 365 * 86400, "8y", "8y"),
    ],
)  # fmt: skip
def test_ages(seconds: float, long: str, short: str) -> None:
    """The boundaries are not where one expects them (kubernetes-scores-events-views, 5)."""
    assert human_duration(seconds) == long
    assert short_human_duration(seconds) == short
