"""Equal configurations run once: two instance types that EC2, ipamd and the kubelet cannot tell apart give the same figures.

The key holds everything of a type that a run reads; price and name are put into the row afterwards. A property test holds the
rows against runs without the shortcut; ``--simulate-all`` turns it off.
"""

from __future__ import annotations

import json
from typing import Any

from eksim.catalog import types as catalog
from eksim.catalog.types import InstanceType
from eksim.errors import InputError
from eksim.sweep.configure import Base
from eksim.sweep.row import NODES_UP, run_row

#: What a run reads of an instance type (its name stands in labels; a scenario that selects by it is not shortened).
_NAME_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")


def type_key(t: InstanceType) -> tuple[Any, ...]:
    """Everything of a type but its name and price that decides a run."""
    from eksim.kube.capacity import SEEN_MEMORY_KIB

    return (
        t.max_enis,
        t.listed_enis,
        t.ipv4_per_eni,
        t.hypervisor,
        t.bare_metal,
        t.vcpu,
        t.memory_mib,
        t.architecture,
        t.trunking,
        SEEN_MEMORY_KIB.get(t.name),
    )


class Shortcut:
    """Rows by what decides them."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self._rows: dict[str, dict[str, Any]] = {}
        text = json.dumps(base.document, default=str)
        groups = base.document.get("cluster", {}).get("nodeGroups", [])
        self._off = any(label in text for label in _NAME_LABELS) or len(groups) != 1

    def key(self, values: dict[str, Any]) -> str | None:
        """What decides a configuration's row; None if it is not to be shortened."""
        name = values.get("instance_type")
        if name is None or self._off:
            return None
        try:
            instance = catalog.lookup(str(name))
        except InputError:
            return None
        return json.dumps([type_key(instance), {k: v for k, v in values.items() if k != "instance_type"}], default=str)

    def knows(self, key: str) -> bool:
        """Whether a configuration with this key has been run."""
        return key in self._rows

    def learn(self, values: dict[str, Any], row: dict[str, Any]) -> None:
        """Keep the row of a configuration that has been run, unless that failed: an error may speak of its type."""
        key = None if row["error"] else self.key(values)
        if key is not None:
            self._rows[key] = row

    def row(self, values: dict[str, Any]) -> dict[str, Any]:
        """The row of a configuration, simulated unless an equal one has been."""
        key = self.key(values)
        found = None if key is None else self._rows.get(key)
        if found is None:
            found = run_row(self.base, values)
            self.learn(values, found)
            return found
        name = str(values["instance_type"])
        instance = catalog.lookup(name)
        row = dict(found)
        row["instance_type"] = name
        row["scenario_hash"] = self.base.configure(values).hash
        usd, nodes = instance.usd_per_hour, row[NODES_UP]
        total = 0.0
        for _ in range(nodes):  # summed as figures() sums, to the last bit
            total += usd or 0.0
        row["usd_per_hour"] = None if usd is None and nodes else round(total, 6)
        price, running = row["usd_per_hour"], row["pods_running"]
        row["usd_per_pod_hour"] = round(price / running, 6) if price is not None and running else None
        return row
