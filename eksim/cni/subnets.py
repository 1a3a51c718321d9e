"""Which subnet a new ENI may go to, and which ENIs are not for pods, by the subnets' tags. Pure functions.

Called by :mod:`eksim.cni.awsutils`.
"""

from __future__ import annotations

from eksim.state.network import Subnet

SUBNET_TAG = "kubernetes.io/role/cni"
SUBNET_CLUSTER_TAG = "cni.networking.k8s.aws/cluster/"


def is_subnet_valid_for_eni_creation(subnet: Subnet, is_primary: bool, cluster: str, by_value: bool) -> bool:
    """Whether a new ENI may go to the subnet. ``by_value``: since v1.22.0 the tag's value counts, before its presence.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:isSubnetValidForENICreation, v1.23.1; validTag, v1.18.0.
    """
    if not by_value:
        return is_primary or SUBNET_TAG in subnet.tags
    value = subnet.tags.get(SUBNET_TAG, "")
    if value == "0":
        return False
    if not value:
        return is_primary
    return belongs_to_cluster(subnet, cluster)


def belongs_to_cluster(subnet: Subnet, cluster: str) -> bool:
    """No CLUSTER_NAME, no cluster tag on the subnet, or this cluster's among them.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:ValidSubnetTagsMatchingClusterName, v1.23.1.
    """
    if not cluster:
        return True
    tags = [key for key in subnet.tags if key.startswith(SUBNET_CLUSTER_TAG)]
    return not tags or SUBNET_CLUSTER_TAG + cluster in tags


def is_excluded(subnet: Subnet, cluster: str) -> bool:
    """Whether ENIs in the subnet are not to be used for pods. Source: awsutils.go:IsSubnetExcluded, v1.23.1."""
    value = subnet.tags.get(SUBNET_TAG, "")
    return value == "0" or (value != "" and not belongs_to_cluster(subnet, cluster))
