"""Following a recorded run of ipamd: the choices its Go maps made, and its random waits.

Each choice is looked up in what the record shows next of the step under way; the rules that say whether it was allowed
stay the simulation's own. Called by :mod:`eksim.testing.replay_cni`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from eksim.aws.metadata import Attached
from eksim.cni.awsutils import TAG_TRIES, build_eni_tags
from eksim.cni.gomap import GoMap, MapOrder
from eksim.cni.node import NodeIpam
from eksim.cni.nodeinit import SETUP_TRIES
from eksim.cni.sdk import Waits
from eksim.engine.clock import Clock
from eksim.state.network import PREFIX, Eni

GIVE_BACK = ("DeallocIPAddresses", "DeallocPrefixAddresses")
WAIT = "WaitForENIAndIPsAttached"
#: What is tried again after a wait.
TRIED = {"detach": "DetachNetworkInterface", "delete": "DeleteNetworkInterface", "tag": "CreateTags"}
#: Recorded times are rounded to a millisecond, so after a random wait a sum can be off by one or two.
ROUNDED_S = 0.0021


class Record:
    """The trace, the step under way, and what the replay has done in it so far."""

    def __init__(self, trace: dict[str, Any], clock: Clock) -> None:
        self.trace = trace
        self.clock = clock
        self.step: dict[str, Any] = {}
        self.api_calls: list[dict[str, Any]] = []
        self.ec2_calls: list[dict[str, Any]] = []
        states = [step["state"] for step in trace["steps"]]
        #: whether waits for metadata are recorded (the newer recordings)
        self.tells_waits = any("ec2" in s or any(c["c"] == WAIT for c in s["api_calls"]) for s in states)
        #: when the leak sweeps of the run began
        self.sweeps = [c["at"] for state in states for c in state["ec2_calls"] if c.get("bg")]
        self._begun = 0

    def begin(self, step: dict[str, Any]) -> None:
        """The next step."""
        self.step = step
        self._begun += 1
        self.api_calls = []
        self.ec2_calls = []

    def coming_api_calls(self) -> list[dict[str, Any]]:
        """The daemon's requests of this step that are still to come."""
        calls: list[dict[str, Any]] = self.step["state"]["api_calls"]
        return calls[len(self.told_api_calls()) :]

    def told_api_calls(self) -> list[dict[str, Any]]:
        """The daemon's requests that the replay has made so far, as far as the record tells of such."""
        return [call for call in self.api_calls if self.tells_waits or call["c"] != WAIT]

    def coming_ec2_calls(self) -> list[dict[str, Any]]:
        """The EC2 requests of this step that are still to come."""
        calls: list[dict[str, Any]] = self.step["state"]["ec2_calls"]
        return calls[len(self.ec2_calls) :]

    def coming_times(self, api: str) -> Iterator[float]:
        """When the EC2 requests of one kind are made that are still to come, in this step and those after it."""
        later = (call for step in self.trace["steps"][self._begun :] for call in step["state"]["ec2_calls"])
        return (call["at"] for call in chain(self.coming_ec2_calls(), later) if call["c"] == api and "at" in call)


