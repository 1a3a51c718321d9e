"""ipamd's reconcile: metadata and EC2 against the datastore, every minute without pool action.

Mimics nodeIPPoolReconcile and what it calls in pkg/ipamd/ipamd.go of the VPC CNI; ``finds_work`` says beforehand whether
a reconcile would do anything, so that idle nodes need none. Called by :mod:`eksim.cni.ipamd`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eksim.aws.metadata import Attached
from eksim.cni.awsutils import shown_enis
from eksim.cni.eni import EPSILON_S, DatastoreEni
from eksim.cni.node import NodeIpam
from eksim.cni.pool import RECONCILE_INTERVAL_S
from eksim.cni.sdk import Steps
from eksim.errors import Refused
from eksim.state.network import PREFIX

if TYPE_CHECKING:
    from eksim.cni.ipamd import Ipamd


def is_due(node: NodeIpam, now: float) -> bool:
    """More than a minute since the last pool action, or a trunk is awaited."""
    if now - node.last_pool_action_s > RECONCILE_INTERVAL_S + EPSILON_S:
        return True
    return node.settings.pod_eni and not node.ds.has_trunk()


def node_ip_pool_reconcile(ipamd: Ipamd, node: NodeIpam) -> Steps[None]:
    """Reconcile if it is due; the mark is set when it ends, not if it aborted (up to v1.10 as of its beginning).

    Source: ipamd.go:nodeIPPoolReconcile, v1.23.1 and v1.9.0.
    """
    began = ipamd.clock.now
    if not is_due(node, began):
        return
    enis = ipamd.aws.get_attached_enis(node)
    if isinstance(enis, Refused):
        return
    ds = node.ds
    attached = ipamd.filter_unmanaged_enis(node, enis)
    current = dict(ds.enis)
    if any(a.eni.id not in current for a in attached):
        described = yield from ipamd.aws.describe_all_enis(node)
        if isinstance(described, Refused):
            return
        ipamd.set_unmanaged_enis(node, described)
        attached = ipamd.in_map_order("reconcile-enis", node, ipamd.filter_unmanaged_enis(node, described))
    for a in attached:
        row = ds.enis.get(a.eni.id)
        if row is not None:
            secondaries = [item for item in row.cidrs if item < PREFIX]
            prefixes = [item for item in row.cidrs if item >= PREFIX]
            yield from _reconcile_items(ipamd, node, row, a, secondaries, prefix=False)
            if node.rules.prefix_delegation:
                yield from _reconcile_items(ipamd, node, row, a, prefixes, prefix=True)
            current.pop(a.eni.id, None)
            continue
        if node.rules.tags_at_creation and node.settings.provisioning_at_start and a.eni.type != "trunk":
            error = yield from ipamd.aws.tag_eni(node, a.eni)
            if error is not None:
                continue
        yield from ipamd.setup_eni(node, a)
    for row in current.values():
        if ds.enis.get(row.id) is row:
            ds.remove_eni(row)
    node.last_pool_action_s = began if node.rules.reconcile_marks_at_begin else ipamd.clock.now


def _reconcile_items(
    ipamd: Ipamd, node: NodeIpam, row: DatastoreEni, attached: Attached, pool: list[int], *, prefix: bool
) -> Steps[None]:
    """One ENI and kind: if metadata differs, EC2 is asked and believed; what is missing enters, what is gone leaves.

    Source: ipamd.go:eniIPPoolReconcile, eniPrefixPoolReconcile, v1.23.1; pkg/utils/cniutils (IPsSimilar).
    """
    seen = [item for item in attached.items if (item >= PREFIX) == prefix]
    trusted = False
    similar = len(seen) == len(pool)
    if similar and node.rules.reconcile_compares_sets:
        known = dict.fromkeys(pool)
        similar = all(item in known for item in seen)
    if not similar:
        answer = yield from ipamd.aws.get_items_from_ec2(node, row.id, prefixes=prefix)
        if isinstance(answer, Refused):
            return
        seen = answer
        trusted = True
    confirmed = yield from _verify_and_add(ipamd, node, row, seen, trusted, prefix)
    ds = node.ds
    for item in pool:
        if item not in confirmed and item in row.cidrs:
            ds.del_cidr(row, item)


def _verify_and_add(
    ipamd: Ipamd, node: NodeIpam, row: DatastoreEni, seen: list[int], trusted: bool, prefix: bool
) -> Steps[dict[int, None]]:
    """Add what is seen unless it was given back within the last minute; older give-backs are verified with EC2.

    Source: ipamd.go:verifyAndAddIPsToDatastore, verifyAndAddPrefixesToDatastore, v1.23.1.
    """
    cache = node.cache
    confirmed: dict[int, None] = {}
    verified: list[int] | None = None
    now = ipamd.clock.now
    for item in seen:
        if cache is not None and item in cache:
            if now - cache[item] < -EPSILON_S:
                continue
            if not trusted:
                if verified is None:
                    answer = yield from ipamd.aws.get_items_from_ec2(node, row.id, prefixes=prefix)
                    now = ipamd.clock.now
                    if isinstance(answer, Refused):
                        confirmed[item] = None
                        continue
                    # Go's nil: an answer without any address is asked for again at the next one
                    verified = answer or (None if prefix else [])
                if item not in (verified or ()):
                    continue
            del cache[item]
            if not cache:
                node.cache = cache = None
        node.ds.add_cidr(row, item)
        confirmed[item] = None
    return confirmed


def finds_work(node: NodeIpam, at: float, *, caught_up: bool = False) -> bool:
    """Whether a reconcile at ``at`` would ask EC2 or change anything but its mark, if nothing happens until then.

    ``caught_up``: metadata shows the truth by then.
    """
    ds = node.ds
    unmanaged = node.unmanaged or {}
    cache = node.cache or {}
    count = 0
    left_alone = 0
    for attached in shown_enis(node, at, caught_up=caught_up):
        eni = attached.eni
        if eni.id in unmanaged or eni.type == "efa-only":
            left_alone += 1
            continue
        row = ds.enis.get(eni.id)
        if row is None:
            return True
        count += 1
        if len(attached.items) != row.cidrs.count:
            return True
        if not set(row.cidrs.slots).issuperset(attached.items) or (cache and any(item in cache for item in attached.items)):
            return True
    if count != len(ds.enis):
        return True
    if node.rules.unmanaged_adds_up:
        return left_alone > 0 and node.unmanaged_count < node.limits.max_enis
    return left_alone != node.unmanaged_count
