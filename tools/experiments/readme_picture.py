"""Draws the picture of the README: crops on their photograph, and what the teacher saw in each.

    slg-wds demo demo-output
    python tools/experiments/readme_picture.py demo-output/labels slg_wds/docs/crops.webp

The photograph is scikit-image's `chelsea`: CC0, by its photographer Stefan van der Walt, as the docstring of
skimage.data.chelsea says. Needs the extras `demo` and `report`.
"""

from __future__ import annotations

import argparse
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from PIL import Image, ImageOps
from timm.data.imagenet_info import ImageNetInfo

import slg_wds
from slg_wds.demo.photographs import PHOTOGRAPHS, cut_views

KEY = "n02123045/chelsea_0"
COLOURS = ("#e4572e", "#17a398", "#f3a712", "#6f5bd3")
SHOWN = 3  # classes of a crop
WIDTH, HEIGHT, DPI = 10.0, 4.3, 120


def main() -> None:
    """Draw the crops of one record of the demo's label set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("labels", help="label set that slg-wds demo wrote")
    parser.add_argument("picture", help="file to write, .webp or .png")
    arguments = parser.parse_args()
    draw(slg_wds.open_labels(arguments.labels)[KEY]).savefig(
        arguments.picture, dpi=DPI, pil_kwargs={"quality": 82, "method": 6}
    )


def draw(record: slg_wds.Record) -> Any:
    """Return the figure: the photograph with boxes on the left, crops and their labels on the right."""
    (photograph,) = cut_views(PHOTOGRAPHS["n02123045"]["chelsea"](), [None])
    figure = plt.figure(figsize=(WIDTH, HEIGHT), facecolor="white")
    canvas = figure.add_axes((0.005, 0.01, 0.55, 0.98))
    canvas.imshow(photograph)
    canvas.axis("off")
    chosen = spread(record)
    for place, (crop, colour) in enumerate(zip(chosen, COLOURS, strict=True)):
        top, left, height, width = record.crops[crop]
        canvas.add_patch(Rectangle((left, top), width - 1, height - 1, fill=False, lw=2.6, ec=colour))
        base = 1 - (place + 1) * 0.25
        thumbnail = figure.add_axes((0.57, base + 0.015, 0.1, 0.22))
        pixels = photograph.crop((left, top, left + width, top + height)).resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        thumbnail.imshow(ImageOps.mirror(pixels) if record.flips[crop] else pixels)
        thumbnail.set(xticks=[], yticks=[])
        for edge in thumbnail.spines.values():
            edge.set(edgecolor=colour, linewidth=3)
        flipped = ", flipped" if record.flips[crop] else ""
        bars(figure.add_axes((0.69, base + 0.01, 0.3, 0.19)), record, crop, colour, flipped)
    return figure


def spread(record: slg_wds.Record) -> list[int]:
    """Return one crop for each colour: from the smallest to the largest, evenly by area."""
    by_area = np.argsort(record.crops[:, 2] * record.crops[:, 3], kind="stable")
    return [int(by_area[at]) for at in np.linspace(0, len(by_area) - 1, len(COLOURS)).round().astype(int)]


def bars(axes: Any, record: slg_wds.Record, crop: int, colour: str, flipped: str) -> None:
    """Draw the first classes of a crop and their probabilities as bars."""
    names = list(ImageNetInfo().label_descriptions())
    values = record.value[crop, :SHOWN].astype(float)
    axes.barh(range(SHOWN), values, color=colour, height=0.62, alpha=0.85)
    for row, (index, value) in enumerate(zip(record.index[crop], values, strict=False)):
        axes.text(
            value + 0.015, row, f"{names[int(index)].split(',')[0]} {value:.0%}", va="center", fontsize=9
        )
    top, left, height, width = record.crops[crop]
    title = f"top {top}, left {left}, {height} x {width}{flipped}"
    axes.set_title(title, fontsize=8.5, loc="left", color="#555555", pad=2)
    axes.set(xlim=(0, 1.3), ylim=(SHOWN - 0.5, -0.6))
    axes.axis("off")


if __name__ == "__main__":
    main()
