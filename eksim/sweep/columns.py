"""The columns of a sweep's rows: name, type, unit and meaning. The axes' columns stand before them."""

from __future__ import annotations

from typing import NamedTuple


class SweepColumn(NamedTuple):
    """``kind``: ``i`` whole number, ``f`` number, ``s`` text; every one may be missing in a failed row."""

    name: str
    kind: str
    meaning: str


#: Always there, whether they vary or not.
AXES = (
    SweepColumn("instance_type", "s", "EC2 instance type of the node group"),
    SweepColumn("nodes", "i", "size of the node group"),
    SweepColumn("replicas", "i", "replicas of the scenario's only Deployment; missing if there are several"),
    SweepColumn("seed", "i", "seed of the run"),
)
FIGURES = (
    SweepColumn("scenario_hash", "s", "sha256 of the scenario and its manifests, as eksim run gives it"),
    SweepColumn("pods_running", "i", "pods in phase Running at the end, all namespaces"),
    SweepColumn("pods_pending", "i", "pods in phase Pending at the end, all namespaces"),
    SweepColumn("pods_stuck", "i", "pods bound to a node, but without an address"),
    SweepColumn("bound_by", "s", "which limit binds: pod slots, addresses, subnet, cpu, memory, nothing"),
    SweepColumn("settled_s", "f", "simulated seconds until the run was settled; missing if it never was"),
    SweepColumn("addresses_assigned", "i", "addresses held by pods, all nodes"),
    SweepColumn("addresses_warm", "i", "attached addresses no pod holds (cooling ones included), all nodes"),
    SweepColumn("enis", "i", "ENIs attached to the nodes"),
    SweepColumn("subnet_free_min", "i", "the fewest free addresses any subnet had at any moment"),
    SweepColumn("ec2_calls", "i", "calls to EC2 by all nodes' ipamd"),
    SweepColumn("start_p50_s", "f", "median of the seconds from a pod's creation to Running"),
    SweepColumn("start_p99_s", "f", "99th percentile of the same"),
    SweepColumn("usd_per_hour", "f", "on-demand price of all nodes, us-east-1; missing where unknown"),
    SweepColumn("usd_per_pod_hour", "f", "usd_per_hour per running pod"),
    SweepColumn("error", "s", "why the configuration could not be run; empty: it ran"),
)
FIGURE_NAMES = tuple(c.name for c in FIGURES)
