"""Axes become configurations in a fixed order; what cannot be an axis is refused with the nearest that can."""

import pytest

from eksim.errors import InputError
from eksim.sweep.configure import set_path
from eksim.sweep.plan import Axis, Plan, check_plan, instance_type_axis, set_axis, whole_numbers


def test_a_grid_varies_the_last_axis_fastest():
    plan = Plan("p", {}, ".", [Axis("nodes", (1, 2)), Axis("seed", (7, 8))])
    assert [tuple(c.values()) for c in plan.configurations()] == [(1, 7), (1, 8), (2, 7), (2, 8)]
    assert len(plan) == 4


def test_zip_takes_values_side_by_side_and_repeats_single_ones():
    plan = check_plan(Plan("p", {}, ".", [Axis("nodes", (1, 2)), Axis("replicas", (30,)), Axis("seed", (7, 8))], "zip"))
    assert [tuple(c.values()) for c in plan.configurations()] == [(1, 30, 7), (2, 30, 8)]


@pytest.mark.parametrize(
    ("text", "values"),
    [("3", (3,)), ("1..4", (1, 2, 3, 4)), ("1..10/4", (1, 5, 9)), ("5,1..3", (5, 1, 2, 3)), ("2,2", (2,))],
)
def test_ranges(text, values):
    assert whole_numbers(text, "nodes") == values


def test_filters_and_globs_choose_instance_types():
    assert instance_type_axis("t3.nano,t3.micro").values == ("t3.nano", "t3.micro")
    small = instance_type_axis("family=t4g and memory_gib<=2").values
    assert small == ("t4g.micro", "t4g.nano", "t4g.small")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: whole_numbers("20..1", "--nodes"), "runs backwards"),
        (lambda: whole_numbers("a", "--nodes"), "is not a number or range"),
        (lambda: instance_type_axis("zz9.*"), "no instance type matches"),
        (lambda: instance_type_axis("vcpu>100000"), "no instance type fulfils"),
        (lambda: instance_type_axis("vcpus<=8"), "did you mean vcpu?"),
        (lambda: set_axis("vpcCni.env.WARM_IP_TARGET"), "is not a setting"),
        (lambda: set_axis("a=1,,2"), "has an empty value"),
        (lambda: check_plan(Plan("p", {}, ".", [Axis("nodes", ())])), "axis nodes is empty"),
        (lambda: check_plan(Plan("p", {}, ".", [Axis("nodes", (1,)), Axis("nodes", (2,))])), "given twice"),
        (lambda: check_plan(Plan("p", {}, ".", [Axis("a", (1, 2)), Axis("b", (1, 2, 3))], "zip")), "one length"),
        (lambda: set_path({"cluster": {}}, "vpcCn.env.X", 1), "did you mean vpcCni?"),
        (
            lambda: set_path({"cluster": {"nodeGroups": [{"name": "a"}]}}, "cluster.nodeGroups[3].size", 1),
            "there is no 3",
        ),
    ],
)
def test_mistakes_are_named(make, said):
    with pytest.raises(InputError) as caught:
        make()
    assert said in str(caught.value)


def test_paths_may_leave_out_the_cluster_and_name_list_entries():
    document = {"cluster": {"nodeGroups": [{"name": "a"}, {"name": "b"}]}}
    set_path(document, "vpcCni.env.WARM_IP_TARGET", 2)
    set_path(document, "cluster.nodeGroups.b.maxPods", 110)
    set_path(document, "seed", 4)
    assert document == {
        "cluster": {
            "vpcCni": {"env": {"WARM_IP_TARGET": 2}},
            "nodeGroups": [{"name": "a"}, {"name": "b", "maxPods": 110}],
        },
        "seed": 4,
    }
