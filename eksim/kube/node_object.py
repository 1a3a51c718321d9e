"""The Node object with which a managed node registers: EKS's labels, its capacity, and facts that views show.

A pure function; ``cluster.py`` calls it. Leaves out Bottlerocket and Windows.
"""

from __future__ import annotations

from collections.abc import Mapping

from eksim.catalog.limits import max_pods as published_max_pods
from eksim.catalog.types import InstanceType
from eksim.kube.capacity import node_resources
from eksim.state.objects import Node, Taint
from eksim.versions import KubernetesRules

#: Amazon Linux 2023 nodes from this Kubernetes release on; EKS offers no AL2 AMI from 1.33 on, and made AL2023 the default
#: for new node groups with 1.30. Source: EKS user guide, al2023 and eks-ami-deprecation-faqs.
AL2023_SINCE = 30
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}


def runs_al2023(kubernetes_version: str) -> bool:
    """Whether nodes of that release run Amazon Linux 2023 here."""
    return KubernetesRules.of(kubernetes_version).minor >= AL2023_SINCE


def eks_node(
    name: str,
    instance: InstanceType,
    node_group: str,
    identity: str,
    uid: str,
    *,
    region: str,
    zone: str,
    subnet: str,
    ip: str,
    kubernetes_version: str,
    max_pods: int | None = None,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Taint, ...] = (),
) -> Node:
    """The Node of an instance (``identity``: its EC2 id) of a managed node group.

    ``max_pods``: the group's own figure instead of the generated one, which still decides what is reserved for the kubelet.
    Raises InputError if the catalogue lacks the type's vCPUs or memory.
    """
    al2023 = runs_al2023(kubernetes_version)
    generated = published_max_pods(instance).pods
    capacity, allocatable = node_resources(instance, generated if max_pods is None else max_pods, generated, al2023)
    arch = ARCHITECTURES.get(instance.architecture or "", "amd64")
    dockershim = KubernetesRules.of(kubernetes_version).dockershim
    version = kubernetes_version.removeprefix("v")
    return Node(
        name,
        allocatable,
        capacity=capacity,
        labels={
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/instance-type": instance.name,
            "beta.kubernetes.io/os": "linux",
            "eks.amazonaws.com/capacityType": "ON_DEMAND",
            "eks.amazonaws.com/nodegroup": node_group,
            "failure-domain.beta.kubernetes.io/region": region,
            "failure-domain.beta.kubernetes.io/zone": zone,
            "kubernetes.io/arch": arch,
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": instance.name,
            "topology.kubernetes.io/region": region,
            "topology.kubernetes.io/zone": zone,
            **(labels or {}),
        },
        taints=taints,
        uid=uid,
        facts={
            "instance_type": instance.name,
            "instance_id": identity,
            "node_group": node_group,
            "zone": zone,
            "subnet": subnet,
            "ip": ip,
            "kubelet_version": f"v{version}-eks" if version.count(".") > 1 else f"v{version}.0-eks",
            "os_image": "Amazon Linux 2023" if al2023 else "Amazon Linux 2",
            "runtime": "docker://20.10.7" if dockershim else "containerd://2.1.4",
            "provider_id": f"aws:///{zone}/{identity}",
        },
    )
