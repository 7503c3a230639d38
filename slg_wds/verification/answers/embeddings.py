"""Stored embeddings against what the teachers answer now, and low-rank ones against what their records state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding
from slg_wds.format.records.record import Record
from slg_wds.labelset.labelset import LabelSet

# The least mean cosine of stored embeddings to those of the same teacher: int8 alone has over 0.9995.
LEAST_MEAN = {"fp32": 0.999, "tf32": 0.99, "bf16": 0.99, "fp16": 0.99}
# How many times the stated 1 - cosine of low-rank embeddings another machine may find: of a crop, and as the mean of a
# sample, which may be of the crops that are further off than others. What other machines change comes on top.
SLACK_OF_A_CROP, SLACK_OF_A_SAMPLE = 1.1, 1.5
LISTED = 3


@dataclass(frozen=True)
class EmbeddingCheck:
    """How stored embeddings compare with what the teachers answer now.

    Attributes:
        crops: crops that were compared.
        mean: mean cosine of a stored embedding to the teacher's own; the least one of several teachers' means.
        least: the least cosine of a crop.
        problems: which of these values are below their limits, in words.
    """

    crops: int
    mean: float
    least: float
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "NOT the teachers'" if self.problems else "the teachers'"
        return (
            f"the embeddings are {verdict}: {counted(self.crops, 'crop')} asked again, the cosine to the teachers' own "
            f"is {self.mean:.5f} on average and {self.least:.5f} at least"
        )


def compared_embeddings(
    rows: Iterable[tuple[Record, NDArray[np.float64]]], labels: LabelSet
) -> EmbeddingCheck:
    """Compare the embeddings of some crops with the teachers' own.

    Args:
        rows: records of the crops, and the teachers' embeddings of these side by side, float64 [n, D].
        labels: the set.
    """
    kinds = labels.identity.embeddings or []
    allowed = 1.0 - LEAST_MEAN[labels.identity.precision or "fp32"]
    found: dict[str, list[NDArray[np.float64]]] = {one["name"]: [] for one in kinds}
    over: list[str] = []
    for record, exact in rows:
        first = 0
        for one in kinds:
            stored = (record.embeddings or {})[one["name"]]
            each = cosines(stored.vectors, exact[:, first : (first := first + one["dim"])])
            found[one["name"]].append(each)
            over += _further_than_stated(record.key, stored, each, allowed)
    every = {name: np.concatenate(parts) if parts else np.ones(0) for name, parts in found.items()}
    means = {name: float(one.mean()) if len(one) else 1.0 for name, one in every.items()}
    problems = [line for one in kinds for line in _below(one, means[one["name"]], allowed)] + over[:LISTED]
    crops = max(map(len, every.values()))
    least = min(float(one.min(initial=1.0)) for one in every.values())
    return EmbeddingCheck(crops, min(means.values()), least, problems)


def _below(kind: dict[str, Any], mean: float, allowed: float) -> list[str]:
    """Say that the mean cosine of an embedding is too low; nothing where it is not."""
    limit = 1.0 - SLACK_OF_A_SAMPLE * (1.0 - kind.get("min_cosine", 1.0)) - allowed
    if mean >= limit:
        return []
    return [f"the cosine of {kind['name']} to the teacher's own is {mean:.5f} on average, below {limit:g}"]


def _further_than_stated(
    key: str, stored: AnyEmbedding, each: NDArray[np.float64], allowed: float
) -> list[str]:
    """Say that a crop of a low-rank embedding is further off than its record states; nothing where none is."""
    if not isinstance(stored, LowRankEmbedding):
        return []
    worst, least = stored.cosine.worst, float(each.min(initial=1.0))
    if 1.0 - least <= SLACK_OF_A_CROP * (1.0 - worst) + allowed:
        return []
    return [f"the cosine of a crop of {key} is {least:.5f}, and its record says at least {worst:.5f}"]
