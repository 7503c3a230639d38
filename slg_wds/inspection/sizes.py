"""Bytes per crop of each column, measured on a few records of a few shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from slg_wds.errors import SlgWdsError
from slg_wds.format.records.decoding import unpack_record
from slg_wds.inspection.embeddings import EmbeddingFigures, embedding_figures
from slg_wds.inspection.low_rank import LowRankFigures, coded_images, low_rank_figures
from slg_wds.inspection.state import THREADS, SetState, read_indexes
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.makers import spread

SHARDS = 8
RECORDS = 8  # of each of those shards
TAIL = {"tail_classes": "tail", "tail_codes": "tail"}
REST, TAR, IMAGES = "record's rest", "tar", "images"


@dataclass(frozen=True)
class Sizes:
    """Bytes per crop, measured on a sample.

    Attributes:
        columns: bytes per crop, by name: of each column and of the rest of a record, over the sampled records; of the
            tar around the records and of embedded images, over the sampled shards.
        shards, records, crops: how many were sampled.
        low_rank: of low-rank labels, what the sampled records say; None for other types.
        embeddings: the same of each low-rank embedding, by its name.
    """

    columns: dict[str, float]
    shards: int
    records: int
    crops: int
    low_rank: LowRankFigures | None = None
    embeddings: dict[str, EmbeddingFigures] = field(default_factory=dict)

    @property
    def together(self) -> float:
        """Bytes per crop of everything but the images."""
        return sum(size for name, size in self.columns.items() if name != IMAGES)


def measure(labels: LabelSet, state: SetState) -> Sizes | None:
    """Measure a sample; None if no shard can be read. What cannot be read is added to `state.notes`."""
    chosen = spread(state.present, SHARDS)
    read_indexes(labels, state, chosen)
    chosen = [number for number in chosen if number in state.indexes and state.indexes[number].records]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda place: _record(labels, state, *place), _places(state, chosen)))
    records = [one for one in found if one is not None]
    crops = sum(int(fields["num_crops"]) for fields, _ in records)
    if not crops:
        return None
    sums: Counter[str] = Counter()
    for fields, size in records:
        sums.update(of_record(fields, size))
    columns = {name: total / crops for name, total in sums.items()}
    each = crops / len(records)  # crops of a record: the same for all, except in a set that extends another
    shard_crops = sum(len(state.indexes[number].records) for number in chosen) * each
    around, images = _around(state, chosen)
    columns[TAR] = around / shard_crops
    if images:
        columns[IMAGES] = images / shard_crops
    fields_of = [fields for fields, _ in records]
    coded, embeddings = low_rank_figures(coded_images(fields_of)), embedding_figures(fields_of)
    return Sizes(columns, len(chosen), len(records), crops, coded, embeddings)


def _places(state: SetState, shards: list[int]) -> Iterator[tuple[int, int]]:
    for number in shards:
        for position in spread(range(len(state.indexes[number].records)), RECORDS):
            yield number, position


def _record(
    labels: LabelSet, state: SetState, number: int, position: int
) -> tuple[dict[str, Any], int] | None:
    try:
        data = labels.record_bytes(number, position, state.indexes[number])
        return unpack_record(data), len(data)
    except SlgWdsError as error:
        state.note(labels.shard_name(number), f": {error.message}: run slg-wds verify")
        return None


def of_record(fields: dict[str, Any], size: int) -> dict[str, int]:
    """Return the bytes of each column of a record by its name, and of the rest.

    Args:
        fields: the unpacked record.
        size: its size in bytes.
    """
    sums: Counter[str] = Counter()
    for name, planes in fields["columns"].items():
        parts = planes if isinstance(planes, list) else [planes]
        sums[TAIL.get(str(name), str(name))] += sum(len(p) for p in parts if isinstance(p, bytes))
    sums[REST] = size - sum(sums.values())
    return dict(sums)


def _around(state: SetState, shards: list[int]) -> tuple[int, int]:
    """Return the bytes in these shards that are neither records nor images, and bytes of embedded images."""
    around = images = 0
    for number in shards:
        index = state.indexes[number]
        embedded = index.images if index.images and index.image_shard is None else []
        pictures = sum(place[1] for place in embedded)
        around += index.bytes - sum(place[1] for place in index.records) - pictures
        images += pictures
    return around, images
