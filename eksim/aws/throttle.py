"""EC2's request throttling: token buckets per account and Region, one per class of API action.

The account's buckets are shared by all nodes of the cluster (others that use the account are left out). Called by
:mod:`eksim.aws.ec2`, once per request.
"""

from __future__ import annotations

#: action → (bucket, capacity, refill per second). Defaults. Source: EC2 developer guide, "Request throttling" (2026).
#: Assumption: a call that names ids counts as filtered.
BUCKETS: dict[str, tuple[str, float, float]] = {
    "AssignPrivateIpAddresses": ("AssignPrivateIpAddresses", 100, 5),
    "UnassignPrivateIpAddresses": ("UnassignPrivateIpAddresses", 100, 5),
    "CreateNetworkInterface": ("CreateNetworkInterface", 100, 5),
    "DeleteNetworkInterface": ("DeleteNetworkInterface", 100, 5),
    "ModifyNetworkInterfaceAttribute": ("ModifyNetworkInterfaceAttribute", 100, 5),
    "AttachNetworkInterface": ("mutating", 50, 5),
    "DetachNetworkInterface": ("mutating", 50, 5),
    "CreateTags": ("CreateTags", 100, 10),
    "DescribeNetworkInterfaces": ("non-mutating", 100, 20),
    "DescribeInstances": ("non-mutating", 100, 20),
    "DescribeSubnets": ("non-mutating", 100, 20),
    "DescribeInstanceTypes": ("non-mutating", 100, 20),
}


class Throttle:
    """The account's buckets; full at the start."""

    def __init__(self, buckets: dict[str, tuple[str, float, float]] | None = None) -> None:
        self._classes = BUCKETS if buckets is None else buckets
        #: bucket → [tokens, time of the last look]
        self._levels: dict[str, list[float]] = {}

    def refuses(self, api: str, now: float) -> bool:
        """Take a token for one request; True if there is none (``RequestLimitExceeded``)."""
        bucket, capacity, refill = self._classes[api]
        level = self._levels.get(bucket)
        if level is None:
            self._levels[bucket] = [capacity - 1.0, now]
            return False
        tokens = min(capacity, level[0] + (now - level[1]) * refill)
        level[1] = now
        if tokens < 1.0:
            level[0] = tokens
            return True
        level[0] = tokens - 1.0
        return False
