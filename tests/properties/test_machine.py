"""The public state machine: what users state themselves, failures as scenario files, and what it has found before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from small_clusters import ONE_NODE
from typer.testing import CliRunner

import eksim.catalog.limits
from eksim.cli.main import app
from eksim.cni.vpc_cni import VpcCni
from eksim.kube.node_agent import NodeAgent
from eksim.state.objects import Node, Pod
from eksim.testing import strategies
from eksim.testing.machine import ClusterMachine, InvariantBroken, explore, replay
from eksim.testing.strategies import Document
from eksim.versions import KubeletRules


def test_own_moves_and_invariants_fail_shrink_and_replay(tmp_path: Path) -> None:
    """A subclass's invariant fails after its own move; what is written is short, valid, and fails again."""

    class FewJobs(ClusterMachine):
        directory = tmp_path
        jobs = 0

        @classmethod
        def scenarios(cls) -> st.SearchStrategy[Document]:
            return st.just(ONE_NODE)

        @precondition(lambda self: self.jobs < 9)
        @rule(cpu=st.integers(1, 400))
        def submit(self, cpu: int) -> None:
            self.jobs += 1
            spec = {"containers": [{"name": "c", "image": "job:1", "resources": {"requests": {"cpu": f"{cpu}m"}}}]}
            manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"job-{self.jobs}"}, "spec": spec}
            self.act({"apply": {"manifest": manifest}})

        @invariant()
        def jobs_ask_for_little(self) -> None:
            asked = [p.spec.requests.get("cpu", 0) for p in self.cluster.store.pods.values() if p.name.startswith("job-")]
            assert sum(asked) <= 500, f"{sum(asked)}m asked"

    with pytest.raises(AssertionError, match="501m asked") as failure:
        explore(FewJobs, moves=400)
    path = tmp_path / "FewJobs.yaml"
    assert f"replay({str(path)!r}, FewJobs)" in "\n".join(failure.value.__notes__)
    assert len(yaml.safe_load(path.read_text())["steps"]) == 2
    with pytest.raises(AssertionError, match="501m asked"):
        replay(path, FewJobs)


def lost_delete(patch: pytest.MonkeyPatch) -> None:
    """The plugin forgets CNI DEL."""
    patch.setattr(VpcCni, "delete", lambda *_: None)


def test_what_is_written_fails_the_same_way_in_eksim_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shrunk scenario, run by the command that its error names, breaks the same invariants at the same moment."""

    class Planted(ClusterMachine):
        directory = tmp_path

        @classmethod
        def scenarios(cls) -> st.SearchStrategy[Document]:
            return strategies.scenarios(
                cluster=strategies.clusters(max_groups=1, max_nodes=1), max_steps=0, max_deployments=1
            )

    lost_delete(monkeypatch)
    with pytest.raises(InvariantBroken) as failure:
        explore(Planted, moves=400)
    path = tmp_path / "Planted.yaml"
    assert f"eksim run {path}" in "\n".join(failure.value.__notes__)
    ran = CliRunner().invoke(app, ["run", str(path), "-q", "--no-results"])
    assert ran.exit_code == 1
    for violation in failure.value.violations:
        assert f"invariant {violation.invariant}: expected it holds, got {violation.detail}" in ran.stderr
    assert [str(v) for v in replay(path)] == [str(v) for v in failure.value.violations]
    document = yaml.safe_load(path.read_text())
    assert len(document["steps"]) <= 3
    monkeypatch.undo()
    assert CliRunner().invoke(app, ["run", str(path), "-q", "--no-results"]).exit_code == 0


# -- more bugs of the kinds that test_seeded_bugs plants, in other places -----------------------------------------------


def slot_kept_back(patch: pytest.MonkeyPatch) -> None:
    """The scheduler takes a node to be full one pod too early."""
    _fit_off_by(patch, 1)


def slot_too_many(patch: pytest.MonkeyPatch) -> None:
    """The scheduler binds one pod more than a node takes."""
    _fit_off_by(patch, -1)


def _fit_off_by(patch: pytest.MonkeyPatch, more: int) -> None:
    """The node's slots as everything in the scheduler reads them, off by so many."""
    from eksim.kube.scheduler.nodeinfo import NodeInfo

    honest = NodeInfo.set_node

    def set_node(self: NodeInfo, *args: Any) -> Any:
        answer = honest(self, *args)
        self.alloc_pods -= more
        return answer

    patch.setattr(NodeInfo, "set_node", set_node)


def strict_kubelet(patch: pytest.MonkeyPatch) -> None:
    """The kubelet refuses the last pod that its node takes."""
    honest = NodeAgent.admit

    def admit(self: NodeAgent, node: Node, pod: Pod, rules: KubeletRules) -> Any:
        if len(self.workers) + 2 > node.allocatable["pods"]:
            return "OutOfpods", "Node didn't have enough resource: pods"
        return honest(self, node, pod, rules)

    patch.setattr(NodeAgent, "admit", admit)


def one_host_pod_less(patch: pytest.MonkeyPatch) -> None:
    """The formula counts one pod on the host's network."""
    patch.setattr(eksim.catalog.limits, "HOST_NETWORK_PODS", 1)


BUGS = {
    lost_delete: "released-is-free",
    slot_kept_back: "pending-for-a-reason",
    slot_too_many: "bound-within-max-pods",
    strict_kubelet: "admitted-if-it-fits",
    one_host_pod_less: "max-pods-by-formula",
}


@pytest.mark.parametrize(("plant", "broken"), BUGS.items(), ids=[plant.__name__ for plant in BUGS])
def test_the_same_bugs_elsewhere_are_found(
    plant: Any, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Planted(ClusterMachine):
        directory = tmp_path

    plant(monkeypatch)
    with pytest.raises(InvariantBroken) as found:
        explore(Planted, moves=2000, shrink=False)
    assert broken in {violation.invariant for violation in found.value.violations}


# -- what the machine has found ---------------------------------------------------------------------------------------




def test_a_node_that_bears_a_gone_nodes_name_starts_its_pods() -> None:
    """In a subnet with one address for nodes the next node gets the name of the one that went; its pods run again."""
    machine = ClusterMachine()
    nets = [{"name": "s", "zone": "us-east-1a", "cidr": "10.0.0.0/28", "taken": 0}]
    machine.start({**ONE_NODE, "cluster": {**ONE_NODE["cluster"], "subnets": nets}})
    machine.settle()
    [name] = machine.cluster.store.nodes
    machine.act({"removeNodes": {"node": name}})
    free = machine.cluster.subnet("s").free
    taken = [a for a in range(free) if machine.cluster.subnet("s").is_free(a + 4)]
    own = int(name.split(".")[0].rpartition("-")[2])
    others = [offset + 4 for offset in taken if offset + 4 != own]
    machine.cluster.ec2.take_addresses(machine.cluster.subnet("s"), len(others), offsets=others)
    machine.act({"addNodes": {"count": 1}})
    assert list(machine.cluster.store.nodes) == [name]
    machine.settle()
    assert machine.violations() == []
    assert {pod.phase for pod in machine.cluster.store.pods.values()} == {"Running"}
