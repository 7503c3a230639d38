"""Maps in two dimensions: where crops lie, and two quantities against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from slg_wds.arrays import F64
from slg_wds.report.drawing.figure import drawn, percent_axis
from slg_wds.report.drawing.svg import ACCENT, PAPER, SECOND
from slg_wds.report.measuring.statistics import AREAS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat(name: str, title: str, values: F64, low: float, high: float) -> str:
    """Draw a map of the image.

    Args:
        name: as for `drawn`.
        title: as for `drawn`.
        values: [G, G], rows from top to bottom, columns from left to right; NaN leaves a cell blank.
        low: value of the faintest colour.
        high: value of the strongest colour.
    """

    def draw(axes: Axes) -> None:
        _mesh(axes, values, np.linspace(0, 1, len(values) + 1), np.linspace(0, 1, len(values) + 1), low, high)
        axes.set_position((0.125, 0.09, 0.685, 0.88))
        axes.set_ylim(1, 0)
        axes.grid(False)
        axes.set_xticks([0, 0.5, 1], ["left", "middle", "right"])
        axes.set_yticks([0, 0.5, 1], ["top", "middle", "bottom"])
        # Labels stay within the map's edges: centred at its corner, two would overlap.
        (left, _, right), (top, _, bottom) = axes.get_xticklabels(), axes.get_yticklabels()
        left.set_horizontalalignment("left")
        right.set_horizontalalignment("right")
        top.set_verticalalignment("top")
        bottom.set_verticalalignment("bottom")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(length=0)
        _scale(axes, low, high)

    return drawn(name, title, draw, None)


def _mesh(axes: Axes, values: F64, across: F64, up: F64, low: float, high: float) -> None:
    """Fill cells with one colour, more opaque for higher values, which the light and the dark theme both show.

    NaN leaves a cell blank.
    """
    from matplotlib.colors import to_rgba

    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    mesh = axes.pcolormesh(across, up, values, linewidth=0, antialiased=False, clip_on=False)
    colours = np.empty((*values.shape, 4))
    colours[...] = to_rgba(ACCENT)
    colours[..., 3] = np.where(np.isnan(share), 0, np.round(0.04 + 0.95 * share, 2))
    mesh.set_array(None)
    mesh.set_facecolor([tuple(colour) for colour in colours.reshape(-1, 4).tolist()])


def _scale(axes: Axes, low: float, high: float) -> None:
    """Draw the scale of a map at its right."""
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
    percent_axis(inner.yaxis)


def density(
    name: str, title: str, counts: F64, labels: tuple[str, str], line: Literal["mean", "equal"]
) -> str:
    """Draw how often two quantities in 0..1 come together.

    Args:
        name: as for `drawn`.
        title: as for `drawn`.
        counts: [AREAS, AREAS], by x and y.
        labels: titles of the x and y axes.
        line: `mean` draws the mean of y for each x, `equal` the diagonal y = x.
    """
    edges = np.linspace(0, 1, AREAS + 1)
    shown = np.sqrt(counts / max(float(counts.max()), 1.0))  # square roots make rare cells visible

    def draw(axes: Axes) -> None:
        axes.grid(False)
        values = np.where(counts > 0, shown, np.nan)
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
            percent_axis(axis)

    return drawn(name, title, draw)


def _means(counts: F64) -> tuple[F64, F64]:
    """Return the middle of each column of x with counts, and the mean of y in it."""
    centres = (np.arange(AREAS) + 0.5) / AREAS
    total = counts.sum(axis=1)
    there = total > 0
    return centres[there], (counts @ centres)[there] / total[there]
