"""One node's row in ipamd: its settings, its datastore, its marks, and where its loop stands.

There is one :class:`~eksim.cni.ipamd.Ipamd` for all nodes; what differs between nodes is here.
"""

from __future__ import annotations

from collections.abc import Mapping

import simpy

from eksim.cni.datastore import Datastore
from eksim.cni.pool import Limits
from eksim.cni.settings import Settings
from eksim.engine.clock import Timer
from eksim.state.network import Instance
from eksim.versions import CniRules

NEVER = float("-inf")


class NodeIpam:
    """A node's ipamd. Marks (``last_…_s``) are seconds since the start of the run, ``NEVER`` if never set.

    ``cache``: items given back → until when reconcile keeps them out. ``unmanaged``: ids of ENIs left alone;
    ``unmanaged_count``: how many of them the last filtering saw. ``checkpoint``: what the file on the node's disk says
    while no daemon has read it, sandbox key → address; up to v1.11 what the container runtime says of its sandboxes.
    ``gone``: sandboxes deleted while ipamd was down. ``eni_config``: the subnet of the node's
    ENIConfig ("" without one). ``dead_end``: what the pool looked like when its last increase was refused.

    The loop: turn k updates at ``origin_s + k·period + 2.5`` and reconciles 2.5 s later; see :mod:`eksim.cni.plugin`.
    """

    __slots__ = (
        "cache",
        "checkpoint",
        "datastore",
        "dead_end",
        "eni_config",
        "env",
        "gone",
        "instance",
        "last_decrease_s",
        "last_insufficient_s",
        "last_pool_action_s",
        "limits",
        "max_pods",
        "name",
        "origin_s",
        "prefix_mode",
        "process",
        "restarts",
        "rules",
        "serving",
        "settings",
        "side",
        "terminating",
        "timer",
        "turn",
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
        self.restarts = 0
        self.reset()

    def reset(self) -> None:
        """A process that has just begun: nothing is known."""
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
        #: the loop's next place: turn number, and whether its update (False) or its reconcile (True) comes next
        self.turn = 0
        self.side = False
        self.timer: Timer | None = None
        self.process: simpy.Process | None = None

    def __repr__(self) -> str:
        return f"<NodeIpam {self.name}>"

    @property
    def ds(self) -> Datastore:
        """The datastore of a daemon that has one."""
        assert self.datastore is not None, self.name
        return self.datastore
