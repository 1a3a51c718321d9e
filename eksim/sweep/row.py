"""One configuration run, and the row it gives: an event-true simulation, without tables."""

from __future__ import annotations

from typing import Any

from eksim.catalog import types as catalog
from eksim.cluster import Cluster, build
from eksim.errors import EksimError, InputError
from eksim.play.expect import pod_counts
from eksim.play.run import perform
from eksim.record.summary import SummaryRecorder
from eksim.scenario.load import LoadedScenario
from eksim.sweep.columns import FIGURE_NAMES
from eksim.sweep.configure import Base
from eksim.views.explain import explain

#: Beside the columns: how many nodes there are at the end (the price of an equal configuration follows from it).
NODES_UP = "_nodes_up"


def run_row(base: Base, values: dict[str, Any]) -> dict[str, Any]:
    """The row of a configuration: axes, then figures; a configuration that cannot run gives its error."""
    row: dict[str, Any] = dict(values)
    try:
        loaded = base.configure(values)
        row.update(axes_of(base, loaded, values))
        row.update(figures(loaded))
    except InputError as error:
        row.update(dict.fromkeys(n for n in FIGURE_NAMES if n not in row))
        row["error"] = error.told if error.field else error.message  # "is -1" alone says little
    except EksimError as error:
        row.update(dict.fromkeys(n for n in FIGURE_NAMES if n not in row))
        row["error"] = f"{type(error).__name__}: {error}"
    return row


def axes_of(base: Base, loaded: LoadedScenario, values: dict[str, Any]) -> dict[str, Any]:
    """The usual axes with their values, whether they vary or not."""
    groups = loaded.scenario.cluster.node_groups
    group = next((g for g in groups if g.name == base.node_group), groups[0])
    size = len(group.nodes) if group.nodes is not None else group.size
    replicas = [
        m.document["spec"].get("replicas", 1) for w in loaded.workloads for m in w.manifests if m.kind == "Deployment"
    ]
    return {
        "instance_type": group.instance_type,
        "nodes": size,
        "replicas": replicas[0] if len(replicas) == 1 else None,
        "seed": loaded.scenario.seed,
        **values,
    }


def figures(loaded: LoadedScenario) -> dict[str, Any]:
    """Run a configured scenario and count."""
    summary: list[SummaryRecorder] = []

    def count(cluster: Cluster) -> None:
        summary.append(SummaryRecorder(cluster.clock, cluster.store))

    cluster = build(loaded, loaded.scenario.seed, record=False, prepare=count, events=False)
    settled_s = perform(cluster, loaded)
    recorder = summary[0]
    counts = pod_counts(cluster)
    stats = [cluster.pool_stats(name) for name in cluster.store.nodes]
    running = counts.get("Running", 0)
    price = hourly_price(cluster)
    figures = {
        "scenario_hash": loaded.hash,
        "pods_running": running,
        "pods_pending": counts.get("Pending", 0),
        "pods_stuck": counts["stuck"],
        "bound_by": explain(cluster.snapshot(), cluster.pool_stats, cluster.usage()).bound_by,
        "settled_s": settled_s,
        "addresses_assigned": sum(s[2] for s in stats),
        "addresses_warm": sum(s[1] - s[2] for s in stats),
        "enis": sum(len(i.enis) for i in cluster.network.instances.values()),
        "subnet_free_min": recorder.subnet_free_min,
        "ec2_calls": recorder.ec2_calls,
        "start_p50_s": recorder.start_quantile_s(0.5),
        "start_p99_s": recorder.start_quantile_s(0.99),
        "usd_per_hour": price,
        "usd_per_pod_hour": round(price / running, 6) if price is not None and running else None,
        "error": "",
        NODES_UP: len(cluster.store.nodes),
    }
    cluster.close()
    return figures


def hourly_price(cluster: Cluster) -> float | None:
    """USD per hour of all nodes on demand; None if a type's price is unknown."""
    total = 0.0
    for node in cluster.store.nodes.values():
        usd = catalog.lookup(str(node.facts["instance_type"])).usd_per_hour
        if usd is None:
            return None
        total += usd
    return round(total, 6)
