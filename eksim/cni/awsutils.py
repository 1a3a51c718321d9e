"""ipamd's AWS layer: what the daemon asks for, as EC2 requests, metadata reads, retries and waits.

Mimics pkg/awsutils/awsutils.go of the VPC CNI. An error is a ``Refused``: ``code`` EC2's code as far as the real error
still carries it, ``message`` the whole Go text. Leaves out: IPv6, several cards, security groups' content. Generators are
to be ``yield from``-ed inside a process. Called by ipamd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from eksim.aws.ec2 import NOT_FOUND, Ec2, Request, free_device
from eksim.aws.metadata import Attached, attached_enis
from eksim.cni.node import NodeIpam
from eksim.cni.sdk import Sdk, Steps
from eksim.cni.subnets import is_excluded, is_subnet_valid_for_eni_creation
from eksim.engine.clock import Clock
from eksim.errors import Refused
from eksim.state.network import PREFIX, Eni, Subnet

# Constants of awsutils.go, v1.23.1.
MAX_TRIES = 12
TAG_TRIES = 5
FREE_ENI_PAUSE_S = 2.0
LEAK_FIRST_DELAY_S = 300
LEAK_INTERVAL_S = 3600.0
LEAK_MIN_AGE_S = 300.0
DESCRIPTION_PREFIX = "aws-K8S-"
TAG_INSTANCE = "node.k8s.amazonaws.com/instance_id"
TAG_CREATED = "node.k8s.amazonaws.com/createdAt"
TAG_CLUSTER = "cluster.k8s.amazonaws.com/name"
TAG_OWNER = "eks:eni:owner"
TAG_NO_MANAGE = "node.k8s.amazonaws.com/no_manage"

ADDRESS_LIMIT = "PrivateIpAddressLimitExceeded"

NO_INTERFACES = Refused("", "No network interfaces found for ENI")
NO_SECONDARY = Refused("", "No secondary IPs have been assigned to this ENI")
NOT_ALL_SECONDARY = Refused("", "All secondary IPs not found")
ENI_NOT_FOUND = Refused("", "ENI is not found")
UNABLE_TO_DETACH = Refused("", "unable to detach ENI from EC2 instance, giving up")
ATTACHMENT_NOT_FOUND = Refused("", "ENI attachment ID not found")
GIVING_UP = Refused("", "waitForENIAndIPsAttached: giving up trying to retrieve ENIs from metadata service")

_QUOTED_ID = re.compile("'([a-zA-Z0-9-]+)'")


def wrap(prefix: str, error: Refused) -> Refused:
    """pkg/errors.Wrap: the code stays reachable."""
    return Refused(error.code, f"{prefix}: {error.message}")


def build_eni_tags(node: NodeIpam) -> dict[str, str]:
    """The tags an ENI of the node should have: the instance's id, with CLUSTER_NAME the cluster and owner, and
    ADDITIONAL_ENI_TAGS.

    Source: awsutils.go:buildENITags, v1.23.1 and v1.9.0; tagENI, v1.7.5.
    """
    tags = {TAG_INSTANCE: node.instance.id}
    if node.settings.cluster_name:
        tags[TAG_CLUSTER] = node.settings.cluster_name
        if node.rules.owner_tag:
            tags[TAG_OWNER] = "amazon-vpc-cni"
    return {**tags, **node.settings.additional_tags}


def shown_enis(node: NodeIpam, at: float, *, caught_up: bool = False) -> list[Attached]:
    """The interfaces as ipamd reads them in metadata; with custom networking not the first one's prefixes.

    ``caught_up``: metadata is known to show the truth at ``at``.

    Source: awsutils.go:getENIMetadata, v1.23.1 and v1.9.0.
    """
    found = attached_enis(node.instance, at, caught_up=caught_up)
    if not node.settings.custom_networking:
        return found
    primary = node.instance.primary
    return [a._replace(items=[i for i in a.items if i < PREFIX]) if a.eni is primary else a for a in found]


Tap = Callable[..., None]


class AwsUtils:
    """The layer, for all nodes. ``tap(node, name, at_s, **fields)`` hears of each of the daemon's requests."""

    def __init__(
        self,
        clock: Clock,
        ec2: Ec2,
        sdk: Sdk,
        *,
        free_eni_pause_s: float = FREE_ENI_PAUSE_S,
        tap: Tap | None = None,
    ) -> None:
        self.clock = clock
        self.ec2 = ec2
        self.sdk = sdk
        self._free_eni_pause_s = free_eni_pause_s
        self._tap = tap

    # -- metadata -----------------------------------------------------------------------------------------------

    def get_attached_enis(self, node: NodeIpam, *, told: bool = True) -> list[Attached] | Refused:
        """What metadata shows now. Source: awsutils.go:GetAttachedENIs, v1.23.1."""
        now = self.clock.now
        fault = self.ec2.faults.strikes("metadata", node.name, "", now)
        found: list[Attached] | Refused
        found = shown_enis(node, now) if fault is None else self.sdk.text(node, fault.refusal)
        if told and self._tap is not None:
            self._tell(node, "GetAttachedENIs", now, found, n=0 if isinstance(found, Refused) else len(found))
        return found

    def wait_for_eni_and_ips_attached(self, node: NodeIpam, eni_id: str, wanted: int) -> Steps[Attached | Refused]:
        """Look until metadata shows the ENI with the wanted items; some are enough when the tries have run out.

        Source: awsutils.go:waitForENIAndIPsAttached, v1.23.1.
        """
        began = self.clock.now
        seen: Attached | None = None
        looks = 0

        def look() -> Refused | None:
            nonlocal seen, looks
            looks += 1
            enis = self.get_attached_enis(node, told=False)
            if isinstance(enis, Refused):
                return NO_INTERFACES
            for attached in enis:
                if attached.eni.id == eni_id:
                    count = _count(attached.items, node.prefix_mode)
                    if count < 1:
                        return NO_SECONDARY
                    seen = attached
                    return None if count >= wanted else NOT_ALL_SECONDARY
            return ENI_NOT_FOUND

        error = yield from self.sdk.retry("look", node, MAX_TRIES, 0.1, 0.15, lambda: _once(look()))
        result: Attached | Refused = GIVING_UP
        if seen is not None:
            # one address out of several is accepted, one /28 is not
            some = error is NOT_ALL_SECONDARY and _count(seen.items, node.prefix_mode) > int(node.prefix_mode)
            if error is None or some:
                result = seen
        if self._tap is not None and (looks > 1 or isinstance(result, Refused)):
            got = 0 if isinstance(result, Refused) else _count(result.items, node.prefix_mode)
            self._tell(
                node,
                "WaitForENIAndIPsAttached",
                began,
                result,
                eni=eni_id,
                n=wanted,
                looks=looks,
                got=got,
                until=self.clock.now,
            )
        return result

    # -- ENIs ---------------------------------------------------------------------------------------------------

    def describe_all_enis(self, node: NodeIpam) -> Steps[list[Attached] | Refused]:
        """The interfaces that metadata shows and EC2 confirms; those EC2 does not know are dropped.

        Source: awsutils.go:DescribeAllENIs, v1.23.1.
        """
        began = self.clock.now
        result: list[Attached] | Refused
        found = self.get_attached_enis(node, told=False)
        if isinstance(found, Refused):
            result = wrap("DescribeAllENIs: failed to get local ENI metadata", found)
        elif node.settings.imds_only:
            result = found
        else:
            result = yield from self._verify_enis(node, found)
        if self._tap is not None:
            self._tell(node, "DescribeAllENIs", began, result, n=0 if isinstance(result, Refused) else len(result))
        return result

    def _verify_enis(self, node: NodeIpam, found: list[Attached]) -> Steps[list[Attached] | Refused]:
        error: Refused | None = None
        for tries in range(MAX_TRIES):
            if not found:
                break
            answer = yield from self.sdk.request(
                node, self.ec2.describe_network_interfaces, [attached.eni.id for attached in found]
            )
            if not isinstance(answer, Refused):
                return found
            error = answer
            if answer.code == NOT_FOUND:
                match = _QUOTED_ID.search(answer.message)
                unknown = match[1] if match else ""
                found = [attached for attached in found if attached.eni.id != unknown]
                continue
            if tries:
                yield self.clock.sleep(tries * 0.01)
        return error if error is not None else found

    def alloc_eni(self, node: NodeIpam, wanted: int, eni_config_subnet: str = "") -> Steps[str | Refused]:
        """Create and attach an ENI; its id. "" is the real code's answer after a failed Modify: no ENI and no error.

        Source: awsutils.go:AllocENI, v1.23.1 (``err`` is shadowed there).
        """
        began = self.clock.now
        limit = node.instance.ipv4_per_eni - 1
        result = yield from self._alloc_eni(node, min(wanted, limit), eni_config_subnet)
        if self._tap is not None:
            error = Refused("", "no ENI and no error") if result == "" else result
            self._tell(node, "AllocENI", began, error, eni=result if isinstance(result, str) else "", n=wanted)
        return result

    def _alloc_eni(self, node: NodeIpam, wanted: int, eni_config_subnet: str) -> Steps[str | Refused]:
        eni = yield from self._create_eni(node, wanted, eni_config_subnet)
        if isinstance(eni, Refused):
            return wrap("AllocENI: failed to create ENI", eni)
        error = yield from self._attach_eni(node, eni.id)
        if error is not None:
            yield from self._delete_eni(node, eni.id)
            return wrap("AllocENI: error attaching ENI", error)
        if not node.rules.tags_at_creation:
            yield from self._retry_tagging(node, eni.id, build_eni_tags(node))  # its failure is ignored
        error = yield from self.sdk.request(node, self.ec2.modify_network_interface_attribute, eni.id)
        if error is not None:
            error = yield from self._free_eni(node, eni.id)
            if error is not None:
                return wrap("AllocENI: unable to change the ENI's attribute", error)
            return ""
        return eni.id

    def _attach_eni(self, node: NodeIpam, eni_id: str) -> Steps[Refused | None]:
        devices = yield from self.sdk.request(node, self.ec2.describe_instances)
        if isinstance(devices, Refused):
            return wrap(
                "attachENI: failed to get a free device number: find a free device number for ENI: "
                "not able to retrieve instance data from EC2 control plane",
                devices,
            )
        attached = yield from self.sdk.request(node, self.ec2.attach_network_interface, eni_id, free_device(devices))
        return wrap("attachENI: failed to attach ENI", attached) if isinstance(attached, Refused) else None

    def _create_eni(self, node: NodeIpam, wanted: int, eni_config_subnet: str) -> Steps[Eni | Refused]:
        """The subnet first, then the ENI. Source: awsutils.go:createENI, v1.23.1."""
        own = node.instance.subnet
        cluster = node.settings.cluster_name
        by_value = node.rules.subnet_exclusion
        if eni_config_subnet:
            subnets = [self.ec2.network.subnets[eni_config_subnet]]
        elif node.settings.subnet_discovery:
            answer = yield from self._vpc_subnets(node)
            if isinstance(answer, Refused):
                if by_value:
                    excluded = yield from self.is_subnet_excluded(node, own)
                    if isinstance(excluded, Refused):
                        text = f"Failed to check if primary subnet is excluded: {excluded.message}."
                        return Refused("", text + " Quit ENI creation attempt.")
                    if excluded:
                        return Refused(
                            "",
                            "primary subnet is tagged with kubernetes.io/role/cni=0 - "
                            "no valid subnets available for ENI creation",
                        )
                subnets = [own]
            else:
                subnets = [
                    s for s in answer if is_subnet_valid_for_eni_creation(s, s is own, cluster, node.rules)
                ]
                if not subnets:
                    return Refused(
                        "",
                        "no valid subnets available for ENI creation - all subnets are either not tagged or tagged "
                        "with kubernetes.io/role/cni=0",
                    )
        else:
            if by_value:
                excluded = yield from self.is_subnet_excluded(node, own)
                if excluded is True:
                    return Refused(
                        "",
                        "primary subnet is tagged with kubernetes.io/role/cni=0 and subnet discovery is disabled - "
                        "no valid subnets available for ENI creation",
                    )
            subnets = [own]
        n = wanted if node.rules.eni_created_with_addresses else 0
        addresses, prefixes = (0, n) if node.prefix_mode else (n, 0)
        eni: Eni | Refused = NO_INTERFACES
        for subnet in subnets:
            tags = {TAG_CREATED: str(self.clock.now)}
            if node.rules.tags_at_creation:
                tags |= build_eni_tags(node)
            eni = yield from self.sdk.request(
                node,
                self.ec2.create_network_interface,
                subnet,
                tags,
                DESCRIPTION_PREFIX + node.instance.id,
                addresses,
                prefixes,
            )
            if not isinstance(eni, Refused):
                return eni
        assert isinstance(eni, Refused)
        return wrap("failed to create network interface", eni)

    def _vpc_subnets(self, node: NodeIpam) -> Steps[list[Subnet] | Refused]:
        """The zone's subnets, most free addresses first. Source: awsutils.go:GetVpcSubnets, v1.23.1."""
        answer = yield from self.sdk.request(node, self.ec2.describe_subnets)
        if isinstance(answer, Refused):
            return wrap("AllocENI: unable to describe subnets", answer)
        return sorted(answer, key=_by_free)

    def is_subnet_excluded(self, node: NodeIpam, subnet: Subnet) -> Steps[bool | Refused]:
        """Ask EC2 for the subnet's tags. Source: awsutils.go:IsSubnetExcluded, v1.23.1."""
        answer = yield from self._vpc_subnets(node)
        if isinstance(answer, Refused):
            return Refused("", f"failed to get VPC subnets: {answer.message}")  # %v: the code is lost
        return subnet in answer and is_excluded(subnet, node.settings.cluster_name, node.rules)

    def free_eni(self, node: NodeIpam, eni_id: str) -> Steps[Refused | None]:
        """Detach and delete. Source: awsutils.go:FreeENI, v1.23.1."""
        began = self.clock.now
        eni = self.ec2.network.enis.get(eni_id)
        device = -1 if eni is None or eni.instance is None else eni.device
        error = yield from self._free_eni(node, eni_id)
        if self._tap is not None:
            self._tell(node, "FreeENI", began, error, device=device)
        return error

    def _free_eni(self, node: NodeIpam, eni_id: str) -> Steps[Refused | None]:
        answer = yield from self.sdk.request(node, self.ec2.describe_network_interfaces, [eni_id])
        if isinstance(answer, Refused):
            if answer.code == NOT_FOUND:
                return None
            if not node.rules.several_cards:
                return wrap(
                    "FreeENI: failed to retrieve ENI's attachment id: failed to describe network interface", answer
                )
            return ATTACHMENT_NOT_FOUND
        error = yield from self.sdk.retry(
            "detach",
            node,
            MAX_TRIES,
            0.2,
            0.15,
            lambda: self.sdk.request(node, self.ec2.detach_network_interface, eni_id),
        )
        if error is not None:
            return UNABLE_TO_DETACH
        if self._free_eni_pause_s:
            yield self.clock.sleep(self._free_eni_pause_s)
        error = yield from self._delete_eni(node, eni_id)
        return wrap(f"FreeENI: failed to free ENI: {eni_id}", error) if error is not None else None

    def _delete_eni(self, node: NodeIpam, eni_id: str) -> Steps[Refused | None]:
        """Delete the ENI in up to twelve tries; one that EC2 no longer knows counts as deleted.

        Source: awsutils.go:deleteENI, v1.23.1.
        """

        def delete() -> Steps[Refused | None]:
            error = yield from self.sdk.request(node, self.ec2.delete_network_interface, eni_id)
            if error is None or error.code == NOT_FOUND:
                return None
            return wrap("unable to delete ENI", error)

        error = yield from self.sdk.retry("delete", node, MAX_TRIES, 0.5, 0.15, delete)
        return error

    def tag_eni(self, node: NodeIpam, eni: Eni) -> Steps[Refused | None]:
        """Add the tags that the ENI lacks. Source: awsutils.go:TagENI, v1.23.1."""
        missing = {k: v for k, v in build_eni_tags(node).items() if eni.tags.get(k) != v}
        if not missing:
            return None
        error = yield from self._retry_tagging(node, eni.id, missing)
        return error

    def _retry_tagging(self, node: NodeIpam, eni_id: str, tags: dict[str, str]) -> Steps[Refused | None]:
        error = yield from self.sdk.retry(
            "tag", node, TAG_TRIES, 0.5, 0.3, lambda: self.sdk.request(node, self.ec2.create_tags, eni_id, tags)
        )
        return error

    def apply_security_groups(self, node: NodeIpam, eni_ids: Sequence[str]) -> Steps[Refused | None]:
        """One ModifyNetworkInterfaceAttribute per ENI; only v1.7 stops at an error.

        Source: awsutils.go:RefreshSGIDs, applySecurityGroupsToENIs, v1.23.1; refreshSGIDs, v1.7.5.
        """
        for eni_id in sorted(eni_ids):
            error = yield from self.sdk.request(node, self.ec2.modify_network_interface_attribute, eni_id)
            if error is not None and node.rules.security_group_refresh == "first":
                return wrap("refreshSGIDs: unable to update the ENI's SG", error)
        return None

    def clean_up_leaked_enis(self, node: NodeIpam) -> Steps[None]:
        """One sweep: delete ENIs of the CNI's making that are attached to nothing and older than 5 minutes.

        Source: awsutils.go:cleanUpLeakedENIsInternal, getLeakedENIs, v1.23.1.
        """
        cluster = node.settings.cluster_name
        answer = yield from self.sdk.request(node, self.ec2.describe_available_interfaces, TAG_INSTANCE)
        if isinstance(answer, Refused):
            return
        now = self.clock.now
        for eni in answer:
            if not eni.description.startswith(DESCRIPTION_PREFIX) or TAG_CREATED not in eni.tags:
                continue
            if cluster and eni.tags.get(TAG_CLUSTER) != cluster and node.rules.tags_at_creation:
                continue
            # createdAt is written in whole seconds
            if now - float(int(float(eni.tags[TAG_CREATED]))) < LEAK_MIN_AGE_S:
                continue
            yield from self._delete_eni(node, eni.id)

    # -- addresses ----------------------------------------------------------------------------------------------

    def alloc_ip_addresses(self, node: NodeIpam, eni_id: str, n: int) -> Steps[list[int] | Refused]:
        """Addresses, or /28s in prefix mode, for an ENI. Source: awsutils.go:AllocIPAddresses, v1.23.1.

        Before v1.12.5 PrivateIpAddressLimitExceeded counted as success here; up to v1.11.3 the caller looks at EC2 anyway.
        """
        began = self.clock.now
        need = min(n, node.instance.ipv4_per_eni - 1)
        if need < 1:
            if self._tap is not None:
                self._tell(node, "AllocIPAddresses", began, [], eni=eni_id, n=n)
            return []
        result = yield from self.sdk.request(
            node, self._assign_prefixes if node.prefix_mode else self.ec2.assign_private_ip_addresses, eni_id, need
        )
        if isinstance(result, Refused):
            if result.code == ADDRESS_LIMIT and not node.rules.assign_limit_verified:
                result = []
            elif node.rules.assign_error_wrapped:
                what = "IP/Prefix" if node.rules.prefix_delegation else "IP"
                result = wrap(f"allocate {what} address: failed to allocate a private {what} address", result)
        if self._tap is not None:
            self._tell(node, "AllocIPAddresses", began, result, eni=eni_id, n=n)
        return result

    def _assign_prefixes(self, caller: Any, eni_id: str, n: int) -> Request[list[int]]:
        return self.ec2.assign_private_ip_addresses(caller, eni_id, n, prefixes=True)

    def get_items_from_ec2(self, node: NodeIpam, eni_id: str, *, prefixes: bool) -> Steps[list[int] | Refused]:
        """What EC2 says is on the ENI, of one kind. Source: awsutils.go:GetIPv4sFromEC2, GetIPv4PrefixesFromEC2."""
        began = self.clock.now
        answer = yield from self.sdk.request(node, self.ec2.describe_network_interfaces, [eni_id])
        result: list[int] | Refused
        if isinstance(answer, Refused):
            not_found = answer.code == NOT_FOUND
            result = ENI_NOT_FOUND if not_found else wrap("failed to describe network interface", answer)
        else:
            result = [item for item in answer[0].items if (item >= PREFIX) == prefixes]
        if self._tap is not None:
            name = "GetIPv4PrefixesFromEC2" if prefixes else "GetIPv4sFromEC2"
            self._tell(node, name, began, result, eni=eni_id, items=() if isinstance(result, Refused) else result)
        return result

    def dealloc_items(self, node: NodeIpam, eni_id: str, items: list[int]) -> Steps[Refused | None]:
        """Give addresses, or /28s, of one kind back. Source: awsutils.go:DeallocIPAddresses, DeallocPrefixAddresses."""
        if not items:
            return None
        began = self.clock.now
        prefixes = items[0] >= PREFIX
        error = yield from self.sdk.request(node, self.ec2.unassign_private_ip_addresses, eni_id, items)
        if error is not None:
            what = "prefix: failed to deallocate Prefix" if prefixes else "IP addresses: failed to deallocate private IP"
            error = wrap(f"deallocate {what} addresses", error)
        if self._tap is not None:
            name = "DeallocPrefixAddresses" if prefixes else "DeallocIPAddresses"
            self._tell(node, name, began, error, eni=eni_id, items=sorted(items), n=len(items))
        return error

    # -- inside -------------------------------------------------------------------------------------------------

    def _tell(self, node: NodeIpam, name: str, at_s: float, result: object, *, eni: str = "", **fields: Any) -> None:
        assert self._tap is not None
        if eni and "device" not in fields:
            row = self.ec2.network.enis.get(eni)
            fields["device"] = -1 if row is None or row.instance is None else row.device
            if name == "AllocENI" and row is not None:
                fields["items"] = list(row.items)
        if name == "AllocIPAddresses" and isinstance(result, list):
            fields["items"] = result
        self._tap(node, name, at_s, result if isinstance(result, Refused) else None, **fields)


def _count(items: Sequence[int], prefixes: bool) -> int:
    return sum((item >= PREFIX) == prefixes for item in items)


def _by_free(subnet: Subnet) -> int:
    return -subnet.free


def _once(result: Refused | None) -> Steps[Refused | None]:
    return result
    yield
