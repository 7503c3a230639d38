"""Print what the teacher saw in three crops of a few photographs.

usage: demo_show.py LABELS
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table
from timm.data import ImageNetInfo

import slg_wds

PHOTOGRAPHS = 4
CROPS = 3


def main(url: str) -> None:
    names = ImageNetInfo().label_descriptions()
    labels = slg_wds.open_labels(url)
    console = Console()
    shown: set[int | None] = set()
    for record in labels:
        if record.target in shown or len(shown) == PHOTOGRAPHS:
            continue
        shown.add(record.target)
        table = Table(
            title=f"{record.path}, {record.size[1]} x {record.size[0]} pixels", title_justify="left"
        )
        for column in ("crop (top, left, height, width)", "flip", "what the teacher saw"):
            table.add_column(column)
        for number in range(min(CROPS, record.num_crops)):
            seen = zip(record.index[number, :3], record.value[number, :3], strict=True)
            table.add_row(
                ", ".join(map(str, record.crops[number])),
                "yes" if record.flips[number] else "",
                "; ".join(f"{names[int(index)].split(',')[0]} {value:.0%}" for index, value in seen),
            )
        console.print(table)
    print(f"The shards are in {url}:")
    for entry in labels.store.list():
        if entry.name.endswith(".tar"):
            print(f"  {entry.name}  {entry.size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
