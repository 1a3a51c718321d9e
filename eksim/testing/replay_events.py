"""Replay of what the real event recorders send to the API server, through the simulation's own recorders.

Every recorded occurrence is given to the recorder at its time; every call that it makes, its memory and what is stored
at the end must be what was recorded. Followed are only the choices that the recording calls random: which message a full
group forgets, the delay of retries, the order of two loops at one instant. Called by ``eksim conformance events`` and by
the tests.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from eksim.engine.clock import Clock
from eksim.errors import Refused
from eksim.kube.event_correlator import Calendar, ClassicBroadcaster, CorrelatorOptions, EventCorrelator, Source
from eksim.kube.event_objects import RETRY_S, UNREACHABLE, ObjectReference, StoredEvent
from eksim.kube.event_series import CachedEvent, SeriesBroadcaster
from eksim.kube.events import EventRoom
from eksim.state.store import Store
from eksim.testing.traces import Outcome, replay_files
from eksim.versions import KubernetesRules

Json = dict[str, Any]

#: 2000-01-01T00:00:00Z, the recordings' zero.
EPOCH_S = 946684800.0

_RESULTS = {"NotFound": "not_found", "AlreadyExists": "already_exists", UNREACHABLE: "unreachable"}
_FAILURES = {"unreachable": UNREACHABLE, "internal": "InternalError", "forbidden": "Forbidden"}
_RESULT_OF = {**_RESULTS, "InternalError": "internal", "Forbidden": "forbidden"}


def replay_event_files(files: Iterable[Path | str]) -> Iterator[Outcome]:
    """One outcome for each recorded case."""
    return replay_files(files, lambda case, _: iter((replay_case(case),)))


def replay_case(case: Json) -> Outcome:
    """Replay one case."""
    replay = _Replay(case)
    for i, (op, step) in enumerate(zip(case["ops"], case["steps"], strict=True)):
        difference = replay.step(op, step)
        if difference is not None:
            return Outcome(case["id"], case["family"], f"step {i}: {difference}")
    return Outcome(case["id"], case["family"], replay.stored_difference())


class _Server:
    """The recordings' API server: notes calls, fails as told."""

    def __init__(self, clock: Clock, room: EventRoom, replay: _Replay) -> None:
        self._clock = clock
        self._room = room
        self._replay = replay
        #: answers of the next calls; operations add to what is left of earlier ones
        self.failures: list[str] = []
        self.calls: list[Json] = []
        self.made = 0

    def create(self, event: StoredEvent) -> StoredEvent | Refused:
        return self._call("create", event, self._replay.body(event), lambda: self._room.create(event))

    def patch(self, event: StoredEvent, fields: Json) -> StoredEvent | Refused:
        return self._call("patch", event, self._replay.patch_body(fields), lambda: self._room.patch(event, fields))

    def _call(self, verb: str, event: StoredEvent, body: Json, do: Any) -> StoredEvent | Refused:
        answer: StoredEvent | Refused
        if self.failures:
            answer = Refused(self.failures.pop(0))
        else:
            answer = do()
        result = _RESULT_OF[answer.code] if isinstance(answer, Refused) else "ok"
        call = {"t": self._clock.now, "verb": verb, "name": event.key, "body": body, "result": result}
        if self._replay.series is not None:
            call["by"] = self._replay.series.by
        self.calls.append(call)
        self.made += 1
        return answer


