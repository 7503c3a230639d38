"""Are the images of a report those that were labelled? All that are not are named together."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from slg_wds.console import counted
from slg_wds.errors import ImageChangedError
from slg_wds.report.reading import Pictures
from slg_wds.report.statistics import Row

READERS = 16  # threads
NAMED = 20


def check_images(rows: Sequence[Row], pictures: Pictures) -> None:
    """Read the image of every row. Raises ImageChangedError naming those of other bytes, StoreError."""
    with ThreadPoolExecutor(READERS, "slg-read") as pool:
        sound = pool.map(
            lambda row: row.image.crc32 is None or row.image.is_of(pictures.read(row.number, row.key)), rows
        )
        changed = [row.image.path for row, as_labelled in zip(rows, sound, strict=True) if not as_labelled]
    if changed:
        more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
        raise ImageChangedError(
            f"the bytes of {len(changed):,} of {counted(len(rows), 'image')} are not those that were labelled: "
            f"{', '.join(changed[:NAMED])}{more}",
            hint="give the images that the labels were made from; slg-wds verify --images lists all of the set",
        )
