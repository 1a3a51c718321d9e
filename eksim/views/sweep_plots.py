"""Pictures of a sweep: Pending by type and nodes, price against pods with its frontier, addresses wasted against start latency.

Each is a function on matplotlib Axes over rows (dicts with the columns of ``eksim.sweep.columns``); ``draw_sweep`` writes those
that the sweep's axes allow. Colours run from light to dark, so that they read in greyscale; numbers stand in the cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eksim.catalog import types as catalog

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rows = Sequence[dict[str, Any]]
INK = "#222222"
#: Rows of a heat map that are drawn with their names; with more, types that behave alike share a row.
MOST_ROWS = 45


def _good(rows: Rows) -> list[dict[str, Any]]:
    return [r for r in rows if not r.get("error")]


def plot_pending(rows: Rows, ax: Axes) -> None:
    """Heat map: instance type × node count, pods Pending; 0 is marked as enough."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    good = _good(rows)
    nodes = sorted({r["nodes"] for r in good})
    best: dict[str, dict[int, int]] = {}
    for r in good:
        cell = best.setdefault(r["instance_type"], {})
        cell[r["nodes"]] = max(cell.get(r["nodes"], 0), r["pods_pending"])
    names = sorted(best, key=lambda n: (-sum(best[n].values()), _order(n)))
    labels = names
    if len(names) > MOST_ROWS:
        groups: dict[tuple[int, ...], list[str]] = {}
        for name in names:
            groups.setdefault(tuple(best[name].get(n, -1) for n in nodes), []).append(name)
        names = [members[0] for members in groups.values()]
        labels = [m[0] if len(m) == 1 else f"{m[0]} and {len(m) - 1} more" for m in groups.values()]
    grid = np.array([[best[n].get(k, np.nan) for k in nodes] for n in names], dtype=float)
    shown = ax.imshow(grid, aspect="auto", cmap="Greys", vmin=0, vmax=max(1.0, float(np.nanmax(grid))))
    limit = float(np.nanmax(grid)) / 2
    for y in range(len(names)):
        for x in range(len(nodes)):
            value = grid[y, x]
            if value != value:
                continue
            text = "✓" if value == 0 else f"{int(value)}"
            ax.text(
                x,
                y,
                text,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if value > limit else ("#1b6ca8" if value == 0 else INK),
            )
    ax.set_xticks(range(len(nodes)), [str(n) for n in nodes], fontsize=7)
    ax.set_yticks(range(len(names)), labels, fontsize=7)
    ax.set_xlabel("nodes", fontsize=8)
    ax.set_title("Pods Pending (✓ none)", loc="left", fontsize=9)
    bar = ax.figure.colorbar(shown, ax=ax, shrink=0.6, pad=0.02, ticks=MaxNLocator(integer=True))
    bar.ax.tick_params(labelsize=7)


def _order(name: str) -> tuple[str, int, int]:
    t = catalog.lookup(name)
    return t.family, t.vcpu or 0, t.memory_mib or 0


def frontier(rows: Rows) -> list[dict[str, Any]]:
    """The rows that no other row beats: more running pods at no higher price. By price, cheapest first."""
    priced = [r for r in _good(rows) if r.get("usd_per_hour") is not None]
    out: list[dict[str, Any]] = []
    most = -1
    for r in sorted(priced, key=lambda r: (r["usd_per_hour"], -r["pods_running"])):
        if r["pods_running"] > most:
            most = r["pods_running"]
            out.append(r)
    return out


