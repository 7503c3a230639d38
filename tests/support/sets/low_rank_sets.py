"""Sets of low-rank labels whose numbers are invented, for the images and crops of another set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import slg_wds
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import Sample
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location
from support.oracles.logit_tables_oracle import made_image

KEPT, RANK = 9, 2


def divergence(exact: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return KL(exact || stored) of each row, in nats."""
    return (exact * (np.log(np.maximum(exact, 1e-30)) - np.log(stored))).sum(axis=1)


def low_rank_of(
    source: str,
    target: str,
    *,
    first: int = 0,
    blocks: int = 1,
    requires: tuple[str, ...] = (),
    **identity: Any,
) -> str:
    """Write such a set with the crops of `source` from `first` on; `identity` changes fields of its identity."""
    opened = slg_wds.open_labels(source)
    described = {
        **opened.identity.to_json(),
        "label_type": "lowrank",
        "k": None,
        "values": None,
        "tail_classes": 0,
    }
    described |= {"max_kl": 0.1, **identity}
    place = Location(target)
    labels = create_labels(
        place, opened.plan, described, {}, None, (LOW_RANK, *requires), image_checksums=True
    )
    for number in range(opened.num_shards):
        samples = [
            Sample(low_rank_record(sample.record, first, blocks), sample.image, sample.image_ext)
            for sample in opened.shard(number)
        ]
        encoded = [labels.encode_sample(sample) for sample in samples]
        commit_shard(labels, number, labels.encode_shard(number, encoded, [], {}))
    finish_set(labels)
    return target


def low_rank_record(record: Record, first: int, blocks: int) -> Record:
    """Return the record of the same image, from crop `first` on, with invented low-rank labels."""
    crops = record.num_crops - first
    seed = sum(record.key.encode()) + first
    labels = made_image(
        seed, crops, record.num_classes, KEPT + seed % 3, min(RANK, seed % 4), blocks, least=10
    )
    return replace(
        record, crops=record.crops[first:], flips=record.flips[first:], index=np.zeros((crops, 0), np.int64),
        value=np.zeros((crops, 0), np.float32), tail=None, coding=LOW_RANK, full=False, low_rank=labels,
    )  # fmt: skip
