"""What differs between releases, as named switches: the only place where versions are compared.

``KubernetesRules`` and ``CniRules`` are asked by name (``rules.events_use_series``); the tables here say from which
release a switch has which value. Each switch's comment names the release that changed it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eksim.errors import InputError


def parse_version(text: str) -> tuple[int, int, int]:
    """``v1.21.2-eks-0389ca3``, ``1.34`` → (1, 21, 2), (1, 34, 0)."""
    match = re.match(r"^v?(\d+)\.(\d+)(?:\.(\d+))?", str(text))
    if not match:
        raise InputError(f"{text!r} is not a version", expected="a version such as 1.34 or v1.21.2")
    return int(match[1]), int(match[2]), int(match[3] or 0)


@dataclass(frozen=True, slots=True)
class KubernetesRules:
    """Switches of one Kubernetes release."""

    minor: int
    #: kube-scheduler writes events.k8s.io series ("today"); else classic core/v1 events. The lab's 1.21 cluster wrote
    #: classic ones (docs/fidelity.md).
    events_use_series: bool
    #: kubelet with dockershim (up to 1.23 on EKS) instead of containerd.
    dockershim: bool

    @staticmethod
    def of(version: str) -> KubernetesRules:
        """The switches of the release ``version`` (1.21 … today)."""
        _, minor, _ = parse_version(version)
        return KubernetesRules(minor=minor, events_use_series=minor >= 23, dockershim=minor <= 23)


@dataclass(frozen=True, slots=True)
class CniRules:
    """Switches of one release of the VPC CNI."""

    version: tuple[int, int, int]

    @staticmethod
    def of(version: str) -> CniRules:
        """The switches of the release ``version`` (v1.7.5 … v1.23.1)."""
        return CniRules(version=parse_version(version))
