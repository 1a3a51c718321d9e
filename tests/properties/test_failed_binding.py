"""What a failed binding gives back, others get: found by the state machine."""

from __future__ import annotations

import pytest
from small_clusters import ONE_NODE

from eksim.testing.machine import ClusterMachine


@pytest.mark.parametrize("version", ["1.22", "1.31", "1.33", "1.34"])
def test_a_failed_binding_frees_its_slot_for_those_who_wait(version: str) -> None:
    """A pod deleted while it is being bound gives its slot back, and the pods that were refused meanwhile are tried."""
    groups = [{"name": "g", "instanceType": "t3.small", "size": 1, "maxPods": 3}]
    pod = {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "c", "image": "a:1"}]}}
    steps = [{"apply": {"manifest": {**pod, "metadata": {"name": f"p-{i}"}}}} for i in (1, 2)]
    machine = ClusterMachine()
    cluster = {**ONE_NODE["cluster"], "nodeGroups": groups, "kubernetesVersion": version}
    latency = {"scheduler/bind": "50ms", "scheduler/cycle": "1ms"}
    machine.start({**ONE_NODE, "latency": latency, "cluster": cluster})
    machine.settle()
    for step in steps:
        machine.act(step)
    machine.advance_to_ms(machine.now_ms + 10)
    machine.act({"delete": "pod/p-1"})
    machine.advance_to_ms(machine.now_ms + 5000)
    assert machine.violations() == []
    assert machine.cluster.store.pods["default/p-2"].node
