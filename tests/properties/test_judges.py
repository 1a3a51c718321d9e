"""What the judges must not call wrong."""

from __future__ import annotations

from small_clusters import ONE_NODE

from eksim.play.run import play
from eksim.testing.check import check_result
from eksim.testing.machine import ClusterMachine
from eksim.testing.strategies import Document, loaded


def test_a_node_that_goes_tells_no_plugin_that_its_pods_are_in_nobodys_way() -> None:
    # interpodaffinity/plugin.go:EventsToRegister: nodes that come or change their labels, not those that go
    term = {"labelSelector": {}, "topologyKey": "topology.kubernetes.io/zone"}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shy"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shy"}},
            "template": {
                "metadata": {"labels": {"app": "shy"}},
                "spec": {
                    "containers": [{"name": "c", "image": "a:1"}],
                    "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
                },
            },
        },
    }
    groups = [{"name": "g", "instanceType": "t3.small", "size": 2}]
    machine = ClusterMachine()
    machine.start({**ONE_NODE, "cluster": {**ONE_NODE["cluster"], "nodeGroups": groups}})
    machine.settle()
    machine.act({"apply": {"manifest": deployment}})
    machine.settle()
    (node,) = {pod.node for pod in machine.cluster.store.pods.values() if pod.namespace == "default" and pod.node}
    machine.act({"removeNodes": {"node": node}})
    assert machine.violations() == []


def test_a_pod_that_another_ones_anti_affinity_keeps_away_waits_for_a_reason() -> None:
    # existing pods' terms count too: interpodaffinity/filtering.go:satisfyExistingPodsAntiAffinity
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    loner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loner"},
        "spec": {
            "containers": [{"name": "c", "image": "a:1"}],
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
        },
    }
    web = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "a:1"}]},
    }
    machine = ClusterMachine()
    machine.start(ONE_NODE)
    machine.settle()
    machine.act({"apply": {"manifest": loner}})
    machine.settle()
    machine.act({"apply": {"manifest": web}})
    machine.settle()
    pod = machine.cluster.store.pods["default/web"]
    assert pod.scheduled is not None
    assert "anti-affinity" in pod.scheduled.message
    assert machine.violations() == []


def with_web(replicas: int, steps: list[Document], end: str) -> Document:
    """The one node with a Deployment, and a scenario's steps."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    return {**ONE_NODE, "workloads": [{"manifest": manifest}], "steps": steps, "runFor": end}


def test_an_eni_that_comes_and_goes_in_one_instant_leaves_its_device_free() -> None:
    # awsutils.go:AllocENI frees an ENI whose attribute cannot be set; without latencies that takes no time
    fault = {"api": "ModifyNetworkInterfaceAttribute", "code": "InvalidParameterValue", "count": 1}
    result = play(loaded(with_web(2, [{"at": "1s", "fault": fault}], "300s")), 1)
    spans = [(row[1], row[4] - row[3]) for row in result.rows("enis") if row[1] == "eth1"]
    assert spans[0][1] == 0.0
    assert len(spans) == 2
    assert check_result(result).violations == []


def test_a_daemon_that_cannot_set_up_its_eni_forgets_whose_the_addresses_are() -> None:
    # ipamd.go:setupENI gives up, and data_store.go:ReadBackingStore drops what is on no ENI that it knows; a reconcile
    # then finds the addresses as if nobody had them. So they are given out twice, by the real one too.
    steps = [
        {"at": "60s", "fault": {"api": "DescribeSubnets", "code": "InvalidParameterValue", "for": "90s"}},
        {"at": "61s", "setEnv": {"env": {"WARM_IP_TARGET": "4"}}},
        {"at": "300s", "scale": {"deployment": "web", "replicas": 5}},
    ]
    result = play(loaded(with_web(2, steps, "500s")), 1)
    last = {row[1]: row for row in result.rows("pods") if row[1].startswith("default/")}
    held = [row[-1] for row in last.values() if row[2] == "Running"]
    assert len(set(held)) < len(held)
    checked = check_result(result)
    assert "address-in-one-place" in checked.left_out
    assert checked.violations == []


def test_a_small_node_may_get_the_name_of_a_large_one_whose_pods_are_still_there() -> None:
    # a node is named by its address, and its pods outlive it until the garbage collector comes by (podgc, 20 s)
    template = {
        "metadata": {"labels": {"app": "agent"}},
        "spec": {"hostNetwork": True, "containers": [{"name": "c", "image": "a:1"}]},
    }
    spec = {"replicas": 12, "selector": {"matchLabels": {"app": "agent"}}, "template": template}
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "agent"}, "spec": spec}
    document = {
        **ONE_NODE,
        "seed": 1,
        "latency": "default",
        "cluster": {
            "subnets": [{"name": "s", "zone": "us-east-1a", "cidr": "10.0.0.0/28", "taken": 10}],
            "vpcCni": {"env": {"DISABLE_NETWORK_RESOURCE_PROVISIONING": "true"}},
            "nodeGroups": [
                {"name": "large", "instanceType": "m5.large", "size": 1},
                {"name": "small", "instanceType": "t3.small", "size": 0},
            ],
            "addons": {"coredns": False},
        },
        "workloads": [{"manifest": manifest}],
    }
    machine = ClusterMachine()
    machine.start(document)
    machine.settle()
    (name,) = machine.cluster.store.nodes
    machine.act({"removeNodes": {"node": name}})
    machine.act({"addNodes": {"nodeGroup": "small"}})
    assert list(machine.cluster.store.nodes) == [name]
    assert len(machine.cluster.store.pods_by_node[name]) > 11
    assert machine.violations() == []
    assert check_result(play(loaded(machine.scenario()), 1)).violations == []


def test_a_start_gives_back_addresses_of_pods_that_it_has_not_found() -> None:
    # metadata fails while the daemon looks for its addresses, so ReadBackingStore takes their pods for stale; now in prefix
    # mode it gives the single addresses back before it serves (ipamd.go:nodeInit, tryUnassignIPsFromENIs, v1.15.0)
    again = {"at": "3s", "setEnv": {"env": {}}}
    document = {
        **ONE_NODE,
        "seed": 112,
        "cluster": {
            "subnets": [{"name": "s0", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
            "vpcCni": {"version": "v1.15.0"},
            "nodeGroups": [{"name": "g0", "instanceType": "m5.large", "size": 1}],
        },
        "steps": [
            {"at": "3s", "fault": {"api": "metadata", "rate": 0.2}},
            *[again] * 3,
            {"at": "3s", "setEnv": {"env": {"ENABLE_PREFIX_DELEGATION": "true"}}},
        ],
        "runFor": "13s",
        "expect": [{"at": "13s", "invariants": "history"}],
    }
    result = play(loaded(document), 112)
    given_back = [row for row in result.rows("ec2_calls") if row[3] == "UnassignPrivateIpAddresses" and not row[6]]
    assert given_back
    assert [str(failure) for failure in result.failures] == []
