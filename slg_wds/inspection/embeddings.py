"""What sampled records of low-rank embeddings say: how near they are to the teacher, and how large their parts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.format.records.embeddings.fields import EMBEDDING, embedding_kinds
from slg_wds.format.records.embeddings.low_rank_codec import BlockSizes, low_rank_sizes


@dataclass(frozen=True)
class EmbeddingFigures:
    """Figures of one low-rank embedding in a sample of records.

    Attributes:
        cosine: of the records' mean cosines: the least, the first decile, the median, the mean, the largest.
        worst_cosine: the least cosine of a crop.
        rank: mean over crops: components.
        blocks: mean over records: blocks.
        bytes: of a crop.
    """

    cosine: dict[str, float]
    worst_cosine: float
    rank: float
    blocks: float
    bytes: float


def embedding_figures(records: Sequence[dict[str, Any]]) -> dict[str, EmbeddingFigures]:
    """Return the figures of unpacked records of one set, by the name of each low-rank embedding; empty without any."""
    records = [fields for fields in records if fields["coding"] == EMBEDDING and fields["num_crops"]]
    if not records:
        return {}
    kinds = [embedding_kinds(fields) for fields in records]
    found = {}
    for number, first in enumerate(kinds[0]):
        known = [sizes for of_record in kinds if (sizes := of_record[number].blocks) is not None]
        if known:
            found[first.name] = _figures(records, known, number)
    return found


def _figures(records: Sequence[dict[str, Any]], sizes: Sequence[BlockSizes], number: int) -> EmbeddingFigures:
    crops = sum(sum(one.crops) for one in sizes)
    weighted = sum(m * r for one in sizes for m, r in zip(one.crops, one.ranks, strict=True))
    total = sum(
        len(plane)
        for fields, one in zip(records, sizes, strict=True)
        for name in low_rank_sizes(one, number)
        for plane in fields["columns"].get(name) or []
        if isinstance(plane, bytes)
    )
    return EmbeddingFigures(
        cosine=_spread(np.array([one.cosine.mean for one in sizes])),
        worst_cosine=min(one.cosine.worst for one in sizes),
        rank=weighted / crops,
        blocks=sum(len(one.crops) for one in sizes) / len(sizes),
        bytes=total / crops,
    )


def _spread(cosines: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float]:
    return {
        "least": float(cosines.min()),
        "10%": float(np.quantile(cosines, 0.1)),
        "median": float(np.median(cosines)),
        "mean": float(cosines.mean()),
        "largest": float(cosines.max()),
    }
