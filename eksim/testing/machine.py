"""A rule-based state machine over a running cluster: random moves, every invariant after each of them.

Subclass :class:`ClusterMachine` with rules and invariants of your own; what fails is made as small as it can be (see
:mod:`eksim.testing.reduce`) and written to a scenario file that ``eksim run`` replays. A move is a step of a scenario, acted
out by the same code that acts out a scenario's steps (:meth:`ClusterMachine.act`), or time that passes
(:meth:`ClusterMachine.advance_to_ms`); that is what makes every run a scenario. Needs the extra ``eksim[test]``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hypothesis import HealthCheck, Phase, currently_in_test_context, settings
from hypothesis import strategies as st
from hypothesis.control import current_build_context
from hypothesis.errors import HypothesisException
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from hypothesis.strategies import SearchStrategy

from eksim.cluster import Cluster, build
from eksim.errors import InputError
from eksim.play.judge import judge, watch
from eksim.play.steps import Player
from eksim.scenario.load import LoadedScenario, load_scenario, load_scenario_data
from eksim.scenario.schema import Step
from eksim.state.changes import Verb
from eksim.state.invariants import Violation, unfinished
from eksim.state.objects import Pod
from eksim.testing import strategies
from eksim.testing.reduce import reduce
from eksim.testing.strategies import Document, seconds

#: The longest that a move waits for the cluster to settle, in simulated milliseconds.
SETTLE_LIMIT_MS = 300_000
#: Waits at which something of the real components comes round, in milliseconds: ipamd's turn and half turn, kubelet's
#: retry, cool-down, reconcile, pause after a full subnet.
TELLING_MS = (0, 1, 100, 1000, 2500, 5000, 5001, 10_000, 15_000, 29_500, 30_000, 30_001, 60_000, 60_001, 120_001)
#: How far from the end of a cool-down a wait for it ends, in milliseconds.
AROUND_MS = (-900, -500, -100, -1, 0, 1)
APIS = (
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "DetachNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "UnassignPrivateIpAddresses",
    "metadata",
)

#: So many pods made in one instant are no scaling any more.
ENDLESS_PODS = 1000

#: The most pods that fill a node in one move.
FILL_MAX = 16

number = st.integers(0, 31)

#: What a single step is checked in, beside the cluster.
_ONE_STEP: Document = {"apiVersion": "eksim/v1", "kind": "Scenario", "name": "one-step"}


#: Hypothesis settings that suit a simulation: no deadline, nothing kept between runs, and neither hypothesis's shrinking
#: nor its explaining, since the scenario is reduced as a document, which takes a fraction of the runs.
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class InvariantBroken(AssertionError):
    """Something that must hold does not; ``violations`` says what."""

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__("; ".join(map(str, violations)))
        self.violations = violations


class ClusterMachine(RuleBasedStateMachine):
    """A cluster, what can happen to it, and what must hold.

    Override :meth:`scenarios` to choose the worlds it starts in. In a rule of your own call :meth:`act` with a scenario's
    step, or :meth:`advance_to_ms`; ``self.cluster`` is there to be read. What you change in it by other ways is not in the
    scenario that is written. An invariant of your own is any method under ``@hypothesis.stateful.invariant()``.

    ``directory``: where scenarios of failures are written. ``history``: judge also what needs history. ``shrink``: make a
    failing scenario small before it is written.
    """

    directory: ClassVar[Path] = Path("eksim-failures")
    history: ClassVar[bool] = True
    shrink: ClassVar[bool] = True

    @classmethod
    def scenarios(cls) -> SearchStrategy[Document]:
        """The worlds to start in: scenarios without steps."""
        return strategies.scenarios(max_steps=0, max_deployments=1)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.TestCase.settings = SETTINGS

    def __init__(self) -> None:
        super().__init__()
        #: the moves so far, as a scenario's steps
        self.steps: list[Document] = []
        self.document: Document = {}
        self.now_ms = 0
        self._player: Player
        self._pods_made = 0
        #: when the last pods were made, and how many then
        self._made = (0.0, 0)

    # -- the run ------------------------------------------------------------------------------------------------

    @initialize(document=st.runner().flatmap(lambda self: self.scenarios()))
    def begin(self, document: Document) -> None:
        """Build the cluster and let it come up."""
        self.start(document)
        self.settle()

    def start(self, document: Document) -> None:
        """Build the cluster of a scenario's document; its own steps and expectations are left out."""
        own = {key: value for key, value in document.items() if key not in ("steps", "expect", "runFor")}
        self.document = own
        loaded = load_scenario_data(own, type(self).__name__)
        self.cluster: Cluster = build(loaded, loaded.scenario.seed, record=False, prepare=watch if self.history else None)
        self._player = Player(self.cluster, loaded)
        self.cluster.store.watch(Verb.POD_CREATED, self._count_pods)

    def _count_pods(self, pod: Pod, _: Any) -> None:
        """Pods that are made and refused without end, in no time (latency none), would never let a move end."""
        now = self.cluster.clock.now
        since, count = self._made
        self._made = (now, count + 1 if since == now else 1)
        if count >= ENDLESS_PODS and since == now:
            endless = Violation("time-goes-on", f"{count} pods are made at {now:g} s, and no end is seen")
            raise InvariantBroken([*self.violations(), endless])

    def act(self, step: Document) -> None:
        """One move: a scenario's step, without its time, which is now (``{"scale": {"deployment": "web", …}}``)."""
        made = {"at": seconds(self.now_ms), **step}
        # checked as a file's step would be, its manifest included
        document = {**_ONE_STEP, "cluster": self.document["cluster"], "steps": [made]}
        loaded = load_scenario_data(document, type(self).__name__)
        index = len(self.steps)
        self.steps.append(made)
        if 0 in loaded.applied:
            self._player.loaded.applied[index] = loaded.applied[0]
        chosen: Step = loaded.scenario.steps[0]
        self._player.act(index, chosen)
        self.cluster.clock.run_until(self.cluster.clock.now)

    def advance_to_ms(self, when_ms: int) -> None:
        """Let time pass until ``when_ms`` milliseconds since the start, what is due then included; not back."""
        if when_ms >= self.now_ms:
            self.now_ms = when_ms
            self.cluster.clock.run_until(when_ms * 1_000_000 / 10**9)

    def violations(self) -> list[Violation]:
        """What does not hold now, or did not on the way here."""
        return judge(self.cluster)

    @invariant()
    def nothing_is_broken(self) -> None:
        """Every named invariant of ``eksim.state.invariants`` and ``eksim.state.watchdog``."""
        found = self.violations()
        if found:
            raise InvariantBroken(found)

    def teardown(self) -> None:
        """Write the scenario of a failure, the shrunk one, and say in the error how to replay it."""
        error = sys.exc_info()[1]
        if isinstance(error, Exception) and not isinstance(error, HypothesisException) and self.document:
            if not currently_in_test_context() or current_build_context().is_final:
                document = self._reduced(error) if self.shrink else self.scenario()
                path = self.directory / f"{type(self).__name__}.yaml"
                self.write(path, document)
                error.add_note(self._how_to_replay(path, error, document))
        super().teardown()

    def _reduced(self, error: Exception) -> Document:
        """The smallest scenario found that fails alike; the error then tells what is broken in that one."""
        last = _Outcome(self.scenario(), error)
        wanted = last.kind

        def fails(document: Document) -> bool:
            nonlocal last
            outcome = play(document, type(self))
            if outcome is None or outcome.kind != wanted:
                return False
            last = outcome
            return True

        document = self.scenario()
        if fails(document):
            reduce(document, fails)
            error.args = last.error.args
            if isinstance(error, InvariantBroken) and isinstance(last.error, InvariantBroken):
                error.violations = last.error.violations
        return last.document

    def _how_to_replay(self, path: Path, error: Exception, document: Document) -> str:
        own = f"eksim.testing.machine.replay({str(path)!r}, {type(self).__name__})"
        lines = [f"The moves are in {path} ({len(document['steps'])} steps, {document['runFor']}). Replay them with"]
        if isinstance(error, InvariantBroken):
            lines += [f"    eksim run {path}", "or, move by move, in Python:"]
        return "\n".join([*lines, f"    {own}"])

    def scenario(self) -> Document:
        """The run so far as a scenario: its steps, its length, and that every invariant is expected to hold at the end."""
        end = seconds(self.now_ms)
        document = {**self.document, "steps": self.steps, "runFor": end}
        document["name"] = "failure" if document.get("name", "drawn") == "drawn" else document["name"]
        document["expect"] = [{"at": end, "invariants": "history" if self.history else True}]
        return document

    def write(self, path: Path, document: Document | None = None) -> Path:
        """Write :meth:`scenario`, or another document, as a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.dump(document or self.scenario(), Dumper=_Plain, sort_keys=False, width=110)
        path.write_text(f"# Written by {type(self).__name__}; replay with: eksim run {path}\n{text}")
        return path

    # -- time ---------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from(TELLING_MS) | st.integers(0, 90_000))
    def wait(self, ms: int) -> None:
        """Time passes."""
        self.advance_to_ms(self.now_ms + ms)

    @rule()
    def settle(self) -> None:
        """Time passes until nothing is under way (at most five minutes)."""
        clock = self.cluster.clock
        limit = (self.now_ms + SETTLE_LIMIT_MS) / 1000
        while not self.cluster.is_settled():
            upcoming = clock.next_time()
            if upcoming > limit:
                break
            clock.run_until(upcoming)
        self.advance_to_ms(math.ceil(clock.now * 1000 - 1e-6))

    @precondition(lambda self: self.history and self.cluster.watchdog.cooling())
    @rule(n=number, around=st.sampled_from(AROUND_MS))
    def wait_for_cool_down(self, n: int, around: int) -> None:
        """Time passes until a released address has cooled, or nearly so."""
        assert self.cluster.watchdog is not None
        cooling = self.cluster.watchdog.cooling()
        until = cooling[n % len(cooling)][2]
        self.advance_to_ms(round(until * 1000) + around)

    @precondition(lambda self: self.history and self.cluster.watchdog.cooling())
    @rule(n=number, around=st.sampled_from(AROUND_MS))
    def fill_as_it_cools(self, n: int, around: int) -> None:
        """Pods fill a node just when one of its addresses has cooled, or nearly so."""
        assert self.cluster.watchdog is not None
        self._fill_at(self.cluster.watchdog.cooling(), n, around)

    @precondition(lambda self: self.history and self._holders())
    @rule(n=number, count=st.integers(1, 3), around=st.sampled_from(AROUND_MS))
    def replace_as_it_cools(self, n: int, count: int, around: int) -> None:
        """Pods go, and others fill their node just when the address of one has cooled, or nearly so."""
        assert self.cluster.watchdog is not None
        node = _pick(self._holders(), n).node
        for pod in [pod for pod in self._holders() if pod.node == node][:count]:
            self._delete(pod)
        for _ in range(4):
            self.advance_to_ms(self.now_ms + 1000)
            cooling = [entry for entry in self.cluster.watchdog.cooling() if entry[0] == node]
            if cooling:
                self._fill_at(cooling[-1:], 0, around)
                break

    def _holders(self) -> list[Pod]:
        return [p for p in self.cluster.store.pods.values() if p.ip and not p.spec.host_network and p.deletion_s is None]

    def _fill_at(self, cooling: list[tuple[str, int, float]], n: int, around: int) -> None:
        node, _, until = _pick(cooling, n)
        self.advance_to_ms(round(until * 1000) + around)
        spec = {
            "containers": [{"name": "c", "image": "registry.example/app:1"}],
            "nodeSelector": {"kubernetes.io/hostname": node},
        }
        for _ in range(min(self.free_slots(node), FILL_MAX)):
            self._make_pod(spec)

    # -- workloads ----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.deployments())
    @rule(n=number, replicas=st.integers(0, 30))
    def scale(self, n: int, replicas: int) -> None:
        """A Deployment of the user's, or coredns, is scaled."""
        namespace, name = _pick(self.deployments(), n)
        self.act({"scale": {"deployment": name, "namespace": namespace, "replicas": replicas}})

    @rule(count=st.integers(1, 6), spec=strategies.pod_specs())
    def create_pods(self, count: int, spec: Document) -> None:
        """Bare pods come."""
        for _ in range(count):
            self._make_pod(spec)

    def _make_pod(self, spec: Document) -> None:
        self._pods_made += 1
        metadata = {"name": f"pod-{self._pods_made}"}
        self.act({"apply": {"manifest": {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}}})

    @precondition(lambda self: self.cluster.store.pods)
    @rule(n=number, count=st.integers(1, 4))
    def delete_pods(self, n: int, count: int) -> None:
        """Any pods are deleted, daemons' and coredns' too."""
        for _ in range(min(count, len(self.cluster.store.pods))):
            pods = list(self.cluster.store.pods.values())
            pod = pods[n % len(pods)]
            self._delete(pod)
            n += 1

    def _delete(self, pod: Pod) -> None:
        self.act({"delete": {"kind": "pod", "name": pod.name, "namespace": pod.namespace}})

    @precondition(lambda self: len(self.deployments()) < 4)
    @rule(workload=st.integers(0, 3).flatmap(lambda i: strategies.workloads(strategies.deployments(f"app-{i}"))))
    def apply_deployment(self, workload: Document) -> None:
        """A Deployment is applied, anew or changed."""
        self.act({"apply": workload})

    @precondition(lambda self: self.deployments())
    @rule(n=number)
    def delete_deployment(self, n: int) -> None:
        """A Deployment is deleted, and its pods with it."""
        namespace, name = _pick(self.deployments(), n)
        self.act({"delete": {"kind": "Deployment", "name": name, "namespace": namespace}})

    # -- nodes --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.cluster.store.nodes)
    @rule(n=number, on=st.booleans())
    def cordon(self, n: int, on: bool) -> None:
        """A node is cordoned, or uncordoned."""
        self.act({"cordon" if on else "uncordon": self.node(n)})

    @precondition(lambda self: len(self.cluster.store.nodes) < 5)
    @rule(n=number)
    def add_node(self, n: int) -> None:
        """A node joins."""
        group = _pick(self.cluster.spec.node_groups, n)
        self.act({"addNodes": {"nodeGroup": group.name, "count": 1}})

    @precondition(lambda self: len(self.cluster.store.nodes) > 1)
    @rule(n=number)
    def remove_node(self, n: int) -> None:
        """A node's instance is terminated."""
        self.act({"removeNodes": {"node": self.node(n)}})

    @rule(n=number, everywhere=st.booleans(), env=st.runner().flatmap(lambda self: self.environments()))
    def set_environment(self, n: int, everywhere: bool, env: Document) -> None:
        """aws-node's environment changes on a node or on all, and ipamd restarts there (also if nothing changes)."""
        step: Document = {"env": env}
        if not everywhere and self.cluster.store.nodes:
            step["node"] = self.node(n)
        self.act({"setEnv": step})

    # -- EC2 ----------------------------------------------------------------------------------------------------

    @rule(fault=strategies.refusals(APIS))
    def refuse_calls(self, fault: Document) -> None:
        """EC2 refuses calls for a while."""
        self.act({"fault": fault})

    @precondition(lambda self: self.cluster.store.nodes)
    @rule(n=number, device=st.integers(1, 3))
    def lose_eni(self, n: int, device: int) -> None:
        """Others delete an ENI of a node, pods or not."""
        node = self.node(n)
        if device in self.cluster.network.instances[node].enis:
            self.act({"fault": {"loseEni": device, "node": node}})

    @precondition(lambda self: self.cluster.store.nodes)
    @rule(n=number, device=st.integers(0, 3), count=st.integers(1, 4))
    def lose_addresses(self, n: int, device: int, count: int) -> None:
        """Others unassign addresses of an ENI, pods or not."""
        node = self.node(n)
        if device in self.cluster.network.instances[node].enis:
            self.act({"fault": {"loseAddresses": count, "device": device, "node": node}})

    @rule(count=st.integers(1, 60))
    def take_addresses(self, count: int) -> None:
        """Others take addresses of every subnet."""
        self.act({"fault": {"takeAddresses": count}})

    @rule(count=st.integers(1, 60))
    def release_addresses(self, count: int) -> None:
        """Others give addresses of every subnet back."""
        self.act({"fault": {"releaseAddresses": count}})

    # -- for rules of one's own ---------------------------------------------------------------------------------

    def deployments(self) -> list[tuple[str, str]]:
        """(namespace, name) of the Deployments that are there."""
        return [(obj.namespace, obj.name) for obj in self.cluster.store.list("Deployment")]

    def node(self, n: int) -> str:
        """The name of one of the nodes, whatever ``n``."""
        return str(_pick(list(self.cluster.store.nodes), n))

    def free_slots(self, node: str) -> int:
        """How many pods more the node takes."""
        there = self.cluster.store.nodes.get(node)
        return 0 if there is None else max(there.allocatable.get("pods", 0) - unfinished(self.cluster.store, node), 0)

    def environments(self) -> SearchStrategy[Document]:
        """Settings that the cluster's release of the VPC CNI knows."""
        return strategies.cni_settings(self.cluster.spec.vpc_cni.version)


