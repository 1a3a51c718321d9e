"""Where the real scheduler draws lots, so does the simulation, evenly: each bound is five standard deviations (error < 1e-6)."""

from collections import Counter

from eksim.cluster import build
from eksim.play.run import perform
from eksim.scenario.load import load_scenario_data

RUNS = 400


def scenario(nodes):
    return load_scenario_data(
        {
            "apiVersion": "eksim/v1",
            "kind": "Scenario",
            "name": "ties",
            "latency": "none",
            "cluster": {
                "subnets": [{"name": "a", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
                "nodeGroups": [{"name": "ng", "instanceType": "t3.medium", "size": nodes}],
                "addons": {"coredns": {"replicas": 0}},
            },
            "steps": [
                {"until": "settled"},
                {
                    "apply": {
                        "manifest": {
                            "apiVersion": "v1",
                            "kind": "Pod",
                            "metadata": {"name": "p"},
                            "spec": {"containers": [{"name": "c", "image": "i:1"}]},
                        }
                    }
                },
            ],
        },
        "ties",
    )


def test_equal_nodes_are_chosen_evenly():
    for nodes in (2, 3):
        loaded = scenario(nodes)
        chosen = Counter()
        for seed in range(RUNS):
            cluster = build(loaded, seed, record=False, events=False)
            perform(cluster, loaded)
            order = list(cluster.store.nodes)
            chosen[order.index(cluster.store.pods["default/p"].node)] += 1
            cluster.close()
        share = 1 / nodes
        bound = 5 * (RUNS * share * (1 - share)) ** 0.5
        assert sum(chosen.values()) == RUNS
        for node in range(nodes):
            assert abs(chosen[node] - RUNS * share) < bound, chosen
