"""The Deployment controller's arithmetic, by the examples of its documentation and specification."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eksim.kube.controllers.deployment_rules import (
    REVISION,
    REVISION_HISTORY,
    max_unavailable,
    new_replica_set_annotations,
    new_rs_new_replicas,
    replica_set_fraction,
    replica_set_proportion,
    resolve_fenceposts,
    scaling_message,
    set_deployment_condition,
)
from eksim.kube.controllers.pod_ranking import deletion_cost, logarithmic_age
from eksim.versions import KubernetesRules


@pytest.mark.parametrize(
    ("surge", "unavailable", "desired", "expected"),
    [
        ("25%", "25%", 30, (8, 7)),
        ("25%", "25%", 3, (1, 0)),
        ("25%", "25%", 1, (1, 0)),
        (0, 0, 5, (0, 1)),
        ("0%", "1%", 5, (0, 1)),
        (3, "50%", 5, (3, 2)),
    ],
)
def test_surge_rounds_up_and_unavailable_down_and_not_both_are_zero(
    surge: int | str, unavailable: int | str, desired: int, expected: tuple[int, int]
) -> None:
    assert resolve_fenceposts(surge, unavailable, desired) == expected


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100))
def test_a_new_replica_set_never_exceeds_the_desired_count_nor_the_room(desired: int, surge: int, old: int) -> None:
    size = new_rs_new_replicas(desired, surge, old, 0)
    assert 0 <= size <= desired
    assert size == 0 or size + old <= desired + surge


@given(
    st.integers(1, 100), st.integers(1, 100), st.integers(0, 30), st.integers(1, 130), st.integers(-100, 100)
)
def test_a_proportion_never_exceeds_what_is_to_be_added(
    size: int, desired: int, surge: int, annotated: int, to_add: int
) -> None:
    fraction = replica_set_fraction(size, desired, surge, annotated, 0)
    proportion = replica_set_proportion(size, fraction, to_add, 0)
    assert proportion <= to_add if to_add > 0 else proportion >= to_add


def test_scaling_to_zero_takes_everything_and_a_lost_annotation_changes_nothing() -> None:
    assert replica_set_fraction(7, 0, 0, 10, 10) == -7
    assert replica_set_fraction(7, 10, 0, None, 0) == 0
    assert replica_set_fraction(7, 10, 0, None, 5) == 7


def test_unavailable_is_at_most_the_desired_count() -> None:
    assert max_unavailable(5, 3) == 3


def test_returning_to_an_old_revision_keeps_the_former_in_its_history() -> None:
    annotations = new_replica_set_annotations({"note": "x"}, {REVISION: "2", REVISION_HISTORY: "1"}, 5)
    assert annotations == {"note": "x", REVISION: "5", REVISION_HISTORY: "1,2"}


def test_annotations_that_say_it_already_change_nothing() -> None:
    assert new_replica_set_annotations({"note": "x", REVISION: "9"}, {"note": "x", REVISION: "5"}, 5) is None


def test_a_condition_with_the_same_reason_stays_and_the_transition_stays_with_the_status() -> None:
    first = {"type": "Progressing", "status": "True", "reason": "A", "lastTransitionTime": 1.0, "message": ""}
    same = {**first, "lastTransitionTime": 2.0, "message": "new"}
    assert set_deployment_condition([first], same) == [first]
    other = {**same, "reason": "B"}
    assert set_deployment_condition([first], other) == [{**other, "lastTransitionTime": 1.0}]


@pytest.mark.parametrize(
    ("version", "created", "scaled"),
    [
        ("v1.21.2", "Scaled up replica set web-1 to 3", "Scaled down replica set web-1 to 2"),
        ("1.28", "Scaled up replica set web-1 to 3", "Scaled down replica set web-1 to 2 from 3"),
        ("1.34", "Scaled up replica set web-1 from 0 to 3", "Scaled down replica set web-1 from 3 to 2"),
    ],
)
def test_the_scaling_event_reads_as_in_its_release(version: str, created: str, scaled: str) -> None:
    words = KubernetesRules.of(version).controllers.scaling_event_words
    assert scaling_message(words, True, "web-1", 0, 3, created=True) == created
    assert scaling_message(words, False, "web-1", 3, 2) == scaled


@pytest.mark.parametrize(
    ("text", "cost"), [("10", 10), ("-10", -10), ("+3", 0), ("05", 0), ("x", 0), ("", 0), ("0", 0), ("2147483648", 0)]
)
def test_deletion_costs(text: str, cost: int) -> None:
    assert deletion_cost({"controller.kubernetes.io/pod-deletion-cost": text}) == cost


def test_ages_are_compared_by_powers_of_two_of_nanoseconds() -> None:
    assert logarithmic_age(0.0, 1e-9) == 0
    assert logarithmic_age(0.0, 1.0) == 29
    assert logarithmic_age(5.0, 5.0) == -1
