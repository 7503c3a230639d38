"""The dense labels that a loader gives in an epoch, and those of whole records, by (key, crop)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

import slg_wds
from slg_wds.replay.batch import Batch

DenseLabels = Mapping[tuple[str, int], torch.Tensor]


def given(batches: Iterable[Batch]) -> DenseLabels:
    """The labels of the batches, without padding."""
    found = {}
    for batch in batches:
        dense = batch.labels.dense()
        for i, place in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            if batch.mask[i]:
                found[place] = dense[i]
    return found


def stored(labels: str, rule: str | None = None, temperature: float | None = None) -> DenseLabels:
    """The labels of every record of a set."""
    return {
        (record.key, crop): torch.from_numpy(row)
        for record in slg_wds.open_labels(labels)
        for crop, row in enumerate(record.distribution(None, rule, temperature))
    }


def agree(found: DenseLabels, wanted: DenseLabels, *, least: int, atol: float = 3e-6) -> None:
    """Assert that at least so many labels were found, and each is the one wanted."""
    assert len(found) >= least
    for place, row in found.items():
        torch.testing.assert_close(row, wanted[place], atol=atol, rtol=0)
