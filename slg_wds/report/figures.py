"""The figures of the page, drawn by matplotlib from counts; see svg.py for their colours.

No name that a label set gives is drawn here: matplotlib would read `$` in it as mathematics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from slg_wds.report.comparing import KL_BINS, LEAST_KL, MOST_KL, Pair
from slg_wds.report.statistics import ALIKE, AREAS, BINS, LEAST_TAIL, OTHER, RELIABILITY, Statistics
from slg_wds.report.svg import ACCENT, GRID, INK, MUTED, PAPER, SECOND, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
BARS = 40
SIZE = (4.3, 3.0)  # inches; the page scales them
SETTINGS: Any = {
    "font.size": 9.5, "axes.edgecolor": GRID, "axes.labelcolor": MUTED, "text.color": INK, "xtick.color": GRID,
    "ytick.color": GRID, "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.spines.top": False,
    "axes.spines.right": False, "axes.spines.left": False, "ytick.major.size": 0.0, "xtick.major.size": 3.0,
    "axes.grid": True, "axes.grid.axis": "y", "grid.color": GRID, "grid.linewidth": 0.7, "axes.axisbelow": True,
    "axes.titlesize": 9.5, "font.family": "DejaVu Sans", "path.simplify": False,
}  # fmt: skip


def drawn(
    name: str,
    title: str,
    draw: Callable[[Axes], None],
    layout: Literal["constrained"] | None = "constrained",
) -> str:
    """The SVG of a figure with one set of axes."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure: Figure = Figure(figsize=SIZE, layout=layout)
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        return themed(figure, name, title)


def histogram(name: str, title: str, counts: Floats, label: str, top: float, split: bool) -> str:
    """Counts [2, BINS] of 0..top as bars of shares; with `split` crops that differ from the target on top."""
    bars = counts.reshape(2, BARS, BINS // BARS).sum(axis=2) / max(float(counts.sum()), 1.0)
    edges = np.linspace(0, top, BARS + 1)

    def draw(axes: Axes) -> None:
        _stacked(axes, edges, bars, split)
        axes.set_xlabel(label)
        axes.set_xlim(0, top)

    return drawn(name, title, draw)


def tail_histogram(name: str, title: str, counts: Floats, split: bool) -> str:
    """The tail's counts over a logarithmic axis."""
    shares = counts / max(float(counts.sum()), 1.0)
    fine = np.linspace(math.log10(LEAST_TAIL), 0, BINS + 1)
    # Decades that nearly all lie above are not drawn empty; the lowest bar takes what lies below it.
    lowest = max(-6, min(-2, math.floor(fine[int(np.argmax(np.cumsum(shares.sum(axis=0)) > 0.002))])))
    start = int(np.argmin(np.abs(fine - lowest)))
    join = max(1, round((BINS - start) / BARS))
    start += (BINS - start) % join
    bars = shares[:, start:].reshape(2, -1, join).sum(axis=2)
    bars[:, 0] += shares[:, :start].sum(axis=1)
    edges = fine[start::join]
    ticks = {-6: "≤10⁻⁶", -5: "10⁻⁵", -4: "0.01%", -3: "0.1%", -2: "1%", -1: "10%", 0: "100%"}

    def draw(axes: Axes) -> None:
        _stacked(axes, edges, bars, split)
        axes.set_xlabel("probability outside the stored classes")
        axes.set_xlim(edges[0], 0)
        shown = [tick for tick in ticks if tick >= edges[0] - 0.01]
        axes.set_xticks(shown, [ticks[tick] for tick in shown])

    return drawn(name, title, draw)


def _stacked(axes: Axes, edges: Floats, bars: Floats, split: bool) -> None:
    width = (edges[1] - edges[0]) * 0.86
    centres = (edges[:-1] + edges[1:]) / 2
    first = bars[ALIKE] if split else bars.sum(axis=0)
    axes.bar(centres, first, width, color=ACCENT, linewidth=0)
    if split:
        axes.bar(centres, bars[OTHER], width, bottom=first, color=SECOND, linewidth=0)
    axes.set_ylabel("share of crops")
    _percent(axes.yaxis)
    axes.locator_params(axis="y", nbins=4)


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    told = PercentFormatter(1.0, decimals=None)
    told.set_axis(axis)
    axis.set_major_formatter(lambda share, at: told(share, at).replace(".0%", "%"))


def reliability(name: str, title: str, statistics: Statistics) -> str:
    """How often the target is the most probable class, by confidence."""
    crops, confidence, agree = statistics.reliability
    there = crops > 0
    safe = np.where(there, crops, 1.0)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(3, 3))
        axes.plot((confidence / safe)[there], (agree / safe)[there], color=ACCENT, linewidth=1.4)
        share = crops[there] / crops.sum()
        axes.scatter(
            (confidence / safe)[there],
            (agree / safe)[there],
            s=18 + 260 * share,
            color=ACCENT,
            linewidth=0,
            zorder=3,
        )
        axes.set_xlabel("confidence of the teacher")
        axes.set_ylabel("agrees with the target")
        _unit(axes)

    return drawn(name, title, draw)


