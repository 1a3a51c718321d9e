"""The start of ipamd on a node: what it finds, what it takes over, what it gives back, and its first increase.

Mimics New and nodeInit in pkg/ipamd/ipamd.go of the VPC CNI. Leaves out: host networking, node labels, CNINode. Called by
:mod:`eksim.cni.ipamd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eksim.aws.metadata import Attached
from eksim.cni.awsutils import wrap
from eksim.cni.datastore import Datastore
from eksim.cni.node import NodeIpam
from eksim.cni.pool import Limits, get_max_eni
from eksim.cni.sdk import Steps
from eksim.errors import Refused

if TYPE_CHECKING:
    from eksim.cni.ipamd import Ipamd

# Constants of ipamd.go (maxRetryCheckENI, eniAttachTime, defaultMaxPodsFromKubelet), v1.23.1.
SETUP_TRIES = 6
SETUP_PAUSE_S = 10.0
DEFAULT_MAX_PODS = 110


def node_init(ipamd: Ipamd, node: NodeIpam, running: Steps[None] | None) -> Steps[Refused | None]:
    """A start of the daemon, up to the first increase step; an error ends the process.

    ``running``: the process it is part of, which :meth:`~eksim.cni.node.NodeIpam.reset` would forget.

    Source: ipamd.go:New, nodeInit, v1.23.1 and v1.7.5.
    """
    node.reset()
    node.running = running
    settings, rules = node.settings, node.rules
    node.prefix_mode = settings.prefix_delegation and node.instance.nitro
    node.limits = Limits(
        get_max_eni(node.eni_limit, settings.max_eni), node.instance.ipv4_per_eni - 1
    )
    if rules.security_group_refresh == "first":
        error = yield from _refresh_security_groups_from_metadata(ipamd, node, first=True)
        if error is not None:
            return wrap("ipamd: can not initialize with AWS SDK interface", error)
    sets_groups = settings.provisioning_at_start or rules.security_groups_always
    if sets_groups and rules.security_group_refresh == "before-start":
        error = yield from _refresh_security_groups_from_metadata(ipamd, node, first=False)
        if error is not None:
            return error
    described = yield from ipamd.aws.describe_all_enis(node)
    if isinstance(described, Refused):
        text = "ipamd init: failed to retrieve attached ENIs info"
        return wrap(text, described) if rules.start_error_wrapped else Refused("", text)
    ipamd.set_unmanaged_enis(node, described)
    enis = ipamd.filter_unmanaged_enis(node, described)
    node.datastore = ds = Datastore(node.name, node.prefix_mode, settings.cooldown_s, rules, ipamd.order)
    for attached in ipamd.in_map_order("start-enis", node, enis):
        error = yield from _set_up_at_start(ipamd, node, attached)
        if error is not None:
            node.datastore = None
            return error
    error = _read_backing_store(node)
    if error is not None:
        node.datastore = None
        return error
    yield from _give_back_at_start(ipamd, node)
    if sets_groups and rules.security_group_refresh == "before-growth":
        if rules.security_groups_by_metadata:
            error = yield from _refresh_security_groups_from_metadata(ipamd, node, first=False)
            if error is not None:
                node.datastore = None
                return error
        elif not settings.custom_networking:
            managed = [id for id in ds.enis if node.unmanaged is None or id not in node.unmanaged]
            yield from ipamd.aws.apply_security_groups(node, managed)
    api_node = ipamd.store.nodes.get(node.name)
    node.max_pods = DEFAULT_MAX_PODS if api_node is None else api_node.capacity.get("pods", DEFAULT_MAX_PODS)
    if settings.provisioning_at_start:
        error = yield from _handle_pre_scaling(ipamd, node)
    if error is None and sets_groups and rules.security_group_refresh == "last":
        error = yield from _refresh_security_groups_from_metadata(ipamd, node, first=False)
    if error is not None:
        ipamd.stop(node)
        return error
    ipamd.tell_pool(node)
    return None


def _refresh_security_groups_from_metadata(ipamd: Ipamd, node: NodeIpam, *, first: bool) -> Steps[Refused | None]:
    """Older releases take the ENIs whose security groups they set from metadata; v1.7.5 reads its list twice and first.

    Source: awsutils.go:refreshSGIDs, setPrimaryENI, v1.7.5; RefreshSGIDs, v1.9.0 and v1.18.1.
    """
    if first:
        enis = ipamd.aws.get_attached_enis(node, told=False)
        if isinstance(enis, Refused):
            text = "get instance metadata: failed to find primary ENI: set primary ENI: failed to retrieve interfaces data"
            return wrap(text, enis)
    if node.settings.custom_networking:
        return None
    enis = ipamd.aws.get_attached_enis(node, told=False)
    if isinstance(enis, Refused):
        text = "get attached ENIs: failed to retrieve interfaces data"
        return wrap("DescribeAllENIs: failed to get local ENI metadata", wrap(text, enis) if first else enis)
    ids = [a.eni.id for a in enis if node.unmanaged is None or a.eni.id not in node.unmanaged]
    error = yield from ipamd.aws.apply_security_groups(node, ids)
    return error


def _set_up_at_start(ipamd: Ipamd, node: NodeIpam, attached: Attached) -> Steps[Refused | None]:
    """Tag the ENI, and set it up in up to six tries; only a failure to tag is an error of the start."""
    eni = attached.eni
    if node.rules.tags_at_creation and node.settings.provisioning_at_start and eni.type != "trunk":
        error = yield from ipamd.aws.tag_eni(node, eni)
        if error is not None:
            return wrap(f"ipamd init: failed to tag managed ENI {eni.id}", error)
    tries = 0
    while True:
        tries += 1
        error = yield from ipamd.setup_eni(node, attached)
        if error is None or tries == SETUP_TRIES:
            return None
        yield ipamd.clock.sleep(SETUP_PAUSE_S)


def _read_backing_store(node: NodeIpam) -> Refused | None:
    """Take over what the checkpoint knows; entries whose pod or address is gone are dropped, cool-downs are lost.

    Source: data_store.go:ReadBackingStore, normalizeCheckpointDataByPodVethExistence, v1.23.1. Before v1.12 the
    container runtime's sandboxes are asked, which comes to the same. Two entries with one address end the start.
    """
    for key in node.gone:
        node.checkpoint.pop(key, None)
    node.gone = {}
    for key, address in node.checkpoint.items():
        error = node.ds.restore(key, address)
        if error is not None:
            return error
    if node.rules.checkpoint_file:
        node.checkpoint = {}
    return None


def _give_back_at_start(ipamd: Ipamd, node: NodeIpam) -> Steps[None]:
    """Excluded ENIs give back their unused items of this mode, then all ENIs those of the other mode.

    Source: ipamd.go:checkAndHandleAllENIExclusion, tryUnassignIPsFromENIs, tryUnassignPrefixesFromENIs, v1.23.1.
    """
    ds = node.ds
    if not node.rules.prefix_delegation:
        return
    if any(eni.excluded for eni in ds.enis.values()):
        for eni in ds.walk_enis("start-excluded"):
            if eni.excluded:
                yield from ipamd.try_unassign_unused(node, eni, prefixes=node.prefix_mode)
    if any(ds.unused_of_kind(eni, prefixes=not node.prefix_mode) for eni in ds.enis.values()):
        for eni in ds.walk_enis("start-unassign"):
            yield from ipamd.try_unassign_unused(node, eni, prefixes=not node.prefix_mode)


def _handle_pre_scaling(ipamd: Ipamd, node: NodeIpam) -> Steps[Refused | None]:
    """One increase step; until v1.12 it only fills one ENI, low or not.

    A subnet that is short is no reason to end the start, but for v1.9.0 and before.
    Source: ipamd.go:handlePreScaling, v1.23.1; nodeInit, v1.12.6, v1.9.1 and v1.9.0.
    """
    if node.rules.start_fills_one_eni:
        increased, error = yield from ipamd.try_assign_cidrs(node)
        if error is not None and error.code in node.rules.pausing_codes:
            node.last_insufficient_s = ipamd.clock.now
            return None
        if error is not None:
            return error
        if increased:
            node.last_pool_action_s = ipamd.clock.now
        return None
    if ipamd.is_pool_too_low(node, node.ds.stats()):
        error = yield from ipamd.increase_datastore_pool(node)
        if error is not None:
            return Refused("", "error while trying to increase datastore pool")
        if node.settings.custom_networking and node.ds.stats().total == 0:
            return Refused("", "Failed to attach any ENIs for custom networking")
    return None
