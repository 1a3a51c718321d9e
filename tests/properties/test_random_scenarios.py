"""Random scenarios: what must hold holds, along the way too; the same seed gives the same bytes, whatever the hash seed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from eksim.play.run import play
from eksim.record.tables import TABLES
from eksim.testing import strategies
from eksim.testing.check import check_result
from eksim.testing.strategies import Document, loaded

FAST = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@settings(FAST, max_examples=250)
@given(strategies.scenarios())
def test_every_invariant_holds(document: Document) -> None:
    """Faults, nodes that come and go, settings that change: no expectation fails, and the tables hold what they can tell."""
    result = play(loaded(document), document["seed"])
    assert [str(failure) for failure in result.failures] == []
    assert [str(violation) for violation in check_result(result).violations] == []


def digest(document: Document) -> str:
    """A hash of every row of every table, in order."""
    result = play(loaded(document), document["seed"])
    rows = repr([(name, result.rows(name)) for name in TABLES])
    return hashlib.sha256(rows.encode()).hexdigest()


@settings(FAST, max_examples=40, phases=(Phase.generate,))
@given(strategies.scenarios())
def test_the_same_seed_gives_the_same_bytes(document: Document) -> None:
    assert digest(document) == digest(json.loads(json.dumps(document)))


def test_another_hash_seed_gives_the_same_bytes() -> None:
    """A process with another PYTHONHASHSEED records the same rows of twelve scenarios."""
    drawn: list[Document] = []

    @settings(FAST, max_examples=12, phases=(Phase.generate,))
    @given(strategies.scenarios(cluster=strategies.clusters(max_nodes=3), max_steps=6))
    def draw(document: Document) -> None:
        drawn.append(document)

    draw()
    here = [digest(document) for document in drawn]
    script = (
        f"import json, sys; sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from test_random_scenarios import digest\n"
        "print(json.dumps([digest(d) for d in json.load(sys.stdin)]))"
    )
    for seed in ("1", "4242"):
        there = subprocess.run(
            [sys.executable, "-c", script],
            input=json.dumps(drawn),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert json.loads(there.stdout) == here


@settings(FAST, max_examples=60, phases=(Phase.generate,))
@given(st.data())
def test_an_environment_drawn_for_a_release_is_one_it_starts_with(data: st.DataObject) -> None:
    """Whatever settings are drawn for a release, ipamd of that release starts with them."""
    version = data.draw(strategies.cni_versions())
    cluster = {
        "subnets": [{"name": "s", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
        "vpcCni": {"version": version, "env": data.draw(strategies.cni_settings(version))},
        "nodeGroups": [{"name": "g", "instanceType": data.draw(strategies.instance_types()), "size": 1}],
    }
    document = {"apiVersion": "eksim/v1", "kind": "Scenario", "name": "start", "cluster": cluster, "latency": "none"}
    result = play(loaded(document), 1)
    assert [node["enis"] > 0 for node in result.summary["nodes"]] == [True]
