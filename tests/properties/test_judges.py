"""What the judges must not call wrong."""

from __future__ import annotations

from small_clusters import ONE_NODE

from eksim.testing.machine import ClusterMachine


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
