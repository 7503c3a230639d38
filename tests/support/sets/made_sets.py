"""Label sets of invented teachers: any number of them on the same crops, made without running a network."""

from __future__ import annotations

from typing import Any

import numpy as np

from slg_wds.ensembling.merge import LabelFormat, UnionRows, reduce
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import Sample
from slg_wds.labels import parse_label_type
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location


def probabilities(seed: int, crops: int, classes: int) -> np.ndarray:
    """Make a teacher's distributions, float32 [M, C]: peaked, and similar within an image."""
    chance = np.random.default_rng(seed)
    logits = 1.3 * (chance.normal(0, 2, classes) + chance.normal(0, 1.2, (crops, classes)))
    rows = np.exp(logits - logits.max(1, keepdims=True))
    return (rows / rows.sum(1, keepdims=True)).astype(np.float32)


def boxes(seed: int, crops: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw boxes within 300 x 300 pixels, and flips."""
    chance = np.random.default_rng(seed)
    corner, extent = chance.integers(0, 150, (crops, 2)), chance.integers(1, 151, (crops, 2))
    return np.concatenate([corner, extent], axis=1), chance.random(crops) < 0.5


def record(
    key: str, rows: np.ndarray, label_type: str, coding: str = "float32", tail: int = 64, **changes: Any
):
    """Make the record of distributions [M, C]; its key determines its boxes."""
    M, C = rows.shape
    to = LabelFormat(parse_label_type(label_type), coding, tail, C)
    labels = reduce(UnionRows(np.arange(C), rows.astype(np.float64), np.zeros(M)), to)
    crops, flips = boxes(sum(key.encode()), M)
    coding = "none" if label_type == "hard" else coding
    fields = {
        "key": key,
        "path": key + ".jpg",
        "target": 1,
        "size": (300, 300),
        "crops": crops,
        "flips": flips,
    }
    fields |= {"index": labels.index, "value": labels.value, "tail": labels.tail, "coding": coding}
    return Record(**{**fields, "full": to.full, "num_classes": C, **changes})


def label_set(
    url: Any,
    teacher: int,
    *,
    keys: list[str] | None = None,
    shard: int = 4,
    crops: int = 24,
    classes: int = 60,
    label_type: str = "shared_tail_k5",
    coding: str = "float32",
    tail: int = 64,
    first: int = 0,
    change: dict[str, dict[str, Any]] | None = None,
    identity: dict[str, Any] | None = None,
    complete: bool = True,
    left_out: tuple[str, ...] = (),
    image: bytes | None = None,
    checksums: bool = False,
) -> LabelSet:
    """Make a label set. `change` overrides fields of records by key; `checksums`: records may have image checksums."""
    keys = keys or [f"class/image{n:02d}" for n in range(10)]
    sizes = np.full(-(-len(keys) // shard), shard, np.int64)
    sizes[-1] = len(keys) - shard * (len(sizes) - 1)
    targets = [(change or {}).get(key, {}).get("target", 1) for key in keys]
    plan = Plan(
        [f"train-{n:06d}" for n in range(len(sizes))],
        sizes,
        StringColumn.of([key + ".jpg" for key in keys]),
        StringColumn.of(keys),
        np.array(targets, np.int32),
    )
    k = parse_label_type(label_type).stored_k(classes)
    described = {"teachers": [{"arch": f"teacher{teacher}", "weight": 1.0}], "label_type": label_type, "k": k}
    described |= {"values": coding, "tail_classes": tail, "temperature": 1.0, "num_classes": classes}
    described |= {"class_subset": None, "num_crops": crops, "embed_images": {} if image else None}
    labels = create_labels(
        Location(str(url)), plan, {**described, **(identity or {})}, {}, None, image_checksums=checksums
    )
    for number in range(len(sizes) if complete else len(sizes) - 1):
        part = plan.shard(number)
        samples = []
        for key in part.keys:
            rows = probabilities(teacher * 1000 + sum(key.encode()), crops, classes)
            made = record(key, rows[first:], label_type, coding, tail, **(change or {}).get(key, {}))
            if key not in left_out:
                samples.append(Sample(made, image, "jpg" if image else None))
        reasons = [
            {"key": key, "path": key + ".jpg", "reason": "torn"} for key in part.keys if key in left_out
        ]
        commit_shard(
            labels, number, labels.encode_shard(number, map(labels.encode_sample, samples), reasons, {})
        )
    finish_set(labels)
    return labels