class _Plain(yaml.SafeDumper):
    """YAML without anchors: every manifest is written out."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def explore(machine: type[ClusterMachine], *, moves: int = 2000, moves_per_run: int = 40, shrink: bool = True) -> None:
    """Run a machine for about so many moves; the same ones every time. Raises what fails, shrunk, with how to replay it.

    ``shrink``: whether a failure is made small first.
    """
    runs = max(moves // moves_per_run, 1)
    chosen = machine
    if machine.shrink != shrink:
        chosen = type(machine.__name__, (machine,), {"shrink": shrink, "__module__": machine.__module__})
    run_state_machine_as_test(
        chosen, settings=settings(SETTINGS, max_examples=runs, stateful_step_count=moves_per_run)
    )


def _pick(items: Any, n: int) -> Any:
    return items[n % len(items)]


class _Outcome:
    """How a scenario failed: the document up to there, the error, and what it is told apart by."""

    def __init__(self, document: Document, error: Exception) -> None:
        self.document = document
        self.error = error
        where = ""
        if isinstance(error, InvariantBroken):
            where = error.violations[0].invariant
        elif error.__traceback__ is not None:
            frame = error.__traceback__
            while frame.tb_next is not None:
                frame = frame.tb_next
            where = f"{frame.tb_frame.f_code.co_name}:{frame.tb_lineno}"
        self.kind = (type(error), where)


def play(document: Document, machine: type[ClusterMachine] = ClusterMachine) -> _Outcome | None:
    """Act out a machine's scenario move by move, judging after each move; None if nothing fails, or nothing can run."""
    try:
        loaded = load_scenario_data(document, machine.__name__)
        own = machine()
        own.start(document)
    except InputError:
        return None
    try:
        _act_out(own, loaded)
    except InputError:
        return None
    except Exception as error:
        return _Outcome(own.scenario(), error)
    return None


