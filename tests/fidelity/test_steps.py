"""Every step and every fault of a scenario does in the simulated world what it says."""

import pytest

from eksim.cluster import build
from eksim.errors import InputError
from eksim.play.run import perform, play
from eksim.scenario.load import load_scenario_data


def scenario(steps, **cluster):
    web = {
        "manifest": {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 4,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "nginx:1.25"}]},
                },
            },
        }
    }
    document = {
        "apiVersion": "eksim/v1",
        "kind": "Scenario",
        "name": "steps",
        "cluster": {
            "subnets": [{"name": "a", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
            "nodeGroups": [{"name": "ng", "instanceType": "t3.medium", "size": 1}],
            "addons": {"coredns": {"replicas": 0}},
            **cluster,
        },
        "workloads": [web],
        "steps": [{"until": "nodes ready"}, {"until": "settled"}, *steps],
    }
    return load_scenario_data(document, "steps")


def played(steps, **cluster):
    loaded = scenario(steps, **cluster)
    made = build(loaded, 1)
    perform(made, loaded)
    return made


def calls(cluster, api):
    return [row for row in cluster.recorder.finish()["ec2_calls"].columns["api"].values() if row == api]


def only(cluster):
    (name,) = cluster.store.nodes
    return name, cluster.network.instances[name]


def test_an_api_fails_so_many_times():
    cluster = played([
        {"fault": {"api": "CreateNetworkInterface", "code": "InternalError", "count": 3}},
        {"scale": {"deployment": "web", "replicas": 9}},
        {"after": "60s", "note": "later"},
    ])  # fmt: skip
    errors = cluster.recorder.finish()["ec2_calls"].columns["error"].values()
    assert errors.count("InternalError") == 3
    assert cluster.pool_stats(only(cluster)[0])[2] == 9


def test_an_api_fails_for_a_time_on_a_node():
    cluster = played([
        {"fault": {"api": "CreateNetworkInterface", "code": "InternalError", "for": "40s", "node": "0"}},
        {"scale": {"deployment": "web", "replicas": 12}},
        {"after": "30s", "expect": {"pods": {"stuck": 2}}},
        {"after": "60s", "note": "over"},
    ])  # fmt: skip
    assert "InternalError" in cluster.recorder.finish()["ec2_calls"].columns["error"].values()
    assert cluster.pool_stats(only(cluster)[0])[2] == 12


def test_a_fault_is_healed():
    steps = [
        {"fault": {"api": "CreateNetworkInterface", "code": "InternalError"}},
        {"scale": {"deployment": "web", "replicas": 12}},
        {"after": "60s", "expect": {"pods": {"stuck": 2}}},
        {"fault": {"heal": True}},
        {"until": "settled", "expect": {"pods": {"stuck": 0, "Running": 14}}},
    ]
    assert [str(f) for f in play(scenario(steps), 1).failures] == []


def test_a_lost_eni_is_noticed_and_replaced():
    cluster = played([{"fault": {"loseEni": 1, "node": "0"}}, {"after": "150s", "note": "reconciled"}])
    name, instance = only(cluster)
    assert len(cluster.devices_of(name)) == len(instance.enis) == 2
    assert cluster.pool_stats(name)[1] == 10


def test_lost_addresses_are_noticed():
    cluster = played([
        {"fault": {"loseAddresses": 2, "device": 1, "node": "0"}},
        {"after": "3s", "note": "not yet"},
        {"after": "150s", "note": "reconciled"},
    ])  # fmt: skip
    name, instance = only(cluster)
    held = sum(len(e.items) for e in instance.enis.values())
    assert cluster.pool_stats(name)[1] == held


def test_others_take_and_return_addresses():
    steps = [
        {"fault": {"takeAddresses": 200, "subnet": "a"}},
        {"fault": {"releaseAddresses": 150, "subnet": "a"}},
    ]
    cluster = played(steps)
    _, instance = only(cluster)
    used = sum(1 + len(e.items) for e in instance.enis.values())
    assert cluster.subnet("a").free == 251 - 50 - used


def test_an_eni_of_others_takes_a_slot():
    attached = {"fault": {"attachEni": 3, "node": "0", "noManage": True}}
    cluster = played(
        [attached, {"after": "90s", "scale": {"deployment": "web", "replicas": 15}}, {"after": "120s", "note": "full"}]
    )
    name, instance = only(cluster)
    assert len(instance.enis) == 3
    # two ENIs of its own, five addresses each: the third slot is somebody else's
    assert cluster.pool_stats(name)[:3] == (2, 10, 10)


def test_an_eni_is_detached_by_others():
    cluster = played([{"fault": {"detachEni": 1, "node": "0"}}, {"after": "150s", "note": "reconciled"}])
    name, instance = only(cluster)
    assert set(cluster.devices_of(name)) == {f"eth{d}" for d in instance.enis}


def test_metadata_that_is_late_delays_the_pool():
    steps = [{"scale": {"deployment": "web", "replicas": 8}}, {"until": "settled"}]
    slow = [{"fault": {"metadataLag": "30s", "for": "60s"}}, *steps]
    usual, late = (play(scenario(s), 1) for s in (steps, slow))
    assert late.summary["end_s"] > usual.summary["end_s"] + 15
    assert late.summary["pods"]["Running"] == usual.summary["pods"]["Running"]


def test_a_restart_keeps_the_pods_addresses():
    steps = [
        {"look": "get pods -o wide"},
        {"restartAwsNode": {}},
        {"after": "20s", "look": "get pods -o wide"},
    ]
    result = play(scenario(steps), 1)
    first, second = ([line.split()[5] for line in k.text.split("\n")[1:]] for k in result.looks)
    assert first == second
    assert result.summary["nodes"][0]["addresses_assigned"] == 4


def test_prefixes_are_switched_on_with_pods_in_place():
    steps = [
        {"setEnv": {"env": {"ENABLE_PREFIX_DELEGATION": True, "WARM_PREFIX_TARGET": 1}}},
        {"until": "settled"},
        {"scale": {"deployment": "web", "replicas": 30}},
        {"until": "settled", "expect": {"pods": {"Running": 32, "stuck": 0}}},
    ]
    groups = [{"name": "ng", "instanceType": "t3.medium", "size": 1, "maxPods": 110}]
    assert [str(f) for f in play(scenario(steps, nodeGroups=groups), 1).failures] == []


def test_a_cordoned_node_takes_no_pod_and_grows_no_pool():
    steps = [
        {"cordon": "0"},
        {"scale": {"deployment": "web", "replicas": 6}},
        {"until": "settled", "expect": {"pods": {"unscheduled": 2}}},
        {"uncordon": "0"},
        {"until": "settled", "expect": {"pods": {"unscheduled": 0, "Running": 8}}},
    ]
    assert [str(f) for f in play(scenario(steps), 1).failures] == []


def test_nodes_come_and_go():
    steps = [
        {"scale": {"deployment": "web", "replicas": 20}},
        {"until": "settled", "expect": {"pods": {"unscheduled": 5}}},
        {"addNodes": {"count": 1}},
        {"until": "settled", "expect": {"pods": {"unscheduled": 0, "Running": 24}}},
        {"removeNodes": {"node": "0"}},
        {"after": "120s", "expect": {"pods": {"Running": 17}}},
    ]
    assert [str(f) for f in play(scenario(steps), 1).failures] == []


def test_further_subnets_of_the_zone_serve_when_the_first_is_dry():
    subnets = [
        {"name": "a", "zone": "us-east-1a", "cidr": "10.0.0.0/28", "taken": 4},
        {"name": "more", "zone": "us-east-1a", "cidr": "10.0.1.0/24", "tags": {"kubernetes.io/role/cni": "1"}},
    ]
    steps = [{"scale": {"deployment": "web", "replicas": 14}}, {"after": "120s", "note": "spread"}]
    groups = [{"name": "ng", "instanceType": "t3.medium", "size": 1, "subnets": ["a"]}]
    cluster = played(steps, subnets=subnets, nodeGroups=groups)
    _, instance = only(cluster)
    assert {e.subnet.id for e in instance.enis.values()} == {"a", "more"}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"cordon": "nobody"}, "no node is called 'nobody'"),
        ({"fault": {"loseEni": 2, "node": "0"}}, "no such interface"),
        ({"addNodes": {"nodeGroup": "other"}}, "no node group is called 'other'"),
        ({"delete": "pod/nobody"}, 'pods "nobody" not found'),
        ({"until": "pod/nobody ready", "timeout": "10s"}, "did not come about within 10 s"),
    ],
)
def test_a_step_that_cannot_be_done_is_named(step, said):
    with pytest.raises(InputError) as caught:
        play(scenario([step]), 1)
    assert said in str(caught.value)


