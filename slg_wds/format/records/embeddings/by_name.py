"""The embeddings of a record, plain or low-rank, by their names: checked, some crops of them, several parts joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding, joined_low_rank
from slg_wds.format.records.embeddings.low_rank_codec import check_low_rank_embedding
from slg_wds.format.records.embeddings.plain import EMBEDDING_VALUES, Embedding, check_numbers

AnyEmbedding = Embedding | LowRankEmbedding


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
