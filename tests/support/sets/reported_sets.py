"""Label sets for reports: invented labels of real pictures, with keys and class names that attack the page."""

from __future__ import annotations

import dataclasses
import io
import zlib
from typing import Any

import numpy as np
from PIL import Image

from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.shards.shard import Sample
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location

CLASSES, CROPS, K, SHARD = 12, 16, 5, 6
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "{{7*7}}{% raw %}",
    '"><svg onload=alert(3)>',
    "<!--<script>",
    "$\\frac{1}{0}$",
    "\u202edrow",
]


def picture(number: int, size: tuple[int, int]) -> bytes:
    """Make a JPEG of coloured noise of (height, width)."""
    chance = np.random.default_rng(number)
    pixels = chance.integers(0, 255, (6, 8, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize((size[1], size[0])).save(out, "JPEG")
    return out.getvalue()


def probabilities(teacher: int, number: int, crops: int = CROPS) -> np.ndarray:
    """Make a teacher's probabilities for the crops of an image, float64 [crops, CLASSES]; teachers mostly agree."""
    shared = np.random.default_rng(number).normal(0, 2.0, CLASSES)
    logits = shared + np.random.default_rng((teacher, number)).normal(0, 1.0, (crops, CLASSES))
    rows = np.exp(logits - logits.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True)


def record(teacher: int, number: int, key: str, target: int | None, label_type: str) -> Record:
    rows = probabilities(teacher, number)
    full, coding = label_type == "full", "none" if label_type == "hard" else "float32"
    k = 1 if label_type in ("hard", "smoothing") else CLASSES if full else K
    order = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    outside = rows.copy()
    np.put_along_axis(outside, order, 0.0, axis=1)
    tail = build_tail(outside.mean(0), 64, CROPS, k) if label_type.startswith("shared") else None
    chance = np.random.default_rng(number)
    size = (int(chance.integers(60, 120)), int(chance.integers(60, 120)))
    corner, extent = chance.integers(0, 30, (CROPS, 2)), chance.integers(5, 31, (CROPS, 2))
    index = np.broadcast_to(np.arange(CLASSES), (CROPS, CLASSES)) if full else order
    value = rows if full else np.take_along_axis(rows, order, axis=1)
    if label_type == "hard":
        value = np.ones_like(value)
    return Record(
        key=key, path=f"{key}.jpg", target=target, size=size, crops=np.concatenate([corner, extent], axis=1),
        flips=chance.random(CROPS) < 0.5, index=index, value=value.astype(np.float32), tail=tail, coding=coding,
        full=full, num_classes=CLASSES,
    )  # fmt: skip


def label_set(
    url: Any,
    teacher: int = 1,
    *,
    images: int = 14,
    label_type: str = "shared_tail_k5",
    names: list[str] | None = None,
    targets: bool = True,
    keys: list[str] | None = None,
    embedded: bool = True,
    shards: int | None = None,
) -> LabelSet:
    """Make a set at `url`; with `shards`, only the first so many shards."""
    keys = keys or [f"folder/picture_{n:02d}" for n in range(images)]
    sizes = np.full(-(-len(keys) // SHARD), SHARD, np.int64)
    sizes[-1] = len(keys) - SHARD * (len(sizes) - 1)
    wanted = [n % CLASSES for n in range(len(keys))] if targets else [-1] * len(keys)
    plan = Plan(
        [f"train-{n:06d}" for n in range(len(sizes))], sizes, StringColumn.of([f"{key}.jpg" for key in keys]),
        StringColumn.of(keys), np.array(wanted, np.int32),
    )  # fmt: skip
    identity = {
        "teachers": [{"source": "private", "arch": f"invented {teacher}", "weight": 1.0, "weights_sha256": "0" * 64}],
        "label_type": label_type, "k": K, "values": "none" if label_type == "hard" else "float32",
        "tail_classes": 64 if label_type.startswith("shared") else 0, "temperature": 1.0, "num_classes": CLASSES,
        "class_subset": None, "num_crops": CROPS, "crop_scale": [0.08, 1.0], "crop_ratio": [0.75, 1.3333],
        "flip_probability": 0.5, "seed": 0, "precision": "fp32", "reference": None,
        "embed_images": {"max_side": None, "quality": 90} if embedded else None,
    }  # fmt: skip
    names = names or [f"thing {n}, also called {n}" for n in range(CLASSES)]
    labels = create_labels(
        Location(str(url)), plan, identity, {"date": "2026-01-02T03:04:05+00:00"}, names if targets else None
    )
    for number in range(len(sizes) if shards is None else shards):
        part = plan.shard(number)
        samples = []
        for at, key in enumerate(part.keys):
            one = record(
                teacher, part.start + at, key, wanted[part.start + at] if targets else None, label_type
            )
            image = picture(part.start + at, one.size)
            one = dataclasses.replace(one, image_crc32=zlib.crc32(image))
            samples.append(Sample(one, image, "jpg") if embedded else Sample(one))
        commit_shard(labels, number, labels.encode_shard(number, map(labels.encode_sample, samples), [], {}))
    finish_set(labels)
    return labels
