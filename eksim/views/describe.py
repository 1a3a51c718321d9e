"""``kubectl describe pod`` and ``describe node`` as kubectl lays them out, from a snapshot.

Source: kubectl/pkg/describe/describe.go, v0.21.2 and v0.34.1. Dates are in UTC. Container ids and image ids are left out (no
runtime gives any), as are mounts and volumes other than the token's.
"""

from __future__ import annotations

import datetime
import math
from typing import Any

from eksim.state.objects import Node, Pod
from eksim.state.podspec import ContainerSpec, Toleration
from eksim.state.snapshot import Snapshot
from eksim.units import BINARY, DECIMAL, Quantity, human_duration
from eksim.views.kubectl import NONE, age
from eksim.views.tabwriter import tabulate

#: kubectl before 1.23 prints an event's count only for classic events, and ignores series.
SERIES_PRINTED_SINCE = 23
SERVICE_ACCOUNT_LINE_SINCE = 25


def format_resource(name: str, amount: int) -> str:
    """An amount in eksim's units (millicores, bytes, pieces) as kubectl prints the quantity."""
    if name == "cpu":
        return str(Quantity(amount * 10**6, DECIMAL))
    if name in ("memory", "ephemeral-storage") or name.startswith("hugepages-"):
        return str(Quantity(amount * 10**9, BINARY))
    return str(amount)


def event_age(snapshot: Snapshot, event: Any) -> str:
    """The Age cell: ``52s (x4 over 3m13s)``. Source: describe.go:DescribeEvents, v0.20.4 … v0.34.1."""
    if snapshot.minor < SERIES_PRINTED_SINCE:
        if event.count > 1:
            return f"{_since(snapshot, event.last_s)} (x{event.count} over {_since(snapshot, event.first_s)})"
        return _since(snapshot, event.first_s if event.first_s is not None else event.event_time_s)
    if event.series_count:
        first = _since(snapshot, event.event_time_s)
        return f"{_since(snapshot, event.series_last_s)} (x{event.series_count} over {first})"
    first = _since(snapshot, event.event_time_s if event.event_time_s is not None else event.first_s)
    return f"{_since(snapshot, event.last_s)} (x{event.count} over {first})" if event.count > 1 else first


def _since(snapshot: Snapshot, moment_s: float | None) -> str:
    return "<unknown>" if moment_s is None else human_duration(snapshot.now_s - moment_s)


def events_lines(snapshot: Snapshot, events: list[Any]) -> list[list[str]]:
    """The Events table, each line as cells."""
    rows = [["  Type", "Reason", "Age", "From", "Message"], ["  ----", "------", "----", "----", "-------"]]
    # by lastTimestamp; events of the series recorder have none and come first
    for event in sorted(events, key=lambda e: -math.inf if e.last_s is None else e.last_s):
        rows.append([f"  {event.type}", event.reason, event_age(snapshot, event), event.source, event.message.strip()])
    return rows


