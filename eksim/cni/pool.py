"""ipamd's pool arithmetic: is the pool too low, too high, and how many are short or over. Pure functions.

All of them take the statistics and the targets as values; where the real code reads the datastore a second time, the
caller hands over fresh statistics. Called by :mod:`eksim.cni.ipamd`.
"""

from __future__ import annotations

from dataclasses import dataclass

from eksim.cni.datastore import PoolStats
from eksim.cni.settings import Settings
from eksim.state.network import PREFIX_SIZE
from eksim.versions import CniRules

#: After EC2 said that the subnet is short. Source: ipamd.go (insufficientCidrErrorCooldown), v1.23.1.
INSUFFICIENT_PAUSE_S = 120.0
#: Least time between two decreases. Source: ipamd.go (decreaseIPPoolInterval), v1.23.1.
DECREASE_INTERVAL_S = 30.0
#: Reconcile after so long without pool action. Source: ipamd.go (nodeIPPoolReconcileInterval), v1.23.1.
RECONCILE_INTERVAL_S = 60.0
#: How long what was given back is kept out by reconcile. Source: ipamd.go (ipReconcileCooldown), v1.23.1.
RECONCILE_COOLDOWN_S = 60.0
#: One turn of the loop, half before the update and half before the reconcile check.
#: Source: ipamd.go (ipPoolMonitorInterval), v1.23.1.
MONITOR_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a node's instance and settings allow: ENIs, and slots (items) per ENI."""

    max_enis: int
    slots: int

    def addresses_per_eni(self, prefix_mode: bool) -> int:
        """maxIPsPerENI: 16 per slot with prefixes. Source: ipamd.go:GetIPv4Limit, v1.23.1."""
        return self.slots * PREFIX_SIZE if prefix_mode else self.slots


def div_ceil(x: int, y: int) -> int:
    """Go's integer division towards zero of ``x + y − 1``. Source: data_store.go:DivCeil, v1.23.1."""
    n = x + y - 1
    return n // y if n >= 0 else -(-n // y)


def get_max_eni(instance_limit: int, max_eni: int) -> int:
    """MAX_ENI if it is from 1 to below the instance's limit. Source: ipamd.go:getMaxENI, v1.23.1."""
    return max_eni if 1 <= max_eni < instance_limit else instance_limit


def datastore_target_state(stats: PoolStats, want: Settings, prefix_mode: bool) -> tuple[int, int] | None:
    """(short, over) of the IP targets, in addresses or, in prefix mode, in /28s; None if no target is defined.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:datastoreTargetState, v1.23.1.
    """
    warm, minimum = want.warm_ip_target, want.minimum_ip_target
    if warm == 0 and minimum == 0:
        return None
    total = stats.total
    # max(warm - available, 0, minimum - total) and max(min(max(available - warm, 0), total - minimum), 0), written out:
    # this is asked after every pod
    over = total - stats.assigned - warm
    short = -over if over < 0 else 0
    if minimum - total > short:
        short = minimum - total
    if total - minimum < over:
        over = total - minimum
    if over < 0:
        over = 0
    if prefix_mode:
        over_prefixes = max(min(stats.free_prefixes, stats.prefixes - div_ceil(stats.assigned + warm, PREFIX_SIZE)), 0)
        over_prefixes = max(min(over_prefixes, stats.prefixes - div_ceil(minimum, PREFIX_SIZE)), 0)
        return div_ceil(short, PREFIX_SIZE), over_prefixes
    return short, over


def datastore_prefix_target_state(stats: PoolStats, want: Settings) -> int:
    """How many /28s are short of WARM_PREFIX_TARGET (prefix mode only; 0 counts as defined).

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:datastorePrefixTargetState, v1.23.1.
    """
    return max(want.warm_prefix_target - stats.free_prefixes, 0)