class FollowedOrder(MapOrder):
    """The order of each walk as recorded: what the record shows next comes first, the rest after it."""

    def __init__(self, record: Record, node: NodeIpam, base: int) -> None:
        self._record = record
        self._node = node
        self._base = base
        #: the recorded [address, device] of the pod that asks now
        self.choice: list[int] | None = None

    def add(self, map: GoMap, key: int) -> None:
        """Places play no part here."""
        map.slots.append(key)
        map.large = True
        map.count += 1

    def walk(self, what: str, map: GoMap, node: str) -> Sequence[int]:
        """The keys, the recorded choice first."""
        keys = [key for key in map.slots if key is not None]
        # an address may be named twice: by an ENI that EC2 has lost, and by the one that got the address after it
        first = list(dict.fromkeys(self._first(what, keys)))
        return [*first, *(key for key in keys if key not in first)]

    walk_copy = walk

    def _first(self, what: str, keys: list[int]) -> Iterator[int]:
        if what.startswith("assign"):
            yield from self._assign(what, keys)
        elif what == "allocatable":
            yield from self._enis_of(keys, ("AllocIPAddresses",))
        elif what in ("unassign-eni", "start-excluded", "start-unassign"):
            chosen = list(self._enis_of(keys, GIVE_BACK))
            yield from chosen
            if what == "unassign-eni":  # older releases end the walk at an ENI with nothing to give
                ds = self._node.ds
                yield from (k for k in keys if k not in chosen and not ds.freeable_cidrs(ds.enis[ds.id_of(k)]))
        elif what in ("unassign-cidr", "unassign-unused"):
            wanted = [
                self._base + offset + flag
                for call in self._record.coming_api_calls()[:2]
                if call["c"] in GIVE_BACK
                for name, flag in (("ips", 0), ("prefixes", PREFIX))
                for offset in call.get(name, ())
            ]
            yield from (item for item in wanted if item in keys)
        elif what == "free-eni":
            yield from self._freed_eni(keys)
        elif what == "restore-eni":
            wanted_pods = {
                s["device"]: s["ips_assigned"] + s.get("other_assigned", 0) for s in self._record.step["state"]["enis"]
            }
            ds = self._node.ds
            yield from (k for k in keys if len((e := ds.enis[ds.id_of(k)]).assigned) < wanted_pods.get(e.device, 0))

    def _assign(self, what: str, keys: list[int]) -> Iterator[int]:
        if self.choice is None:
            return
        address, device = self._base + self.choice[0], self.choice[1]
        if what == "assign-eni":
            # an ENI that EC2 has lost may still be there beside the one that got its device number
            ds = self._node.ds
            enis = [(key, ds.enis[ds.id_of(key)]) for key in keys]
            items = (address, (address & ~15) | PREFIX)
            holds = [(key, eni) for key, eni in enis if eni.device == device and any(i in eni.cidrs for i in items)]
            yield from (key for key, eni in holds if address not in eni.assigned)
        elif what == "assign-cidr":
            yield from (key for key in keys if key in (address, (address & ~15) | PREFIX))
        elif address & 15 in keys:
            yield address & 15

    def _enis_of(self, keys: list[int], names: tuple[str, ...]) -> Iterator[int]:
        """ENIs in the order in which coming requests of these names mention them."""
        seen: list[int] = []
        for call in self._record.coming_api_calls():
            if call["c"] in names:
                meant = [key for key in keys if self._is_meant(key, call) and key not in seen]
                if "dev" not in call:  # of those that EC2 has lost, the one with so much room
                    meant.sort(key=lambda key: self._room(key) != call.get("n"))
                seen += meant[:1]
        yield from seen

    def _room(self, key: int) -> int:
        ds = self._node.ds
        return self._node.limits.slots - ds.enis[ds.id_of(key)].cidrs.count

    def _is_meant(self, key: int, call: dict[str, Any]) -> bool:
        """Whether a request is about the ENI; one without device is about an ENI that EC2 no longer has there."""
        ds = self._node.ds
        eni = ds.enis[ds.id_of(key)]
        row = self._node.instance.enis.get(eni.device)
        known = row is not None and row.id == eni.id
        if "dev" in call:
            return known and eni.device == call["dev"]
        if call["c"] == "AllocIPAddresses":  # its items are new
            return not known
        items = [self._base + o for o in call.get("ips", ())]
        items += [self._base + o | PREFIX for o in call.get("prefixes", ())]
        return not known and all(item in eni.cidrs for item in items)

    def _freed_eni(self, keys: list[int]) -> Iterator[int]:
        call = next((c for c in self._record.coming_api_calls() if c["c"] == "FreeENI"), None)
        if call is not None:
            yield from (key for key in keys if self._is_meant(key, call))

    def walk_enis(self, what: str, enis: Sequence[Attached], node: str) -> Sequence[int]:
        """Places of ENIs after DescribeAllENIs, in the order that their calls were made."""
        return list(dict.fromkeys([*self._verified_enis(what, enis), *range(len(enis))]))

    def _verified_enis(self, what: str, enis: Sequence[Attached]) -> Iterator[int]:
        node = self._node
        places = range(len(enis))
        new = [i for i in places if enis[i].eni.id not in node.ds.enis]
        tags = build_eni_tags(node)
        untagged = [i for i in new if any(enis[i].eni.tags.get(key) != value for key, value in tags.items())]
        tagged = [i for i in new if i not in untagged]
        api = [c for c in self._record.coming_api_calls() if c["c"].startswith("GetIPv4")]
        tries = SETUP_TRIES if what == "start-enis" else 1
        for kind, outcome in _visits(self._record.coming_ec2_calls(), tries):
            if kind == "known":
                device = api.pop(0).get("dev", -1) if api else -1
                for i in places:
                    eni = enis[i].eni
                    if i not in new and device == (eni.device if eni.instance is node.instance else -1):
                        yield i
                continue
            group = untagged if kind == "untagged" else tagged
            if group:
                chosen = next((i for i in group if self._came_out(enis[i].eni, outcome)), group[0])
                if what == "start-enis" and not self._came_out(enis[chosen].eni, outcome) and outcome == "not set up":
                    filled = self._filled_at_start()
                    chosen = next((i for i in group if enis[i].device in filled), chosen)
                group.remove(chosen)
                yield chosen

    def _filled_at_start(self) -> list[int]:
        """Devices that the start's increase asks more for: most likely the setup had left them empty."""
        calls = self._record.coming_api_calls()
        return [c.get("dev", -1) for c in calls if c["c"] == "AllocIPAddresses"]

    def _came_out(self, eni: Eni, outcome: str) -> bool:
        """Whether the state after the step shows the ENI as after such a visit."""
        state = next((s for s in self._record.step["state"]["enis"] if s["device"] == eni.device), None)
        if outcome == "not tagged":
            error = (self._record.step.get("result") or {}).get("error", "")
            return eni.id in error if "failed to tag" in error else state is None
        has_nothing = state is not None and not state["ips_total"] and "other_cidrs" not in state
        return state is not None and (has_nothing and bool(eni.items)) == (outcome == "not set up")


