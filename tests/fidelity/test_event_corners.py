"""Corners of the event recorders' rules that no recording shows, each with what the real code does there."""

from __future__ import annotations

from typing import Any

import pytest

from eksim.engine.clock import Clock
from eksim.errors import Refused
from eksim.kube.event_correlator import Calendar, ClassicBroadcaster, CorrelatorOptions, EventCorrelator, Source
from eksim.kube.event_objects import ObjectReference, StoredEvent
from eksim.kube.event_series import SeriesBroadcaster
from eksim.kube.events import EventRoom
from eksim.state.store import Store
from eksim.testing.replay_events import replay_case
from eksim.versions import KubernetesRules

RULES = KubernetesRules.of("1.34").controllers
KUBELET = Source("kubelet", "n1")
POD = ObjectReference("Pod", "default", "web", "u1", "v1")


class Desk:
    """A classic recorder whose clock gives equal stamps at one instant, as the recordings' clock does."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.room = EventRoom(self.clock, Store(self.clock))
        self.calendar = Calendar(self.clock, 0.0, distinct=False)
        correlator = EventCorrelator(CorrelatorOptions(), RULES, lambda messages: messages[0])
        self.broadcaster = ClassicBroadcaster(
            self.clock, self.calendar, self.room, correlator, RULES, lambda now, _: now + 10
        )

    def at(self, when: float, reason: str, message: str, involved: ObjectReference = POD) -> None:
        self.clock.run_until(when)
        self.broadcaster.record(KUBELET, involved, "Warning", reason, message)


@pytest.mark.parametrize(
    ("reason", "message", "counts"),
    [("A", "b", [3]), ("B", "b", [3]), ("A", "a", [2]), ("B", "a", [2, 1])],
)
def test_the_answer_to_a_patch_is_remembered_as_what_it_is(reason: str, message: str, counts: list[int]) -> None:
    """The second event of an instant is refused; its repetition changes the first, which has the same name. What comes
    back has the first's reason and the second's message, and is known as that (events_cache.go:updateState)."""
    desk = Desk()
    desk.at(1, "A", "a")
    desk.at(1, "B", "b")
    desk.at(5, "B", "b")
    (event,) = desk.room.stored()
    assert (event.reason, event.message, event.count) == ("A", "b", 2)
    desk.at(6, reason, message)
    assert [event.count for event in desk.room.stored()] == counts


def test_the_name_of_a_combined_event_is_not_checked() -> None:
    """events_cache.go:EventAggregate names it itself; all others get a uuid if the object's name does not fit."""
    desk = Desk()
    for i in range(10):
        desk.at(i, "A", f"message {i}", POD._replace(name="Not_A_Name"))
    names = [event.name for event in desk.room.stored()]
    assert names[-1] == f"Not_A_Name.{9_000_000_000:x}"
    assert not any("Not_A_Name" in name for name in names[:-1])