def classes(name: str, title: str, statistics: Statistics) -> str:
    """One dot a class: mean confidence against agreement."""
    of = statistics.classes
    there = of.crops > 0
    agree, confidence = (of.agree[there] / of.crops[there], of.confidence[there] / of.crops[there])
    if len(agree) > 2000:  # a dot of its own for every class would be most of the page
        agree, confidence = agree[:: -(-len(agree) // 2000)], confidence[:: -(-len(confidence) // 2000)]

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, dashes=(3, 3))
        axes.scatter(
            confidence,
            agree,
            s=26 if len(agree) < 100 else 10,
            color=ACCENT,
            alpha=0.55,
            linewidth=0,
            zorder=3,
        )
        axes.set_xlabel("mean confidence")
        axes.set_ylabel("agrees with the target")
        _unit(axes)

    return drawn(name, title, draw)


def _unit(axes: Axes) -> None:
    axes.set_xlim(-0.03, 1.04)
    axes.set_ylim(-0.04, 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        _percent(axis)


def heat(name: str, title: str, values: Floats, low: float, high: float) -> str:
    """A map [G, G] of the image's own height and width, its colours from `low` to `high`."""

    def draw(axes: Axes) -> None:
        _mesh(axes, values, np.linspace(0, 1, len(values) + 1), np.linspace(0, 1, len(values) + 1), low, high)
        axes.set_position((0.125, 0.09, 0.685, 0.88))
        axes.set_ylim(1, 0)
        axes.grid(False)
        axes.set_xticks([0, 0.5, 1], ["left", "middle", "right"])
        axes.set_yticks([0, 0.5, 1], ["top", "middle", "bottom"])
        # Within the map's edges: in its corner two would meet.
        (left, _, right), (top, _, bottom) = axes.get_xticklabels(), axes.get_yticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
        top.set_verticalalignment("top")
        bottom.set_verticalalignment("bottom")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        _scale(axes, low, high)

    return drawn(name, title, draw, None)


def _mesh(axes: Axes, values: Floats, across: Floats, up: Floats, low: float, high: float) -> None:
    """Cells of one colour, the more opaque the higher: both themes show it."""
    from matplotlib.colors import to_rgba

    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    mesh = axes.pcolormesh(across, up, values, linewidth=0, antialiased=False, clip_on=False)
    colours = np.empty((*values.shape, 4))
    colours[...] = to_rgba(ACCENT)
    colours[..., 3] = np.round(0.04 + 0.95 * share, 2)
    mesh.set_array(None)
    mesh.set_facecolor([tuple(colour) for colour in colours.reshape(-1, 4).tolist()])


def _scale(axes: Axes, low: float, high: float) -> None:
    """The scale of a map, at its right."""
    inner = axes.inset_axes((1.06, 0.0, 0.045, 1.0))
    _mesh(
        inner,
        np.linspace(low, high, 24)[:, None],
        np.array([0.0, 1.0]),
        np.linspace(low, high, 25),
        low,
        high,
    )
    inner.grid(False)
    inner.set_xticks([])
    inner.yaxis.tick_right()
    inner.set_yticks([low, (low + high) / 2, high])
    inner.spines["bottom"].set_visible(False)
    inner.tick_params(length=0)
    _percent(inner.yaxis)


def density(name: str, title: str, counts: Floats, labels: tuple[str, str], line: str) -> str:
    """Counts [AREAS, AREAS] of x and y in 0..1 as a map; line: "mean" of y over x, or "equal" for y = x."""
    edges = np.linspace(0, 1, AREAS + 1)
    shown = np.sqrt(counts / max(float(counts.max()), 1.0))  # square roots: the rare ones are seen too

    def draw(axes: Axes) -> None:
        axes.grid(False)
        values = np.where(counts > 0, shown, -0.04 / 0.95)
        _mesh(axes, values.T, edges, edges, 0.0, 1.0)
        if line == "equal":
            axes.plot([0, 1], [0, 1], color=SECOND, linewidth=1.2, dashes=(3, 3))
        else:
            x, mean = _means(counts)
            axes.plot(x, mean, color=PAPER, linewidth=4)
            axes.plot(x, mean, color=SECOND, linewidth=1.8)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
            _percent(axis)

    return drawn(name, title, draw)


def _means(counts: Floats) -> tuple[Floats, Floats]:
    """The middle of each column of x that has counts, and the mean of y there."""
    centres = (np.arange(AREAS) + 0.5) / AREAS
    total = counts.sum(axis=1)
    there = total > 0
    return centres[there], (counts @ centres)[there] / total[there]


def divergences(name: str, title: str, pairs: Sequence[Pair]) -> str:
    """The divergence of crops of all pairs, over a logarithmic axis."""
    counts = sum((pair.kl_counts for pair in pairs), np.zeros(KL_BINS))
    low, high = math.log10(LEAST_KL), math.log10(MOST_KL)
    edges = np.linspace(low, high, KL_BINS + 1)

    def draw(axes: Axes) -> None:
        bars = counts / max(float(counts.sum()), 1.0)
        axes.bar((edges[:-1] + edges[1:]) / 2, bars, (edges[1] - edges[0]) * 0.86, color=ACCENT, linewidth=0)
        axes.set_xlabel("divergence of two teachers on a crop (nats)")
        axes.set_ylabel("share of crops")
        axes.set_xlim(low, high)
        ticks = [-4, -3, -2, -1, 0, 1]
        axes.set_xticks(ticks, ["≤0.0001", "0.001", "0.01", "0.1", "1", "10"])
        _percent(axes.yaxis)
        axes.locator_params(axis="y", nbins=4)

    return drawn(name, title, draw)


__all__ = [
    "RELIABILITY",
    "classes",
    "density",
    "divergences",
    "heat",
    "histogram",
    "reliability",
    "tail_histogram",
]
