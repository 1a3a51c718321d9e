"""Contracts between components: what each is handed of the others. ``cluster.py`` introduces them to each other."""

from __future__ import annotations

from typing import Literal, Protocol

from eksim.errors import Refused
from eksim.state.objects import ApiObject, Node, Pod

#: EC2's actions that ipamd calls, and ``metadata``: reading the list of interfaces from instance metadata.
Ec2Api = Literal[
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "CreateNetworkInterface",
    "CreateTags",
    "DeleteNetworkInterface",
    "DescribeInstances",
    "DescribeInstanceTypes",
    "DescribeNetworkInterfaces",
    "DescribeSubnets",
    "DetachNetworkInterface",
    "ModifyNetworkInterfaceAttribute",
    "UnassignPrivateIpAddresses",
    "metadata",
]


class Cni(Protocol):
    """The CNI plugin as the kubelet's container runtime sees it."""

    def add(self, node: str, namespace: str, pod: str, sandbox_id: str) -> str | Refused:
        """CNI ADD: an IPv4 address for the sandbox, or the plugin's error text as ``Refused.message``. Never waits."""

    def delete(self, node: str, namespace: str, pod: str, sandbox_id: str) -> None:
        """CNI DEL: the address is released and cools. Unknown sandboxes are ignored."""


class EventRecorder(Protocol):
    """Where a component records Events (``kube/events.py`` has the classic and the series recorder)."""

    def event(
        self,
        obj: Pod | Node | ApiObject,
        type: str,
        reason: str,
        message: str,
        *,
        action: str = "",
        related: Pod | None = None,
        field_path: str = "",
    ) -> None:
        """Record one occurrence at the clock's present time. ``type`` is ``Normal`` or ``Warning``."""