class _Replay:
    """One case: clock, server and the recorder of its kind."""

    def __init__(self, case: Json) -> None:
        self._case = case
        self._clock = clock = Clock()
        store = Store(clock)
        self._room = EventRoom(clock, store, float(case["ttl"]), validate=False)
        self._server = _Server(clock, self._room, self)
        self._recorded: list[Json] = [call for step in case["steps"] for call in step.get("calls") or ()]
        #: those that a pending retry is meant to be
        self._claimed: set[int] = set()
        self._step: Json = {}
        calendar = Calendar(clock, EPOCH_S, distinct=False)
        rules = KubernetesRules.of(case["client_version"]).controllers
        self.series: SeriesBroadcaster | None = None
        self._classic: ClassicBroadcaster | None = None
        self._correlator: EventCorrelator | None = None
        if case["api"] == "v1":
            options = CorrelatorOptions(
                **{("max_interval_s" if k == "max_interval" else k): v for k, v in (case.get("options") or {}).items()}
            )
            self._correlator = EventCorrelator(options, rules, self._forget)
            self._classic = ClassicBroadcaster(clock, calendar, self._server, self._correlator, rules, self._retry_at)
        else:
            self.series = SeriesBroadcaster(
                clock,
                calendar,
                self._server,
                rules,
                case["controller"],
                case["instance"],
                self._retry_at,
                self._refresh_first,
                self._in_turn,
            )

    # -- choices that the record makes ----------------------------------------------------------------------------------

    def _forget(self, messages: list[str]) -> str:
        chosen = self._step.get("forgotten")
        return chosen if chosen in messages else messages[0]

    def _retry_at(self, now_s: float, tries: int) -> float:
        """When the record has the next call for the event that just failed; each of its calls is for one retry only."""
        failed = self._server.calls[-1]
        soonest, latest = now_s, now_s + RETRY_S
        if self.series is not None:
            soonest, latest = latest - 1e-6, now_s + 1.25 * RETRY_S
        found = None
        for i, call in enumerate(self._recorded[self._server.made :], self._server.made):
            if call.get("by", "emit") != "emit":
                continue
            if call["name"] != failed["name"] or i in self._claimed or not soonest < call["t"] <= latest + 1e-6:
                continue
            # Events of one instant share a name, and a failed create may have been a patch at first.
            if call["verb"] == failed["verb"] and _bare(call["body"]) == failed["body"]:
                found = i
                break
            if found is None:
                found = i
        if found is None:
            # after the record's end
            return latest
        self._claimed.add(found)
        return self._moment(float(self._recorded[found]["t"]))

    def _moment(self, when: float) -> float:
        """The recorded microsecond to the nanosecond, as far as a name made then tells it."""
        for call in self._recorded:
            digits = call["name"].rpartition(".")[2]
            if call["t"] == when and call["verb"] == "create" and re.fullmatch("[0-9a-f]{15,16}", digits):
                exact = (int(digits, 16) - round(EPOCH_S) * 1_000_000_000) / 1e9
                if abs(exact - when) < 1e-6:
                    return exact
        return when

    def _refresh_first(self, now_s: float) -> bool:
        for call in self._recorded:
            if call["t"] == now_s and call["by"] in ("refresh", "finish"):
                return bool(call["by"] == "refresh")
        return False

    def _in_turn(self, series: list[CachedEvent]) -> list[CachedEvent]:
        """The record has a turn's calls by name: those that the next failures met came first."""
        assert self.series is not None
        now, by = self._clock.now, self.series.by
        calls = [c for c in self._recorded if c["t"] == now and c["by"] == by and c["verb"] == "patch"]
        order: list[Json] = []
        for failure in self._server.failures:
            met = next((c for c in calls if c["result"] == _RESULT_OF[failure]), None)
            if met is not None:
                calls.remove(met)
                order.append(met)
        left, out = list(series), []
        for call in order + calls:
            for cached in left:
                event = self.series.series_of(cached)
                fields = {"series_count": event.series_count, "series_last_s": event.series_last_s}
                if event.key == call["name"] and self.patch_body(fields) == call["body"]:
                    left.remove(cached)
                    out.append(cached)
                    break
        return out + left

    # -- steps ------------------------------------------------------------------------------------------------------------

    def step(self, op: Json, step: Json) -> str | None:
        """Do one operation; the first difference in words."""
        self._step = step
        if self._correlator is not None:
            self._correlator.last = None
        self._clock.run_until(float(op["t"]))
        before = len(self._server.calls)
        kind = op["op"]
        if kind == "event":
            self._occur(op)
        elif kind == "lost":
            self._room.lose()
        elif kind == "fail":
            self._server.failures += [_FAILURES[op["error"]]] * op["count"]
        mine, self._server.calls = self._server.calls, []
        difference = _calls_difference(step.get("calls") or [], mine)
        if difference is not None:
            return difference
        if self.series is not None:
            return _compare("cache", _by_name(step.get("cache") or []), _by_name(self._cache()))
        return self._memory_difference(step, mine[before:])

    def _occur(self, op: Json) -> None:
        involved = _reference(op["object"])
        if self.series is not None:
            related = _reference(op["related"]) if op.get("related") else None
            self.series.record(
                involved, op["type"], op["reason"], op["message"], op.get("action") or "", related
            )
            return
        assert self._classic is not None
        source = self._case["sources"][op["source"]]
        self._classic.record(
            Source(source["component"], source.get("host") or ""), involved, op["type"], op["reason"], op["message"]
        )

    def _cache(self) -> list[Json]:
        assert self.series is not None
        out = []
        for cached in self.series.cache.values():
            entry: Json = {"name": cached.event.key}
            if cached.count:
                entry |= {"count": cached.count, "last": round(cached.last_ns / 1e9 - EPOCH_S, 6)}
            out.append(entry)
        return out

    def _memory_difference(self, step: Json, calls: list[Json]) -> str | None:
        if step["op"] != "event":
            return None
        outcome = "none"
        if calls:
            outcome = calls[-1]["verb"] if calls[-1]["result"] == "ok" else calls[-1]["result"]
        mine: Json = {"outcome": outcome}
        assert self._correlator is not None
        last = self._correlator.last
        if last is not None:
            _, mine["combined"], mine["count"], mine["known"], mine["forgotten"] = last
        for key in ("outcome", "combined", "count", "known", "forgotten"):
            if key in step and step[key] != mine.get(key):
                return f"{key} is {mine.get(key)!r}, recorded {step[key]!r}"
        return None

    def stored_difference(self) -> str | None:
        """What is stored at the end."""
        mine = {event.key: self.body(event) for event in self._room.stored()}
        recorded = {f"{e['metadata']['namespace']}/{e['metadata']['name']}": _bare(e) for e in self._case["stored"]}
        return _compare("stored events", sorted(recorded), sorted(mine)) or next(
            (d for d in (_compare(f"stored {k}", recorded[k], mine[k]) for k in recorded) if d is not None), None
        )

    # -- bodies -----------------------------------------------------------------------------------------------------------

    def body(self, event: StoredEvent) -> Json:
        """The event as its API writes it, without empty fields."""
        involved = event.involved
        reference = _reference_body(involved)
        body: Json = {"metadata": {"name": event.name, "namespace": event.namespace}, "type": event.type}
        body |= {"reason": event.reason}
        if self.series is None:
            body |= {
                "involvedObject": reference,
                "message": event.message,
                "source": {"component": event.component, "host": event.host},
                "firstTimestamp": _second(event.first_s),
                "lastTimestamp": _second(event.last_s),
                "count": event.count,
                "reportingComponent": event.reporting_component,
                "reportingInstance": event.reporting_instance,
            }
        else:
            body |= {
                "regarding": reference,
                "related": _reference_body(event.related) if event.related is not None else None,
                "note": event.message,
                "eventTime": _micro(event.event_time_s),
                "action": event.action,
                "reportingController": event.reporting_component,
                "reportingInstance": event.reporting_instance,
            }
            if event.series_count:
                body["series"] = {"count": event.series_count, "lastObservedTime": _micro(event.series_last_s)}
        return _bare(body)

    def patch_body(self, fields: Json) -> Json:
        """The patch as its API writes it."""
        if self.series is not None:
            series = {"count": fields["series_count"], "lastObservedTime": _micro(fields["series_last_s"])}
            return {"series": series}
        return _bare(
            {"count": fields["count"], "lastTimestamp": _second(fields["last_s"]), "message": fields.get("message")}
        )


