"""Print what the teacher saw in three crops of a few photographs."""

from __future__ import annotations

from slg_wds import Record, open_labels
from slg_wds.console import tell, tell_table
from slg_wds.labelset.class_names import brief_names, class_names

PHOTOGRAPHS = 4
CROPS = 3
COLUMNS = ("crop (top, left, height, width)", "flip", "what the teacher saw")


def show_labels(url: str) -> None:
    """Print a table for the first photograph of each of a few classes, and the shards of the set."""
    labels = open_labels(url)
    names = brief_names(class_names(labels) or [])
    shown: set[int | None] = set()
    for record in labels:
        if len(shown) == PHOTOGRAPHS:
            break
        if record.target not in shown:
            shown.add(record.target)
            title = f"{record.path}, {record.size[1]} x {record.size[0]} pixels"
            tell_table(
                title,
                COLUMNS,
                [_row(record, number, names) for number in range(min(CROPS, record.num_crops))],
            )
    tell(f"The shards are in {url}:")
    for entry in labels.store.list():
        if entry.name.endswith(".tar"):
            tell(f"  {entry.name}  {entry.size / 1e6:.2f} MB")


def _row(record: Record, crop: int, names: list[str]) -> tuple[str, str, str]:
    seen = zip(record.index[crop, :3], record.value[crop, :3], strict=True)
    return (
        ", ".join(map(str, record.crops[crop])),
        "yes" if record.flips[crop] else "",
        "; ".join(f"{names[int(index)]} {value:.0%}" for index, value in seen),
    )
