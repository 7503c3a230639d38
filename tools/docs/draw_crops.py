"""Draw the README's picture: photographs, a few crops of them, and what the teacher saw in each.

usage: draw_crops.py LABELS PHOTOGRAPHS PICTURE          (after `slg-wds demo`, with the package's extra `report`)
       draw_crops.py demo-output/labels demo-output/photographs slg_wds/docs/crops.webp
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import pyplot
from matplotlib.patches import Rectangle
from PIL import Image
from timm.data.imagenet_info import ImageNetInfo

import slg_wds

KEYS = ("n02123045/chelsea_0", "n07920052/coffee_0")  # both photographs are CC0
CROPS = 3
COLORS = ("#e4572e", "#17a398", "#6c5ce7")
DPI = 110


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("labels")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    matplotlib.use("Agg")
    labels = slg_wds.open_labels(options.labels)
    figure, axes = pyplot.subplots(
        len(KEYS),
        1 + CROPS,
        figsize=(11, 3.1 * len(KEYS)),
        width_ratios=[1.5] + [1] * CROPS,
        dpi=DPI,
        layout="constrained",
    )
    for row, key in zip(axes, KEYS, strict=True):
        record = labels[key]
        with Image.open(options.photographs / "train" / record.path) as image:
            draw_row(row, np.asarray(image.convert("RGB")), record)
    figure.savefig(options.picture, pil_kwargs={"quality": 80})
    print(f"{options.picture}: {options.picture.stat().st_size:,} bytes")


def draw_row(row: np.ndarray, pixels: np.ndarray, record: slg_wds.Record) -> None:
    """One photograph with the boxes of some crops, then these crops as the teacher was shown them."""
    names = list(ImageNetInfo().label_descriptions())
    row[0].imshow(pixels)
    for axis, crop, color in zip(row[1:], spread(record), COLORS, strict=True):
        top, left, height, width = map(int, record.crops[crop])
        row[0].add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=3))
        part = Image.fromarray(pixels[top : top + height, left : left + width]).resize((224, 224))
        axis.imshow(np.asarray(part)[:, ::-1] if record.flips[crop] else np.asarray(part))
        seen = zip(record.index[crop, :3], record.value[crop, :3], strict=True)
        text = "\n".join(f"{names[int(index)].split(',')[0]} {value:.0%}" for index, value in seen)
        axis.set_xlabel(text, fontsize=9)
        for spine in axis.spines.values():
            spine.set(edgecolor=color, linewidth=3)
    for axis in row:
        axis.set(xticks=[], yticks=[])
    row[0].set_xlabel(f"{len(COLORS)} of {record.num_crops} crops, each with a label of its own", fontsize=9)


def spread(record: slg_wds.Record) -> list[int]:
    """The crops at the smallest, the middle and the largest area."""
    order = np.argsort(record.crops[:, 2] * record.crops[:, 3])
    return [int(order[at]) for at in (1, len(order) // 2, len(order) - 2)]


if __name__ == "__main__":
    main()
