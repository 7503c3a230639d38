"""What the fields of a record say of its embeddings.

Shapes: M crops of a record, D numbers of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.low_rank import LOW_RANK_VALUES, LowRankEmbedding
from slg_wds.format.records.embeddings.low_rank_codec import (
    MAX_LOW_RANK_NUMBERS,
    BlockSizes,
    block_sizes,
    low_rank_field,
)
from slg_wds.format.records.embeddings.plain import EMBEDDING_VALUES

EMBEDDING = "embedding"  # the coding of such records, and the label type of their sets
EMBEDDINGS = "embeddings"  # the field of such records, and the feature that their sets require
MAX_EMBEDDINGS = 16  # of a record
MAX_EMBEDDED = 1 << 24  # numbers of all crops and embeddings of a record
MAX_DIM = 1 << 16  # numbers of an embedding
MAX_NAME = 200  # characters


def embedding_fields(embeddings: Mapping[str, AnyEmbedding] | None) -> dict[str, Any]:
    """Return the fields of a record that has these embeddings; none without. Raises as `low_rank_field`."""
    if embeddings is None:
        return {}
    kinds = [[name, one.dim, one.values] for name, one in embeddings.items()]
    stated = [
        low_rank_field(one) if isinstance(one, LowRankEmbedding) else None for one in embeddings.values()
    ]
    return {EMBEDDINGS: kinds, **({LOW_RANK_VALUES: stated} if any(stated) else {})}


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


def embedding_kinds(fields: Mapping[str, Any]) -> list[EmbeddingKind]:
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
