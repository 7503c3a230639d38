"""The bytes transferred before the first batch of a cold start from object storage."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

import slg_wds
from slg_wds.store import open_store
from support.servers.shaky_proxy import shaky
from support.sets.replay_sets import comparable, make

SHARDS, IMAGES = 60, 24  # of each shard


@pytest.fixture(scope="module")
def many(photographs, tmp_path_factory):
    """A set of 60 shards of 24 images: cuttings of the photographs, embedded."""
    folder = tmp_path_factory.mktemp("many")
    chance = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in sorted((photographs / "train").rglob("*.jpg"))]
    for number in range(SHARDS * IMAGES):
        picture = pictures[number % len(pictures)]
        left, top = chance.integers(0, picture.width - 160), chance.integers(0, picture.height - 120)
        data = io.BytesIO()
        picture.crop((left, top, left + 160, top + 120)).save(data, "jpeg", quality=85)
        path = folder / "train" / f"class{number % 7}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.getvalue())
    options = {"samples_per_shard": IMAGES, "embed_images": "original", "num_crops": 8}
    return make(folder, folder / "set", **options)


def test_the_first_batch_comes_within_ten_shards_worth_of_bytes(many, s3_server, s3_url, tmp_path):
    source, store = open_store(many), open_store(s3_url, s3_server.options())
    for entry in source.list():
        store.create(entry.name, source.read(entry.name))
    labels = slg_wds.open_labels(many)
    assert labels.num_shards == SHARDS
    worth = sum(labels.index(number).bytes for number in range(SHARDS)) / SHARDS
    with shaky(s3_server) as proxy:
        options = {"cache_dir": str(tmp_path / "cache"), "store_options": proxy.options()}
        loader = slg_wds.SoftLabelLoader(
            s3_url, global_batch_size=256, **options
        )  # all else as it is by default
        opening = sum(proxy.bytes.values())
        iterator = iter(loader)
        first = comparable([next(iterator)])
        passed, asked = sum(proxy.bytes.values()), len(proxy.asked)
        touched = {path for path in proxy.bytes if path.endswith(".tar")}
        iterator.close()
    print(f"{passed / worth:.2f} shards' worth in {asked} requests, {opening / worth:.2f} of it to open")
    assert len(touched) > SHARDS / 2  # though the batch is from most of them
    assert passed <= 10 * worth, f"{passed / worth:.1f} shards' worth, {opening / worth:.1f} of it to open"
    assert first == comparable([next(iter(slg_wds.SoftLabelLoader(many, global_batch_size=256)))])