def _date(snapshot: Snapshot, moment_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(math.floor(snapshot.epoch_s + moment_s), datetime.UTC)
    return moment.strftime("%a, %d %b %Y %H:%M:%S +0000")


def _named(label: str, values: dict[str, str], separator: str) -> list[list[str]]:
    texts = [f"{k}{separator}{v}" for k, v in sorted(values.items())] or [NONE]
    return [[label if i == 0 else "", text] for i, text in enumerate(texts)]


def describe_pod(snapshot: Snapshot, pod: Pod) -> str:
    """``kubectl describe pod``."""
    spec = pod.spec
    today = snapshot.minor >= SERVICE_ACCOUNT_LINE_SINCE
    lines: list[list[str]] = [["Name:", pod.name], ["Namespace:", pod.namespace]]
    lines.append(["Priority:", str(spec.priority)])
    if spec.priority_class:
        lines.append(["Priority Class Name:", spec.priority_class])
    if today:
        lines.append(["Service Account:", spec.service_account])
    lines.append(["Node:", f"{pod.node}/{pod.host_ip}" if pod.node else NONE])
    if pod.started_s is not None:
        lines.append(["Start Time:", _date(snapshot, pod.started_s)])
    lines += _named("Labels:", pod.labels, "=") + _named("Annotations:", pod.annotations, ": ")
    if pod.deletion_s is not None:
        lasts = human_duration(snapshot.now_s - pod.deletion_s - pod.grace_s)
        lines.append(["Status:", f"Terminating (lasts {lasts})"])
        lines.append(["Termination Grace Period:", f"{pod.grace_s:g}s"])
    else:
        lines.append(["Status:", pod.phase])
    if pod.reason:
        lines.append(["Reason:", pod.reason])
    if pod.status_message:
        lines.append(["Message:", pod.status_message])
    lines.append(["IP:", pod.ip])
    lines += [["IPs:"], ["  IP:", pod.ip]] if pod.ip else [["IPs:", NONE]]
    if pod.owner is not None:
        lines.append(["Controlled By:", f"{pod.owner.kind}/{pod.owner.name}"])
    if pod.nominated_node:
        lines.append(["NominatedNodeName:", pod.nominated_node])
    if spec.init_containers:
        lines.append(["Init Containers:"])
        for container in spec.init_containers:
            lines += _container(snapshot, pod, container, spec.host_network)
    lines.append(["Containers:"])
    for container in spec.containers:
        lines += _container(snapshot, pod, container, spec.host_network)
    lines += _conditions(snapshot, pod)
    lines += [
        ["Volumes:"],
        [f"  kube-api-access-{pod.uid[:5] or 'xxxxx'}:"],
        ["    Type:", "Projected (a volume that contains injected data from multiple sources)"],
        ["    TokenExpirationSeconds:", "3607"],
        ["    ConfigMapName:", "kube-root-ca.crt"],
        ["    ConfigMapOptional:", "<nil>"],
        ["    DownwardAPI:", "true"],
    ]
    lines.append(["QoS Class:", qos_class(pod)])
    lines += _named("Node-Selectors:", spec.node_selector, "=")
    lines += _tolerations(spec.tolerations)
    text = tabulate(lines)
    return "\n".join(text + _events(snapshot, snapshot.events_of(pod.namespace, pod.name)))


def _events(snapshot: Snapshot, events: list[Any], label: str = "Events:") -> list[str]:
    if not events:
        return tabulate([[label, NONE]])
    return [label, *tabulate(events_lines(snapshot, events))]


def _container(snapshot: Snapshot, pod: Pod, container: ContainerSpec, host_network: bool) -> list[list[str]]:
    def ports(host: bool) -> tuple[str, str]:
        found = container.ports
        texts = [
            f"{(p.get('hostPort') or (p['containerPort'] if host_network else 0)) if host else p['containerPort']}"
            f"/{p.get('protocol') or 'TCP'}"
            for p in found
        ]
        return ("s" if len(found) > 1 else "", ", ".join(texts) or NONE)

    plural, shown = ports(False)
    _, host = ports(True)
    lines = [
        [f"  {container.name}:"],
        ["    Image:", container.image],
        [f"    Port{plural}:", shown],
        [f"    Host Port{plural}:", host],
    ]
    if pod.phase == "Running" and pod.started_s is not None:
        lines += [
            ["    State:", "Running"],
            ["      Started:", _date(snapshot, pod.ready_s if pod.ready_s is not None else pod.started_s)],
            ["    Ready:", "True" if pod.ready else "False"],
            ["    Restart Count:", str(pod.restarts)],
        ]
    elif pod.waiting:
        lines += [
            ["    State:", "Waiting"],
            ["      Reason:", pod.waiting],
            ["    Ready:", "False"],
            ["    Restart Count:", str(pod.restarts)],
        ]
    for title, amounts in (("Limits", container.limits), ("Requests", container.requests)):
        if amounts:
            lines.append([f"    {title}:"])
            lines += [[f"      {k}:", format_resource(k, v)] for k, v in sorted(amounts.items())]
    lines.append(["    Environment:", NONE])
    lines.append(["    Mounts:"])
    lines.append(["      /var/run/secrets/kubernetes.io/serviceaccount from kube-api-access (ro)"])
    return lines


def _conditions(snapshot: Snapshot, pod: Pod) -> list[list[str]]:
    scheduled = pod.scheduled
    if scheduled is None and not pod.node:
        return []
    rows: list[tuple[str, str]] = []
    if pod.node:
        ready = str(pod.ready)
        rows = [("Initialized", "True"), ("Ready", ready), ("ContainersReady", ready)]
    rows.append(("PodScheduled", scheduled.status if scheduled is not None else "True"))
    for name, condition in sorted(pod.conditions.items()):
        rows.append((name, condition.status))
    return [["Conditions:"], ["  Type", "Status"], *([f"  {t} ", f"{s} "] for t, s in rows)]


def qos_class(pod: Pod) -> str:
    """BestEffort, Burstable or Guaranteed. Source: kubernetes/pkg/apis/core/v1/helper/qos/qos.go:ComputePodQOS."""
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    counted = ("cpu", "memory")
    any_set = any(v for c in containers for m in (c.requests, c.limits) for k, v in m.items() if k in counted)
    if not any_set:
        return "BestEffort"
    guaranteed = all(c.limits.get(k) and c.limits.get(k) == c.requests.get(k) for c in containers for k in counted)
    return "Guaranteed" if guaranteed else "Burstable"


def _tolerations(tolerations: tuple[Toleration, ...]) -> list[list[str]]:
    texts = []
    for t in sorted(tolerations, key=lambda t: t.key):
        text = t.key or ""
        if t.value:
            text += f"={t.value}"
        if t.effect:
            text += f":{t.effect}"
        if t.operator == "Exists" and not t.value:
            text += " op=Exists" if text else "op=Exists"
        if t.seconds is not None:
            text += f" for {t.seconds}s"
        texts.append(text)
    return [["Tolerations:" if i == 0 else "", text] for i, text in enumerate(texts or [NONE])]


def describe_node(snapshot: Snapshot, node: Node) -> str:
    """``kubectl describe node``: identity, conditions, capacity, its pods, what they ask for, events."""
    facts = node.facts
    lines = [["Name:", node.name], ["Roles:", NONE]]
    lines += _named("Labels:", node.labels, "=") + _named("Annotations:", node.annotations, ": ")
    lines.append(["CreationTimestamp:", _date(snapshot, node.created_s)])
    taints = sorted(node.taints, key=lambda t: (t.effect, t.key))
    texts = [f"{t.key}{'=' + t.value if t.value else ''}:{t.effect}" for t in taints] or [NONE]
    lines += [["Taints:" if i == 0 else "", text] for i, text in enumerate(texts)]
    lines.append(["Unschedulable:", str(node.unschedulable).lower()])
    lines.append(["Addresses:"])
    lines += [["  InternalIP:", str(facts.get("ip", ""))], ["  Hostname:", node.name]]
    for title, amounts in (("Capacity:", node.capacity), ("Allocatable:", node.allocatable)):
        lines.append([title])
        lines += [[f"  {k}:", format_resource(k, v)] for k, v in sorted(amounts.items())]
    lines += [
        ["System Info:"],
        ["  OS Image:", str(facts.get("os_image", ""))],
        ["  Container Runtime Version:", str(facts.get("runtime", ""))],
        ["  Kubelet Version:", str(facts.get("kubelet_version", ""))],
        ["ProviderID:", str(facts.get("provider_id", ""))],
    ]
    pods = [p for p in snapshot.pods() if p.node == node.name and p.phase not in ("Succeeded", "Failed")]
    lines.append(["Non-terminated Pods:", f"({len(pods)} in total)"])
    head = ["Namespace", "Name", "", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age"]
    lines.append(["  " + head[0], *head[1:]])
    lines.append(["  " + "-" * len(head[0]), *("-" * len(h) for h in head[1:])])
    sums = dict.fromkeys(("cpu", "memory", "cpu limits", "memory limits"), 0)
    for pod in pods:
        cells = []
        limits = {k: sum(c.limits.get(k, 0) for c in pod.spec.containers) for k in ("cpu", "memory")}
        for resource in ("cpu", "memory"):
            for kind, amount in (("", pod.spec.requests.get(resource, 0)), (" limits", limits[resource])):
                sums[resource + kind] += amount
                cells.append(_share(resource, amount, node))
        lines.append([f"  {pod.namespace}", pod.name, "", *cells, age(snapshot, pod.created_s)])
    lines += [
        ["Allocated resources:"],
        ["  (Total limits may be over 100 percent, i.e., overcommitted.)"],
        ["  Resource", "Requests", "Limits"],
        ["  --------", "--------", "------"],
    ]
    for resource in ("cpu", "memory"):
        shares = [_share(resource, sums[resource + kind], node) for kind in ("", " limits")]
        lines.append([f"  {resource}", *shares])
    return "\n".join(tabulate(lines) + _events(snapshot, snapshot.events_of("", node.name)))


def _share(resource: str, amount: int, node: Node) -> str:
    whole = node.allocatable.get(resource, 0)
    percent = int(amount / whole * 100) if whole else 0
    return f"{format_resource(resource, amount)} ({percent}%)"
