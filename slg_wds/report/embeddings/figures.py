"""Figures of embeddings: how alike the crops of an image are, and a map of the images."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from slg_wds.report.drawing.figure import drawn, percent_axis
from slg_wds.report.drawing.svg import ACCENT
from slg_wds.report.embeddings.measuring import BINS, EmbeddingMeasures
from slg_wds.report.writing.numbers import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOLDEN = 0.618034  # of the circle of hues between two classes, so that neighbours differ


def figures(name: str, measures: EmbeddingMeasures, targets: Sequence[int | None]) -> list[dict[str, Any]]:
    """Draw the figures of one embedding.

    Args:
        name: of the embedding in the page, which is no name from a set.
        measures: of the embedding.
        targets: of the images.
    """
    similar = Markup(_similarity(f"{name}-similar", measures))
    rows, shares = measures.components()
    title = "The images by their first two principal components"
    colour = "a colour for each class folder; " if any(one is not None for one in targets) else ""
    return [
        {
            "name": f"{name}-similar", "title": "Similarity of an image's crops", "svg": similar,
            "caption": f"Cosine between two crops of one image, mean {measures.within:.3f}; between the means of two "
            f"images it is {measures.between:.3f}. The further apart these two are, the more a crop says of its image.",
        },
        {
            "name": f"{name}-map", "title": "Map of the images",
            "svg": Markup(_map(f"{name}-map", title, rows, targets)),
            "caption": f"A dot for each image, at the first two principal components of its crops' mean: {colour}"
            f"they hold {percent(float(shares[0]))} and {percent(float(shares[1]))} of the variance.",
        },
    ]  # fmt: skip


def _similarity(name: str, measures: EmbeddingMeasures) -> str:
    bars = measures.counts / max(float(measures.counts.sum()), 1.0)
    edges = np.linspace(-1, 1, BINS + 1)
    first = int(np.argmax(bars > 0)) if bars.any() else 0
    lowest = min(edges[first], 0.0)

    def draw(axes: Axes) -> None:
        width = (edges[1] - edges[0]) * 0.86
        axes.bar((edges[:-1] + edges[1:]) / 2, bars, width, color=ACCENT, linewidth=0)
        axes.set_xlabel("cosine of two crops")
        axes.set_ylabel("share of pairs")
        axes.set_xlim(lowest, 1)
        percent_axis(axes.yaxis)
        axes.locator_params(axis="y", nbins=4)

    return drawn(name, f"Histogram of the similarity of an image's crops, mean {measures.within:.3f}", draw)


def _map(name: str, title: str, rows: Any, targets: Sequence[int | None]) -> str:
    colours = [ACCENT if one is None else _colour(one) for one in targets]

    def draw(axes: Axes) -> None:
        axes.scatter(
            rows[:, 0], rows[:, 1], s=26 if len(rows) < 200 else 9, c=colours, alpha=0.7, linewidth=0
        )
        axes.set_xlabel("first component")
        axes.set_ylabel("second component")
        axes.locator_params(nbins=5)

    return drawn(name, title, draw)


def _colour(target: int) -> str:
    """Return a colour of a class, which is seen on light and on dark paper."""
    parts = colorsys.hls_to_rgb(target * GOLDEN % 1.0, 0.52, 0.62)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)
