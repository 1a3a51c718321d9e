"""The picture of a run: ethN growth, pods by phase, addresses against capacity, on one time axis.

Functions on matplotlib Axes, and one that writes the whole picture. Greys, hatches and labels carry the meaning, so that it
reads in greyscale; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from eksim.record.result import Result

#: phase or state → (face, hatch): dark to light, colour-blind safe, apart in greyscale.
PHASES = {
    "Running": ("#1b6ca8", ""),
    "ContainerCreating": ("#8cc1e3", "//"),
    "Terminating": ("#b9b9b9", ".."),
    "Pending": ("#f2a03d", "xx"),
}
ADDRESSES = {"assigned": ("#1b6ca8", ""), "cooling": ("#b9b9b9", ".."), "warm": ("#e3eef6", "//")}
INK = "#222222"


def plot_interfaces(result: Result, ax: Axes) -> None:
    """A bar per ethN of each node, from its attachment to its detachment (or the end)."""
    rows = sorted(result.rows("enis"), key=lambda r: (r[0], r[1], r[3]))
    end = float(result.summary["end_s"])
    nodes = list(dict.fromkeys(r[0] for r in rows))
    short = _short(nodes)
    if len(nodes) > 6:
        _plot_interface_counts(rows, end, ax)
        return
    lanes: dict[tuple[str, str], int] = {}
    for node, device, *_ in rows:
        lanes.setdefault((node, device), len(lanes))
    for node, device, _, attached, detached in rows:
        until = end if detached != detached else detached
        lane = lanes[(node, device)]
        shade = "#5b5b5b" if nodes.index(node) % 2 == 0 else "#9a9a9a"
        ax.barh(
            lane,
            max(until - attached, end / 400),
            left=attached,
            height=0.62,
            color=shade,
            edgecolor=INK,
            linewidth=0.6,
        )
        if attached > end * 0.08:
            ax.annotate(
                f"+{device}",
                (attached, lane),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7,
            )
    ax.set_yticks(list(lanes.values()), [f"{short[n]} {d}" for n, d in lanes], fontsize=7)
    ax.set_ylim(len(lanes) - 0.4, -0.6)
    ax.set_title("Network interfaces", loc="left", fontsize=9)


def _plot_interface_counts(rows: list[tuple[Any, ...]], end: float, ax: Axes) -> None:
    changes = sorted([(r[3], 1) for r in rows] + [(r[4], -1) for r in rows if r[4] == r[4]])
    times, counts, count = [0.0], [0], 0
    for time, step in changes:
        count += step
        times.append(time)
        counts.append(count)
    ax.step([*times, end], [*counts, count], where="post", color=INK, linewidth=1.2)
    ax.set_ylim(bottom=0)
    ax.set_title("Network interfaces of all nodes", loc="left", fontsize=9)


def plot_pods(result: Result, ax: Axes) -> None:
    """Pods by what ``kubectl get pods`` shows, stacked over time."""
    state: dict[str, str] = {}
    times: list[float] = []
    series: dict[str, list[int]] = {name: [] for name in PHASES}
    for time, pod, phase, reason, node, _ in result.rows("pods"):
        if phase in ("Deleted", "Failed", "Succeeded"):
            state.pop(pod, None)
        elif reason == "Terminating":
            state[pod] = "Terminating"
        elif phase == "Running":
            state[pod] = "Running"
        else:
            state[pod] = "ContainerCreating" if node else "Pending"
        if times and times[-1] == time:
            for name in PHASES:
                series[name].pop()
        else:
            times.append(time)
        counts = dict.fromkeys(PHASES, 0)
        for name in state.values():
            counts[name] += 1
        for name, count in counts.items():
            series[name].append(count)
    _stack(ax, times, series, PHASES, float(result.summary["end_s"]))
    slots = sum(n["max_pods"] for n in result.summary["nodes"])
    if slots and times:
        top = max(sum(s[i] for s in series.values()) for i in range(len(times)))
        if slots <= 2 * top:
            ax.axhline(slots, color=INK, linewidth=1, linestyle=(0, (4, 2)))
            _edge_label(ax, slots, f"{slots} pod slots")
    ax.set_title("Pods", loc="left", fontsize=9)


def plot_addresses(result: Result, ax: Axes) -> None:
    """Addresses assigned, cooling and warm of all nodes, against what their ENI limits allow."""
    last: dict[str, tuple[int, int, int]] = {}
    times: list[float] = []
    series: dict[str, list[int]] = {name: [] for name in ADDRESSES}
    for time, node, _, _, assigned, warm, cooling in result.rows("addresses"):
        last[node] = (assigned, cooling, warm)
        if times and times[-1] == time:
            for name in ADDRESSES:
                series[name].pop()
        else:
            times.append(time)
        sums = [sum(v[i] for v in last.values()) for i in range(3)]
        for name, value in zip(ADDRESSES, sums, strict=True):
            series[name].append(value)
    _stack(ax, times, series, ADDRESSES, float(result.summary["end_s"]))
    limit = int(result.summary.get("address_limit", 0))
    if limit and times:
        top = max(sum(s[i] for s in series.values()) for i in range(len(times)))
        if limit <= 2 * max(top, 1):
            ax.axhline(limit, color=INK, linewidth=1, linestyle=(0, (4, 2)))
            _edge_label(ax, limit, f"{limit} by ENI limits")
    ax.set_title("Addresses for pods", loc="left", fontsize=9)


def _stack(
    ax: Axes, times: list[float], series: dict[str, list[int]], looks: dict[str, tuple[str, str]], end: float
) -> None:
    if not times:
        return
    xs = [*times, end]
    base = [0.0] * len(xs)
    for name, values in series.items():
        if not any(values):
            continue
        tops = [b + v for b, v in zip(base, [*values, values[-1]], strict=True)]
        face, hatch = looks[name]
        ax.fill_between(
            xs, base, tops, step="post", facecolor=face, edgecolor=INK, linewidth=0.4, hatch=hatch or None, label=name
        )
        base = tops
    ax.set_ylim(0, max(base) * 1.15 if max(base) else 1)
    if not any(any(v) for v in series.values()):
        return
    ax.legend(loc="upper left", fontsize=7, framealpha=0.9, ncols=4, borderaxespad=0.3, handlelength=1.4)


def _edge_label(ax: Axes, y: float, text: str) -> None:
    low, high = ax.get_ylim()
    ax.set_ylim(low, max(high, y * 1.28))
    ax.annotate(
        text,
        (0.5, y),
        xycoords=("axes fraction", "data"),
        xytext=(0, 0),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=7,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": INK, "linewidth": 0.5},
    )


def _short(nodes: list[str]) -> dict[str, str]:
    return {n: n.partition(".")[0].removeprefix("ip-").replace("-", ".") for n in nodes}


def draw_run(result: Result, directory: Path | str, name: str = "run") -> list[Path]:
    """Write the run's picture as PNG and SVG into a directory; returns the paths."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lanes = len({(r[0], r[1]) for r in result.rows("enis")})
    nodes = len({r[0] for r in result.rows("enis")})
    first = max(1.2, 0.24 * lanes) if nodes <= 6 else 1.4
    figure = Figure(figsize=(9, first + 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [first, 2.3, 2.3]})
    plot_interfaces(result, axes[0])
    plot_pods(result, axes[1])
    plot_addresses(result, axes[2])
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=7)
        ax.margins(x=0)
    axes[2].set_xlabel("simulated time, seconds", fontsize=8)
    title = f"{result.summary['scenario']}, seed {result.summary['seed']}"
    if not result.complete:
        title += " (interrupted)"
    figure.suptitle(f"{title}\n{_wrapped(str(result.summary['cause']))}", fontsize=9, x=0.01, ha="left")
    paths = [Path(directory) / f"{name}.{kind}" for kind in ("png", "svg")]
    with matplotlib.rc_context({"svg.hashsalt": "eksim", "svg.fonttype": "none", "hatch.linewidth": 0.5}):
        figure.savefig(paths[0], dpi=130)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _wrapped(text: str, width: int = 110) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])
