"""Stories of controllers on a small store."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.errors import Refused
from eksim.kube.controllers.base import ControllerSettings
from eksim.kube.controllers.manager import Controllers
from eksim.kube.events import EventRecorders
from eksim.kube.template import default_workload
from eksim.state.objects import ApiObject, Node, Pod, Taint
from eksim.state.podspec import PodSpec
from eksim.state.store import Store
from eksim.versions import KubernetesRules


class House:
    """A store with controllers and event recorders; ``quota``: pods that admission lets pass."""

    def __init__(self, version: str = "1.34", qps: float = 0.0, quota: int | None = None) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.rules = KubernetesRules.of(version)
        self.events = EventRecorders(self.clock, self.store, self.rules)
        self.quota = quota
        self.controllers = Controllers(
            self.clock,
            self.store,
            Streams(1),
            self.rules,
            self.events.recorder,
            ControllerSettings(client_qps=qps),
            refuse=self._refuse,
        )
        self.controllers.start()

    def _refuse(self, kind: str, name: str) -> Refused | None:
        if kind == "Pod" and self.quota is not None and len(self.store.pods) >= self.quota:
            return Refused("Forbidden", f'pods "{name}" is forbidden: exceeded quota')
        return None

    def apply(self, kind: str, name: str, replicas: int | None = None, **spec: Any) -> ApiObject:
        container = {"name": "nginx", "image": "nginx:alpine", "ports": [{"containerPort": 80}]}
        pod = {"containers": [container], **spec.pop("pod", {})}
        labels = {"app": "nginx"}
        spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}, **spec}
        if replicas is not None:
            spec["replicas"] = replicas
        obj = ApiObject(kind, "default", name, default_workload(kind, spec, self.rules), uid=f"uid-of-{name}")
        self.store.create_object(obj)
        self.settle()
        return obj

    def scale(self, obj: ApiObject, replicas: int) -> None:
        self.store.update_object(obj, spec={**obj.spec, "replicas": replicas}, bump_generation=True)
        self.settle()

    def settle(self, seconds: float = 0.0) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def run(self, *pods: Pod, node: str = "n1", ready: bool = True) -> None:
        for pod in pods:
            if not pod.node:
                self.store.bind_pod(pod, node)
            self.store.set_pod_status(pod, phase="Running", ready=ready)
        self.settle()

    def pods(self) -> list[Pod]:
        return list(self.store.pods.values())

    def reasons(self) -> dict[str, list[str]]:
        out: dict[str, list[str]] = {}
        for event in self.events.stored():
            out.setdefault(event.reason, []).append(event.message)
        return out


def test_the_labs_deployment_makes_the_labs_replica_set() -> None:
    house = House("v1.21.2-eks-0389ca3")
    deployment = house.apply("Deployment", "nginx-deployment", 2)
    assert [rs.name for rs in house.store.list("ReplicaSet")] == ["nginx-deployment-7fb7fd49b4"]
    assert all(p.name.startswith("nginx-deployment-7fb7fd49b4-") for p in house.pods())
    assert all(p.labels == {"app": "nginx", "pod-template-hash": "7fb7fd49b4"} for p in house.pods())
    house.run(*house.pods())
    house.scale(deployment, 30)
    assert len(house.pods()) == 30
    assert house.reasons()["ScalingReplicaSet"] == [
        "Scaled up replica set nginx-deployment-7fb7fd49b4 to 2",
        "Scaled up replica set nginx-deployment-7fb7fd49b4 to 30",
    ]
    assert deployment.annotations["deployment.kubernetes.io/revision"] == "1"


def test_28_of_30_ready_are_enough_to_be_available() -> None:
    house = House()
    deployment = house.apply("Deployment", "web", 30)
    house.run(*house.pods()[:28])
    conditions = {c["type"]: c for c in deployment.status["conditions"]}
    assert deployment.status["readyReplicas"] == 28
    assert conditions["Available"]["status"] == "True"
    house.store.set_pod_status(house.pods()[0], ready=False)
    for pod in house.pods()[1:6]:
        house.store.set_pod_status(pod, ready=False)
    house.settle()
    assert {c["type"]: c["status"] for c in deployment.status["conditions"]}["Available"] == "False"


def test_scaling_down_takes_the_pending_ones_first_and_then_balances_nodes() -> None:
    house = House()
    deployment = house.apply("Deployment", "web", 6)
    one, two, three, four, five, six = house.pods()
    house.run(one, two, three, node="n1")
    house.run(four, node="n2")
    house.scale(deployment, 4)
    assert five.key not in house.store.pods and six.key not in house.store.pods
    house.scale(deployment, 3)
    assert [p.node for p in house.pods() if p.deletion_s is not None] == ["n1"]


def test_a_progress_deadline_is_noticed_a_second_after_it() -> None:
    house = House()
    deployment = house.apply("Deployment", "web", 2, progressDeadlineSeconds=60)

    def progressing() -> str:
        return str(next(c["reason"] for c in deployment.status["conditions"] if c["type"] == "Progressing"))

    house.clock.run_until(60.9)
    assert progressing() == "ReplicaSetUpdated"
    house.clock.run_until(61.0)
    assert progressing() == "ProgressDeadlineExceeded"


def test_refused_pods_are_tried_again_and_reported() -> None:
    house = House(quota=3)
    deployment = house.apply("Deployment", "web", 5)
    house.settle(1.0)
    failures = {c["type"]: c for c in deployment.status["conditions"]}
    assert failures["ReplicaFailure"]["reason"] == "FailedCreate"
    assert "forbidden: exceeded quota" in failures["ReplicaFailure"]["message"]
    assert len(house.pods()) == 3
    house.quota = None
    house.settle(60.0)
    assert len(house.pods()) == 5
    assert "ReplicaFailure" not in {c["type"] for c in deployment.status["conditions"]}


def test_a_throttled_client_makes_30_pods_at_once_and_then_20_a_second() -> None:
    house = House(qps=20.0)
    house.apply("ReplicaSet", "web", 1000)
    assert len(house.pods()) == 30
    assert not house.controllers.is_quiet()
    house.clock.run_until(10.0)
    assert len(house.pods()) == pytest.approx(230, abs=2)
    house.clock.run_until(60.0)
    assert len(house.pods()) == 1000
    assert house.controllers.is_quiet()


def test_a_throttled_collector_deletes_what_is_left_behind_at_20_a_second() -> None:
    house = House(qps=20.0)
    deployment = house.apply("Deployment", "web", 100)
    house.clock.run_until(7.3)
    assert len(house.pods()) == 100
    house.store.delete_object(deployment)
    house.clock.run_until(8.0)
    assert len(house.pods()) == pytest.approx(100 - 30 - 14, abs=3)
    house.clock.run_until(20.0)
    assert house.pods() == []
    assert house.controllers.is_quiet()


def test_a_deleted_deployment_takes_replica_sets_and_pods_with_it() -> None:
    house = House()
    deployment = house.apply("Deployment", "web", 3)
    house.run(*house.pods()[:1])
    house.store.delete_object(deployment)
    house.settle()
    assert list(house.store.list("ReplicaSet")) == []
    assert [p.deletion_s is not None for p in house.pods()] == [True]


def test_an_orphan_that_matches_is_adopted_and_one_that_no_longer_matches_is_let_go() -> None:
    house = House()
    spec = PodSpec.parse({"containers": [{"name": "c", "image": "x"}]}, house.rules)
    orphan = Pod("default", "alone", spec, {"app": "nginx"}, uid="u1")
    house.store.create_pod(orphan)
    house.apply("ReplicaSet", "web", 2)
    assert orphan.owner is not None and orphan.owner.name == "web"
    assert len(house.pods()) == 2
    house.store.update_pod(orphan, labels={"app": "other"})
    house.settle()
    assert orphan.owner is None
    assert len(house.pods()) == 3


def node(name: str, *taints: Taint, **labels: str) -> Node:
    return Node(name, {"pods": 17}, labels=labels, taints=taints, uid=f"uid-of-{name}")


def test_a_daemon_set_runs_on_every_node_that_fits_and_follows_changes() -> None:
    house = House()
    house.store.add_node(node("n1"))
    house.store.add_node(node("n2", Taint("dedicated", "x", "NoSchedule")))
    agent = house.apply("DaemonSet", "agent")
    assert [p.spec.affinity.node_required[0].fields[0].values for p in house.pods()] == [("n1",)]  # type: ignore[index]
    assert agent.status["desiredNumberScheduled"] == 1
    house.store.add_node(node("n3", Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")))
    house.settle()
    assert len(house.pods()) == 2
    house.run(house.pods()[0], node="n1")
    house.store.update_node(house.store.nodes["n1"], taints=(Taint("dedicated", "x", "NoExecute"),))
    house.settle()
    assert house.pods()[0].deletion_s is not None
    assert agent.status["numberMisscheduled"] == 1


def test_pods_of_a_deleted_node_go_at_the_second_look_after_40_seconds() -> None:
    house = House()
    house.store.add_node(node("n1"))
    house.apply("ReplicaSet", "web", 1)
    (pod,) = house.pods()
    house.run(pod, node="n1")
    house.clock.run_until(5.0)
    house.store.delete_node(house.store.nodes["n1"])
    house.clock.run_until(59.9)
    assert pod.key in house.store.pods
    house.clock.run_until(60.0)
    assert pod.key not in house.store.pods
    assert len(house.pods()) == 1


@pytest.mark.parametrize("version", ["1.21", "1.28", "1.34"])
def test_a_rolling_update_ends_with_new_pods_only(version: str) -> None:
    house = House(version)
    deployment = house.apply("Deployment", "web", 4)
    house.run(*house.pods())
    template = deployment.spec["template"]
    containers = [{**template["spec"]["containers"][0], "image": "nginx:2"}]
    template = {**template, "spec": {**template["spec"], "containers": containers}}
    house.store.update_object(deployment, spec={**deployment.spec, "template": template}, bump_generation=True)
    for _ in range(40):
        house.settle(1.0)
        waiting = [p for p in house.pods() if p.deletion_s is None and not p.ready]
        leaving = [p for p in house.pods() if p.deletion_s is not None]
        if waiting:
            house.run(waiting[0], node="n2")
        elif leaving:
            house.store.delete_pod(leaving[0])
    images = [p.spec.containers[0].image for p in house.pods()]
    assert images == ["nginx:2"] * 4
    assert deployment.annotations["deployment.kubernetes.io/revision"] == "2"
    assert deployment.status["updatedReplicas"] == 4


def test_an_unknown_controller_is_named() -> None:
    clock = Clock()
    rules = KubernetesRules.of("1.34")
    with pytest.raises(ValueError, match="no controller is called 'cronjob'"):
        Controllers(
            clock,
            Store(clock),
            Streams(0),
            rules,
            lambda _: None,
            names=["cronjob"],  # type: ignore[arg-type,return-value]
        )
