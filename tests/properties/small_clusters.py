"""Scenarios that several tests begin with."""

from __future__ import annotations

from eksim.testing.strategies import Document

ONE_NODE: Document = {
    "apiVersion": "eksim/v1",
    "kind": "Scenario",
    "name": "one-node",
    "latency": "none",
    "cluster": {
        "subnets": [{"name": "s", "zone": "us-east-1a", "cidr": "10.0.0.0/24"}],
        "nodeGroups": [{"name": "g", "instanceType": "t3.small", "size": 1}],
        "addons": {"coredns": False},
    },
}
