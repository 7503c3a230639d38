"""Embeddings of crops, as teachers without their heads give them: arrays <-> fields and columns of a record.

Shapes: M crops of a record, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.columns import decode_column, decode_pieces, encode_column, encode_pieces
from slg_wds.format.records.low_rank_embeddings.blocks import (
    LOW_RANK_VALUES,
    LowRankEmbedding,
    joined_low_rank,
)
from slg_wds.format.records.low_rank_embeddings.codec import (
    MAX_LOW_RANK_NUMBERS,
    BlockSizes,
    block_sizes,
    check_low_rank_embedding,
    decode_low_rank_embedding,
    low_rank_columns,
    low_rank_field,
    low_rank_sizes,
)

Floats = NDArray[np.float32]

EMBEDDING = "embedding"  # the coding of such records, and the label type of their sets
EMBEDDINGS = "embeddings"  # the field of such records, and the feature that their sets require
# How each number is stored. "lowrank" is no such way: it codes the embeddings of a record together.
EMBEDDING_VALUES = ("float32", "float16", "int8")
MAX_EMBEDDINGS = 16  # of a record
MAX_EMBEDDED = 1 << 24  # numbers of all crops and embeddings of a record
MAX_DIM = 1 << 16  # numbers of an embedding
MAX_NAME = 200  # characters
LEAST_COSINE = 0.99  # between an embedding and what is read back

_DTYPES: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
_LARGEST_CODE = 127
_LARGEST_SCALE = np.float32(2.0**120)  # so that no product with a code overflows


@dataclass(frozen=True, eq=False)
class Embedding:
    """What one teacher gave for the crops of a record, as it is stored.

    Attributes:
        stored: float32, float16 or int8 [M, D]. If int8, a number is its code times the scale of its crop.
        scales: float32 [M], of int8 codes; else None.
    """

    stored: NDArray[Any]
    scales: Floats | None = None

    @classmethod
    def of(cls, vectors: NDArray[Any], values: str) -> Embedding:
        """Code embeddings.

        Args:
            vectors: [M, D], finite numbers.
            values: one of EMBEDDING_VALUES. int8 rounds to 127 steps of the largest magnitude of the crop.

        Raises:
            RecordError: a number is not finite or too large, or the coding changes the direction of an embedding.
        """
        if values not in EMBEDDING_VALUES:
            raise RecordError(f"embeddings are not stored as {values!r}")
        exact = exact_embeddings(vectors)
        coded = _as_int8(exact) if values == "int8" else cls(_as_floats(exact, _DTYPES[values]))
        coded._check_direction(exact)
        return coded

    @property
    def values(self) -> str:
        """How numbers are stored, one of EMBEDDING_VALUES."""
        return str(self.stored.dtype.name)

    @property
    def dim(self) -> int:
        """Numbers of each crop, D."""
        return int(self.stored.shape[1])

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, crops: Any) -> Embedding:
        """Return the embeddings of some crops; `crops` is an index into the first axis."""
        return Embedding(self.stored[crops], None if self.scales is None else self.scales[crops])

    @property
    def vectors(self) -> Floats:
        """The numbers that a reader sees, float32 [M, D]."""
        return scaled(self.stored, self.scales)

    def _check_direction(self, exact: Floats) -> None:
        worst = float(cosines(exact, self.vectors).min(initial=1.0))
        if worst < LEAST_COSINE:
            raise RecordError(
                f"with values {self.values}, the cosine between the embedding of a crop and what is read back would "
                f"be {worst:.4f} (at least {LEAST_COSINE} is required)",
                hint=f"choose --values {'float16' if self.values == 'int8' else 'float32'}",
            )


AnyEmbedding = Embedding | LowRankEmbedding


def exact_embeddings(vectors: NDArray[Any]) -> Floats:
    """Return embeddings [M, D] as float32. Raises RecordError unless they are finite numbers."""
    exact: Floats = np.asarray(vectors, np.float32)
    if exact.ndim != 2 or not exact.shape[1] or not np.isfinite(exact).all():
        raise RecordError(f"embeddings of shape {exact.shape} are not finite numbers [crops, D]")
    return exact


def _as_floats(exact: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        stored: NDArray[Any] = exact.astype(dtype)
    if not np.isfinite(stored).all():
        raise RecordError(
            f"a number of an embedding is too large for {dtype.name}: {float(np.abs(exact).max()):g}",
            hint="choose --values float32 or int8",
        )
    return stored


def _as_int8(exact: Floats) -> Embedding:
    scales: Floats = (np.abs(exact).max(axis=1, initial=0.0) / np.float32(_LARGEST_CODE)).astype(np.float32)
    if scales.size and scales.max() > _LARGEST_SCALE:
        raise RecordError(
            f"a number of an embedding is too large for int8: {float(np.abs(exact).max()):g}",
            hint="choose --values float32",
        )
    steps = np.where(scales > 0, scales, np.float32(1)).astype(np.float64)
    codes = np.rint(exact / steps[:, None])
    return Embedding(np.clip(codes, -_LARGEST_CODE, _LARGEST_CODE).astype(np.int8), scales)


def scaled(stored: NDArray[Any], scales: Floats | None) -> Floats:
    """Return the numbers of stored embeddings, float32 [..., D].

    Args:
        stored: float32, float16 or int8 [..., D].
        scales: float32 [...], of int8 codes; else None.
    """
    numbers: Floats = stored.astype(np.float32)
    if scales is not None:
        numbers *= scales[..., None]
    return numbers


def cosines(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine between the rows of two arrays [..., D]: 1 between two zero vectors, 0 if one is zero."""
    a, b = (unit_rows(part) for part in (one, other))
    both_zero = ~(a.any(axis=-1) | b.any(axis=-1))
    found: NDArray[np.float64] = (a * b).sum(axis=-1)
    return np.where(both_zero, 1.0, found)


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return rows [..., D] at unit length, float64; rows of zeros stay."""
    rows = np.asarray(rows, np.float64)
    length = np.sqrt((rows * rows).sum(axis=-1, keepdims=True))
    unit: NDArray[np.float64] = rows / np.where(length > 0, length, 1.0)
    return unit


def similarity(vectors: NDArray[Any]) -> float:
    """Return the mean cosine between two different rows of [M, D]; 1 for fewer than two. Zero vectors give 0."""
    M = len(vectors)
    if M < 2:
        return 1.0
    unit = unit_rows(vectors)
    total = float(np.square(unit.sum(axis=0)).sum() - np.square(unit).sum())
    return total / (M * (M - 1))


def embedding_fields(embeddings: Mapping[str, AnyEmbedding] | None) -> dict[str, Any]:
    """Return the fields of a record that has these embeddings; none without. Raises as `low_rank_field`."""
    if embeddings is None:
        return {}
    kinds = [[name, one.dim, one.values] for name, one in embeddings.items()]
    stated = [
        low_rank_field(one) if isinstance(one, LowRankEmbedding) else None for one in embeddings.values()
    ]
    return {EMBEDDINGS: kinds, **({LOW_RANK_VALUES: stated} if any(stated) else {})}


def embedding_columns(embeddings: Mapping[str, AnyEmbedding] | None) -> dict[str, list[bytes]]:
    """Encode the columns of a record that has these embeddings."""
    columns: dict[str, list[bytes]] = {}
    for number, one in enumerate((embeddings or {}).values()):
        if isinstance(one, LowRankEmbedding):
            columns |= low_rank_columns(one, number)
            continue
        bits = one.stored.view(f"<u{one.stored.itemsize}")
        columns[f"embedding_{number}"] = encode_pieces(bits)
        if one.scales is not None:
            columns[f"scales_{number}"] = encode_column(one.scales.astype("<f4").view("<u4"))
    return columns


def check_embeddings(embeddings: Mapping[str, AnyEmbedding], num_crops: int) -> None:
    """Check the arrays of a record's embeddings before they are encoded. Raises RecordError."""
    for name, one in embeddings.items():
        if isinstance(one, LowRankEmbedding):
            if len(one) != num_crops:
                raise RecordError(f"the embeddings {brief(name)} are not of {num_crops} crops")
            check_low_rank_embedding(one)
            continue
        if one.stored.ndim != 2 or len(one.stored) != num_crops or one.values not in EMBEDDING_VALUES:
            raise RecordError(
                f"the embeddings {brief(name)} of shape {one.stored.shape} are not of {num_crops} crops"
            )
        if (one.scales is None) != (one.values != "int8") or (
            one.scales is not None and one.scales.shape != (num_crops,)
        ):
            raise RecordError(f"int8 embeddings have one scale for each crop, others none: {brief(name)}")
        check_numbers(one.stored, one.scales)