def test_a_template_with_a_node_name_needs_no_scheduler():
    # kubernetes/pkg/kubelet/config: the kubelet takes what bears its name; the scheduler hears of pods without one only
    (name,) = played([]).store.nodes
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "named"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "named"}},
            "template": {
                "metadata": {"labels": {"app": "named"}},
                "spec": {"nodeName": name, "containers": [{"name": "web", "image": "nginx:1.25"}]},
            },
        },
    }
    steps = [{"cordon": name}, {"apply": {"manifest": deployment}}, {"until": "settled"}]
    cluster = played(steps)
    named = [pod for pod in cluster.store.pods.values() if pod.name.startswith("named-")]
    assert [(pod.node, pod.phase) for pod in named] == [(name, "Running")] * 3
    tables = cluster.recorder.finish()["events"]
    told = {
        obj for reason, obj in zip(tables.columns["reason"].values(), tables.columns["object"].values(), strict=True)
        if reason in ("Scheduled", "FailedScheduling")
    }  # fmt: skip
    assert not any("named-" in obj for obj in told)


def test_a_node_may_go_while_its_addresses_cool():
    steps = [{"delete": "deployment/web"}, {"after": "10s", "removeNodes": {"node": "0"}}, {"after": "60s", "note": "later"}]
    assert play(scenario(steps), 1).summary["pods"]["total"] == 0


def test_more_nodes_than_there_are_cannot_go():
    with pytest.raises(InputError, match=r"count is 3, and the group has 1 nodes.*did you mean count: 1"):
        play(scenario([{"removeNodes": {"count": 3}}]), 1)