def plot_price(rows: Rows, ax: Axes) -> None:
    """Price against running pods; the frontier (most pods for the money) is a line with its types named."""
    priced = [r for r in _good(rows) if r.get("usd_per_hour") is not None]
    ax.scatter(
        [r["usd_per_hour"] for r in priced],
        [r["pods_running"] for r in priced],
        s=10,
        color="#9a9a9a",
        label="configurations",
    )
    edge = frontier(rows)
    ax.step(
        [r["usd_per_hour"] for r in edge],
        [r["pods_running"] for r in edge],
        where="post",
        color="#1b6ca8",
        marker="o",
        markersize=4,
        linewidth=1.3,
        label="cheapest for so many pods",
    )
    named: list[tuple[float, int]] = []
    for r in reversed(edge):  # the largest first; what would lie on another label goes without
        x, y = float(r["usd_per_hour"]), int(r["pods_running"])
        if any(x > 0 and near / x < 1.6 and abs(y - other) < 0.06 * edge[-1]["pods_running"] for near, other in named):
            continue
        named.append((x, y))
        text = f"{r['nodes']} × {r['instance_type']}"
        side, shift = ("left", 5) if r is edge[0] else ("right", -5)
        ax.annotate(text, (x, y), xytext=(shift, 4), textcoords="offset points", fontsize=6.5, ha=side)
    ax.margins(x=0.12)
    prices = [r["usd_per_hour"] for r in priced if r["usd_per_hour"] > 0]
    if prices and max(prices) > 20 * min(prices):
        ax.set_xscale("log")
    ax.set_xlabel("USD per hour, on demand", fontsize=8)
    ax.set_ylabel("running pods", fontsize=8)
    ax.legend(fontsize=7, loc="lower right")
    ax.set_title("Price against pods", loc="left", fontsize=9)


def warm_columns(rows: Rows) -> list[str]:
    """Columns that are warm targets of the CNI and vary."""
    if not rows:
        return []
    wanted = ("WARM_", "MINIMUM_IP_TARGET", "ENABLE_PREFIX_DELEGATION")
    return [c for c in rows[0] if any(w in c for w in wanted) and len({str(r.get(c)) for r in rows}) > 1]


def plot_warm(rows: Rows, ax: Axes) -> None:
    """Addresses held but unused against the slow pods' start, one mark per warm setting (mean over its rows)."""
    columns = warm_columns(rows)
    groups: dict[str, list[dict[str, Any]]] = {}
    for r in _good(rows):
        label = ", ".join(f"{c.rpartition('.')[2]}={r[c]}" for c in columns)
        groups.setdefault(label, []).append(r)
    markers = "osD^vP*X<>"
    for i, (label, members) in enumerate(groups.items()):
        timed = [m for m in members if m.get("start_p99_s") is not None]
        if not timed:
            continue
        x = sum(m["addresses_warm"] for m in timed) / len(timed)
        y = sum(m["start_p99_s"] for m in timed) / len(timed)
        ax.scatter(
            [x],
            [y],
            marker=markers[i % len(markers)],
            s=45,
            color=str(0.15 + 0.6 * (i % 5) / 5),
            edgecolor=INK,
            linewidth=0.5,
        )
        ax.annotate(label, (x, y), xytext=(6, 3), textcoords="offset points", fontsize=7)
    ax.set_xlabel("addresses attached and unused", fontsize=8)
    ax.set_ylabel("99 % of pods run within, seconds", fontsize=8)
    ax.margins(x=0.25, y=0.12)
    ax.set_ylim(bottom=0)
    ax.set_title("Addresses wasted against start latency (mean of each setting's rows)", loc="left", fontsize=9)


def draw_sweep(rows: Rows, directory: Path | str, title: str = "") -> list[Path]:
    """Write the pictures that the sweep's axes allow, each as PNG and SVG; returns the paths."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    good = _good(rows)
    kinds: list[tuple[str, Any, tuple[float, float]]] = []
    types = {r["instance_type"] for r in good}
    if len(types) > 1 or len({r["nodes"] for r in good}) > 1:
        shapes = len({tuple(r["pods_pending"] for r in good if r["instance_type"] == t) for t in types})
        height = 0.19 * min(len(types), max(shapes, 1)) if len(types) > MOST_ROWS else 0.19 * len(types)
        kinds.append(("pending", plot_pending, (8, max(3.0, height + 1.6))))
        kinds.append(("price", plot_price, (8, 4.6)))
    if warm_columns(good):
        kinds.append(("warm", plot_warm, (8, 4.6)))
    paths: list[Path] = []
    for name, plot, size in kinds:
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        plot(good, ax)
        ax.tick_params(labelsize=7)
        if title:
            figure.suptitle(title, fontsize=9, x=0.01, ha="left")
        with matplotlib.rc_context({"svg.hashsalt": "eksim", "svg.fonttype": "none"}):
            for kind in ("png", "svg"):
                path = Path(directory) / f"{name}.{kind}"
                figure.savefig(path, dpi=130, metadata={"Date": None} if kind == "svg" else None)
                paths.append(path)
    return paths