def is_datastore_pool_too_low(
    stats: PoolStats, want: Settings, limits: Limits, max_pods: int, prefix_mode: bool, rules: CniRules
) -> bool:
    """Whether ipamd would add addresses now. It knows nothing of waiting pods, and cooling addresses count as there.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:isDatastorePoolTooLow, v1.23.1.
    """
    if rules.max_pods_stops_growth and stats.total >= max_pods:
        return False
    state = datastore_target_state(stats, want, prefix_mode)
    if state is not None:
        return state[0] > 0
    available = stats.total - stats.assigned
    target, unit = (
        (want.warm_prefix_target, PREFIX_SIZE) if prefix_mode else (want.warm_eni_target, limits.slots)
    )
    return available < unit * target or (target == 0 and available == 0)


def is_datastore_pool_too_high(stats: PoolStats, want: Settings, prefix_mode: bool) -> bool:
    """Whether ipamd would give addresses or /28s back; never in secondary mode without IP targets.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:isDatastorePoolTooHigh, v1.23.1.
    """
    state = datastore_target_state(stats, want, prefix_mode)
    if state is not None:
        return state[1] > 0
    return prefix_mode and stats.free_prefixes > want.warm_prefix_target


def surplus(stats: PoolStats, want: Settings, prefix_mode: bool) -> int:
    """How many items a decrease gives back.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:tryUnassignCidrsFromAll, computeExtraPrefixesOverWarmTarget, v1.23.1.
    """
    state = datastore_target_state(stats, want, prefix_mode)
    if state is not None:
        return state[1]
    return max(stats.free_prefixes - want.warm_prefix_target, 0) if prefix_mode else 0


def has_surplus_for_eni(stats: PoolStats, want: Settings, limits: Limits, prefix_mode: bool) -> bool:
    """Whether a whole ENI's worth is there beyond the warm target (IP targets: always tried).

    In prefix mode an unused ENI is reason enough too, which the caller asks the datastore.
    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:shouldRemoveExtraENIs, v1.23.1.
    """
    if want.ip_targets:
        return True
    target = want.warm_prefix_target if prefix_mode else want.warm_eni_target
    return stats.total - stats.assigned >= (target + 1) * limits.addresses_per_eni(prefix_mode)


def get_prefixes_needed(stats: PoolStats, want: Settings) -> int:
    """/28s to ask for: at least one; IP targets outrank WARM_PREFIX_TARGET.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:getPrefixesNeeded, v1.23.1.
    """
    state = datastore_target_state(stats, want, True)
    return max(1, state[0] if state is not None else datastore_prefix_target_state(stats, want))


def get_items_needed(stats: PoolStats, want: Settings, limits: Limits, prefix_mode: bool) -> int:
    """What an increase asks for on an existing ENI, before the ENI's own room is looked at.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:tryAssignIPs, tryAssignPrefixes, v1.23.1.
    """
    if prefix_mode:
        return get_prefixes_needed(stats, want)
    state = datastore_target_state(stats, want, False)
    return limits.slots if state is None else state[0]


def get_eni_resources_to_allocate(
    stats: PoolStats, want: Settings, limits: Limits, prefix_mode: bool, rules: CniRules
) -> int:
    """What a new ENI is asked to hold; before v1.11.4 not cut to its slots.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:GetENIResourcesToAllocate, v1.23.1.
    """
    needed = get_items_needed(stats, want, limits, prefix_mode)
    return min(needed, limits.slots) if rules.wait_capped else needed


def growth_is_gated(stats: PoolStats, want: Settings, prefix_mode: bool, rules: CniRules) -> bool:
    """Whether an increase returns at once: nothing short of the IP targets, or (v1.9.0 … v1.16.2) of WARM_PREFIX_TARGET.

    Source: amazon-vpc-cni-k8s/pkg/ipamd/ipamd.go:tryAssignCidrs, increaseDatastorePool, v1.9.0.
    """
    state = datastore_target_state(stats, want, prefix_mode)
    if state is not None:
        return state[0] == 0
    return rules.warm_prefix_gates_growth and prefix_mode and datastore_prefix_target_state(stats, want) == 0
