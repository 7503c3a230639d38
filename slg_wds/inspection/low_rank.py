"""What sampled records of low-rank labels say: how far they are from the teacher, and how large their parts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.format.records.columns import decode_column
from slg_wds.format.records.low_rank import LOW_RANK
from slg_wds.format.records.low_rank_codec import BlockShape, open_low_rank


@dataclass(frozen=True)
class LowRankFigures:
    """Figures of a sample of records.

    Attributes:
        against: what the stated divergences are from: "teacher", "labels", or both.
        kl: of the records' mean KL divergences in nats: the least, the median, the mean, the ninth decile, the largest.
        worst_kl: the largest divergence of a crop.
        classes, rank: mean over crops: classes with an entry of their own, and components.
        blocks: mean over records: blocks.
    """

    against: str
    kl: dict[str, float]
    worst_kl: float
    classes: float
    rank: float
    blocks: float


def low_rank_figures(records: Sequence[dict[str, Any]]) -> LowRankFigures | None:
    """Return the figures of unpacked records; None if none has low-rank labels.

    Raises:
        RecordError: a record is damaged.
    """
    records = [fields for fields in records if fields["coding"] == LOW_RANK and fields["num_crops"]]
    if not records:
        return None
    shapes = [_shapes(fields) for fields in records]
    crops = sum(shape.crops for of_record in shapes for shape in of_record)
    mean = np.array([fields["kl_mean"] for fields in records])
    against = Counter(fields["kl_against"] for fields in records)
    return LowRankFigures(
        against=" and ".join(sorted(against, reverse=True)),
        kl={
            "least": float(mean.min()),
            "median": float(np.median(mean)),
            "mean": float(mean.mean()),
            "90%": float(np.quantile(mean, 0.9)),
            "largest": float(mean.max()),
        },
        worst_kl=max(float(fields["kl_worst"]) for fields in records),
        classes=sum(shape.crops * shape.kept for of_record in shapes for shape in of_record) / crops,
        rank=sum(shape.crops * shape.rank for of_record in shapes for shape in of_record) / crops,
        blocks=sum(map(len, shapes)) / len(records),
    )


def _shapes(fields: dict[str, Any]) -> list[BlockShape]:
    columns = fields["columns"]
    block_of = decode_column(columns.get("block_of"), (fields["num_crops"],))
    return open_low_rank(columns.get("low_rank"), block_of, fields["num_classes"]).shapes
