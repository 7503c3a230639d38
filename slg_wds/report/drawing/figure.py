"""What all figures share: style, axes in percent, and their SVG.

No name that a label set gives may be drawn: matplotlib reads `$` in it as mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from slg_wds.report.drawing.svg import GRID, INK, MUTED, themed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    """Draw a figure with one set of axes.

    Args:
        name: the figure's name, unique in the page.
        title: what a screen reader says.
        draw: draws on the axes.
        layout: matplotlib's layout; None if `draw` places the axes.

    Returns:
        The SVG.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure: Figure = Figure(figsize=SIZE, layout=layout)
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        return themed(figure, name, title)


def percent_axis(axis: Any) -> None:
    """Label an axis in percent, without the decimals of whole numbers."""
    from matplotlib.ticker import PercentFormatter

    formatter = PercentFormatter(1.0, decimals=None)
    formatter.set_axis(axis)
    axis.set_major_formatter(lambda share, at: formatter(share, at).replace(".0%", "%"))


def unit_axes(axes: Axes) -> None:
    """Give both axes the range 0..1 in percent, with room for dots at the edges."""
    axes.set_xlim(-0.03, 1.04)
    axes.set_ylim(-0.04, 1.06)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([0, 0.25, 0.5, 0.75, 1])
        percent_axis(axis)
