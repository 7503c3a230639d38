"""The labels of one image in one or several sets -> low-rank labels of their weighted mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slg_wds.errors import RecordError
from slg_wds.format.records.low_rank.blocks import LowRank
from slg_wds.format.records.record import Record
from slg_wds.labels import recover_over, stored_columns
from slg_wds.labels.low_rank import encode


def mean_of_labels(
    records: Sequence[Record], rules: Sequence[str | None], shares: Sequence[float], max_kl: float, keep: bool
) -> LowRank:
    """Return low-rank labels of the weighted mean of distributions.

    Args:
        records: the image's record in each set, M crops of C classes.
        rules: for each, the rule of recovery; None to use all that is stored.
        shares: their weights, which sum to 1.
        max_kl: the largest mean KL divergence from the mean of what is read, in nats.
        keep: whether a single record that is low-rank keeps its labels as they are.

    Raises:
        RecordError: no low-rank labels are so close.
    """
    first = records[0]
    if len(records) == 1 and first.low_rank is not None and keep:
        return first.low_rank
    every = np.arange(first.num_classes)
    mean = np.zeros((first.num_crops, first.num_classes))
    for record, rule, share in zip(records, rules, shares, strict=True):
        mean += recover_over(record, stored_columns(record).resolve(rule), share, every, every)[0]
    parents = tuple(None if record.low_rank is None else record.low_rank.kl.mean for record in records)
    try:
        return encode(mean, max_kl, "labels", parents)
    except RecordError as error:
        raise error.located(key=first.key) from None
