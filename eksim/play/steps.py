"""A scenario's steps: each acts through the API (the applier), on EC2, or looks as a reader does."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from typing import Any

from eksim.cluster import Cluster
from eksim.errors import InputError, Refused
from eksim.play.expect import check, pod_counts
from eksim.play.faults import apply_fault
from eksim.record.result import Failure, LookSeen
from eksim.scenario.load import LoadedScenario
from eksim.scenario.looks import Look, parse_look
from eksim.scenario.manifest import KINDS, kind_named
from eksim.scenario.schema import Fault, RemoveNodes, Step
from eksim.state.changes import Verb
from eksim.views.describe import describe_node, describe_pod
from eksim.views.explain import explain
from eksim.views.kubectl import get
from eksim.views.node import ip_link


class Player:
    """Acts a scenario's steps out on a cluster; collects what was seen and what was missed."""

    def __init__(self, cluster: Cluster, loaded: LoadedScenario) -> None:
        self.cluster = cluster
        self.loaded = loaded
        self.looks: list[LookSeen] = []
        self.failures: list[Failure] = []
        #: what stood when the reader looked or the scenario judged
        self.moments: list[dict[str, Any]] = []

    def remember(self, name: str) -> None:
        """Keep pod counts and cause of this moment."""
        cluster = self.cluster
        found = explain(cluster.snapshot(), cluster.pool_stats, cluster.usage())
        moment = {
            "time_s": cluster.clock.now,
            "step": name,
            "pods": pod_counts(cluster),
            "cause": found.sentence,
            "bound_by": found.bound_by,
            "pending": found.pending,
        }
        if self.moments and self.moments[-1]["time_s"] == moment["time_s"]:
            self.moments[-1] = {**moment, "step": self.moments[-1]["step"] or name}
        else:
            self.moments.append(moment)

    def act(self, index: int, step: Step) -> None:
        """Do one step's action now. Raises InputError if it names something that is not there."""
        try:
            self._act(index, step)
        except InputError as error:
            raise self.loaded.located(error, ("steps", index)) from None

    def _act(self, index: int, step: Step) -> None:
        cluster = self.cluster
        where = f"steps[{index}]" + (f" ({step.name})" if step.name else "")
        if step.apply is not None:
            cluster.apply_workload(self.loaded.applied[index])
        elif step.scale is not None:
            kind, name = (
                ("Deployment", step.scale.deployment)
                if step.scale.deployment
                else ("ReplicaSet", step.scale.replicaset)
            )
            self._accept(cluster.applier.scale(kind, step.scale.namespace, str(name), step.scale.replicas))
        elif step.delete is not None:
            for kind, namespace, name in _targets(step):
                if kind == "Node":
                    cluster.remove_node(name)
                else:
                    self._accept(cluster.applier.delete(kind, namespace, name))
        elif step.set_env is not None:
            cluster.set_env(step.set_env.env, self._node(step.set_env.node) if step.set_env.node is not None else None)
        elif step.restart_aws_node is not None:
            wanted = step.restart_aws_node.node
            for name in [self._node(wanted)] if wanted is not None else list(cluster.store.nodes):
                cluster.cni.restart_node(name)
        elif step.add_nodes is not None:
            cluster.add_nodes(step.add_nodes.node_group, step.add_nodes.count)
        elif step.remove_nodes is not None:
            self._remove_nodes(step.remove_nodes)
        elif step.cordon is not None or step.uncordon is not None:
            self._cordon(str(step.cordon or step.uncordon), step.cordon is not None)
        elif step.fault is not None:
            self._fault(step.fault)
        elif step.note is not None:
            cluster.store.emit(Verb.NOTE, step.note)
        elif step.look is not None:
            self._look(step, where)
        if step.look is not None or step.expect is not None:
            self.remember(step.name or "")
        if step.expect is not None:
            self.failures += check(cluster, step.expect, where)

    def _accept(self, answer: Refused | Any) -> None:
        if isinstance(answer, Refused):
            raise InputError(
                f"at {self.cluster.clock.now:g} s: {answer.message}", expected="something that exists then"
            )

    def _node(self, name: str) -> str:
        nodes = self.cluster.store.nodes
        found = [n for n in nodes if fnmatch.fnmatchcase(n, name)]
        if name.isdigit() and int(name) < len(nodes):
            found = [list(nodes)[int(name)]]
        if not found:
            raise InputError(f"no node is called {name!r}", expected=_one_of_nodes(nodes))
        return found[0]

    def _cordon(self, name: str, cordon: bool) -> None:
        self.cluster.store.cordon_node(self.cluster.store.nodes[self._node(name)], cordon)

    def _remove_nodes(self, wanted: RemoveNodes) -> None:
        if wanted.node is not None:
            self.cluster.remove_node(self._node(wanted.node))
            return
        group = self.cluster.nodes_of_group(wanted.node_group)
        if wanted.count > len(group):
            raise InputError(
                f"at {self.cluster.clock.now:g} s: count is {wanted.count}, and the group has {len(group)} nodes",
                expected="at most as many as the group has then",
                nearest=f"count: {len(group)}" if group else "",
            )
        for name in group[len(group) - wanted.count :]:
            self.cluster.remove_node(name)

    def _fault(self, fault: Fault) -> None:
        node = self._node(fault.node) if fault.node is not None else None
        apply_fault(self.cluster, fault, node)

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self, step: Step, where: str) -> None:
        assert step.look is not None
        text = self.look(parse_look(step.look))
        self.looks.append(LookSeen(self.cluster.clock.now, step.look, text))
        for wanted in step.shows:
            if not _shows(text, wanted):
                self.failures.append(Failure(where, f"look {step.look!r}", f"a line with {wanted!r}", _excerpt(text)))
        for unwanted in step.shows_not:
            if _shows(text, unwanted):
                self.failures.append(
                    Failure(where, f"look {step.look!r}", f"no line with {unwanted!r}", _excerpt(text))
                )

    def look(self, look: Look) -> str:
        """What the reader's command prints now."""
        cluster = self.cluster
        if look.verb == "ip link":
            names = [self._node(look.name)] if look.name else list(cluster.store.nodes)
            parts = [ip_link(cluster.links, name) for name in names]
            text = parts[0] if look.name else "\n".join(f"# {n}\n{p}" for n, p in zip(names, parts, strict=True))
        elif look.verb == "describe":
            text = self._describe(look)
        else:
            text = get(cluster.snapshot(), look.kind, look.name, look.namespace, look.all_namespaces, look.wide)
        return _grep(text, look)

    def _describe(self, look: Look) -> str:
        snapshot = self.cluster.snapshot()
        if look.kind == "Node":
            nodes = [n for n in snapshot.nodes() if fnmatch.fnmatchcase(n.name, look.name or "*")]
            if not nodes:
                return f'Error from server (NotFound): nodes "{look.name}" not found'
            return "\n\n\n".join(describe_node(snapshot, n) for n in nodes)
        pods = [p for p in snapshot.pods(look.namespace) if fnmatch.fnmatchcase(p.name, look.name or "*")]
        if not pods:
            return f'Error from server (NotFound): pods "{look.name}" not found'
        pending = [p for p in pods if p.phase == "Pending" and p.deletion_s is None]
        return describe_pod(snapshot, (pending or pods)[0])


