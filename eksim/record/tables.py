"""Every table of a run: its columns with type, unit and meaning. ``recorder.py`` fills them, ``result.py`` keeps them."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """A column. ``kind``: ``f`` float64, ``i`` int64, ``s`` text (few different values), ``?`` float64 that may be missing."""

    name: str
    kind: str
    meaning: str


TABLES: dict[str, tuple[Column, ...]] = {
    "events": (
        Column("time_s", "f", "when it was recorded, seconds since the start"),
        Column("type", "s", "Normal or Warning"),
        Column("reason", "s", "the event's reason, such as FailedScheduling"),
        Column("object", "s", "kind/namespace/name of the object it is about, kind in lower case"),
        Column("message", "s", "the text, as the component wrote it"),
        Column("count", "i", "occurrences the stored event stands for by then"),
        Column("first_s", "f", "first occurrence, seconds since the start"),
        Column("last_s", "f", "last occurrence, seconds since the start"),
    ),
    "pods": (
        Column("time_s", "f", "when it became so"),
        Column("pod", "s", "namespace/name"),
        Column("phase", "s", "Pending, Running, Succeeded, Failed; Deleted: the object is gone"),
        Column("reason", "s", "Unschedulable, ContainerCreating, Terminating, …; empty: nothing to say"),
        Column("node", "s", "the node's name; empty while unbound"),
        Column("ip", "s", "its address; empty before it has one"),
    ),
    "nodes": (
        Column("time_s", "f", "when it became so"),
        Column("node", "s", "the node's name"),
        Column("state", "s", "NotReady, Ready, SchedulingDisabled or Deleted"),
        Column("instance_type", "s", "EC2 instance type"),
        Column("zone", "s", "availability zone"),
        Column("max_pods", "i", "allocatable pods"),
        Column("pods", "i", "pods bound to it (not finished ones)"),
    ),
    "enis": (
        Column("node", "s", "the node's name"),
        Column("device", "s", "interface name: eth0, eth1, … (the number is the ENI's device index)"),
        Column("eni_id", "s", "the ENI's id"),
        Column("attached_s", "f", "when it was attached, seconds since the start"),
        Column("detached_s", "?", "when it was detached; missing: still there at the end"),
    ),
    "addresses": (
        Column("time_s", "f", "when it became so"),
        Column("node", "s", "the node's name"),
        Column("enis", "i", "ENIs in ipamd's datastore"),
        Column("total", "i", "addresses that pods can use: assigned + warm + cooling"),
        Column("assigned", "i", "addresses held by pod sandboxes"),
        Column("warm", "i", "free addresses that can be given out at once"),
        Column("cooling", "i", "addresses released less than the cool-down ago"),
    ),
    "subnets": (
        Column("time_s", "f", "when it became so"),
        Column("subnet", "s", "the subnet's name"),
        Column("free", "i", "addresses nobody holds, AWS's five not counted"),
        Column("used", "i", "addresses held: ENIs, pods' addresses, prefixes, others"),
    ),
    "ec2_calls": (
        Column("time_s", "f", "when the call began"),
        Column("end_s", "f", "when it was answered"),
        Column("node", "s", "the node whose ipamd called"),
        Column("api", "s", "the EC2 action"),
        Column("device", "i", "device number of the ENI meant; -1: none"),
        Column("count", "i", "addresses or prefixes asked for; 0: none"),
        Column("error", "s", "EC2's error code; empty: it succeeded"),
    ),
}
