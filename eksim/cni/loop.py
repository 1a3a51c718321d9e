"""ipamd's loop on every node without polling: a turn is run only where it would find something to do.

The real loop sleeps 2.5 s, updates the pool, sleeps 2.5 s, checks whether to reconcile, and begins anew; its work takes a
millisecond (``WORK_S``, so that what comes round after exactly 30 or 60 s is past its ``<=``). While a turn finds nothing,
its places lie on a grid from ``origin_s``; EC2 calls and waits inside a turn shift the grid. A change (a pod's address, a
cordon, an ENI, a fault) makes the loop look when it has work next, and arms that place of the grid; reconciles that would
find nothing only move a mark, which is reckoned when somebody looks. With ``polling`` every place is visited: the oracle
that the shortcut is tested against. Called by :mod:`eksim.cni.vpc_cni`.
"""

from __future__ import annotations

from eksim.aws.metadata import last_change_s
from eksim.cni.eni import EPSILON_S, MIN_ENI_LIFETIME_S
from eksim.cni.ipamd import Ipamd
from eksim.cni.node import INFINITY, NEVER, NodeIpam
from eksim.cni.pool import (
    DECREASE_INTERVAL_S,
    INSUFFICIENT_PAUSE_S,
    MONITOR_INTERVAL_S,
    RECONCILE_INTERVAL_S,
    growth_is_gated,
    is_datastore_pool_too_high,
)
from eksim.cni.reconcile import finds_work, is_due
from eksim.cni.sdk import Steps
from eksim.engine.clock import NETWORK

#: What one turn's own work takes: an assumption that only keeps exact multiples of 5 s apart.
WORK_S = 0.001
HALF_S = MONITOR_INTERVAL_S / 2


