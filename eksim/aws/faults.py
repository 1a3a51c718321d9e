"""What a scenario breaks in EC2: calls that fail, for whom, from when to when, how many, or at which rate.

Faults of one API stand in a queue: a counted one that has not begun to fail, or has failures left, is served before
those behind it. ``metadata`` as the API: reading the list of interfaces from instance metadata. Called by
:mod:`eksim.aws.ec2` before each call; made by a scenario's steps. What takes ENIs and addresses away behind ipamd's back
is in :mod:`eksim.aws.ec2` (``lose_eni`` and its like).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from eksim.engine.streams import Stream
from eksim.errors import InputError, Refused
from eksim.parts import Ec2Api
from eksim.state.network import NEVER

APIS: tuple[str, ...] = get_args(Ec2Api)

#: EC2's texts. Sources: EC2 API reference, "Error codes"; amazon-vpc-cni-k8s issues #1836, #3105.
MESSAGES = {
    "RequestLimitExceeded": "Request limit exceeded.",
    "InternalError": "An internal error has occurred",
    "ServiceUnavailable": "The service is unavailable. Please try again shortly.",
    "UnauthorizedOperation": "You are not authorized to perform this operation.",
    "InsufficientFreeAddressesInSubnet": "The specified subnet does not have enough free addresses to satisfy the request.",
    "InsufficientCidrBlocks": "The specified subnet does not have enough free cidr blocks to satisfy the request.",
    "PrivateIpAddressLimitExceeded": "Number of private addresses will exceed limit.",
    "AttachmentLimitExceeded": "Interface count exceeds the limit for the instance type",
}


class Fault:
    """One way in which an API fails. ``count`` None: without number; ``after``: so many calls still succeed first.

    ``node`` and ``subnet``: only calls of that node, or about that subnet; "" for all. From ``since_s`` until
    ``until_s``. ``rate``: the share of calls that fail.
    """

    __slots__ = ("after", "api", "code", "count", "message", "node", "rate", "since_s", "subnet", "until_s")

    def __init__(
        self,
        api: str,
        code: str,
        *,
        message: str = "",
        node: str = "",
        subnet: str = "",
        count: int | None = None,
        after: int = 0,
        since_s: float = 0.0,
        until_s: float = NEVER,
        rate: float = 1.0,
    ) -> None:
        if api not in APIS:
            raise InputError(f"no EC2 call is named {api!r}", expected=", ".join(APIS))
        self.api = api
        self.code = code
        self.message = message or MESSAGES.get(code, code)
        self.node = node
        self.subnet = subnet
        self.count = count
        self.after = after
        self.since_s = since_s
        self.until_s = until_s
        self.rate = rate

    @property
    def refusal(self) -> Refused:
        """EC2's answer to a call that it strikes."""
        return Refused(self.code, self.message)

    @property
    def lasting(self) -> bool:
        """Whether it strikes every call until somebody heals it."""
        return self.count is None and self.until_s == NEVER and self.rate >= 1.0

    def touches(self, node: str, now: float) -> bool:
        """Whether it strikes calls of the node, now or later."""
        return (not self.node or self.node == node) and now < self.until_s


class Faults:
    """The faults in force; ``version`` rises with each that is added or taken away."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._by_api: dict[str, list[Fault]] = {}
        self.version = 0
        #: told after each fault added or taken away
        self.on_change: Callable[[], None] | None = None

    def _changed(self) -> None:
        self.version += 1
        if self.on_change is not None:
            self.on_change()

    def add(self, fault: Fault) -> Fault:
        """Break something."""
        self._by_api.setdefault(fault.api, []).append(fault)
        self._changed()
        return fault

    def remove(self, fault: Fault) -> None:
        """Heal it."""
        queue = self._by_api.get(fault.api, [])
        if fault in queue:
            queue.remove(fault)
            self._changed()

    def clear(self, api: str = "") -> None:
        """Heal every fault, or every one of an API."""
        if api:
            self._by_api.pop(api, None)
        else:
            self._by_api.clear()
        self._changed()

    def strikes(self, api: str, node: str, subnet: str, now: float) -> Fault | None:
        """The fault that this call meets, or None; counts the call."""
        queue = self._by_api.get(api)
        if not queue:
            return None
        for fault in queue:
            if (fault.node and fault.node != node) or (fault.subnet and fault.subnet != subnet):
                continue
            if not fault.since_s <= now < fault.until_s:
                continue
            if fault.after > 0:
                fault.after -= 1
                return None
            if fault.rate < 1.0 and self._stream.random() >= fault.rate:
                continue
            if fault.count is not None:
                fault.count -= 1
                if fault.count <= 0:
                    queue.remove(fault)
            return fault
        return None

    def touches_metadata(self, node: str, now: float) -> bool:
        """Whether reading metadata may fail on that node, now or later."""
        return any(fault.touches(node, now) for fault in self._by_api.get("metadata", ()))
