"""Conditions are parsed, never evaluated; what they say is what they mean, and mistakes are named with their place."""

import pytest

from eksim.sweep.conditions import parse_condition

NAMES = ("pods_pending", "nodes", "arch", "vcpu", "bound_by")


@pytest.mark.parametrize(
    ("text", "values", "holds"),
    [
        ("pods_pending == 0", {"pods_pending": 0}, True),
        ("pods_pending = 0", {"pods_pending": 2}, False),
        ("vcpu<=8 and arch=arm64", {"vcpu": 8, "arch": "arm64"}, True),
        ("vcpu<=8 and arch=arm64", {"vcpu": 8, "arch": "x86_64"}, False),
        ("vcpu < 2 or vcpu > 4", {"vcpu": 3}, False),
        ("not vcpu > 4 and arch != arm64", {"vcpu": 3, "arch": "x86_64"}, True),
        ("not (vcpu > 4 or nodes >= 2)", {"vcpu": 3, "nodes": 2}, False),
        ("bound_by == 'pod slots'", {"bound_by": "pod slots"}, True),
        ("arch ~ arm*", {"arch": "arm64"}, True),
        ("vcpu >= 1", {"vcpu": None}, False),
        ("vcpu == 1.5e1", {"vcpu": 15}, True),
        ("vcpu > 1 or arch = arm64 and nodes = 9", {"vcpu": 2, "arch": "x", "nodes": 1}, True),
    ],
)
def test_conditions_mean_what_they_say(text, values, holds):
    assert parse_condition(text, NAMES)(values) is holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a name at position 1"),
        ("pods_pending", "expected a comparison"),
        ("pods_pending ==", "expected a value"),
        ("pods_pendng == 0", "did you mean pods_pending?"),
        ("pods_pending == 0 nodes", "expected and, or, or the end"),
        ("(nodes == 1", "expected ')'"),
        ("nodes == 1)", "expected and, or, or the end"),
        ("__import__('os') == 1", "unknown name '__import__'"),
        ("nodes == 1; nodes == 2", "is not understood"),
        ("(" * 200 + "nodes == 1", "nests too deeply"),
        ("not " * 200 + "nodes == 1", "nests too deeply"),
    ],
)
def test_what_does_not_parse_is_named(text, said):
    with pytest.raises(ValueError) as caught:
        parse_condition(text, NAMES)
    assert said in str(caught.value)