def check_numbers(stored: NDArray[Any], scales: Floats | None) -> None:
    """Check that stored numbers are finite, codes at least -127, and scales from 0 to 2^120. Raises RecordError."""
    if scales is None:
        if not np.isfinite(stored).all():
            raise RecordError("a number of an embedding is not finite")
        return
    if stored.size and stored.min() < -_LARGEST_CODE:
        raise RecordError("a code of an embedding is -128")
    if scales.size and not (scales.min() >= 0.0 and scales.max() <= _LARGEST_SCALE):
        raise RecordError("the scale of an embedding is not a number from 0 to 2^120")


class EmbeddingKind(NamedTuple):
    """What the fields of a record say of one of its embeddings.

    Attributes:
        name: of the embedding.
        dim: D.
        values: one of EMBEDDING_VALUES, or "lowrank".
        blocks: of a low-rank embedding; else None.
    """

    name: str
    dim: int
    values: str
    blocks: BlockSizes | None


def embedding_field(fields: Mapping[str, Any]) -> list[EmbeddingKind]:
    """Return what the fields of a record say of each embedding. Raises RecordError if one is unsound."""
    found, M = fields.get(EMBEDDINGS), fields["num_crops"]
    if type(found) is not list or not 1 <= len(found) <= MAX_EMBEDDINGS:
        raise RecordError(f"embeddings is {brief(found)}, not an array of 1 to {MAX_EMBEDDINGS}")
    for one in found:
        if type(one) is not list or [type(part) for part in one] != [str, int, str]:
            raise RecordError(f"an embedding is {brief(one)}, not a name, a number and a coding")
        check_embedding(*one)
    if len({name for name, _, _ in found}) < len(found):
        raise RecordError("two embeddings have the same name")
    if M * (width := sum(dim for _, dim, _ in found)) > MAX_EMBEDDED:
        raise RecordError(f"{M} crops of {width} numbers are over the limit of {MAX_EMBEDDED}")
    blocks = _low_rank_blocks(fields)
    return [
        EmbeddingKind(name, dim, values, one) for (name, dim, values), one in zip(found, blocks, strict=True)
    ]


