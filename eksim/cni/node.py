"""One node's row in ipamd: its settings, its datastore, its marks, and where its loop stands.

There is one :class:`~eksim.cni.ipamd.Ipamd` for all nodes; what differs between nodes is here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, NamedTuple

from eksim.cni.datastore import Datastore
from eksim.cni.pool import Limits
from eksim.cni.settings import Settings
from eksim.engine.clock import Timer
from eksim.state.network import Instance
from eksim.versions import CniRules

NEVER = float("-inf")
INFINITY = float("inf")


class Assignment(NamedTuple):
    """A pod sandbox and its address (an int)."""

    address: int
    sandbox: str
    namespace: str
    pod: str


class NodeIpam:
    """A node's ipamd. Marks (``last_…_s``) are seconds since the start of the run, ``NEVER`` if never set.

    ``cache``: items given back → until when reconcile keeps them out. ``unmanaged``: ids of ENIs left alone;
    ``unmanaged_count``: how many of them the last filtering saw. ``checkpoint``: what the file on the node's disk says
    while no daemon has read it, sandbox key → address; up to v1.11 what the container runtime says of its sandboxes.
    ``gone``: sandboxes deleted while ipamd was down. ``eni_config``: the subnet of the node's
    ENIConfig ("" without one). ``dead_end``: what the pool looked like when its last increase was refused.

    The loop (see :mod:`eksim.cni.loop`): turn k updates at ``origin_s + k·period + 2.5`` and reconciles 2.5 s later;
    ``timer`` is armed for its next place, ``reconcile_s`` is the next place of a reconcile that will find work,
    ``checked_s`` the last that was visited. ``running``: the work under way. ``start`` counts the starts of the daemon.
    ``sandboxes``: pods' sandboxes with an address, as the kubelet knows them.
    """

    __slots__ = (
        "cache",
        "checked_s",
        "checkpoint",
        "datastore",
        "dead_end",
        "due",
        "eni_config",
        "eni_limit",
        "env",
        "gone",
        "instance",
        "last_decrease_s",
        "last_insufficient_s",
        "last_pool_action_s",
        "limits",
        "max_pods",
        "name",
        "on_serving",
        "origin_s",
        "prefix_mode",
        "reconcile_s",
        "restarts",
        "rules",
        "running",
        "sandboxes",
        "serving",
        "settings",
        "start",
        "terminating",
        "timer",
        "unmanaged",
        "unmanaged_count",
    )

    def __init__(self, name: str, instance: Instance, env: Mapping[str, str], rules: CniRules) -> None:
        self.name = name
        self.instance = instance
        self.env = env
        self.rules = rules
        self.checkpoint: dict[str, int] = {}
        self.gone: dict[str, None] = {}
        self.eni_config = ""
        #: what the CNI's own table says of the type; EC2 may allow fewer
        self.eni_limit = instance.max_enis
        self.restarts = 0
        self.start = 0
        self.sandboxes: dict[str, Assignment] = {}
        self.on_serving: Callable[[str], None] | None = None
        self.settings = Settings.from_env(env, rules)
        self.reset()

    def reset(self) -> None:
        """A process that has just begun: nothing is known."""
        if self.settings.env is not self.env:  # an environment is replaced, never changed
            self.settings = Settings.from_env(self.env, self.rules)
        self.prefix_mode = False
        self.limits = Limits(0, 0)
        self.datastore: Datastore | None = None
        self.max_pods = 0
        self.last_pool_action_s = NEVER
        self.last_decrease_s = NEVER
        self.last_insufficient_s = NEVER
        self.cache: dict[int, float] | None = None
        self.unmanaged: dict[str, None] | None = None
        self.unmanaged_count = 0
        self.terminating = False
        self.serving = False
        self.dead_end: tuple[object, ...] | None = None
        self.origin_s = 0.0
        self.reconcile_s = INFINITY
        self.checked_s = NEVER
        self.timer: Timer | None = None
        #: when an update would grow or shrink the pool, as last reckoned; the loop forgets it with every change
        self.due: tuple[float, float] | None = None
        self.running: Generator[Any, Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<NodeIpam {self.name}>"

    @property
    def ds(self) -> Datastore:
        """The datastore of a daemon that has one."""
        assert self.datastore is not None, self.name
        return self.datastore
