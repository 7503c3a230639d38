"""Made-up label sets of photographs."""

from __future__ import annotations

import argparse
import dataclasses
import zlib
from pathlib import Path

import numpy as np

from replay_parts.stock import MEAN, SIZE
from slg_wds.format.manifest.description import MIXING, VIEWS
from slg_wds.format.records.record import Record
from slg_wds.format.shards.shard import Sample
from slg_wds.images import image_size, open_source
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location
from slg_wds.transforms.crops import CropRule, sample_crops
from slg_wds.transforms.policies.drawing import sample_views
from slg_wds.transforms.policies.grammar import parse_views
from slg_wds.transforms.policies.rules import ViewRule
from support.sets.mixed_sets import drawn_mixing, plain_views

CLASSES, K, SEED = 1000, 5, 0
PARTNERS = 4  # images that are mixed into the crops of one


def made_up(
    key: str, path: str, target: int, size: tuple[int, int], num_crops: int, rule: ViewRule | None = None
) -> Record:
    boxes, flips = sample_crops(SEED, key, size, num_crops, CropRule())
    rng = np.random.default_rng(len(key))
    index = np.argsort(rng.random((num_crops, 64)), axis=1)[:, :K]
    value = -np.sort(-rng.dirichlet(np.full(K + 1, 0.3), num_crops)[:, :K], axis=1)
    return Record(
        key,
        path,
        target,
        size,
        boxes,
        flips,
        index,
        value.astype(np.float32),
        None,
        "float16",
        False,
        CLASSES,
        views=None if rule is None else sample_views(SEED, key, num_crops, rule),
    )


def make_set(images: Path, url: str, options: argparse.Namespace, store_options=None) -> None:
    source = open_source(str(images))
    plan = source.plan(SEED, options.samples_per_shard)
    teacher = {"arch": "none", "input_size": SIZE, "interpolation": "bicubic", "weight": 1.0}
    identity = {
        "teachers": [teacher], "label_type": f"marginal_smoothing_k{K}", "k": K, "values": "float16",
        "tail_classes": 0, "num_classes": CLASSES, "num_crops": options.num_crops, "seed": SEED,
        "embed_images": {"max_side": None, "quality": 90},
    }  # fmt: skip
    rule = parse_views(options.aa, 0.0, options.reprob)
    rule = None if rule is None else rule.with_mean(MEAN)
    requires = [] if rule is None else [VIEWS]
    if options.mixed:
        requires = [VIEWS, MIXING]
    rng = np.random.default_rng(SEED)
    labels = create_labels(Location(url, store_options or {}), plan, identity, {}, None, requires)
    for number in range(plan.num_shards):
        part, samples = plan.shard(number), []
        read = source.reader(plan, number)
        for at, (key, path, target) in enumerate(zip(part.keys, part.paths, part.targets, strict=True)):
            data = read(part.start + at)
            record = made_up(key, path, int(target), image_size(data, path), options.num_crops, rule)
            record = dataclasses.replace(record, image_crc32=zlib.crc32(data))
            if options.mixed:
                others = [other for other in range(part.start, part.stop) if other != part.start + at]
                record = mixed_up(record, rng.choice(others, PARTNERS).tolist(), rng, options.mixed)
            samples.append(labels.encode_sample(Sample(record, data, "jpg")))
        commit_shard(labels, number, labels.encode_shard(number, samples, [], {}))
    finish_set(labels)


def mixed_up(record: Record, partners: list[int], rng: np.random.Generator, share: float) -> Record:
    views = record.views or plain_views(record.num_crops)
    mixing = drawn_mixing(record.num_crops, partners, rng, share)
    return dataclasses.replace(record, views=dataclasses.replace(views, mixing=mixing))
