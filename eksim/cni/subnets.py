"""Which subnet a new ENI may go to, and which ENIs are not for pods, by the subnets' tags. Pure functions.

Called by :mod:`eksim.cni.awsutils`.
"""

from __future__ import annotations

from eksim.state.network import Subnet
from eksim.versions import CniRules

SUBNET_TAG = "kubernetes.io/role/cni"
SUBNET_CLUSTER_TAG = "cni.networking.k8s.aws/cluster/"
#: v1.22.0's
KUBERNETES_CLUSTER_TAG = "kubernetes.io/cluster/"


def is_subnet_valid_for_eni_creation(subnet: Subnet, is_primary: bool, cluster: str, rules: CniRules) -> bool:
    """Whether a new ENI may go to the subnet. Since v1.22.0 the tag's value counts, before its presence.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:isSubnetValidForENICreation, v1.23.1 and v1.22.0; validTag,
    v1.18.0.
    """
    if not rules.subnet_exclusion:
        return is_primary or SUBNET_TAG in subnet.tags
    value = subnet.tags.get(SUBNET_TAG, "")
    if value == "0":
        return False
    if not value and not (is_primary and rules.cluster_tags_of_kubernetes):
        return is_primary
    return belongs_to_cluster(subnet, cluster, rules)


def belongs_to_cluster(subnet: Subnet, cluster: str, rules: CniRules) -> bool:
    """No CLUSTER_NAME, no cluster tag on the subnet, or this cluster's among them.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:ValidSubnetTagsMatchingClusterName, v1.23.1 and v1.22.0.
    """
    prefix = KUBERNETES_CLUSTER_TAG if rules.cluster_tags_of_kubernetes else SUBNET_CLUSTER_TAG
    if not cluster and not rules.cluster_tags_of_kubernetes:
        return True
    tags = [key for key in subnet.tags if key.startswith(prefix)]
    return not tags or prefix + cluster in tags


def is_excluded(subnet: Subnet, cluster: str, rules: CniRules) -> bool:
    """Whether ENIs in the subnet are not to be used for pods.

    Source: amazon-vpc-cni-k8s/pkg/awsutils/awsutils.go:IsSubnetExcluded, v1.23.1 and v1.22.0.
    """
    value = subnet.tags.get(SUBNET_TAG, "")
    counts = value != "" or rules.cluster_tags_of_kubernetes
    return value == "0" or (counts and not belongs_to_cluster(subnet, cluster, rules))
