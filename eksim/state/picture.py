"""A moment of the cluster as the judges see it: plain data that the components hand over.

Called by ``invariants``, ``watchdog``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from eksim.state.objects import Pod


@dataclass(slots=True)
class EniPicture:
    """An ENI as EC2 has it: its own address and what was assigned to it; addresses as integers."""

    id: str
    node: str
    device: int
    subnet: str
    own: int
    addresses: list[int]


@dataclass(frozen=True, slots=True)
class SandboxPicture:
    """An address that the CNI plugin has given to a pod sandbox and not yet taken back. ``pod``: namespace/name."""

    node: str
    sandbox: str
    pod: str
    address: int


@dataclass(frozen=True, slots=True)
class WorkerPicture:
    """A pod as its node's kubelet has it; ``stage``: sandbox, containers, running, terminating, ended; ``address``: the
    sandbox's, "" on the host's network and before it has one."""

    node: str
    pod: Pod
    sandbox: str
    address: str
    stage: str


@dataclass(frozen=True, slots=True)
class TypePicture:
    """A node's type as the kubelet's max-pods formula counts it; ``override``: a max-pods that the scenario sets."""

    name: str
    enis: int
    ipv4_per_eni: int
    override: int | None


@dataclass(slots=True)
class Picture:
    """A moment of the cluster: EC2's truth, ipamd's assignments, subnets; what kubelets and scheduler believe.

    ``full``: the second half was filled in too.
    """

    enis: list[EniPicture] = field(default_factory=list)
    #: (node, sandbox, address, ENI id or "" if unknown): ipamd's datastores
    assigned: list[tuple[str, str, int, str]] = field(default_factory=list)
    #: node → (max ENIs, slots per ENI × addresses per slot)
    limits: dict[str, tuple[int, int]] = field(default_factory=dict)
    #: subnet → (size, free, used, reserved)
    subnets: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)

    full: bool = False
    sandboxes: list[SandboxPicture] = field(default_factory=list)
    workers: list[WorkerPicture] = field(default_factory=list)
    #: node → (ENIs, total, assigned, cooling) of ipamd's datastore, where ipamd serves
    pools: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    #: sandboxes that ended while ipamd could not be told (their address stays assigned until it starts again)
    unheard: dict[str, None] = field(default_factory=dict)
    #: (node, address) that others took from the node's ENIs at some time, or that ipamd did not find when it started
    #: (known only with a watchdog): a pod may have them, and ipamd give them out again
    taken: dict[tuple[str, int], None] = field(default_factory=dict)
    types: dict[str, TypePicture] = field(default_factory=dict)
    #: pending pod → (place in the scheduler's queue, attempts, since when)
    places: dict[str, tuple[str, int, float]] = field(default_factory=dict)
    #: node → resource → amount, as the scheduler counts it
    requested: dict[str, Mapping[str, int]] = field(default_factory=dict)
    #: pod → node on which the scheduler assumes it while the binding is under way
    assumed: dict[str, str] = field(default_factory=dict)
    #: node → when room was made there of which no event tells (in releases without hints: a nominated pod went, or the
    #: node changed while it was full);
    #: None: not known, and then pods count only that have waited longer than ``leftover_s``, after which all are retried
    silent: dict[str, float] | None = None
    leftover_s: float = 0.0
    #: names of the schedulers' profiles: whose pods the scheduler looks after
    schedulers: tuple[str, ...] = ("default-scheduler",)
