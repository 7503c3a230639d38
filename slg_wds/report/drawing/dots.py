"""Figures of dots: reliability, and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from slg_wds.report.drawing.figure import drawn, unit_axes
from slg_wds.report.drawing.svg import ACCENT, MUTED
from slg_wds.report.measuring.statistics import Statistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def reliability(name: str, title: str, statistics: Statistics) -> str:
    """Draw how often the target is the most probable class, by confidence."""
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
        unit_axes(axes)

    return drawn(name, title, draw)


def classes(name: str, title: str, statistics: Statistics) -> str:
    """Draw a dot for each class: its mean confidence and its agreement with the target."""
    of = statistics.classes
    there = of.crops > 0
    agree, confidence = (of.agree[there] / of.crops[there], of.confidence[there] / of.crops[there])
    if len(agree) > 2000:  # a dot for every class would take most of the page's bytes
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
        unit_axes(axes)

    return drawn(name, title, draw)
