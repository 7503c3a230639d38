"""Sets that are damaged, unfinished or without some of their images: named, or taken as they are."""

from __future__ import annotations

import shutil

import pytest
import torch

import slg_wds
from slg_wds.errors import (
    ChecksumError,
    FormatError,
    ImageChangedError,
    IncompleteSetError,
    NotFoundError,
    SlgWdsError,
)
from support.sets.replay_sets import Made, comparable, make, truth

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def damaged(made: Made, folder, member: str):
    """A copy of a label set with one bit of one member flipped: (where, shard, key)."""
    shutil.copytree(made.labels, folder)
    labels = slg_wds.open_labels(str(folder))
    index = labels.index(2)
    place = (index.images if member == "image" else index.records)[3]
    path = folder / labels.shard_name(2)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[place[0] + place[1] // 2] ^= 1
    path.write_bytes(data)
    return labels.shard_name(2), labels.plan.shard(2).keys[3]


@pytest.mark.parametrize("member", ["image", "record"])
def test_a_damaged_shard_is_named(embedded, tmp_path, member):
    shard, key = damaged(embedded, tmp_path / "set", member)
    with pytest.raises(ChecksumError) as caught:
        list(Made(str(tmp_path / "set"), None).loader())
    assert (caught.value.shard, caught.value.key) == (shard, key)
    assert caught.value.url == str(tmp_path / "set")


@pytest.mark.parametrize("member", ["image", "record"])
def test_batches_before_one_that_fails_are_given_out(embedded, tmp_path, member):
    """Though their labels are decoded together with its own."""
    _, key = damaged(embedded, tmp_path / "set", member)
    options = {"global_batch_size": 6, "crops_per_image": 2, "last": "pad", "prefetch": 12}
    expected, seen = comparable(embedded.loader(**options)), []
    with pytest.raises(ChecksumError):
        for batch in Made(str(tmp_path / "set"), None).loader(**options):
            seen += comparable([batch])
    at = next(t for t, batch in enumerate(expected) if key in batch[0])
    assert at % 12 and seen == expected[:at]


def test_truncated_missing_and_swapped_shards_are_errors(embedded, tmp_path):
    for number, spoil in enumerate((truncate, remove, swap, swap_indexes)):
        folder = tmp_path / str(number)
        shutil.copytree(embedded.labels, folder)
        spoil(folder)
        with pytest.raises(SlgWdsError) as caught:
            list(Made(str(folder), None).loader(last="pad"))
        assert isinstance(caught.value, (FormatError, NotFoundError)) and caught.value.shard, spoil
        assert caught.value.shard.startswith(("train-000001", "train-000002"))


def truncate(folder):
    path = folder / "train-000001.tar"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:2000])


def remove(folder):
    (folder / "train-000001.tar").unlink()


def swap(folder, where="", ending=".tar"):
    one, two = (folder / where / f"train-00000{n}{ending}" for n in (1, 2))
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def swap_indexes(folder):
    swap(folder, "index", "")


def test_images_of_another_size_or_gone_are_named(places, photographs, tmp_path):
    made = places["folder"]
    images = tmp_path / "images"
    shutil.copytree(photographs / "train", images)
    path = sorted(images.rglob("*.jpg"))[7]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(NotFoundError, match="not there") as caught:
        list(made.loader(images=str(images), last="pad"))
    assert caught.value.key and caught.value.key.endswith(path.stem)
    from slg_wds.images import reencode

    path.write_bytes(reencode(content, 100))
    with pytest.raises(ImageChangedError, match="is not the image that was labelled") as caught:
        list(made.loader(images=str(images), last="pad"))
    assert caught.value.key.endswith(path.stem) and caught.value.url == str(path)


def test_an_unfinished_set_is_refused_or_taken_as_it_is(embedded, tmp_path):
    folder = tmp_path / "set"
    shutil.copytree(embedded.labels, folder)
    (folder / "_info.json").unlink()
    (folder / "train-000003.tar").unlink()
    (folder / "index" / "train-000003").unlink()
    unfinished = Made(str(folder), None)
    with pytest.raises(IncompleteSetError, match="lacks 1 of 8 shards"):
        unfinished.loader()
    loader = unfinished.loader(allow_incomplete=True, last="pad")
    assert loader.num_samples == 31
    keys = [key for batch in loader for key, there in zip(batch.key, batch.mask, strict=True) if there]
    assert len(set(keys)) == 31
    assert loader.fingerprint["digest"] != embedded.loader().fingerprint["digest"]


def test_left_out_images_are_left_out(photographs, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(photographs / "train", images)
    broken = sorted(images.rglob("*.jpg"))[4]
    broken.write_bytes(broken.read_bytes()[:5000])
    labels = make(images, tmp_path / "set", on_error="skip", embed_images="original")
    made = Made(labels, None)
    expected = truth(labels, None)
    with pytest.warns(UserWarning, match=r"left out of the labels .*: 1 of 36 images"):
        loader = made.loader(last="pad")
    assert loader.num_samples == 35 and loader.left_out == 1
    for batch in loader:
        for i in torch.nonzero(batch.mask)[:, 0].tolist():
            assert torch.equal(batch.images[i], expected[batch.key[i], int(batch.crop[i])][0])
