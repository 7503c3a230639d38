"""What records of low-rank labels say: how far they are from the teacher, and how large their parts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.format.records.columns import decode_column, encode_column
from slg_wds.format.records.low_rank.blocks import LOW_RANK, LowRank
from slg_wds.format.records.low_rank.codec import BlockShape, encode_low_rank, open_low_rank

COLUMNS = ("low_rank", "block_of")


@dataclass(frozen=True)
class CodedImage:
    """The low-rank labels of one image in short.

    Attributes:
        mean, worst: the stated KL divergence in nats: the mean over the crops, and the largest of a crop.
        against: what it is from: "teacher" or "labels".
        shapes: the sizes of each block.
        bytes: of the columns of labels.
    """

    mean: float
    worst: float
    against: str
    shapes: list[BlockShape]
    bytes: int


def coded_image(labels: LowRank) -> CodedImage:
    """Describe decoded labels. They are encoded once more, which tells their bytes."""
    crops = np.bincount(labels.block_of, minlength=len(labels.blocks)).tolist()
    shapes = [
        BlockShape(count, block.num_classes, len(block.classes), block.rank, block.step_code)
        for count, block in zip(crops, labels.blocks, strict=True)
    ]
    size = len(encode_low_rank(labels)) + _size(encode_column(labels.block_of.astype(np.uint32)))
    return CodedImage(labels.kl.mean, labels.kl.worst, labels.kl.against, shapes, size)


def coded_images(records: Sequence[dict[str, Any]]) -> list[CodedImage]:
    """Describe those of the unpacked records that have low-rank labels, without decoding these.

    Raises:
        RecordError: a record is damaged.
    """
    return [_of_fields(fields) for fields in records if fields["coding"] == LOW_RANK and fields["num_crops"]]


def _of_fields(fields: dict[str, Any]) -> CodedImage:
    columns = fields["columns"]
    block_of = decode_column(columns.get("block_of"), (fields["num_crops"],))
    shapes = open_low_rank(columns.get("low_rank"), block_of, fields["num_classes"]).shapes
    size = sum(_size(columns[name]) for name in COLUMNS)
    return CodedImage(fields["kl_mean"], fields["kl_worst"], fields["kl_against"], shapes, size)


def _size(column: Any) -> int:
    return sum(map(len, column)) if isinstance(column, list) else len(column)


@dataclass(frozen=True)
class LowRankFigures:
    """Figures of several images.

    Attributes:
        against: what the stated divergences are from: "teacher", "labels", or both.
        kl: of the images' mean KL divergences in nats: the least, the median, the mean, the ninth decile, the largest.
        worst_kl: the largest divergence of a crop.
        classes, rank: mean over crops: classes with an entry of their own, and components.
        blocks: mean over images: blocks.
        bytes_per_crop: of the columns of labels.
    """

    against: str
    kl: dict[str, float]
    worst_kl: float
    classes: float
    rank: float
    blocks: float
    bytes_per_crop: float


def low_rank_figures(images: Sequence[CodedImage]) -> LowRankFigures | None:
    """Return the figures of images; None for no image."""
    if not images:
        return None
    shapes = [shape for image in images for shape in image.shapes]
    crops = sum(shape.crops for shape in shapes)
    mean = np.array([image.mean for image in images])
    against = Counter(image.against for image in images)
    return LowRankFigures(
        against=" and ".join(sorted(against, reverse=True)),
        kl={
            "least": float(mean.min()),
            "median": float(np.median(mean)),
            "mean": float(mean.mean()),
            "90%": float(np.quantile(mean, 0.9)),
            "largest": float(mean.max()),
        },
        worst_kl=max(float(image.worst) for image in images),
        classes=sum(shape.crops * shape.kept for shape in shapes) / crops,
        rank=sum(shape.crops * shape.rank for shape in shapes) / crops,
        blocks=len(shapes) / len(images),
        bytes_per_crop=sum(image.bytes for image in images) / crops,
    )
