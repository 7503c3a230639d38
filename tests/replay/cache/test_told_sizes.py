"""Sizes from a label set, a server or a file are bounded before memory is allocated."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest

import slg_wds
from slg_wds import errors
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Sample, encode_sample, encode_shard
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import commit_shard, finish_set
from slg_wds.replay.cache.directory import CacheDirectory, NotCachedError
from slg_wds.store import Location
from support.images.sources import shard_set, shards
from support.sets.replay_sets import make


def told(labels: str, target: Path, size: int) -> str:
    """The same label set, whose slg.json says that its teacher saw crops of another size."""
    source = slg_wds.open_labels(labels)
    identity = copy.deepcopy(dict(source.identity))
    identity["teachers"][0]["input_size"] = size
    made = create_labels(Location(str(target)), source.plan, identity, {}, None)
    for number in range(made.num_shards):
        samples = [encode_sample(Sample(one.record)) for one in source.shard(number)]
        header = ShardHeader(made.digest, number, made.plan.shard_names[number], [], {})
        commit_shard(made, number, encode_shard(samples, header))
    finish_set(made)
    return str(target)


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    return make(photographs, tmp_path_factory.mktemp("told") / "set")


def test_a_label_set_cannot_ask_for_crops_of_any_size(made, photographs, tmp_path):
    labels = told(made, tmp_path / "set", 16384)
    options = {
        "images": str(photographs / "train"),
        "global_batch_size": 12,
        "crops_per_image": 2,
        "threads": 1,
    }
    with pytest.raises(errors.UsageError) as caught:
        slg_wds.SoftLabelLoader(labels, **options)
    assert "asks for crops of 16384 pixels: a batch of 12 would take 9.7 GB" in str(caught.value)
    assert str(caught.value).endswith("pass size=16384 if that is meant")
    assert slg_wds.SoftLabelLoader(labels, **options, size=32).size == 32


def test_a_label_set_of_large_crops_is_read_in_smaller_batches(made, photographs, tmp_path):
    labels = told(made, tmp_path / "set", 1024)
    images = str(photographs / "train")
    loader = slg_wds.SoftLabelLoader(labels, images=images, global_batch_size=2, crops_per_image=2, threads=1)
    assert next(iter(loader)).images.shape == (2, 3, 1024, 1024)


def test_an_image_file_of_any_size_is_not_read(made, photographs, tmp_path):
    images = tmp_path / "images"
    for path in (photographs / "train").rglob("*.jpg"):
        target = images / path.relative_to(photographs / "train")
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as file:
            file.truncate((1 << 30) + 1)  # a hole: it takes no place on the disk
    loader = slg_wds.SoftLabelLoader(made, images=str(images), global_batch_size=12, threads=1)
    with pytest.raises(errors.ImageTooLargeError, match="1073741825 bytes, over the limit of 1073741824"):
        next(iter(loader))


def test_a_plan_cannot_place_images_of_any_size(tmp_path):
    source = shards(shard_set(tmp_path, 1))
    plan = source.plan()
    large = dataclasses.replace(plan, image_size=np.full_like(plan.image_size, 1 << 40))
    with pytest.raises(errors.ImageTooLargeError, match="an image file of 1099511627776 bytes"):
        source.reader(large, 0)(0)


def test_a_file_that_no_cache_can_hold_evicts_nothing(tmp_path):
    directory = CacheDirectory(str(tmp_path), 1000)
    kept = tmp_path / "slg-0123456789abcdef-a.tar"
    kept.write_bytes(bytes(500))
    with pytest.raises(NotCachedError, match=r"a file of 1125899906842624 bytes .* raise cache_bytes"):
        directory.make_room(1 << 50, set())
    assert kept.exists()
    directory.make_room(1000, set())
    assert not kept.exists()


def test_a_tar_has_so_many_samples_at_most(tmp_path, monkeypatch):
    monkeypatch.setattr("slg_wds.images.tars.samples.MAX_SAMPLES", 4)
    assert shards(shard_set(tmp_path / "few", 1, each=4)).plan().num_samples == 4
    with pytest.raises(errors.ImageShardError, match="over 4 samples"):
        shards(shard_set(tmp_path / "many", 1, each=5)).plan()


def test_an_info_file_cannot_name_shards_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr("slg_wds.images.tars.files.MAX_SHARDS", 1000)
    shard_set(tmp_path, 1)
    (tmp_path / "_info.json").write_text(
        '{"splits": {"train": {"filenames": ["s-{0..900}.tar", "t-{0..900}.tar"]}}}'
    )
    with pytest.raises(errors.ImageSourceError, match="names over 1000 shards"):
        shards(tmp_path)