def _visits(calls: list[dict[str, Any]], tries: int) -> Iterator[tuple[str, str]]:
    """Visits of ENIs as their EC2 calls show them: (known, tagged or untagged before; how the visit ended)."""
    kind, failed = "tagged", 0
    for call in calls:
        name, error = call["c"], "err" in call
        if call.get("bg") or name == "DeleteNetworkInterface":  # a sweep's
            continue
        if name == "CreateTags":
            if kind == "untagged" and not failed:  # releases that ask no subnet
                yield kind, "set up"
            failed = failed + 1 if error else 0
            kind = "untagged"
            if failed == TAG_TRIES:
                yield kind, "not tagged"
                kind, failed = "tagged", 0
        elif name == "DescribeSubnets":
            failed = failed + 1 if error else 0
            if not error or failed == tries:
                yield kind, "not set up" if error else "set up"
                kind, failed = "tagged", 0
        elif name == "DescribeNetworkInterfaces":
            if kind == "untagged":  # releases that ask no subnet
                yield kind, "set up"
                kind, failed = "tagged", 0
            yield "known", ""
        else:
            break
    if kind == "untagged":
        yield kind, "set up"


class FollowedWaits(Waits):
    """Waits between tries, as recorded. ``used``: one was random, so times are known to a millisecond only."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.used = False

    def between(self, what: str, node: NodeIpam, tries: int, nominal_s: float, jitter: float) -> float:
        """From now until what the record shows next."""
        self.used = True
        now = self._record.clock.now
        if what == "look":
            end = self._end_of_looks(tries)
        else:  # a sweep and the loop may be waiting at the same time, and a sweep beyond the end of a step
            first, last = now + nominal_s - ROUNDED_S, now + nominal_s * (1 + jitter) + ROUNDED_S
            end = next((at for at in self._record.coming_times(TRIED[what]) if first <= at <= last), None)
        return nominal_s if end is None else max(end - now, 0.0)

    def _end_of_looks(self, tries: int) -> float | None:
        """All looks but the last come as early as they can, so that none sees more than the recorded one did."""
        coming = self._record.coming_api_calls()
        if coming and coming[0]["c"] == WAIT:
            until: float = coming[0]["until"]
            return until if tries == coming[0]["looks"] - 1 else None
        if self._record.tells_waits or tries != 11:
            return None
        # the older recordings: what is left of the step after the wait is known
        step = self._record.step
        rest = self._record.trace["tick_work"] + 2.5 if step["op"] == "tick" else 0.0
        latency = self._record.trace.get("ec2_latency", {})
        for call in self._record.coming_ec2_calls():
            rest += latency.get(call["c"], 0.0)
            if call["c"] == "DetachNetworkInterface" and "err" not in call:
                rest += self._record.trace["free_eni_pause"]
        end: float = step["t_end"] - rest
        return end
