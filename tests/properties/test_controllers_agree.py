"""Syncs that would find nothing may be left out: random walks end alike with and without them."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from eksim.engine.clock import Clock
from eksim.engine.streams import Streams
from eksim.kube.controllers.base import ControllerSettings
from eksim.kube.controllers.manager import Controllers
from eksim.kube.events import EventRecorders
from eksim.kube.template import default_workload
from eksim.state.objects import ApiObject, Node
from eksim.state.store import Store
from eksim.versions import KubernetesRules

RULES = KubernetesRules.of("1.34")


def walk(seed: int, steps: int, *, skip: bool) -> list[Any]:
    """A random walk over a Deployment and a DaemonSet on three nodes; what stands at the end of each step."""
    choices = random.Random(seed)
    clock = Clock()
    store = Store(clock)
    recorders = EventRecorders(clock, store, RULES)
    controllers = Controllers(
        clock,
        store,
        Streams(seed),
        RULES,
        recorders.recorder,
        ControllerSettings(client_qps=0, skip_idle_syncs=skip),
        shuffled=lambda pods: sorted(pods, key=lambda pod: pod.name),
    )
    controllers.start()
    for i in range(3):
        store.add_node(Node(f"n{i}", {}, uid=f"n{i}"))
    labels = {"app": "web"}
    made = {}
    for kind, extra in (("Deployment", {"replicas": 3, "minReadySeconds": choices.choice([0, 0, 5])}), ("DaemonSet", {})):
        template = {"metadata": {"labels": {**labels, "of": kind}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}
        spec = {"selector": {"matchLabels": {"of": kind}}, "template": template, **extra}
        made[kind] = ApiObject(kind, "default", kind.lower(), default_workload(kind, spec, RULES), uid=kind)
        store.create_object(made[kind])
    out: list[Any] = []
    for _ in range(steps):
        clock.run_until(clock.now + choices.choice([0.0, 1.0, 7.0]))
        pods = sorted(store.pods.values(), key=lambda pod: pod.name)
        what = choices.randrange(7)
        if what == 0:
            obj = made["Deployment"]
            store.update_object(obj, spec={**obj.spec, "replicas": choices.randrange(8)}, bump_generation=True)
        elif what == 1:
            obj = made[choices.choice(list(made))]
            template = obj.spec["template"]
            containers = [{**template["spec"]["containers"][0], "image": choices.choice("abc")}]
            template = {**template, "spec": {**template["spec"], "containers": containers}}
            store.update_object(obj, spec={**obj.spec, "template": template}, bump_generation=True)
        elif pods:
            pod = choices.choice(pods)
            if what == 2 and pod.deletion_s is None:
                store.begin_pod_deletion(pod)
            elif what == 3 and pod.deletion_s is not None:
                store.delete_pod(pod)
            else:
                if not pod.node and pod.deletion_s is None:
                    store.bind_pod(pod, choices.choice(["n0", "n1", "n2"]))
                store.set_pod_status(pod, phase="Running", ready=what != 4)
        clock.run_until(clock.now + 0.5)
        out.append(picture(store))
    return out


def picture(store: Store) -> list[Any]:
    """Sizes and statuses without what tells how often they were written."""
    found: list[Any] = [sorted((p.name, p.node, p.ready, p.deletion_s) for p in store.pods.values())]
    for kind in ("Deployment", "ReplicaSet", "DaemonSet"):
        for obj in store.list(kind):
            status = {k: v for k, v in obj.status.items() if k not in ("conditions", "observedGeneration")}
            reasons = sorted((c["type"], c["status"], c["reason"]) for c in obj.status.get("conditions", ()))
            found.append((kind, obj.name, obj.spec.get("replicas"), status, reasons))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 40))
def test_leaving_out_idle_syncs_changes_nothing(seed: int, steps: int) -> None:
    assert walk(seed, steps, skip=True) == walk(seed, steps, skip=False)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(5, 40))
def test_a_settled_status_counts_the_pods_that_are_there(seed: int, steps: int) -> None:
    for found in walk(seed, steps, skip=True):
        pods = found[0]
        for kind, name, replicas, status, _ in found[1:]:
            if kind == "ReplicaSet":
                active = [p for p in pods if p[0].startswith(name + "-") and p[3] is None]
                assert status["replicas"] == len(active) == replicas
