"""Remote tars of images through the cache: the same batches, and a tar that was altered is fetched again."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path

import pytest

import slg_wds
from slg_wds.images import LabelledImage
from slg_wds.store import Store, open_store
from slg_wds.store.remote import RemoteStore
from support.sets.replay_sets import comparable, slowly, upload


@pytest.fixture
def pictures(local, s3_server, s3_url, tmp_path):
    """Labels here, tars of images on S3: a loader of them with a cache of its own."""
    upload(local["tars"].images, s3_url, s3_server.options())

    def loader(**options):
        defaults = {
            "images": s3_url, "global_batch_size": 12, "lanes": 3, "prefetch": 1,
            "cache_dir": str(tmp_path / "cache"), "store_options": s3_server.options(),
        }  # fmt: skip
        return local["tars"].loader(**{**defaults, **options})

    return loader


def no_tars_read(loader, monkeypatch):
    """Let no byte of a tar of images be read from the store any more."""

    def refuse(name, offset, size):
        raise AssertionError(f"{name} was read from the store")

    for store in {id(store): store for store, _ in loader._context.images._files.tars}.values():
        monkeypatch.setattr(store, "read_range", refuse)


def test_remote_tars_of_images_are_cached_too(local, pictures, tmp_path, monkeypatch):
    here = local["tars"].loader(global_batch_size=12, lanes=3)
    expected = [comparable(here) for _ in range(5)]
    loader = pictures()
    assert [slowly(loader), slowly(loader)] == expected[:2]
    tars = sorted((tmp_path / "cache").iterdir())
    originals = sorted(path.read_bytes() for path in Path(local["tars"].images).iterdir())
    assert sorted(path.read_bytes() for path in tars) == originals
    no_tars_read(loader, monkeypatch)
    assert slowly(loader) == expected[2]
    monkeypatch.undo()
    before = [path.stat().st_ino for path in tars]
    again = pictures()  # as another process would find it
    assert slowly(again) == expected[0]
    assert [path.stat().st_ino for path in tars] == before


@pytest.mark.parametrize("spoil", ["byte", "cut", "swap", "gone"])
def test_an_altered_tar_of_images_is_fetched_again(local, pictures, tmp_path, spoil):
    expected = comparable(local["tars"].loader(global_batch_size=12, lanes=3))
    slowly(pictures())
    tars = sorted((tmp_path / "cache").iterdir())
    if spoil == "swap":
        tars[0].write_bytes(tars[1].read_bytes())
    elif spoil == "gone":
        tars[0].unlink()
    elif spoil == "cut":
        os.truncate(tars[0], 3000)
    else:
        data = bytearray(tars[0].read_bytes())
        data[len(data) // 2] ^= 1
        tars[0].write_bytes(data)
    assert slowly(pictures()) == expected
    originals = sorted(path.read_bytes() for path in Path(local["tars"].images).iterdir())
    assert sorted(path.read_bytes() for path in (tmp_path / "cache").iterdir()) == originals


@pytest.mark.parametrize("told_by", ["version", "images"])
def test_a_tar_that_was_replaced_at_its_url_by_one_of_its_size_is_fetched_again(
    local, pictures, s3_server, s3_url, tmp_path, monkeypatch, told_by
):
    """Its ETag tells where the server has one; else the images do, where the labels have their checksums."""
    if told_by == "images":
        monkeypatch.setattr(RemoteStore, "stat", Store.stat)
    expected = comparable(local["tars"].loader(global_batch_size=12, lanes=3))
    right = sorted(path.read_bytes() for path in Path(local["tars"].images).iterdir())
    store = open_store(s3_url, s3_server.options())
    for path in Path(local["tars"].images).iterdir():  # another version lay there, and was cached
        store.delete(path.name)
        store.create(path.name, one_bit_of_each_image(local["tars"].labels, path))
    with monkeypatch.context() as unchecked:
        unchecked.setattr(LabelledImage, "is_of", lambda self, data: True)
        assert slowly(pictures()) != expected
    assert len(list((tmp_path / "cache").iterdir())) == len(right)
    if told_by == "version":
        monkeypatch.setattr(LabelledImage, "is_of", lambda self, data: True)  # as with labels of older sets
    for path in Path(local["tars"].images).iterdir():
        store.delete(path.name)
        store.create(path.name, path.read_bytes())
    assert slowly(pictures()) == expected
    assert set(right) <= {path.read_bytes() for path in (tmp_path / "cache").iterdir()}


def test_threads_that_read_a_replaced_tar_together_all_read_again(
    local, pictures, s3_server, s3_url, monkeypatch
):
    """The first to notice drops the copy that the others have read from as well."""
    monkeypatch.setattr(RemoteStore, "stat", Store.stat)
    store = open_store(s3_url, s3_server.options())
    for path in Path(local["tars"].images).iterdir():
        store.delete(path.name)
        store.create(path.name, one_bit_of_each_image(local["tars"].labels, path))
    with monkeypatch.context() as unchecked:
        unchecked.setattr(LabelledImage, "is_of", lambda self, data: True)
        slowly(pictures())
    for path in Path(local["tars"].images).iterdir():
        store.delete(path.name)
        store.create(path.name, path.read_bytes())
    together, is_of = threading.Barrier(2), LabelledImage.is_of

    def noticed(labelled, data):
        if not is_of(labelled, data):
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(2)  # both threads have read the old copy before either drops it
            return False
        return True

    monkeypatch.setattr(LabelledImage, "is_of", noticed)
    assert comparable(pictures()) == comparable(local["tars"].loader(global_batch_size=12, lanes=3))


def one_bit_of_each_image(labels, tar):
    """A tar of the same images in the same places, each with one bit changed."""
    plan, data = slg_wds.open_labels(labels).plan, bytearray(tar.read_bytes())
    part = plan.shard(plan.image_shards.index(tar.name))
    for offset, size in zip(part.image_offset.tolist(), part.image_size.tolist(), strict=True):
        data[offset + size // 2] ^= 1
    return bytes(data)


def test_tars_of_images_that_do_not_fit_are_read_by_range(local, pictures, tmp_path):
    loader = pictures(cache_bytes=100_000)
    assert slowly(loader) == comparable(local["tars"].loader(global_batch_size=12, lanes=3))
    assert list((tmp_path / "cache").iterdir()) == []
