"""Remote shards through the cache: the same batches, within the limit, and a damaged shard is named."""

from __future__ import annotations

import os
import time

import pytest

import slg_wds
from slg_wds.errors import (
    ChecksumError,
    ReplayError,
)
from slg_wds.replay.cache.directory import CacheDirectory
from slg_wds.store import open_store
from support.sets.replay_sets import cached_shards, comparable, settle, slowly, upload


def no_reads(loader, monkeypatch):
    """Let no byte of a shard be read from the store any more."""

    def refuse(name, offset, size):
        raise AssertionError(f"{name} was read from the store")

    monkeypatch.setattr(loader.sets.members[0].store, "read_range", refuse)


def test_batches_are_those_of_the_local_set_and_later_ones_come_from_the_cache(
    remote, expected, tmp_path, monkeypatch
):
    loader = remote()
    assert slowly(loader) == expected[0]
    assert len(cached_shards(tmp_path)) == 8
    loader.load_state_dict({**loader.state_dict(), "epoch": 1})
    assert slowly(loader) == expected[1]
    no_reads(loader, monkeypatch)
    assert comparable(loader) == expected[2]


def test_another_process_uses_what_is_there(remote, expected, tmp_path, monkeypatch):
    slowly(remote())
    again = remote()
    before = [path.stat().st_ino for path in cached_shards(tmp_path)]
    assert slowly(again) == expected[0]
    assert [path.stat().st_ino for path in cached_shards(tmp_path)] == before
    no_reads(again, monkeypatch)
    assert comparable(again) == expected[1]


def test_the_cache_stays_within_its_bytes(remote, expected, tmp_path):
    largest = max(remote().sets.shard(number).files[0][0] for number in range(8))
    limit = 5 * largest
    loader = remote(lanes=1, cache_bytes=limit)
    seen = []
    for batch in loader:
        seen.append(tuple(batch.key))
        settle(loader)
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= limit
    assert 3 <= len(cached_shards(tmp_path)) <= 7
    assert len(seen) == 6


def test_a_cache_too_small_is_refused_with_settings_that_fit(remote, tmp_path):
    largest = max(remote().sets.shard(number).files[0][0] for number in range(8))
    with pytest.raises(
        ReplayError, match=r"hold 2 shards of \d+ bytes.*give it \d+ bytes.*lanes=\d+"
    ) as caught:
        remote(cache_bytes=2 * largest)
    needed = int(caught.value.hint.split()[2])
    remote(cache_bytes=needed)


def test_a_remote_shard_that_is_damaged_is_named(local, s3_server, s3_url, tmp_path):
    labels = slg_wds.open_labels(local["embedded"].labels)
    options = s3_server.options()
    source, store = open_store(local["embedded"].labels), open_store(s3_url, options)
    for entry in source.list():
        data = bytearray(source.read(entry.name))
        if entry.name == "train-000004.tar":
            place = labels.index(4).records[2]
            data[place[0] + 100] ^= 1
        store.create(entry.name, bytes(data))
    loader = slg_wds.SoftLabelLoader(
        s3_url, global_batch_size=12, crops_per_image=2, threads=2, cache_dir=str(tmp_path / "c"),
        store_options=options, lanes=3,
    )  # fmt: skip
    with pytest.raises(ChecksumError) as caught:
        slowly(loader)
    assert caught.value.shard == "train-000004.tar" and caught.value.url == s3_url


def test_remote_images_in_a_folder_and_in_tars(local, s3_server, s3_url, tmp_path):
    options = s3_server.options()
    upload(local["folder"].images + "/train", f"{s3_url}/pictures/train", options)
    upload(local["tars"].images, f"{s3_url}/tars", options)
    for kind, place in (("folder", "pictures"), ("tars", "tars")):
        made = local[kind]
        loader = made.loader(
            images=f"{s3_url}/{place}", store_options=options, cache_dir=str(tmp_path / "cache")
        )
        assert comparable(loader) == comparable(made.loader())


def test_old_temporaries_go_and_other_files_stay(tmp_path):
    old, new, other = (tmp_path / name for name in (".slg-tmp-1-a", ".slg-tmp-2-b", "mine.tar"))
    for path in (old, new, other):
        path.write_bytes(b"x" * 100)
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(other, (1, 1))
    cache = CacheDirectory(str(tmp_path), 1000)
    assert not old.exists() and new.exists()
    for number in range(9):
        path = tmp_path / f"slg-0123456789abcdef-train-{number:06d}.tar"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 + number,) * 2)
    needed = str(tmp_path / "slg-0123456789abcdef-train-000000.tar")
    cache.make_room(300, {needed})
    left = sorted(int(path.stem[-6:]) for path in tmp_path.glob("slg-*"))
    assert left == [0, 4, 5, 6, 7, 8] and other.exists()
