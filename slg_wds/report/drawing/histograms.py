"""Histograms of confidence, entropy, tail, divergence, and what low-rank labels state of each image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.arrays import F64
from slg_wds.report.drawing.figure import drawn, percent_axis
from slg_wds.report.drawing.svg import ACCENT, SECOND
from slg_wds.report.measuring.comparison import KL_BINS, LEAST_KL, MOST_KL, TeacherPair
from slg_wds.report.measuring.statistics import ALIKE, BINS, LEAST_TAIL, OTHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS = 40


def histogram(name: str, title: str, counts: F64, label: str, top: float, split: bool) -> str:
    """Draw counts over 0..top as bars.

    Args:
        name: as for `drawn`.
        title: as for `drawn`.
        counts: [2, BINS] with the rows ALIKE and OTHER.
        label: title of the horizontal axis.
        top: end of the horizontal axis, which starts at 0.
        split: draw crops that differ from the target in another colour, on top of those that agree.
    """
    bars = counts.reshape(2, BARS, BINS // BARS).sum(axis=2) / max(float(counts.sum()), 1.0)
    edges = np.linspace(0, top, BARS + 1)

    def draw(axes: Axes) -> None:
        _stacked(axes, edges, bars, split)
        axes.set_xlabel(label)
        axes.set_xlim(0, top)

    return drawn(name, title, draw)


def tail_histogram(name: str, title: str, counts: F64, label: str, split: bool) -> str:
    """Draw the tail's counts [2, BINS] over a logarithmic axis. The other arguments are those of `histogram`."""
    shares = counts / max(float(counts.sum()), 1.0)
    fine = np.linspace(math.log10(LEAST_TAIL), 0, BINS + 1)
    # The axis starts at the first decade that holds some crops. The lowest bar includes the crops below it.
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
        axes.set_xlabel(label)
        axes.set_xlim(edges[0], 0)
        shown = [tick for tick in ticks if tick >= edges[0] - 0.01]
        axes.set_xticks(shown, [ticks[tick] for tick in shown])

    return drawn(name, title, draw)


def _stacked(axes: Axes, edges: F64, bars: F64, split: bool) -> None:
    width = (edges[1] - edges[0]) * 0.86
    centres = (edges[:-1] + edges[1:]) / 2
    first = bars[ALIKE] if split else bars.sum(axis=0)
    axes.bar(centres, first, width, color=ACCENT, linewidth=0)
    if split:
        axes.bar(centres, bars[OTHER], width, bottom=first, color=SECOND, linewidth=0)
    axes.set_ylabel("share of crops")
    percent_axis(axes.yaxis)
    axes.locator_params(axis="y", nbins=4)


def image_histogram(name: str, title: str, values: F64, label: str) -> str:
    """Draw one number of each image, float64 [images], none negative, as a histogram from 0 on."""
    top = max(float(values.max(initial=0.0)), 1e-9)
    counts, edges = np.histogram(values, BARS, (0.0, top))

    def draw(axes: Axes) -> None:
        width = (edges[1] - edges[0]) * 0.86
        axes.bar((edges[:-1] + edges[1:]) / 2, counts / max(len(values), 1), width, color=ACCENT, linewidth=0)
        axes.set_xlabel(label)
        axes.set_ylabel("share of images")
        axes.set_xlim(0, top)
        percent_axis(axes.yaxis)
        axes.locator_params(axis="y", nbins=4)

    return drawn(name, title, draw)


def divergences(name: str, title: str, pairs: Sequence[TeacherPair]) -> str:
    """Draw a histogram of the divergences of all pairs' crops over a logarithmic axis."""
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
        percent_axis(axes.yaxis)
        axes.locator_params(axis="y", nbins=4)

    return drawn(name, title, draw)
