"""Draws the README's plot of bytes against divergence, as a small SVG. Called by measure_fidelity.py --plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# A colour for each family of labels, from many crops (dark) to few (light).
COLOURS = {
    "low-rank": ("#0b4f8a", "#2f7fc1", "#6ba9dc", "#a3c8e8"),
    "top k": ("#8a3d0b", "#c1692f", "#dc996b", "#e8c0a3"),
    "top k, even tail": ("#6f6f6f", "#8c8c8c", "#ababab", "#c4c4c4"),
}
NAMES = {
    "low-rank": "low-rank, mean KL at most 0.2, 0.1, 0.05, 0.02",
    "top k": "top k with a shared tail, k = 5, 10, 20, 50, 100",
    "top k, even tail": "top 5 with an even tail (FKD)",
}
MARKERS = {"low-rank": "o", "top k": "s", "top k, even tail": "D"}
SIZE = (7.6, 4.3)  # inches
INK, MUTED, GRID = "#333333", "#666666", "#dddddd"
BYTES, NATS = (1, 2, 5, 10, 20, 50, 100, 200), (0.02, 0.05, 0.1, 0.2, 0.5, 1)

Points = Mapping[tuple[str, int], Sequence[tuple[float, float]]]


def draw(path: Path, points: Points) -> None:
    """Write the plot.

    Args:
        path: the SVG file.
        points: for each family of labels and number of crops, (payload bytes a crop, KL in nats).
    """
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "fidelity", "font.size": 9.5, "text.color": INK}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        counts = sorted({crops for _, crops in points}, reverse=True)
        for (family, crops), line in points.items():
            _line(axes, family, counts.index(crops), crops, sorted(line))
        _style(axes)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _line(axes: Any, family: str, place: int, crops: int, line: Sequence[tuple[float, float]]) -> None:
    """Draw one line, with its number of crops beside its first point; the legend has a family's darkest line."""
    xs, ys = zip(*line, strict=True)
    colour = COLOURS[family][min(place, 3)]
    label = NAMES[family] if place == 0 else None
    axes.plot(xs, ys, marker=MARKERS[family], color=colour, linewidth=1.6, markersize=4.5, label=label)
    text = f"{crops} crops" if family == "low-rank" and place == 0 else f"{crops}"
    left = family == "top k"  # where there is room
    axes.annotate(
        text, (xs[0], ys[0]), (-6, 0) if left else (0, 5), textcoords="offset points", color=colour, fontsize=8.5,
        ha="right" if left else "center", va="center" if left else "bottom",
    )  # fmt: skip


def _style(axes: Any) -> None:
    axes.set(xscale="log", yscale="log", xlabel="bytes of labels a crop", ylabel="KL(teacher ‖ label), nats")
    axes.set_xticks(BYTES, [f"{value}" for value in BYTES], minor=False)
    axes.set_yticks(NATS, [f"{value}" for value in NATS], minor=False)
    axes.minorticks_off()
    axes.set_xlim(0.6, 240)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(colors=MUTED, length=0)
    axes.legend(frameon=False, loc="upper right", fontsize=8.5)