def _low_rank_blocks(fields: Mapping[str, Any]) -> list[BlockSizes | None]:
    """Return the blocks of each embedding; None for one that is not low-rank. Raises RecordError for wrong ones."""
    kinds = fields[EMBEDDINGS]
    stated = fields.get(LOW_RANK_VALUES, [None] * len(kinds))
    low_rank = [values == LOW_RANK_VALUES for _, _, values in kinds]
    if type(stated) is not list or [one is not None for one in stated] != low_rank:
        raise RecordError(f"{LOW_RANK_VALUES} is {brief(stated)}, not one entry for each embedding")
    found = [
        None if one is None else block_sizes(one, fields["num_crops"], dim)
        for one, (_, dim, _) in zip(stated, kinds, strict=True)
    ]
    if sum(one.numbers for one in found if one is not None) > MAX_LOW_RANK_NUMBERS:
        raise RecordError(f"low-rank embeddings of over {MAX_LOW_RANK_NUMBERS} numbers")
    return found


def check_embedding(name: str, dim: int, values: str) -> None:
    """Check how one embedding is named and stored. Raises RecordError."""
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise RecordError(
            f"the name of an embedding is {brief(name)}, not 1 to {MAX_NAME} printable characters"
        )
    if not 1 <= dim <= MAX_DIM or values not in (*EMBEDDING_VALUES, LOW_RANK_VALUES):
        raise RecordError(f"an embedding of {brief(dim)} numbers as {brief(values)} is unknown")


