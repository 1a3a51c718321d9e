"""Replay recordings of the real ipamd through the simulation's own, following only the recorded choices.

The very :class:`~eksim.cni.ipamd.Ipamd`, datastore and EC2 run; what the recordings' harness chose (an EC2 that counts up,
no SDK retries, its pause between detach and delete) is a setting here. Choices that hang on Go's map order, and random
waits, are taken from the record; every other fact of every step must be equal. The format stands in the recordings'
README. Called by ``eksim conformance cni`` and the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eksim.aws.ec2 import INSUFFICIENT_BLOCKS, Call, Ec2
from eksim.aws.faults import Fault
from eksim.aws.metadata import MetadataLag
from eksim.aws.vpc import Sequential, parse_cidr, top_addresses
from eksim.cni.awsutils import TAG_NO_MANAGE, AwsUtils
from eksim.cni.eni import DatastoreEni
from eksim.cni.ipamd import Ipamd
from eksim.cni.node import NEVER, NodeIpam
from eksim.cni.sdk import Sdk, Steps
from eksim.engine.clock import Clock
from eksim.engine.streams import Latency, Streams
from eksim.errors import InputError, Refused
from eksim.state.changes import Verb
from eksim.state.network import PREFIX, Instance, Network, Subnet
from eksim.state.objects import Node
from eksim.state.store import Store
from eksim.testing.follow_cni import ROUNDED_S, WAIT, FollowedOrder, FollowedWaits, Record
from eksim.testing.traces import Outcome, read_recording, runs_in, unbroken
from eksim.versions import CniRules

NODE = "node"
CALLS_WITH_COUNT = (
    "AssignPrivateIpAddresses",
    "CreateNetworkInterface",
    "DescribeNetworkInterfaces",
    "UnassignPrivateIpAddresses",
)
CALLS_WITH_DEVICE = (
    "AssignPrivateIpAddresses",
    "AttachNetworkInterface",
    "DetachNetworkInterface",
    "UnassignPrivateIpAddresses",
)
#: Order of addresses means nothing in these.
UNORDERED = ("GetIPv4PrefixesFromEC2", "UnassignPrivateIpAddresses")
#: Times are compared so closely as long as no wait was random.
EXACT_S = 1e-6
#: What reading metadata says when it fails is the recordings' own, and so is whether it has a code.
METADATA_FAILED = "metadata failed"


#: From EC2's first code on (older releases word the error twice).
_EC2_TEXT = re.compile(r"\b(Insufficient\w+|Invalid[\w.]+|InternalError|[A-Z]\w+LimitExceeded): .*", re.DOTALL)
_METADATA_TEXT = re.compile(r"(failed to get local ENI metadata|failed to retrieve interfaces data): .*", re.DOTALL)


class Difference(Exception):
    """Something came out otherwise than recorded."""


def replay_cni_files(files: Iterable[Path | str], mode: str = "") -> Iterator[Outcome]:
    """Replay every trace of every file; ``mode`` (``secondary-ip`` or ``prefix``): only those of that mode."""
    if mode not in ("", "secondary-ip", "prefix"):
        raise InputError(f"no mode is named {mode!r}", expected="secondary-ip or prefix")
    for path in files:
        for trace in runs_in(read_recording(path), path):
            if not mode or trace.get("mode") == mode:
                yield from unbroken(trace, lambda one: [replay_trace(one)], trace)


def replay_trace(trace: dict[str, Any]) -> Outcome:
    """Replay one trace up to its first difference."""
    try:
        Replay(trace).run()
    except Difference as difference:
        return Outcome(trace["id"], trace["family"], str(difference))
    return Outcome(trace["id"], trace["family"], None)


class Replay:
    """One trace, and the world it is replayed in."""

    def __init__(self, trace: dict[str, Any]) -> None:
        self.trace = trace
        self.clock = Clock()
        self.store = Store(self.clock)
        self.network = Network(self.store)
        streams = Streams(0)
        self._stream = streams["replay"]
        latencies = {f"ec2/{api}": Latency("constant", s) for api, s in trace.get("ec2_latency", {}).items()}
        latencies["ec2/detach"] = Latency("constant", trace.get("detach_delay", 0))
        ids = iter(range(1, 1 << 30))
        self.ec2 = Ec2(
            self.clock,
            self.store,
            self.network,
            streams,
            latencies,
            placement=Sequential(),
            throttled=False,
            no_block_at_create=INSUFFICIENT_BLOCKS,
            new_eni_id=lambda: f"eni-{next(ids):08x}",
        )
        self._set_lag(trace.get("metadata_lag", {}))
        self.subnets = [self._add_subnet(i, spec) for i, spec in enumerate([trace["subnet"], *trace.get("more_subnets", [])])]
        self.base = self.subnets[0].base
        self.instance = self._launch(trace["instance"])
        for subnet, spec in zip(self.subnets, [trace["subnet"], *trace.get("more_subnets", [])], strict=True):
            if "free" in spec:
                self.network.occupy(subnet, top_addresses(subnet, subnet.free - spec["free"]))
        self.record = Record(trace, self.clock)
        self.mode: str = trace["mode"]
        self.node = NodeIpam(NODE, self.instance, self._env(trace["env"]), CniRules.of(trace["cni_version"]))
        self.order = FollowedOrder(self.record, self.node, self.base)
        self.waits = FollowedWaits(self.record)
        aws = AwsUtils(
            self.clock,
            self.ec2,
            Sdk(self.clock, self.waits, self._stream, retries=False),
            free_eni_pause_s=trace["free_eni_pause"],
            tap=self._hear_request,
        )
        self.ipamd = Ipamd(self.clock, self.store, self.ec2, aws, self.order)
        self.store.watch(Verb.EC2_CALL, self._hear_call)
        for at_s in self.record.sweeps:
            self.clock.call_at(at_s, 2, self._start_sweep)

    def _add_subnet(self, index: int, spec: dict[str, Any]) -> Subnet:
        base, length = parse_cidr(spec["cidr"])
        tags = {}
        if "cni_tag" in spec:
            tags["kubernetes.io/role/cni"] = spec["cni_tag"]
        if "cluster_tag" in spec:
            tags["cni.networking.k8s.aws/cluster/" + spec["cluster_tag"]] = ""
        return self.network.add_subnet(Subnet(str(index), base, length, tags=tags))

    def _launch(self, spec: dict[str, Any]) -> Instance:
        instance = self.ec2.launch_instance(
            NODE, "i-1", self.subnets[0], type=spec["type"], max_enis=spec["max_eni"], ipv4_per_eni=spec["ipv4_per_eni"]
        )
        assert isinstance(instance, Instance)
        self.store.add_node(Node(NODE, {"pods": spec["max_pods"]}))
        return instance

    def _set_lag(self, lag: dict[str, float]) -> None:
        eni, cidr, remove = (Latency("constant", lag.get(what, 0)) for what in ("eni", "cidr", "remove"))
        self.ec2.lag = MetadataLag(self._stream, eni, cidr, remove, lag.get("each", 0))

    def _env(self, env: dict[str, str]) -> dict[str, str]:
        on = {"ENABLE_PREFIX_DELEGATION": "true"} if self.mode == "prefix" else {}
        return {**env, **on}

    # -- steps --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All steps; raises :class:`Difference` at the first fact that is not as recorded."""
        for index, step in enumerate(self.trace["steps"]):
            self.record.begin(step)
            where = f"step {index} ({step['op']} at {step['t']} s)"
            self._same(where, "t", step["t"], self.clock.now)
            result = self._do(step)
            self._same(where, "t_end", step.get("t_end", step["t"]), self.clock.now)
            if result is not None or "result" in step:
                recorded = _without_texts(step.get("result"))
                self._same(where, "result", recorded, _told(recorded, _without_texts(result)))
            self._compare(where, step["state"])

    def _do(self, step: dict[str, Any]) -> dict[str, Any] | None:
        args = step.get("args", {})
        op = step["op"]
        act = getattr(self, "_do_" + op, None)
        if act is None:
            raise Difference(f"the operation {op} is not known")
        result: dict[str, Any] | None = act(**args)
        return result

    def _finish(self, steps: Steps[Any]) -> Any:
        """Run a generator to its end on the clock."""
        process = self.clock.process(steps)
        while not process.processed:
            if not self.clock.run_instant():
                raise Difference("the daemon waits for ever")
        return process.value

    def _do_init(self) -> dict[str, Any] | None:
        error = self._finish(self.ipamd.node_init(self.node))
        return {"error": error.message} if isinstance(error, Refused) else None

    def _do_restart(
        self, down: float, gone: list[int] = (), mode: str = "", env: dict[str, str] | None = None  # type: ignore[assignment]
    ) -> dict[str, Any] | None:
        self.ipamd.stop(self.node)
        self.clock.run_until(self.clock.now + down)
        self.node.gone.update(dict.fromkeys(f"pod-{pod}" for pod in gone))
        self.mode = mode or self.mode
        self.node.env = self._env(self.trace["env"] if env is None else env)
        if env is not None:
            self.trace = {**self.trace, "env": env}
        return self._do_init()

    def _do_tick(self) -> None:
        def tick() -> Steps[None]:
            yield from self.ipamd.turn(self.node)
            yield self.clock.sleep(self.trace["tick_work"])

        self._finish(tick())

    def _do_advance(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + seconds)

    def _do_assign(self, pods: list[int]) -> dict[str, Any]:
        at = []
        recorded = self.record.step["result"]["at"]
        for pod, choice in zip(pods, recorded, strict=True):
            self.order.choice = choice
            held = self.ipamd.add_network(self.node, f"pod-{pod}")
            at.append(None if held is None else [held[0] - self.base, held[1].device])
        self.order.choice = None
        return _counted(at)

    def _do_unassign(self, pods: list[int]) -> dict[str, Any]:
        at = []
        for pod in pods:
            held = self.ipamd.release(self.node, f"pod-{pod}")
            at.append(None if held is None else [held[0] - self.base, held[1].device])
            if held is not None:
                self._finish(self.ipamd.del_network(self.node, *held))
        return _counted(at)

    def _do_subnet_take(self, n: int, subnet: int = 0) -> dict[str, Any]:
        row = self.subnets[subnet]
        return {"taken": self.ec2.take_addresses(row, n, offsets=top_addresses(row, n))}

    def _do_subnet_release(self, n: int, subnet: int = 0) -> dict[str, Any]:
        return {"released": self.ec2.release_addresses(self.subnets[subnet], n)}

    def _do_subnet_tag(self, value: str | None, subnet: int = 0) -> None:
        self.network.tag_subnet(self.subnets[subnet], {"kubernetes.io/role/cni": value or ""})

    def _do_ec2_fail(self, api: str, code: str, count: int, after: int = 0) -> None:
        self.ec2.faults.add(Fault(api, code, message="injected", count=count, after=after))

    def _do_cordon(self) -> None:
        self.store.cordon_node(self.store.nodes[NODE], True)

    def _do_uncordon(self) -> None:
        self.store.cordon_node(self.store.nodes[NODE], False)

    def _do_metadata_lag(self, **lag: Any) -> None:
        self._set_lag(next((given for given in lag.values() if isinstance(given, dict)), lag))

    def _do_eni_lost(self, device: int) -> dict[str, Any]:
        return {"lost": int(self.ec2.lose_eni(self.instance, device))}

    def _do_eni_detach(self, device: int) -> dict[str, Any]:
        return {"detached": int(self.ec2.detach_eni(self.instance, device))}

    def _do_ips_lost(self, device: int, n: int, kind: str = "") -> dict[str, Any]:
        prefixes = kind == "prefix" if kind else self.mode == "prefix"
        lost = self.ec2.lose_items(self.instance, device, n, prefixes=prefixes)
        return {"lost": None if lost is None else self._offsets(lost)}

    def _do_ips_added(self, device: int, n: int, kind: str = "") -> dict[str, Any]:
        added = self.ec2.add_items(self.instance, device, n, prefixes=kind == "prefix")
        return {"added": None if added is None else self._offsets(added)}

    def _do_eni_attach(self, n: int = 0, prefixes: int = 0, subnet: int = 0, no_manage: str | None = None) -> dict[str, Any]:
        tags = {} if no_manage is None else {TAG_NO_MANAGE: no_manage}
        eni = self.ec2.attach_foreign_eni(
            self.instance, self.subnets[subnet], addresses=n, prefixes=prefixes, tags=tags
        )
        if eni is None:
            return {"device": None, "ips": [], "prefixes": []}
        return {
            "device": eni.device,
            "ips": self._offsets([i for i in eni.items if i < PREFIX]),
            "prefixes": self._offsets([i for i in eni.items if i >= PREFIX]),
        }

    def _start_sweep(self) -> None:
        self.clock.process(self.ipamd.aws.clean_up_leaked_enis(self.node))

    # -- what was done ------------------------------------------------------------------------------------------

    def _offsets(self, items: Iterable[int]) -> list[int]:
        return [(item & ~PREFIX) - self.base for item in items]

    def _hear_call(self, call: Call, _: Any) -> None:
        entry: dict[str, Any] = {"c": call.api, "at": call.start_s}
        if call.api in CALLS_WITH_COUNT:
            entry["n"] = call.count
        if call.api in CALLS_WITH_DEVICE and call.device >= 0:
            entry["dev"] = call.device
        if call.api == "CreateNetworkInterface" and len(self.subnets) > 1:
            entry["subnet"] = int(call.subnet)
        if call.items:
            entry["prefixes" if call.items[0] >= PREFIX else "ips"] = self._offsets(call.items)
        if call.error:
            entry["err"] = call.error
        if call.background:
            entry["bg"] = True
            del entry["n"]
        self.record.ec2_calls.append(entry)

    def _hear_request(
        self,
        node: NodeIpam,
        name: str,
        at_s: float,
        error: Refused | None,
        *,
        device: int = -1,
        n: int | None = None,
        items: list[int] | None = None,
        looks: int = 0,
        until: float = 0.0,
        got: int = 0,
    ) -> None:
        old = not node.rules.eni_created_with_addresses
        entry: dict[str, Any] = {"c": name, "at": at_s}
        if device >= 0:
            entry["dev"] = device
        if name.startswith("GetIPv4"):
            n = len(items or ()) or None
        if n is not None and not (name == "AllocENI" and old) and not (error and name in ("DescribeAllENIs", "GetAttachedENIs")):
            entry["n"] = n
        if items and not (old and name in ("AllocENI", "AllocIPAddresses")):
            entry["prefixes" if items[0] >= PREFIX else "ips"] = self._offsets(items)
        if looks:
            entry |= {"looks": looks, "until": until}
            if error is None:
                entry["got"] = got
        if error is not None:
            entry["err"] = error.code or error.message
            if name == "GetAttachedENIs" or _METADATA_TEXT.search(error.message):
                entry["err"] = METADATA_FAILED
        self.record.api_calls.append(entry)

    # -- comparing ----------------------------------------------------------------------------------------------

    def _compare(self, where: str, recorded: dict[str, Any]) -> None:
        for kind, actual in (("api_calls", self.record.told_api_calls()), ("ec2_calls", self.record.ec2_calls)):
            self._compare_calls(where, kind, recorded[kind], actual)
        actual_state = self._state()
        for name, value in recorded.items():
            if name == "enis":  # one that EC2 has lost and its successor may have one device number
                self._same(where, name, sorted(value, key=_by_device), sorted(actual_state[name], key=_by_device))
            elif name not in ("api_calls", "ec2_calls"):
                self._same(where, name, value, actual_state[name])
        if actual_state["unmanaged"] and "unmanaged" not in recorded and "ec2" in recorded:
            raise Difference(f"{where}: unmanaged: recorded 0, replayed {actual_state['unmanaged']}")

    def _compare_calls(self, where: str, kind: str, recorded: list[dict[str, Any]], actual: list[dict[str, Any]]) -> None:
        for i, entry in enumerate(recorded):
            place = f"{kind}[{i}] {entry['c']}"
            if i >= len(actual):
                raise Difference(f"{where}: {place}: recorded {entry}, replayed nothing more")
            mine = dict(actual[i])
            entry = dict(entry)
            if "at" not in entry:
                # the older recordings have no time of the call; those of the wait have it always
                mine.pop("at")
                if entry["c"] != WAIT:
                    mine.pop("until", None)
            if entry.get("bg"):
                entry.pop("n", None)
            if mine.get("err") == METADATA_FAILED and "err" in entry:
                mine["err"] = entry["err"]
            if entry["c"] in UNORDERED:
                for key in ("ips", "prefixes"):
                    for call in (entry, mine):
                        if key in call:
                            call[key] = sorted(call[key])
            if entry["c"] == WAIT:
                for key in ("at", "until"):
                    if key not in entry:
                        mine.pop(key, None)
            self._same(where, place, entry, mine)
        if len(actual) > len(recorded):
            raise Difference(f"{where}: {kind}: recorded nothing more, replayed {actual[len(recorded)]}")

    def _state(self) -> dict[str, Any]:
        node = self.node
        ds = node.datastore
        enis = sorted(ds.enis.values(), key=lambda e: e.device) if ds is not None else []
        stats = ds.stats() if ds is not None else None
        return {
            "enis": [self._eni_state(eni) for eni in enis],
            "total": stats.total if stats else 0,
            "assigned": stats.assigned if stats else 0,
            "cooling": ds.cooling(self.clock.now) if ds is not None else 0,
            "prefixes": stats.prefixes if stats else 0,
            "subnet_free": self.subnets[0].free,
            "subnet_free_prefixes": self.subnets[0].free_blocks,
            "more_subnets_free": [s.free for s in self.subnets[1:]],
            "more_subnets_free_prefixes": [s.free_blocks for s in self.subnets[1:]],
            "timers": {
                "last_pool_action": _time(node.last_pool_action_s if ds is not None else NEVER),
                "last_decrease": _time(node.last_decrease_s if ds is not None else NEVER),
                "last_insufficient": _time(node.last_insufficient_s if ds is not None else NEVER),
            },
            "ec2": {"attached": sorted(self.instance.enis), "detached": len(self.network.detached)},
            "unmanaged": node.unmanaged_count if ds is not None else 0,
        }

    def _eni_state(self, eni: DatastoreEni) -> dict[str, Any]:
        mode = self.node.prefix_mode
        ds = self.node.ds
        row = self.network.enis.get(eni.id)
        attached = row is not None and row.instance is self.instance
        state = {
            "device": eni.device,
            "primary": eni.primary,
            "ips_total": eni.total(mode),
            "ips_assigned": eni.assigned_in(mode),
            "ips_cooling": eni.cooling(self.clock.now, ds.cooldown_s, mode),
            "prefixes": eni.prefixes if mode else 0,
            "free_prefixes": eni.prefixes - eni.used_prefixes if mode else 0,
            "since": row.attached_s if row is not None and attached else -1,
        }
        if len(self.subnets) > 1:
            state["subnet"] = int(eni.subnet)
        if eni.excluded:
            state["excluded"] = True
        other = eni.cidrs.count - eni.prefixes if mode else eni.prefixes
        if other:
            state["other_cidrs"] = other
        if eni.assigned_in(not mode):
            state["other_assigned"] = eni.assigned_in(not mode)
        return state

    def _same(self, where: str, what: str, recorded: Any, actual: Any) -> None:
        if not _equal(recorded, actual, ROUNDED_S if self.waits.used else EXACT_S):
            raise Difference(f"{where}: {what}: recorded {recorded}, replayed {actual}")


