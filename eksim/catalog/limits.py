"""max-pods: how many pods a node takes, and why.

The rules of the EKS AMI's max-pods calculator and nodeadm as pure functions. What a node finally gets (managed node
groups, kubelet overrides) is decided in ``cluster.py`` from these.
"""

from __future__ import annotations

from dataclasses import dataclass

from eksim.catalog.types import InstanceType
from eksim.versions import parse_version

#: vCPUs above which the recommended cap is 250 instead of 110.
#: Source: amazon-eks-ami/files/max-pods-calculator.sh (MAX_POD_CEILING_FOR_LOW_CPU, _HIGH_CPU), 2021-08 and 2025.
HIGH_CPU_VCPUS = 30
CEILING_LOW_CPU = 110
CEILING_HIGH_CPU = 250

#: The host-network pods aws-node and kube-proxy, which need no address; added whatever runs on the node.
HOST_NETWORK_PODS = 2

#: First CNI release with prefixes. Source: amazon-eks-ami/files/max-pods-calculator.sh, 2021-08.
PREFIX_DELEGATION_SINCE = (1, 9, 0)

#: Usable addresses of a /28.
ADDRESSES_PER_PREFIX = 16


@dataclass(frozen=True, slots=True)
class MaxPods:
    """A max-pods figure and how it comes about; ``notes`` are sentences for a person."""

    pods: int
    enis: int
    addresses_per_eni: int
    formula: str
    notes: tuple[str, ...]


def max_pods(
    instance: InstanceType,
    *,
    prefix_delegation: bool = False,
    custom_networking: bool = False,
    max_eni: int | None = None,
    cni_version: str = "v1.23.1",
    cap: bool = False,
    default_card_only: bool = False,
) -> MaxPods:
    """The pods-per-node figure of the published list and of the EKS AMI's calculator.

    ``max_eni``: the CNI's MAX_ENI (values outside 1 … limit are ignored); ``cap``: the calculator's 110/250 ceiling;
    ``default_card_only``: count only the ENIs of network card 0 even where the published list counts all cards.

    Source: amazon-eks-ami/nodeadm/internal/kubelet/eni_max_pods.go:calculateStandardMaxPods,
    files/max-pods-calculator.sh (2021-08 and 2025); amazon-vpc-cni-k8s/misc/eni-max-pods.txt, v1.23.1.
    """
    notes: list[str] = []
    limit = instance.max_enis if default_card_only else instance.listed_enis
    if instance.max_enis != instance.listed_enis and not default_card_only:
        alone = max_pods(
            instance,
            prefix_delegation=prefix_delegation,
            custom_networking=custom_networking,
            max_eni=max_eni,
            cni_version=cni_version,
            cap=cap,
            default_card_only=True,
        )
        notes.append(
            f"the published list counts the ENIs of all {len(instance.network_cards)} network cards "
            f"({instance.listed_enis}); the default card alone has {instance.max_enis} and would give {alone.pods}"
        )
    enis = limit
    if max_eni is not None:
        if 1 <= max_eni < limit:
            enis = max_eni
            notes.append(f"MAX_ENI={max_eni} lowers {limit} ENIs to {enis}")
        else:
            notes.append(f"MAX_ENI={max_eni} has no effect: the type takes {limit} ENIs")
    if custom_networking:
        enis -= 1
        notes.append("custom networking leaves the primary ENI without pod addresses: one ENI less")
    per_eni = instance.ipv4_per_eni - 1
    factor = 1
    if prefix_delegation:
        if parse_version(cni_version) < PREFIX_DELEGATION_SINCE:
            notes.append(f"CNI {cni_version} has no prefix delegation (since v1.9.0): secondary IPs counted")
        elif not instance.is_nitro:
            what = "bare metal" if instance.bare_metal else (instance.hypervisor or "unknown hypervisor")
            notes.append(
                f"prefix delegation needs the nitro hypervisor, {instance.name} has {what}: secondary IPs counted"
            )
        else:
            factor = ADDRESSES_PER_PREFIX
    pods = max(enis, 0) * per_eni * factor + HOST_NETWORK_PODS
    times = f" × {factor} (a /28 per slot)" if factor > 1 else ""
    formula = (
        f"{enis} ENIs × ({instance.ipv4_per_eni} IPv4 addresses − 1 of the ENI's own){times}"
        f" + {HOST_NETWORK_PODS} host-network pods = {pods}"
    )
    if cap:
        vcpu = instance.need("vcpu")
        ceiling = CEILING_HIGH_CPU if vcpu > HIGH_CPU_VCPUS else CEILING_LOW_CPU
        if pods > ceiling:
            notes.append(f"capped from {pods} to {ceiling}: {vcpu} vCPUs")
            pods = ceiling
    return MaxPods(pods, enis, per_eni * factor, formula, tuple(notes))
