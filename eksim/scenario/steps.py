"""What a scenario's steps and expectations may say: checked at the door, as far as it can be known before the run."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection
from typing import Any

from pydantic.alias_generators import to_camel

from eksim.errors import InputError
from eksim.scenario.environment import AWS_NODE_ENV, NOT_SIMULATED, TRUE
from eksim.scenario.looks import parse_look
from eksim.scenario.manifest import KINDS, kind_named
from eksim.scenario.schema import ACTIONS, Cluster, Expectation, Fault, Step
from eksim.scenario.yamlfile import Path_

Fail = Callable[..., InputError]

UNTIL = re.compile(
    r"^(settled|nodes ready|(pod|po|deployment|deploy|replicaset|rs|daemonset|ds)/[-a-z0-9.]+ (available|gone|ready))$"
)
#: What ``expect: pods`` counts.
COUNTED = ("Pending", "Running", "Succeeded", "Failed", "total", "scheduled", "unscheduled", "stuck")
#: One of these says what a fault breaks, or that it heals.
BREAKS = {
    "heal": "heal",
    "metadata_lag": "metadataLag",
    "api": "api",
    "take_addresses": "takeAddresses",
    "release_addresses": "releaseAddresses",
    "lose_eni": "loseEni",
    "lose_addresses": "loseAddresses",
    "attach_eni": "attachEni",
    "detach_eni": "detachEni",
}


def check_step(step: Step, cluster: Cluster, fail: Fail, path: Path_, last: float) -> float:
    """Raise ``fail``'s error for a step that cannot be done; returns the earliest time of the next one."""
    actions = [to_camel(action) for action in step.actions()]
    if len(actions) > 1 and not (len(actions) == 2 and "expect" in actions):
        raise fail(path, f"does {len(actions)} things: {', '.join(actions)}", "one action per step")
    if not actions and step.at is None and step.after is None and step.until is None:
        raise fail(path, "does nothing", "a time (at, after, until) or an action: " + ", ".join(map(to_camel, ACTIONS)))
    if step.at is not None:
        if step.after is not None or step.until is not None:
            raise fail((*path, "at"), "stands beside after or until", "one of at, or after/until")
        if step.at < last:
            raise fail((*path, "at"), f"is {step.at:g}s", f"not before the step before ({last:g}s)", f"{last:g}s")
        last = step.at
    elif step.after is not None:
        last += step.after
    if step.until is not None and not UNTIL.match(step.until):
        raise fail(
            (*path, "until"),
            f"is {step.until!r}",
            "settled, nodes ready, KIND/NAME available, or KIND/NAME gone, with KIND pod, deployment, replicaset or daemonset",
            "settled",
        )
    if (step.shows or step.shows_not) and step.look is None:
        raise fail(path, "has shows without look", "look: the command whose output is meant")
    _check_action(step, cluster, fail, path)
    if step.expect is not None:
        check_expectation(step.expect, fail, (*path, "expect"))
    return last


def _check_action(step: Step, cluster: Cluster, fail: Fail, path: Path_) -> None:
    groups = [group.name for group in cluster.node_groups]
    if step.set_env is not None:
        check_environment(step.set_env.env, fail, (*path, "setEnv", "env"))
    if step.scale is not None and (step.scale.deployment is None) == (step.scale.replicaset is None):
        raise fail((*path, "scale"), "needs either deployment or replicaset", "the name of what is scaled")
    for name, action in (("addNodes", step.add_nodes), ("removeNodes", step.remove_nodes)):
        if action is None or (group := action.node_group) is None:
            continue
        if group not in groups:
            raise fail((*path, name, "nodeGroup"), f"no node group is called {group!r}", "one of " + ", ".join(groups))
    if (adds := step.add_nodes) is not None and adds.node_group is None and len(groups) > 1:
        raise fail((*path, "addNodes"), "does not say which group", "nodeGroup: one of " + ", ".join(groups))
    if (goes := step.remove_nodes) is not None and goes.node is None and goes.node_group is None and len(groups) > 1:
        raise fail((*path, "removeNodes"), "does not say which", "node, or nodeGroup: one of " + ", ".join(groups))
    if step.fault is not None:
        _check_fault(step.fault, cluster, fail, (*path, "fault"))
    if step.delete is not None:
        _check_delete(step, fail, (*path, "delete"))
    if step.look is not None:
        try:
            parse_look(step.look)
        except ValueError as error:
            raise fail((*path, "look"), str(error), "get pods -A, describe pod NAME, ip link NODE") from None


def _check_fault(fault: Fault, cluster: Cluster, fail: Fail, path: Path_) -> None:
    given = [name for field, name in BREAKS.items() if not any(getattr(fault, field) is no for no in (None, False))]
    if not given:
        raise fail(path, "breaks nothing", "one of " + ", ".join(BREAKS.values()))
    if len(given) > 1 and not set(given) <= {"heal", "api"}:
        raise fail(path, f"breaks {len(given)} things: {', '.join(given)}", "one of them per step")
    subnets = [subnet.name for subnet in cluster.subnets]
    if fault.subnet is not None and fault.subnet not in subnets:
        raise unknown("subnet", fault.subnet, subnets, fail, (*path, "subnet"))


def _check_delete(step: Step, fail: Fail, path: Path_) -> None:
    delete = step.delete
    if delete is None:
        return
    kinds = [*(kind.lower() for kind in KINDS), "node"]
    if not isinstance(delete, str | list):
        if kind_named(delete.kind) is None:
            raise unknown("kind", delete.kind, kinds, fail, (*path, "kind"))
        return
    for i, item in enumerate([delete] if isinstance(delete, str) else delete):
        where = path if isinstance(delete, str) else (*path, i)
        if not re.fullmatch(r"[A-Za-z]+/\S+", item):
            raise fail(where, f"is {item!r}", "kind/name, such as pod/pod-1")
        kind = item.partition("/")[0]
        if kind_named(kind) is None:
            raise unknown("kind", kind, kinds, fail, where)


def check_expectation(expectation: Expectation, fail: Fail, path: Path_) -> None:
    """Raise ``fail``'s error for an expectation that counts what is not counted."""
    for name in expectation.pods:
        if name not in COUNTED:
            raise unknown("count", name, COUNTED, fail, (*path, "pods", name))


def unknown(what: str, name: str, known: Collection[str], fail: Fail, path: Path_) -> InputError:
    """The error for a name that is none of those known."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    return fail(path, f"unknown {what} {name!r}", "one of " + ", ".join(known), near[0] if near else "")


def check_environment(env: dict[str, Any], fail: Fail, path: Path_) -> None:
    """Names of aws-node's environment that exist, and modes that are simulated. Raises ``fail``'s error."""
    for name, value in env.items():
        if name not in AWS_NODE_ENV:
            near = difflib.get_close_matches(name, AWS_NODE_ENV, n=1, cutoff=0.5)
            raise fail(
                (*path, name),
                "is not a variable of aws-node",
                "one of its documented variables",
                near[0] if near else "",
            )
        if name in NOT_SIMULATED and value in TRUE:
            raise fail((*path, name), f"{NOT_SIMULATED[name]} is not simulated", '"false"')