def _one_of_nodes(nodes: Collection[str]) -> str:
    return "one of " + ", ".join(list(nodes)[:6]) if nodes else "a node that has joined; there is none"


def _targets(step: Step) -> list[tuple[str, str, str]]:
    delete = step.delete
    if delete is None:
        return []
    if isinstance(delete, str | list):
        out = []
        for item in [delete] if isinstance(delete, str) else delete:
            kind, _, name = item.partition("/")
            out.append(_target(kind, "default", name))
        return out
    return [_target(delete.kind, delete.namespace, delete.name)]


def _target(word: str, namespace: str, name: str) -> tuple[str, str, str]:
    kind = kind_named(word) or word
    return kind, namespace if KINDS.get(kind, ("", True))[1] else "", name


def _words(line: str) -> str:
    return " ".join(line.split())


def _shows(text: str, wanted: str) -> bool:
    """Whether a line contains ``wanted`` (a glob, anywhere in the line); runs of blanks count as one."""
    pattern = f"*{_words(wanted)}*"
    return any(fnmatch.fnmatchcase(_words(line), pattern) for line in text.split("\n"))


def _excerpt(text: str) -> str:
    lines = text.split("\n")
    return "\n    ".join(["", *lines[:12], *(["…"] if len(lines) > 12 else [])])


def _grep(text: str, look: Look) -> str:
    lines = text.split("\n")
    for pattern in look.grep:
        wanted = pattern.split("|")
        kept: dict[int, str] = {}
        for i, line in enumerate(lines):
            if any(w in line for w in wanted) or (look.verb == "ip link" and line.startswith("# ")):
                for k in range(i, min(i + look.after + 1, len(lines))):
                    kept[k] = lines[k]
        lines = [kept[k] for k in sorted(kept)]
    return "\n".join(lines)