class _Sink:
    """Answers as told, then well."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.verbs: list[str] = []

    def create(self, event: StoredEvent) -> StoredEvent | Refused:
        return self._answer("create", event)

    def patch(self, event: StoredEvent, fields: dict[str, Any]) -> StoredEvent | Refused:
        return self._answer("patch", event)

    def _answer(self, verb: str, event: StoredEvent) -> StoredEvent | Refused:
        self.verbs.append(verb)
        answer = self.answers.pop(0) if self.answers else ""
        return Refused(answer) if answer else event


@pytest.mark.parametrize(
    ("answers", "verbs"),
    [
        (("", "NotFound", "AlreadyExists"), ["create", "patch", "create", "patch"]),
        (("", "NotFound", "Forbidden"), ["create", "patch", "create"]),
        (("AlreadyExists",), ["create", "patch"]),
    ],
)
def test_a_series_that_is_there_again_at_once_is_retried(answers: tuple[str, ...], verbs: list[str]) -> None:
    """event_broadcaster.go:recordEvent: two of the same events can overtake each other."""
    clock, sink = Clock(), _Sink(*answers)
    calendar = Calendar(clock, 0.0, distinct=False)
    recorder = SeriesBroadcaster(clock, calendar, sink, RULES, "c", "i", lambda now, _: now + 10)
    for when in (1, 2):
        clock.run_until(when)
        recorder.record(POD, "Warning", "A", "a", "Acting", None)
    clock.run_until(300)
    assert sink.verbs == verbs


@pytest.mark.parametrize("first", [0, 1])
def test_retries_of_events_that_share_a_name_follow_their_own_delays(first: int) -> None:
    """Two events of one instant get no answer; whichever is tried again first, the record is followed."""
    pod = {"kind": "Pod", "namespace": "default", "name": "web", "uid": "u1", "apiVersion": "v1"}
    ops: list[dict[str, Any]] = [{"op": "fail", "t": 0.5, "error": "unreachable", "count": 2}]
    calls = []
    for reason in "AB":
        ops.append({"op": "event", "t": 1.0, "object": pod, "type": "Normal", "reason": reason, "message": reason})
        body = {
            "metadata": {"name": f"web.{946684801_000_000_000:x}", "namespace": "default"},
            "eventTime": "2000-01-01T00:00:01.000000Z", "reportingController": "c", "reportingInstance": "i",
            "reason": reason, "regarding": pod, "note": reason, "type": "Normal",
        }  # fmt: skip
        name = f"default/{body['metadata']['name']}"
        calls.append({"t": 1.0, "by": "emit", "verb": "create", "name": name, "body": body, "result": "unreachable"})
    retries = [
        {**calls[first], "t": 11.5, "result": "ok"},
        {**calls[1 - first], "t": 12.5, "result": "already_exists"},
    ]
    ops.append({"op": "wait", "t": 20.0})
    cache = [{"name": calls[0]["name"]}, {"name": calls[0]["name"]}]
    steps = [
        {"t": 0.5, "op": "fail"},
        {"t": 1.0, "op": "event", "calls": calls[:1], "cache": cache[:1]},
        {"t": 1.0, "op": "event", "calls": calls[1:], "cache": cache},
        {"t": 20.0, "op": "wait", "calls": retries, "cache": cache},
    ]
    case = {
        "id": "x", "family": "x", "api": "events.k8s.io/v1", "client_version": "v1.34.1", "controller": "c",
        "instance": "i", "ttl": 3600, "ops": ops, "steps": steps, "stored": [calls[first]["body"]],
    }  # fmt: skip
    assert replay_case(case).difference is None


def test_an_empty_message_leaves_the_stored_one() -> None:
    """An empty field is in no patch (strategicpatch.CreateTwoWayMergePatch of what JSON leaves out)."""
    desk = Desk()
    desk.at(1, "A", "a")
    desk.at(1, "B", "")
    desk.at(5, "B", "")
    (event,) = desk.room.stored()
    assert (event.reason, event.message, event.count) == ("A", "a", 2)


def _series_case(ops: list[dict[str, Any]], steps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "x", "family": "x", "api": "events.k8s.io/v1", "client_version": "v1.34.1", "controller": "c",
        "instance": "i", "ttl": 36000, "ops": ops, "steps": steps, "stored": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("results", "replays"),
    [
        (("internal", "ok", "ok"), True),
        (("ok", "internal", "ok"), True),
        (("ok", "ok", "internal"), True),
        (("ok", "internal", "internal"), False),
        (("ok", "ok", "ok"), False),
    ],
)
def test_a_failure_in_a_turn_meets_the_series_that_the_record_says(results: tuple[str, ...], replays: bool) -> None:
    """A loop writes series in the order of a Go map; the record has them by name, so who failed says who was first."""
    ops: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    cache: dict[str, dict[str, Any]] = {}
    turn = []
    for i, result in enumerate(results):
        pod = {"kind": "Pod", "namespace": "default", "name": f"p{i}", "uid": f"u{i}", "apiVersion": "v1"}
        first = 1700 + i
        name = f"default/p{i}.{(946684800 + first) * 1_000_000_000:x}"
        created = {
            "metadata": {"name": name[8:], "namespace": "default"}, "reason": "A", "regarding": pod, "note": "a",
            "eventTime": f"2000-01-01T00:28:{20 + i}.000000Z", "reportingController": "c", "reportingInstance": "i",
            "type": "Normal",
        }  # fmt: skip
        series = {"series": {"count": 2, "lastObservedTime": f"2000-01-01T00:28:{20 + i}.500000Z"}}
        for t, verb, body in ((float(first), "create", created), (first + 0.5, "patch", series)):
            ops.append({"op": "event", "t": t, "object": pod, "type": "Normal", "reason": "A", "message": "a"})
            cache[name] = {"name": name, "count": 2, "last": t} if verb == "patch" else {"name": name}
            call = {"t": t, "by": "emit", "verb": verb, "name": name, "body": body, "result": "ok"}
            steps.append({"t": t, "op": "event", "calls": [call], "cache": list(cache.values())})
        turn.append({"t": 1800.0, "by": "refresh", "verb": "patch", "name": name, "body": series, "result": result})
    ops += [{"op": "fail", "t": 1750.0, "error": "internal", "count": 1}, {"op": "wait", "t": 1801.0}]
    steps.append({"t": 1750.0, "op": "fail", "cache": list(cache.values())})
    steps.append({"t": 1801.0, "op": "wait", "calls": turn, "cache": list(cache.values())})
    difference = replay_case(_series_case(ops, steps)).difference
    assert (difference is None or difference.startswith("stored events")) is replays