def embedding_sizes(fields: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return how many numbers and how many bytes of each number every column of embeddings has, by its name."""
    M = fields["num_crops"]
    sizes: dict[str, tuple[int, int]] = {}
    for number, (_, dim, values, blocks) in enumerate(embedding_field(fields)):
        if blocks is not None:
            sizes |= low_rank_sizes(blocks, number)
            continue
        sizes[f"embedding_{number}"] = (M * dim, _DTYPES[values].itemsize)
        if values == "int8":
            sizes[f"scales_{number}"] = (M, 4)
    return sizes


def decode_embeddings(fields: Mapping[str, Any], at: Any) -> dict[str, AnyEmbedding]:
    """Decode the embeddings of some crops of a record, by name.

    Args:
        fields: of the record, checked, with its columns.
        at: an index into the crops.

    Raises:
        RecordError: a column is damaged, or a number is not one that may be stored.
    """
    found: dict[str, AnyEmbedding] = {}
    for number, (name, dim, values, blocks) in enumerate(embedding_field(fields)):
        if blocks is not None:
            found[name] = decode_low_rank_embedding(fields["columns"], number, blocks)[at]
        else:
            found[name] = _decoded(fields, number, dim, values, at)
    return found


def _decoded(fields: Mapping[str, Any], number: int, dim: int, values: str, at: Any) -> Embedding:
    M, columns, scales = fields["num_crops"], fields["columns"], None
    stored = decode_stored(columns, number, (M, dim), values, np.arange(M)[at])
    if values == "int8":
        scales = decode_column(columns.get(f"scales_{number}"), (M,), at, 4).view("<f4")
    check_numbers(stored, scales)
    return Embedding(stored, scales)


def decode_stored(
    columns: Mapping[str, Any], number: int, shape: tuple[int, int], values: str, rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Decode the numbers or codes of some crops of embedding `number`, which is not low-rank.

    Args:
        columns: of the record.
        number: of the embedding.
        shape: (M, D).
        values: one of EMBEDDING_VALUES.
        rows: int64 [...], numbers of the crops.

    Returns:
        float32, float16 or int8 [..., D], not checked; see `check_numbers`.

    Raises:
        RecordError: the column is damaged.
    """
    dtype = _DTYPES[values]
    stored: NDArray[Any] = decode_pieces(columns.get(f"embedding_{number}"), shape, rows, dtype.itemsize)
    return stored.view(dtype)[..., 0]


def of_crops(embeddings: Mapping[str, AnyEmbedding] | None, crops: Any) -> dict[str, AnyEmbedding] | None:
    """Return the embeddings of some crops; None where there are none."""
    return None if embeddings is None else {name: one[crops] for name, one in embeddings.items()}


def joined_embeddings(
    parts: Sequence[Mapping[str, AnyEmbedding] | None],
) -> dict[str, AnyEmbedding] | None:
    """Return the embeddings of several parts' crops, one part after the other; None for parts without.

    Raises:
        RecordError: the parts differ in their embeddings.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    kinds = {tuple((name, one.dim, one.values) for name, one in part.items()) for part in known}
    if len(known) < len(parts) or len(kinds) > 1:
        raise RecordError("records that belong together differ in their embeddings")
    return {name: _joined([part[name] for part in known]) for name in known[0]}


def _joined(parts: Sequence[AnyEmbedding]) -> AnyEmbedding:
    low_rank = [part for part in parts if isinstance(part, LowRankEmbedding)]
    if low_rank:
        return joined_low_rank(low_rank)
    plain = [part for part in parts if isinstance(part, Embedding)]
    scales = [part.scales for part in plain if part.scales is not None]
    stored = np.concatenate([part.stored for part in plain])
    return Embedding(stored, np.concatenate(scales) if scales else None)
