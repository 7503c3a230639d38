"""The embeddings of a few crops of many records, for batches.

Shapes: n records, c crops of each, D numbers of an embedding, S pieces of a record that hold its crops.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from slg_wds.arrays import F32, I64
from slg_wds.format.records.columns import PIECE, check_pieces
from slg_wds.format.records.embeddings.fields import EmbeddingKind, embedding_kinds
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_VALUES
from slg_wds.format.records.embeddings.low_rank_codec import decode_crops
from slg_wds.format.records.embeddings.plain import DTYPES, check_numbers, scaled
from slg_wds.format.records.joined_columns import JoinedColumns, Planes


@dataclass(frozen=True)
class _Pieces:
    """Where the crops of an embedding in pieces are.

    Attributes:
        placed: [S], the planes of the pieces of all records.
        slot: int64 [n, c], in which of `placed` each crop is.
        scales: of int8 codes; else None.
    """

    placed: list[Planes]
    slot: I64
    scales: Planes | None


class EmbeddingRows:
    """The embeddings of records which agree in their names, widths and codings.

    Args:
        columns: of the records; what is needed of them is placed here, and read once it is decompressed.
        fields: [n], those of the records, checked.
    """

    def __init__(self, columns: JoinedColumns, fields: Sequence[Mapping[str, Any]]) -> None:
        self._columns, self._fields, self._kinds = columns, fields, embedding_kinds(fields[0])
        self._pieces = {
            number: self._place(number, kind)
            for number, kind in enumerate(self._kinds)
            if kind.values != LOW_RANK_VALUES
        }

    def decoded(self) -> dict[str, F32]:
        """The embeddings of the crops by their names, float32 [n, c, D]. Raises RecordError for damaged ones."""
        return {
            kind.name: self._read(kind, self._pieces[number])
            if number in self._pieces
            else self._low_rank(number)
            for number, kind in enumerate(self._kinds)
        }

    def _place(self, number: int, kind: EmbeddingKind) -> _Pieces:
        """Note the frames of those pieces of an embedding that hold the crops."""
        itemsize, crops = DTYPES[kind.values].itemsize, self._columns.crops
        found = self._columns.of(f"embedding_{number}")
        for frames, count in zip(found, crops.tolist(), strict=True):
            check_pieces(frames, count, itemsize)
        needed, slot = _distinct(self._columns.rows // PIECE)
        sizes = np.where(needed < 0, 0, np.minimum(PIECE, crops[:, None] - needed * PIECE) * kind.dim)
        placed = []
        for pieces, size in zip(needed.T, sizes.T, strict=True):
            firsts = (np.maximum(pieces, 0) * itemsize).tolist()
            counts = np.where(pieces < 0, 0, itemsize).tolist()
            frames = [one[i : i + count] for one, i, count in zip(found, firsts, counts, strict=True)]
            placed.append(self._columns.note(frames, size, itemsize))
        scales = self._columns.place(f"scales_{number}", crops, 4) if kind.values == "int8" else None
        return _Pieces(placed, slot, scales)

    def _read(self, kind: EmbeddingKind, pieces: _Pieces) -> F32:
        dtype, rows = DTYPES[kind.values], self._columns.rows
        if not rows.size:
            return np.zeros((*rows.shape, kind.dim), np.float32)
        starts = np.stack([planes.starts for planes in pieces.placed], axis=1)
        first = (
            np.take_along_axis(starts, pieces.slot[..., None], axis=1) + (rows % PIECE * kind.dim)[..., None]
        )
        # At every byte, the D bytes from there on: numpy copies runs of bytes many times faster than single ones.
        runs = np.lib.stride_tricks.sliding_window_view(self._columns.content, kind.dim)
        found = np.empty((*rows.shape, kind.dim, dtype.itemsize), np.uint8)
        for p in range(dtype.itemsize):
            found[..., p] = runs[first[..., p]]
        stored, scales = found.view(dtype)[..., 0], None
        if pieces.scales is not None:
            scales = self._columns.at(pieces.scales, rows, np.uint32).view(np.float32)
        check_numbers(stored, scales)
        return scaled(stored, scales)

    @cached_property
    def _kinds_of_each(self) -> list[list[EmbeddingKind]]:
        """Those of each record: low-rank embeddings of records differ in their blocks."""
        return [embedding_kinds(fields) for fields in self._fields]

    def _low_rank(self, number: int) -> F32:
        """Those of a low-rank embedding: of each record all of its bases are decoded, and some coefficients."""
        parts = []
        for fields, kinds, rows in zip(self._fields, self._kinds_of_each, self._columns.rows, strict=True):
            blocks = kinds[number].blocks
            assert blocks is not None
            parts.append(decode_crops(fields["columns"], number, blocks, rows))
        return np.stack(parts)


def _distinct(numbers: I64) -> tuple[I64, I64]:
    """The distinct numbers in each row of [n, c], filled up with -1, [n, S], and where each is among them, [n, c]."""
    order = np.argsort(numbers, axis=1)
    ascending = np.take_along_axis(numbers, order, axis=1)
    new = np.ones(numbers.shape, np.bool_)
    new[:, 1:] = ascending[:, 1:] != ascending[:, :-1]
    place = np.cumsum(new, axis=1) - 1
    distinct = np.full((len(numbers), int(place.max(initial=-1)) + 1), -1)
    np.put_along_axis(distinct, place, ascending, axis=1)
    found = np.empty_like(place)
    np.put_along_axis(found, order, place, axis=1)
    return distinct, found
