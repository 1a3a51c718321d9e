"""ipamd: one daemon for all nodes, which keeps each node's pool of addresses at its targets.

Reads top-down as pkg/ipamd/ipamd.go of the VPC CNI does: node init, the pool loop, decrease, free an ENI, increase, set
up; the reconcile is in :mod:`eksim.cni.reconcile`, the arithmetic in :mod:`eksim.cni.pool`. Releases differ by the named
switches of ``CniRules``. Whatever takes time is a generator. Leaves out: IPv6, several network cards, routes and rules,
the trunk's own attachment, v1.16.3's loop that grows until the pool is no longer low. Called by
:mod:`eksim.cni.plugin` and the replay of recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eksim.aws.ec2 import Ec2
from eksim.aws.metadata import Attached
from eksim.cni.awsutils import ADDRESS_LIMIT, TAG_INSTANCE, TAG_NO_MANAGE, AwsUtils, wrap
from eksim.cni.datastore import Datastore, PoolStats
from eksim.cni.eni import EPSILON_S, DatastoreEni
from eksim.cni.gomap import MapOrder
from eksim.cni.node import NodeIpam
from eksim.cni.nodeinit import node_init
from eksim.cni.pool import (
    DECREASE_INTERVAL_S,
    INSUFFICIENT_PAUSE_S,
    MONITOR_INTERVAL_S,
    RECONCILE_COOLDOWN_S,
    get_eni_resources_to_allocate,
    get_items_needed,
    growth_is_gated,
    has_surplus_for_eni,
    is_datastore_pool_too_high,
    is_datastore_pool_too_low,
    surplus,
)
from eksim.cni.reconcile import node_ip_pool_reconcile
from eksim.cni.sdk import Steps
from eksim.engine.clock import NETWORK, Clock
from eksim.errors import Refused
from eksim.state.changes import Verb
from eksim.state.network import PREFIX
from eksim.state.store import Store

# Constants of ipamd.go, v1.23.1.
INSUFFICIENT = ("InsufficientCidrBlocks", "InsufficientFreeAddressesInSubnet")
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
#: How long an empty item of an excluded ENI stays. Source: data_store.go:deallocateEmptyCIDR, v1.23.1.
EXCLUDED_DELAY_S = 5.0


class Ipamd:
    """The daemon. ``order`` draws the choices that hang on Go's map order; a replay follows recorded ones."""

    def __init__(self, clock: Clock, store: Store, ec2: Ec2, aws: AwsUtils, order: MapOrder) -> None:
        self.clock = clock
        self.store = store
        self.ec2 = ec2
        self.aws = aws
        self.order = order
        #: told when an excluded ENI's item has left a datastore by itself
        self.on_late_change: Callable[[NodeIpam], None] | None = None

    # -- start and end -----------------------------------------------------------------------------------------

    def node_init(self, node: NodeIpam, running: Steps[None] | None = None) -> Steps[Refused | None]:
        """A start of the daemon; an error ends the process. ``running``: the process that the start is part of."""
        error = yield from node_init(self, node, running)
        return error

    def stop(self, node: NodeIpam) -> None:
        """The process ends; the checkpoint file stays."""
        if node.datastore is not None and node.rules.checkpoint_file:
            node.checkpoint = {key: address for key, (address, _) in node.datastore.by_key.items()}
        node.datastore = None

    # -- the pool loop ------------------------------------------------------------------------------------------

    def turn(self, node: NodeIpam) -> Steps[None]:
        """One turn of the loop as it really runs, the sleeps included.

        Source: ipamd.go:StartNodeIPPoolManager, v1.23.1.
        """
        half = MONITOR_INTERVAL_S / 2
        if node.settings.provisioning:
            yield self.clock.sleep(half)
            yield from self.update_ip_pool_if_required(node)
        yield self.clock.sleep(half)
        yield from self.node_ip_pool_reconcile(node)

    def update_ip_pool_if_required(self, node: NodeIpam) -> Steps[None]:
        """Increase, or else decrease; in both cases perhaps free one ENI.

        Source: ipamd.go:updateIPPoolIfRequired, shouldSkipDataStorePoolDecrease, v1.23.1.
        """
        ds = node.ds
        version = ds.version
        began = self.clock.now
        stats = ds.stats()
        decreased = False
        if self.is_pool_too_low(node, stats):
            yield from self.increase_datastore_pool(node)
        elif (
            is_datastore_pool_too_high(stats, node.settings, node.prefix_mode)
            and began - node.last_decrease_s > DECREASE_INTERVAL_S + EPSILON_S
        ):
            decreased = True
            yield from self._try_unassign_cidrs_from_all(node)
            if node.rules.decrease_marks_at_begin:
                node.last_decrease_s = node.last_pool_action_s = began
        if self.should_remove_extra_enis(node, stats if node.rules.turn_uses_one_look else ds.stats()):
            yield from self._try_free_eni(node)
        if decreased and not node.rules.decrease_marks_at_begin:
            node.last_decrease_s = node.last_pool_action_s = self.clock.now
        if ds.version != version:
            self.tell_pool(node)

    def node_ip_pool_reconcile(self, node: NodeIpam) -> Steps[None]:
        """The reconcile check. Source: ipamd.go:nodeIPPoolReconcile, v1.23.1."""
        ds = node.ds
        version = ds.version
        yield from node_ip_pool_reconcile(self, node)
        if ds.version != version:
            self.tell_pool(node)

    def is_pool_too_low(self, node: NodeIpam, stats: PoolStats) -> bool:
        """Whether the node's pool is below its targets. Source: ipamd.go:isDatastorePoolTooLow, v1.23.1."""
        return is_datastore_pool_too_low(
            stats, node.settings, node.limits, node.max_pods, node.prefix_mode, node.rules
        )

    def should_remove_extra_enis(self, node: NodeIpam, stats: PoolStats) -> bool:
        """Whether to look for an ENI to free: a surplus, or in prefix mode any ENI without pods.

        Source: ipamd.go:shouldRemoveExtraENIs, v1.23.1.
        """
        if has_surplus_for_eni(stats, node.settings, node.limits, node.prefix_mode):
            return True
        return node.prefix_mode and node.ds.freeable_eni_exists()

    # -- decrease -----------------------------------------------------------------------------------------------

    def _try_unassign_cidrs_from_all(self, node: NodeIpam) -> Steps[None]:
        """Give back the surplus, ENIs and items in map order.

        Source: ipamd.go:tryUnassignCidrsFromAll, v1.23.1 and v1.9.0; tryUnassignIPsFromAll, findFreeableIPs, v1.7.5.
        """
        ds, rules = node.ds, node.rules
        over = surplus(ds.stats(), node.settings, node.prefix_mode)
        if over <= 0:
            return
        for eni in ds.walk_enis("unassign-eni"):
            if ds.enis.get(eni.id) is not eni:
                continue
            freeable = ds.freeable_cidrs(eni)
            if not freeable:
                if rules.decrease_ends_at_full_eni:
                    return
                continue
            if rules.decrease_amount == "recomputed":
                over = surplus(ds.stats(), node.settings, node.prefix_mode)
            chosen = ds.walk_cidrs("unassign-cidr", eni, freeable)[: max(over, 0)]
            if not chosen:
                continue
            for item in chosen:
                ds.del_cidr(eni, item)
            yield from self._dealloc_cidrs(node, eni.id, chosen)
            if rules.decrease_amount == "total":
                over -= len(chosen)
                if over <= 0:
                    return

    def _dealloc_cidrs(self, node: NodeIpam, eni_id: str, items: Sequence[int]) -> Steps[None]:
        """Keep the items out of reconcile for a while, and tell EC2, /28s first. Errors are only logged.

        Source: ipamd.go:DeallocCidrs, v1.23.1.
        """
        after = node.rules.reconcile_cache_after_call
        if not after:
            self._keep_from_reconcile(node, items)
        yield from self.aws.dealloc_items(node, eni_id, [item for item in items if item >= PREFIX])
        yield from self.aws.dealloc_items(node, eni_id, [item for item in items if item < PREFIX])
        if after:
            self._keep_from_reconcile(node, items)

    def _keep_from_reconcile(self, node: NodeIpam, items: Sequence[int]) -> None:
        if node.cache is None:
            node.cache = {}
        expiry = self.clock.now + RECONCILE_COOLDOWN_S
        for item in items:
            node.cache[item] = expiry

    def try_unassign_unused(self, node: NodeIpam, eni: DatastoreEni, *, prefixes: bool) -> Steps[None]:
        """Give back all items of one kind without a pod; reconcile may bring them back at once.

        Source: ipamd.go:tryUnassignIPFromENI, tryUnassignPrefixFromENI, v1.23.1.
        """
        items = node.ds.walk_cidrs("unassign-unused", eni, node.ds.unused_of_kind(eni, prefixes=prefixes))
        for item in items:
            node.ds.del_cidr(eni, item)
        yield from self.aws.dealloc_items(node, eni.id, items)

    # -- ENIs come and go ---------------------------------------------------------------------------------------

    def _try_free_eni(self, node: NodeIpam) -> Steps[None]:
        """Free one ENI that may go; it leaves the datastore first. Source: ipamd.go:tryFreeENI, v1.23.1."""
        if node.terminating or self.is_growth_forbidden(node):
            return
        eni = self.deletable_eni(node)
        if eni is None:
            return
        node.ds.remove_unused_eni(eni)
        yield from self.aws.free_eni(node, eni.id)

    def deletable_eni(self, node: NodeIpam) -> DatastoreEni | None:
        """The ENI that would be freed now."""
        want = node.settings
        return node.ds.deletable_eni(
            self.clock.now, want.warm_ip_target, want.minimum_ip_target, want.warm_prefix_target
        )

    def is_growth_forbidden(self, node: NodeIpam) -> bool:
        """A cordoned node, unless AWS_MANAGE_ENIS_NON_SCHEDULABLE. Source: ipamd.go:isNodeNonSchedulable, v1.23.1."""
        return not node.settings.manage_on_cordoned and self.is_node_non_schedulable(node)

    def is_node_non_schedulable(self, node: NodeIpam) -> bool:
        """The taint that a cordon sets."""
        api_node = self.store.nodes.get(node.name)
        if api_node is None or not api_node.taints:
            return False
        return any(taint.key == UNSCHEDULABLE and taint.effect == "NoSchedule" for taint in api_node.taints)

    def is_paused(self, node: NodeIpam) -> bool:
        """Up to and including 120 s after EC2 said that the subnet is short, nothing grows.

        Source: ipamd.go:inInsufficientCidrCoolingPeriod, v1.23.1.
        """
        return self.clock.now - node.last_insufficient_s <= INSUFFICIENT_PAUSE_S + EPSILON_S

    def has_room_for_eni(self, node: NodeIpam) -> bool:
        """Fewer ENIs than the limit less unmanaged ones and a slot kept for a trunk; excluded ones count on both sides.

        Source: ipamd.go:hasRoomForEni, v1.23.1.
        """
        trunk = 0
        if node.settings.pod_eni and not node.ds.has_trunk():
            trunk = 1 if node.instance.trunking or not node.rules.trunk_slot_by_type else 0
        excluded = sum(eni.excluded for eni in node.ds.enis.values())
        return len(node.ds.enis) - excluded < node.limits.max_enis - node.unmanaged_count - trunk - excluded

    def increase_datastore_pool(self, node: NodeIpam) -> Steps[Refused | None]:
        """One step: items for an existing ENI, or else one new ENI.

        Source: ipamd.go:increaseDatastorePool, v1.23.1, v1.13.0, v1.9.0; increaseIPPool, v1.7.5.
        """
        rules = node.rules
        if node.terminating or self.is_growth_forbidden(node) or self.is_paused(node):
            return None
        if rules.warm_prefix_gates_growth and growth_is_gated(
            node.ds.stats(), node.settings, node.prefix_mode, rules
        ):
            return None  # nor is an ENI tried
        seen = self._surroundings(node)
        passing = node.instance.passing_refusals
        increased, error = yield from self.try_assign_cidrs(node)
        if error is not None:
            if error.code in rules.pausing_codes:
                node.last_insufficient_s = self.clock.now
                self._note_dead_end(node, seen, passing)
                return None
            if not rules.failed_assign_tries_eni:
                self._note_dead_end(node, seen, passing)
                return error
        if increased:
            node.last_pool_action_s = self.clock.now
        elif self.has_room_for_eni(node):
            error = yield from self._try_allocate_eni(node)
            if error is None:
                node.last_pool_action_s = self.clock.now
            else:
                self._note_dead_end(node, seen, passing)
        else:
            self._note_dead_end(node, seen, passing)
        return None

    @staticmethod
    def _note_dead_end(node: NodeIpam, seen: tuple[object, ...], passing: int) -> None:
        """Remember what was refused, unless a refusal passes by itself (throttling, a fault with an end)."""
        node.dead_end = seen if node.instance.passing_refusals == passing else None

    def _surroundings(self, node: NodeIpam) -> tuple[object, ...]:
        """What an increase depends on; if it is the same as at a refusal, trying again cannot help."""
        subnet = node.instance.subnet
        return (
            node.ds.version,
            self.ec2.faults.version,
            tuple(
                (s.free, s.free_blocks)
                for s in self.ec2.network.subnets.values()
                if s.vpc == subnet.vpc and s.zone == subnet.zone
            ),
        )

    def is_at_dead_end(self, node: NodeIpam) -> bool:
        """The last increase was refused by what has not changed since."""
        return node.dead_end is not None and node.dead_end == self._surroundings(node)

    def _try_allocate_eni(self, node: NodeIpam) -> Steps[Refused | None]:
        """Create, attach, wait for metadata, set up. Source: ipamd.go:tryAllocateENI, v1.23.1, v1.9.0 and v1.7.5."""
        rules = node.rules
        if node.settings.custom_networking and not node.eni_config:
            return Refused("", "eniconfig: eniconfig is not available")
        subnet = node.eni_config if node.settings.custom_networking else ""
        with_addresses = rules.eni_created_with_addresses
        wanted = self._resources_to_allocate(node)
        if with_addresses and wanted <= 0:
            return None
        eni_id = yield from self.aws.alloc_eni(node, wanted, subnet)
        if isinstance(eni_id, Refused):
            if with_addresses and eni_id.code in rules.pausing_codes:
                node.last_insufficient_s = self.clock.now
            return eni_id
        if not with_addresses:
            wanted = self._resources_to_allocate(node)
            assigned = yield from self.aws.alloc_ip_addresses(node, eni_id, wanted)
            if isinstance(assigned, Refused) and assigned.code in rules.pausing_codes:
                node.last_insufficient_s = self.clock.now
                return assigned
        attached = yield from self.aws.wait_for_eni_and_ips_attached(node, eni_id, wanted)
        if isinstance(attached, Refused):
            return attached
        error = yield from self.setup_eni(node, attached)
        return error

    def _resources_to_allocate(self, node: NodeIpam) -> int:
        return get_eni_resources_to_allocate(
            node.ds.stats(), node.settings, node.limits, node.prefix_mode, node.rules
        )

    def try_assign_cidrs(self, node: NodeIpam) -> Steps[tuple[bool, Refused | None]]:
        """Items for an ENI that has room: whether the pool grew, and an error.

        Source: ipamd.go:tryAssignIPs, tryAssignPrefixes, v1.23.1, v1.18.2, v1.11.4, v1.9.0 and v1.7.5.
        """
        ds, rules = node.ds, node.rules
        stats = ds.stats()
        if growth_is_gated(stats, node.settings, node.prefix_mode, rules):
            return False, None
        slots = node.limits.slots
        want = get_items_needed(stats, node.settings, node.limits, node.prefix_mode) if rules.assigns_to_target else slots
        candidates = ds.allocatable_enis(slots, node.settings.custom_networking)
        for eni in candidates if rules.tries_every_eni else candidates[:1]:
            answer = yield from self.aws.alloc_ip_addresses(node, eni.id, min(slots - eni.cidrs.count, want))
            if isinstance(answer, Refused) and answer.code != ADDRESS_LIMIT:
                answer = yield from self.aws.alloc_ip_addresses(node, eni.id, 1)
                if isinstance(answer, Refused) and answer.code != ADDRESS_LIMIT:
                    if rules.tries_every_eni and node.settings.subnet_discovery and answer.code in INSUFFICIENT:
                        continue
                    what = "IPv4 prefix" if node.prefix_mode else "IP addresses"
                    # the real code words the error twice, but for one format that forgets it
                    twice = f": {answer.message}" if node.prefix_mode or rules.assign_error_twice else " "
                    return False, wrap(f"failed to allocate one {what} on ENI {eni.id}, err{twice}", answer)
            if isinstance(answer, Refused) or not rules.assign_answer_believed:
                answer = yield from self.aws.get_items_from_ec2(node, eni.id, prefixes=node.prefix_mode)
                if isinstance(answer, Refused):
                    text = "failed to get ENI IP addresses during IP allocation"
                    if node.prefix_mode and not rules.assign_answer_believed:
                        text = "failed to get ENI Prefix addresses during IPv4 Prefix allocation"
                    return True, wrap(text, answer)
            if ds.enis.get(eni.id) is eni:
                for item in answer:
                    ds.add_cidr(eni, item)
            return True, None
        return False, None

    def setup_eni(self, node: NodeIpam, attached: Attached) -> Steps[Refused | None]:
        """The ENI enters the datastore, its subnet's tags are asked, then its items enter.

        What kind of interface it is only EC2 tells.
        Source: ipamd.go:setupENI, excludedENIBasedOnSubnetTags, v1.23.1.
        """
        eni, ds = attached.eni, node.ds
        row = ds.add_eni(
            eni.id,
            attached.device,
            eni.subnet.id,
            self.clock.now,
            primary=eni is node.instance.primary,
            trunk=eni.type == "trunk" and not node.settings.imds_only,
            efa=eni.type == "efa" and not node.settings.imds_only,
        )
        if node.settings.subnet_discovery and node.rules.subnet_exclusion:
            excluded = yield from self.aws.is_subnet_excluded(node, eni.subnet)
            if isinstance(excluded, Refused):
                return Refused("", f"checking to excluded configured subnet, error: {excluded.message}")
            if excluded:
                row.excluded = True
        if ds.enis.get(eni.id) is row:
            for item in attached.items:
                if item < PREFIX or node.rules.prefix_delegation:
                    ds.add_cidr(row, item)
        return None

    # -- ENIs that are left alone -------------------------------------------------------------------------------

    def set_unmanaged_enis(self, node: NodeIpam, described: Sequence[Attached]) -> None:
        """By their tags; an answer without any tag at all leaves the set as it was, as does metadata alone.

        Source: ipamd.go:setUnmanagedENIs, v1.23.1 and v1.9.0; awsutils.go:DescribeAllENIs, v1.23.1.
        """
        rules = node.rules
        if node.settings.imds_only:
            return
        if not any(a.eni.tags for a in described) if not rules.tags_at_creation else not described:
            return
        unmanaged: dict[str, None] = {}
        for attached in described:
            eni = attached.eni
            if eni is node.instance.primary:
                continue
            no_manage = eni.tags.get(TAG_NO_MANAGE)
            if no_manage is not None:
                alone = no_manage == "true"
            elif eni.tags.get(TAG_INSTANCE) == node.instance.id:
                alone = False
            else:
                alone = rules.manage_untagged and not node.settings.manage_untagged
            if alone:
                unmanaged[eni.id] = None
        node.unmanaged = unmanaged or None

    def filter_unmanaged_enis(self, node: NodeIpam, enis: Sequence[Attached]) -> list[Attached]:
        """Those that ipamd manages; how many are left alone is remembered (it lowers the room for ENIs).

        Where counts add up they stop mattering at the limit of ENIs, and are kept from there.
        Source: ipamd.go:filterUnmanagedENIs, v1.23.1 and v1.22.4. EFA-only interfaces are skipped and counted as
        unmanaged.
        """
        unmanaged = node.unmanaged or {}
        kept = [a for a in enis if a.eni.id not in unmanaged and a.eni.type != "efa-only"]
        alone = len(enis) - len(kept)
        node.unmanaged_count = (
            min(node.unmanaged_count + alone, node.limits.max_enis) if node.rules.unmanaged_adds_up else alone
        )
        return kept

    # -- pods ---------------------------------------------------------------------------------------------------

    def add_network(self, node: NodeIpam, key: str) -> tuple[int, DatastoreEni] | None:
        """ADD: an address for the sandbox, or None; never waits. Source: rpc_handler.go:AddNetwork, v1.23.1."""
        held = node.ds.assign(key, self.clock.now)
        if held is not None and not node.rules.checkpoint_file:
            node.checkpoint[key] = held[0]
        return held

    def release(self, node: NodeIpam, key: str) -> tuple[int, DatastoreEni] | None:
        """DEL's first part: the address cools from now on; None for an unknown sandbox."""
        if not node.rules.checkpoint_file:
            node.checkpoint.pop(key, None)
        return node.ds.unassign(key, self.clock.now)

    def del_network(self, node: NodeIpam, address: int, eni: DatastoreEni) -> Steps[None]:
        """What a DEL entails beyond the release: leftovers of the other mode go back to EC2 at once.

        Source: rpc_handler.go:DelNetwork, v1.23.1 and v1.9.0; data_store.go:UnassignPodIPAddress, v1.23.1.
        """
        ds = node.ds
        if eni.excluded and ds.is_item_unused(eni, address):
            # before what the loop began later and that ends at the same moment
            delay = EXCLUDED_DELAY_S - EPSILON_S
            self.clock.call_after(delay, NETWORK, self._deallocate_empty_cidr, node, ds, eni, address)
        if not node.rules.prefix_delegation:
            return
        secondary = address in eni.cidrs
        if node.prefix_mode and secondary and node.rules.del_returns_leftover_addresses:
            yield from self.try_unassign_unused(node, eni, prefixes=False)
        elif not node.prefix_mode and not secondary:
            yield from self.try_unassign_unused(node, eni, prefixes=True)

    def _deallocate_empty_cidr(self, node: NodeIpam, ds: Datastore, eni: DatastoreEni, address: int) -> None:
        if node.datastore is ds and ds.deallocate_empty_cidr(eni, ds.item_of(address, eni)):
            self.tell_pool(node)
            if self.on_late_change is not None:
                self.on_late_change(node)

    # -- inside -------------------------------------------------------------------------------------------------

    def in_map_order(self, what: str, node: NodeIpam, enis: Sequence[Attached]) -> list[Attached]:
        """ENIs in the order of a walk over the map that DescribeAllENIs makes of them."""
        return [enis[i] for i in self.order.walk_enis(what, enis, node.name)] if len(enis) > 1 else list(enis)

    def tell_pool(self, node: NodeIpam) -> None:
        """The pool has changed."""
        self.store.emit(Verb.POOL_CHANGED, node.name, node.ds.stats())