def replay(path: Path | str, machine: type[ClusterMachine] = ClusterMachine) -> list[Violation]:
    """Act out a written scenario move by move, judging after each move as the machine did.

    Returns what was broken at the first move after which something was (nothing: an empty list); an invariant of the
    machine's own raises its own error. Steps with ``until`` or ``after`` are not a machine's. Raises InputError.
    """
    loaded: LoadedScenario = load_scenario(path)
    own = machine()
    own.start(loaded.data)
    try:
        _act_out(own, loaded)
    except InvariantBroken as broken:
        return broken.violations
    return []


def _act_out(own: ClusterMachine, loaded: LoadedScenario) -> None:
    """The scenario's steps and its length, each followed by the judges."""
    ends: list[tuple[float, Document | None]] = [
        (step.at or 0.0, document)
        for step, document in zip(loaded.scenario.steps, loaded.data.get("steps", ()), strict=True)
    ]
    if loaded.scenario.run_for is not None:
        ends.append((loaded.scenario.run_for, None))
    for at_s, document in ends:
        own.advance_to_ms(round(at_s * 1000))
        if document is not None:
            own.act({key: value for key, value in document.items() if key != "at"})
        own.nothing_is_broken()
        for check in _own_invariants(own):
            check(own)


def _own_invariants(machine: ClusterMachine) -> list[Callable[[Any], object]]:
    """The machine's invariants as hypothesis keeps them (a list, up to 2025 a method giving one), the named ones left out."""
    kept: Any = machine.invariants
    rows = kept() if callable(kept) else kept
    return [
        row.function
        for row in rows
        if row.function.__name__ != "nothing_is_broken" and all(holds(machine) for holds in row.preconditions)
    ]