def _reference(manifest: Json) -> ObjectReference:
    return ObjectReference(
        manifest.get("kind") or "",
        manifest.get("namespace") or "",
        manifest.get("name") or "",
        manifest.get("uid") or "",
        manifest.get("apiVersion") or "v1",
        manifest.get("resourceVersion") or "",
        manifest.get("fieldPath") or "",
    )


def _reference_body(reference: ObjectReference) -> Json:
    return {
        "kind": reference.kind,
        "namespace": reference.namespace,
        "name": reference.name,
        "uid": reference.uid,
        "apiVersion": reference.api_version,
        "resourceVersion": reference.resource_version,
        "fieldPath": reference.field_path,
    }


def _bare(body: Json) -> Json:
    """Without empty fields, at any depth."""
    out = {}
    for key, value in body.items():
        if isinstance(value, dict):
            value = _bare(value)
        if value not in (None, "", {}):
            out[key] = value
    return out


def _calendar(time_s: float) -> datetime.datetime:
    zero = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    return zero + datetime.timedelta(microseconds=round(time_s * 1e6))


def _second(time_s: float | None) -> str | None:
    return None if time_s is None else _calendar(time_s).strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro(time_s: float | None) -> str | None:
    return None if time_s is None else _calendar(time_s).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _by_name(entries: list[Json]) -> list[Json]:
    """Events of one instant share a name: those in any order."""
    return sorted(entries, key=lambda entry: (entry["name"], entry.get("count", 0), entry.get("last", 0.0)))


def _compare(what: str, recorded: Any, mine: Any) -> str | None:
    return None if recorded == mine else f"{what}: {mine!r}, recorded {recorded!r}"


def _calls_difference(recorded: list[Json], mine: list[Json]) -> str | None:
    """Compare calls in order; within one turn of a loop the order of events does not count."""
    for i, (call, wanted) in enumerate(zip(_ordered(mine), _ordered(recorded), strict=False)):
        if abs(call["t"] - wanted["t"]) > 1e-6:
            return f"call {i} ({call['verb']} {call['name']}) at {call['t']}, recorded at {wanted['t']}"
        for key in ("verb", "name", "result", "by"):
            if call.get(key) != wanted.get(key):
                return f"call {i}: {key} {call.get(key)!r}, recorded {wanted.get(key)!r}"
        if call["body"] != _bare(wanted["body"]):
            return f"call {i}: body {call['body']!r}, recorded {wanted['body']!r}"
    if len(recorded) != len(mine):
        return f"{len(mine)} calls, recorded {len(recorded)}"
    return None


def _ordered(calls: list[Json]) -> list[Json]:
    out: list[Json] = []
    turn: list[Json] = []
    for call in calls:
        loop = call.get("by") in ("refresh", "finish")
        if turn and (not loop or (call["t"], call["by"]) != (turn[0]["t"], turn[0]["by"])):
            out += sorted(turn, key=_rank)
            turn = []
        if loop:
            turn.append(call)
        else:
            out.append(call)
    return out + sorted(turn, key=_rank)


def _rank(call: Json) -> tuple[str, str, str]:
    return str(call["name"]), str(call["verb"]), json.dumps(_bare(call["body"]), sort_keys=True)
