"""Batches of embeddings: the numbers that the set holds, at the crops that the teachers saw."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

import slg_wds
from slg_wds.errors import LabelSetError, RuleError, UsageError
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.replay.stages import CollateCrops, cut_crops, decode_record_stage
from support.format.resealing import of_records, rewritten
from support.models.names import TINY
from support.paths import MODELS
from support.sets.replay_sets import make

KINDS = {"tiny_teacher.py:tiny": 20, "towers.py:shares": 48}

# WebDataset leaves the last shard open for the collector to close.
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)


def made(images: Path, target: Path, **more) -> str:
    arch = f"{TINY},{MODELS / 'towers.py'}:shares"
    given = {"num_crops": 6, "samples_per_shard": 4, "output": "embedding", **more}
    return make(images, target, arch=arch, **given)


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> str:
    return made(small_images, tmp_path_factory.mktemp("sets") / "set", embed_images="original")


def loader_of(labels, **options):
    return slg_wds.SoftLabelLoader(
        labels, **{"global_batch_size": 8, "crops_per_image": 2, "threads": 2, **options}
    )


def check(batch, records, stored=True) -> None:
    assert batch.labels is None and batch.tail is None
    assert batch.index.shape == batch.value.shape == (len(batch), 0)
    assert {name: one.shape[1] for name, one in batch.embedding.items()} == KINDS
    for i, (key, crop) in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
        for name, one in batch.embedding.items():
            expected = records[key].embeddings[name].vectors[crop] if crop >= 0 else np.zeros(KINDS[name])
            assert np.array_equal(one[i].cpu().numpy(), expected)


def test_batches_hold_what_the_set_holds(embedded):
    records = {record.key: record for record in slg_wds.open_labels(embedded)}
    loader = loader_of(embedded, last="pad", global_batch_size=12)
    batches = list(loader)
    assert sum(int(batch.mask.sum()) for batch in batches) == 16 and not batches[-1].mask.all()
    for batch in batches:
        check(batch, records)
    assert "embeddings {'tiny_teacher.py:tiny': [12, 20]" in repr(batches[0])


def test_the_device_loader_moves_embeddings(embedded):
    records = {record.key: record for record in slg_wds.open_labels(embedded)}
    (batch, *_) = loader_of(embedded).to("cpu", dtype=torch.bfloat16)
    assert batch.images.dtype == torch.bfloat16
    check(batch, records)
    assert len(list(batch.tensors())) == 8
    moved = batch.to("meta")
    assert {one.device.type for one in moved.embedding.values()} == {"meta"}


def test_a_set_and_the_one_that_extends_it_are_one(small_images, tmp_path):
    old = made(small_images, tmp_path / "old", num_crops=3)
    new = made(small_images, tmp_path / "new", extend=old)
    whole = made(small_images, tmp_path / "all")
    options = {"images": str(small_images), "crops_per_image": 6, "global_batch_size": 24}
    for one, other in zip(loader_of([old, new], **options), loader_of(whole, **options), strict=True):
        assert one.key == other.key and torch.equal(one.crop, other.crop)
        for name in KINDS:
            assert torch.allclose(one.embedding[name], other.embedding[name], atol=1e-3)


def test_stages_give_the_same_batches(embedded):
    records = {record.key: record for record in slg_wds.open_labels(embedded)}
    tars = sorted(map(str, Path(embedded).glob("*.tar")))
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    samples = list(data.map(decode_record_stage(crops_per_image=2, seed=3)).map(cut_crops(32, "bilinear")))
    check(CollateCrops()(samples), records)
    for wrong in (CollateCrops(rule="hard"), CollateCrops(temperature=2.0, made_at=1.0)):
        with pytest.raises(RuleError, match="neither rule nor temperature"):
            wrong(samples)


@pytest.mark.parametrize(
    "options",
    [
        {"rule": "hard"},
        {"temperature": 2.0},
        {"label_adaptation": (0.3,)},
        {"crop_filter": ("confidence", 0.1, 1.0)},
    ],
)
def test_what_is_of_labels_alone_is_refused(embedded, options):
    with pytest.raises(LabelSetError, match="holds embeddings, and labels are needed"):
        loader_of(embedded, **options)


def test_embeddings_of_several_sets_stand_side_by_side(embedded, small_images, tmp_path):
    """Two teachers one after the other are the two of one run."""
    one = make(
        small_images, tmp_path / "one", arch=TINY, num_crops=6, samples_per_shard=4, output="embedding"
    )
    other = make(
        small_images, tmp_path / "other", arch=f"{MODELS / 'towers.py'}:shares", num_crops=6, samples_per_shard=4,
        output="embedding", reference_path=one,
    )  # fmt: skip
    records = {record.key: record for record in slg_wds.open_labels(embedded)}
    batches = list(loader_of([one, other], images=str(small_images), last="pad", global_batch_size=12))
    assert sum(int(batch.mask.sum()) for batch in batches) == 16
    for batch in batches:
        check(batch, records)


def test_what_cannot_be_joined_is_refused(embedded, small_images, tmp_path):
    with pytest.raises(
        UsageError, match=r"two sets have an embedding 'tiny_teacher.py:tiny', and .* not averaged"
    ):
        loader_of([embedded, embedded])
    labels = make(small_images, tmp_path / "labels", num_crops=6, samples_per_shard=4)
    with pytest.raises(UsageError, match="holds labels and the other one embeddings"):
        loader_of([labels, embedded])
    with pytest.raises(UsageError, match="weights is for labels"):
        loader_of(embedded, weights=[1.0])
    with pytest.raises(LabelSetError, match="holds embeddings"):
        loader_of(embedded).pairs()


def test_batches_of_low_rank_embeddings_beside_others(small_images, tmp_path):
    """Two teachers, one coded to a mean cosine, the other as float16, as a set of another writer may have them."""
    target = made(small_images, tmp_path / "set", min_cosine=0.99, embed_images="original")
    tiny, shares = KINDS

    def mixed(record):
        half = Embedding.of(record.embeddings[shares].vectors, "float16")
        return dataclasses.replace(record, embeddings={tiny: record.embeddings[tiny], shares: half})

    labels = rewritten(Path(target), of_records(mixed))
    description = json.loads((labels / "slg.json").read_text())
    assert description["requires"] == ["embeddings", "lowrank_embeddings", "trailer"]
    records = {record.key: record for record in slg_wds.open_labels(str(labels))}
    loader = loader_of(str(labels), last="pad", global_batch_size=12)
    tars = sorted(map(str, labels.glob("*.tar")))
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    samples = list(data.map(decode_record_stage(crops_per_image=2, seed=3)).map(cut_crops(32, "bilinear")))
    for batch in [*loader, CollateCrops()(samples)]:
        for i, (key, crop) in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            for name, one in batch.embedding.items():
                expected = records[key].embeddings[name].vectors[crop] if crop >= 0 else np.zeros(KINDS[name])
                assert np.allclose(one[i].numpy(), expected, rtol=1e-4, atol=1e-6)