def _without_texts(result: Any) -> Any:
    """EC2's own words, which the recordings' EC2 need not share, taken out of a start's error; codes stay."""
    if isinstance(result, dict) and "error" in result:
        return {"error": _METADATA_TEXT.sub(r"\1", _EC2_TEXT.sub(r"\1", result["error"]))}
    return result


def _told(recorded: Any, result: Any) -> Any:
    """The result as far as it is told: what is empty may be left out, and a list may be given by its length."""
    if not isinstance(recorded, dict) or not isinstance(result, dict):
        return result
    told = {key: value for key, value in result.items() if key in recorded or value not in (None, 0, [])}
    for key, value in recorded.items():
        if isinstance(value, int) and isinstance(told.get(key), list):
            told[key] = len(told[key])
    return told


def _by_device(eni: dict[str, Any]) -> tuple[Any, ...]:
    return eni["device"], eni["since"], eni["ips_total"], eni["ips_assigned"]


def _time(seconds: float) -> float | None:
    return None if seconds == NEVER else seconds


def _counted(at: list[Any]) -> dict[str, Any]:
    ok = sum(place is not None for place in at)
    return {"ok": ok, "fail": len(at) - ok, "at": at}


def _equal(recorded: Any, actual: Any, tolerance: float) -> bool:
    if isinstance(recorded, bool) or isinstance(actual, bool):
        return recorded is actual
    if isinstance(recorded, (int, float)) and isinstance(actual, (int, float)):
        return abs(recorded - actual) <= (tolerance if isinstance(recorded, float) or isinstance(actual, float) else 0)
    if isinstance(recorded, dict) and isinstance(actual, dict):
        return recorded.keys() == actual.keys() and all(_equal(v, actual[k], tolerance) for k, v in recorded.items())
    if isinstance(recorded, list) and isinstance(actual, list):
        return len(recorded) == len(actual) and all(map(_equal, recorded, actual, [tolerance] * len(actual)))
    return bool(recorded == actual)
