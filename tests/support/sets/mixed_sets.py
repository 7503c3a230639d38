"""Sets whose views are mixed at random, for the images and labels of another set, and what their views should show."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

import slg_wds
from slg_wds.format.manifest.description import MIXING, VIEWS
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.record import Record
from slg_wds.format.records.views import Views
from slg_wds.format.shards.shard import Sample
from slg_wds.images import decode, open_source
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.store import Location
from slg_wds.transforms.drawn import DrawnCrops

OPTIONS = {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 0.75, "mixup_switch_prob": 0.5}


@dataclass(frozen=True)
class MixedCrop:
    """What one crop of a mixed set should give.

    Attributes:
        pixels: uint8 [3, S, S].
        dense: float32 [C], its label.
        target, target2: classes, -1 for none.
        lam: weight of the first.
    """

    pixels: torch.Tensor
    dense: torch.Tensor
    target: int
    target2: int
    lam: float


def drawn_mixing(M: int, numbers: list[int], rng: np.random.Generator, share: float = 0.75) -> Mixing:
    """Draw the mixing of a share of an image's M crops with any of these images."""
    mixing = Mixing.none(M)
    for crop in np.flatnonzero(rng.random(M) < share).tolist() if numbers else []:
        mixing.partner[crop] = rng.choice(numbers)
        mixing.crop[crop] = rng.integers(M)
        if rng.random() < 0.5:
            mixing.lam[crop] = rng.integers(1, 256)
        else:
            top, left = rng.integers(0, 255, 2).tolist()
            mixing.box[crop] = top, left, rng.integers(1, 256 - top), rng.integers(1, 256 - left)
    return mixing


def mixed_of(source: str, target: str, *, anywhere: bool = False, seed: int = 0) -> str:
    """Write the records of `source` with mixing: of images of the same shard, or of `anywhere` in the plan."""
    opened = slg_wds.open_labels(source)
    described = opened.identity.to_json()
    described["views"] = {**(opened.identity.views or {}), **OPTIONS}
    requires = [one for one in opened.description.requires if one not in (VIEWS, "trailer")]
    requires = [VIEWS, MIXING, *requires]
    labels = create_labels(Location(target), opened.plan, described, {}, None, requires)
    rng = np.random.default_rng(seed)
    for shard in range(opened.num_shards):
        part, samples = opened.plan.shard(shard), []
        for sample in opened.shard(shard):
            record = sample.record
            own = opened.plan.keys.index(record.key) if anywhere else part.start + part.keys.index(record.key)
            others = range(opened.plan.num_samples) if anywhere else range(part.start, part.stop)
            mixing = drawn_mixing(record.num_crops, [number for number in others if number != own], rng)
            views = record.views or plain_views(record.num_crops)
            mixed = replace(record, views=replace(views, mixing=mixing))
            samples.append(labels.encode_sample(Sample(mixed, sample.image, sample.image_ext)))
        commit_shard(labels, shard, labels.encode_shard(shard, samples, [], {}))
    finish_set(labels)
    return target


def plain_views(M: int) -> Views:
    """Views with which nothing is done to M crops."""
    none = np.zeros((M, 0), np.uint8)
    return Views(none, none, np.zeros((M, 4), np.uint8))


def mixed_truth(
    labels: str, images: str | None = None, size: int = 32, rule: str | None = None
) -> dict[tuple[str, int], MixedCrop]:
    """What every (key, crop) of a set should give, from whole records and images and by integers of Python."""
    opened = slg_wds.open_labels(labels)
    interpolation = opened.identity["teachers"][0]["interpolation"]
    records, unmixed = {}, {}
    for number in range(opened.num_shards):
        part, shard = opened.plan.shard(number), opened.shard(number)
        read = None if images is None else open_source(images).reader(opened.plan, number)
        for at, sample in enumerate(shard):
            record = sample.record
            records[part.start + at] = record
            pixels = decode(sample.image if read is None else read(part.start + at))
            out = torch.empty((record.num_crops, size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
            plain = None if record.views is None else replace(record.views, mixing=None)
            DrawnCrops(record.crops, record.flips, plain).cut(pixels, out, interpolation)
            unmixed[part.start + at] = out.numpy().astype(np.int64)
    return {
        (record.key, crop): _mixed(records, unmixed, number, crop, rule)
        for number, record in records.items()
        for crop in range(record.num_crops)
    }


def _mixed(records, unmixed, number: int, crop: int, rule: str | None) -> MixedCrop:
    record = records[number]
    own, lam, target2 = unmixed[number][crop], 1.0, -1
    mixing = None if record.views is None else record.views.mixing
    if mixing is not None and mixing.partner[crop] >= 0:
        partner = int(mixing.partner[crop])
        other, side = unmixed[partner][mixing.crop[crop]], own.shape[-1]
        if weight := int(mixing.lam[crop]):
            own, lam = (weight * own + (256 - weight) * other + 128) // 256, weight / 256
        else:
            top, left, height, width = mixing.box[crop].tolist()
            edges = ((edge * side + 127) // 255 for edge in (top, top + height, left, left + width))
            first, last, start, stop = edges
            own = own.copy()
            own[:, first:last, start:stop] = other[:, first:last, start:stop]
            lam = 1 - height * width / 255**2
        target2 = _class(records[partner])
    dense = torch.from_numpy(record.distribution(None, rule)[crop]).float()
    return MixedCrop(torch.from_numpy(own.astype(np.uint8)), dense, _class(record), target2, lam)


def _class(record: Record) -> int:
    return -1 if record.target is None else record.target


def check_mixed(batches, truth: dict[tuple[str, int], MixedCrop]) -> set[tuple[str, int]]:
    """Assert that the crops of batches are those of the truth; return the places seen."""
    seen = set()
    for batch in batches:
        dense = batch.labels.dense()
        for i in range(len(batch)):
            place = batch.key[i], int(batch.crop[i])
            if not batch.mask[i]:
                assert (batch.target2[i], batch.lam[i]) == (-1, 1) and not batch.images[i].any()
                continue
            wanted = truth[place]
            assert torch.equal(batch.images[i], wanted.pixels), place
            assert (int(batch.target[i]), int(batch.target2[i])) == (wanted.target, wanted.target2), place
            assert float(batch.lam[i]) == np.float32(wanted.lam)
            torch.testing.assert_close(dense[i], wanted.dense, atol=3e-6, rtol=0)
            seen.add(place)
    return seen