class PoolLoop:
    """The loop of all nodes."""

    def __init__(self, ipamd: Ipamd, *, polling: bool = False, work_s: float = WORK_S) -> None:
        self.ipamd = ipamd
        self.clock = ipamd.clock
        self.polling = polling
        self.work_s = work_s
        self.period_s = MONITOR_INTERVAL_S + work_s
        ipamd.on_late_change = self.look

    # -- the grid -----------------------------------------------------------------------------------------------

    def _period(self, node: NodeIpam) -> float:
        return self.period_s if node.settings.provisioning else HALF_S + self.work_s

    def _place(self, node: NodeIpam, turn: int, reconcile: bool) -> float:
        offset = MONITOR_INTERVAL_S if reconcile and node.settings.provisioning else HALF_S
        return node.origin_s + turn * self._period(node) + offset

    def _turn_after(self, node: NodeIpam, when: float, reconcile: bool) -> int:
        """The first turn whose place lies after ``when``."""
        # self._place and self._period, written out: this is asked after every pod
        origin = node.origin_s
        if node.settings.provisioning:
            period, offset = self.period_s, MONITOR_INTERVAL_S if reconcile else HALF_S
        else:
            period, offset = HALF_S + self.work_s, HALF_S
        turn = int((when - origin) / period) - 1
        if turn < 0:
            turn = 0
        when += EPSILON_S
        while origin + turn * period + offset <= when:
            turn += 1
        return turn

    # -- running ------------------------------------------------------------------------------------------------

    def begin(self, node: NodeIpam) -> None:
        """The daemon has started: the loop begins now."""
        node.origin_s = self.clock.now
        self.look(node)

    def end(self, node: NodeIpam) -> None:
        """The daemon ends: what it was doing is cut short."""
        node.due = None
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        if node.running is not None:
            node.running.close()
            node.running = None

    def look(self, node: NodeIpam) -> None:
        """Something has changed: reconsider both halves."""
        node.due = None
        if node.running is None and node.datastore is not None and node.serving:
            self._catch_up(node, self.clock.now)
            node.reconcile_s = self._next_reconcile(node)
            self.arm(node)

    def arm(self, node: NodeIpam) -> None:
        """Arm the next place with work; enough where only pods' addresses have changed."""
        node.due = None
        if node.running is not None or not node.serving:
            return
        now = self.clock.now
        when, reconcile = node.reconcile_s, True
        if node.settings.provisioning:
            turn = self._turn_after(node, now, False)
            first = node.origin_s + turn * self.period_s + HALF_S
            timer = node.timer
            if timer is not None and timer.when <= first and timer.when <= when and timer.pending:
                return
            if first < when:
                if self.polling:
                    due = 0.0
                else:
                    node.due = self._next_update(node)
                    due = min(node.due)
                if due < when:
                    if due > first:
                        turn = self._turn_after(node, due - 4 * EPSILON_S, False)
                        first = self._place(node, turn, False)
                    if first < when:
                        when, reconcile = first, False
        if node.timer is not None:
            if node.timer.pending and node.timer.when == when:
                return
            node.timer.cancel()
            node.timer = None
        if when < INFINITY:
            node.timer = self.clock.call_at(when, NETWORK, self._visit, node, reconcile)

    def _visit(self, node: NodeIpam, reconcile: bool) -> None:
        node.timer = None
        node.due = None
        now = self.clock.now
        self._catch_up(node, now - EPSILON_S)
        node.running = self._run(node, reconcile, now)
        # most places need no time: only those that do become a process
        try:
            event = next(node.running)
        except StopIteration:
            return
        self.clock.process(_rest(node.running, event))

    def _run(self, node: NodeIpam, reconcile: bool, began: float) -> Steps[None]:
        ipamd = self.ipamd
        if reconcile:
            node.checked_s = began
            yield from ipamd.node_ip_pool_reconcile(node)
            if self.clock.now > began:
                node.origin_s = self.clock.now + self.work_s
        else:
            yield from ipamd.update_ip_pool_if_required(node)
            if self.clock.now > began:
                # the reconcile check comes 2.5 s after the update's end
                node.origin_s = self.clock.now + HALF_S - MONITOR_INTERVAL_S
        node.running = None
        node.reconcile_s = self._next_reconcile(node)
        self.arm(node)

    # -- when is there work? ------------------------------------------------------------------------------------

    def _next_update(self, node: NodeIpam) -> tuple[float, float]:
        """(growth, shrinking): from when on an update would do something of the kind; infinity: not as things are."""
        ipamd, ds, want = self.ipamd, node.ds, node.settings
        now = self.clock.now
        stats = ds.stats()
        grow = shrink = INFINITY
        forbidden = node.terminating or ipamd.is_growth_forbidden(node)
        if ipamd.is_pool_too_low(node, stats):
            if (
                not forbidden
                and not growth_is_gated(stats, want, node.prefix_mode, node.rules)
                and (ds.has_allocatable_eni(node.limits.slots, want.custom_networking) or ipamd.has_room_for_eni(node))
            ):
                grow = max(now, node.last_insufficient_s + INSUFFICIENT_PAUSE_S)
        elif is_datastore_pool_too_high(stats, want, node.prefix_mode):
            shrink = max(now, node.last_decrease_s + DECREASE_INTERVAL_S)
        if not forbidden and ipamd.should_remove_extra_enis(node, stats):
            for eni in ds.deletable_enis(
                now, want.warm_ip_target, want.minimum_ip_target, want.warm_prefix_target, ever=True
            ):
                free = max(now, eni.created_s + MIN_ENI_LIFETIME_S, eni.cool_after_s(ds.cooldown_s))
                shrink = min(shrink, free)
        return grow, shrink

    def _first_due(self, node: NodeIpam, after: float) -> float:
        """The first reconcile place after ``after`` at which the reconcile is due."""
        last = node.last_pool_action_s
        if node.settings.pod_eni and not node.ds.has_trunk():
            last = NEVER
        turn = self._turn_after(node, max(after, last + RECONCILE_INTERVAL_S + EPSILON_S), True)
        return self._place(node, turn, True)

    def _step(self, node: NodeIpam) -> float:
        """Time from one reconcile to the next while nothing else happens."""
        period = self._period(node)
        if node.settings.pod_eni and not node.ds.has_trunk():
            return period
        turns = int(RECONCILE_INTERVAL_S / period)
        while turns * period <= RECONCILE_INTERVAL_S + EPSILON_S:
            turns += 1
        return turns * period

    def _next_reconcile(self, node: NodeIpam) -> float:
        """The next place at which a reconcile finds work; infinity if none does as things are."""
        now = self.clock.now
        if self.polling:
            return self._place(node, self._turn_after(node, now, True), True)
        when = self._first_due(node, now)
        if self.ipamd.ec2.faults.touches_metadata(node.name, now):
            return when  # a reading that fails leaves the mark as it was
        settled = last_change_s(node.instance, now)
        step = self._step(node)
        while True:
            caught_up = when >= settled
            if finds_work(node, when, caught_up=caught_up):
                return when
            if caught_up:
                return INFINITY
            when = self._place(node, self._turn_after(node, when + step - self.work_s, True), True)

    def _catch_up(self, node: NodeIpam, until: float) -> None:
        """Reckon the mark that reconciles without work have left up to now."""
        if self.polling:
            return
        first = self._first_due(node, max(node.last_pool_action_s, node.checked_s, node.origin_s))
        if first > until:
            return
        step = self._step(node)
        rounds = int((until - first) / step)
        turn = self._turn_after(node, first - self.work_s / 2, True)
        per_round = round(step / self._period(node))
        while rounds > 0 and self._place(node, turn + rounds * per_round, True) > until:
            rounds -= 1
        while self._place(node, turn + (rounds + 1) * per_round, True) <= until:
            rounds += 1
        node.last_pool_action_s = self._place(node, turn + rounds * per_round, True)

    def last_pool_action_s(self, node: NodeIpam) -> float:
        """The mark as it is now."""
        if node.running is None and node.serving:
            self._catch_up(node, self.clock.now)
        return node.last_pool_action_s

    def is_quiet(self, node: NodeIpam) -> bool:
        """No work under way and none due; growth that was refused by what has not changed since does not count."""
        if node.running is not None:
            return False
        if node.timer is None and not self.polling:
            return True
        due = node.due
        if due is None:
            due = node.due = self._next_update(node) if node.settings.provisioning else (INFINITY, INFINITY)
        grow, shrink = due
        if shrink < INFINITY or (grow < INFINITY and not self.ipamd.is_at_dead_end(node)):
            return False
        if self.polling:
            return not is_due(node, self.clock.now) or not finds_work(node, self.clock.now)
        return node.reconcile_s == INFINITY or not finds_work(node, node.reconcile_s)


def _rest(work: Steps[None], event: object) -> Steps[None]:
    """The rest of a generator whose first event has been taken already."""
    yield event
    yield from work
