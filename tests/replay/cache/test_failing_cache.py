"""A cache whose files are altered, removed or unreadable, or whose disk fails: repaired, or read by range."""

from __future__ import annotations

import errno
import os
import shutil
import time

import pytest

from slg_wds.errors import (
    StoreError,
    UsageError,
)
from slg_wds.replay.cache import downloads
from slg_wds.replay.cache.directory import CacheDirectory
from slg_wds.replay.sources import files, page_cache
from support.sets.replay_sets import cached_shards, comparable, settle, slowly, upload


def alter(paths, spoil):
    for path in paths[:4]:
        data = bytearray(path.read_bytes())
        if spoil == "byte":
            for at in range(600, len(data), 900):
                data[at] ^= 255
        elif spoil == "cut":
            del data[3000:]
        if spoil == "gone":
            path.unlink()
        elif spoil == "swap":
            path.write_bytes(paths[7].read_bytes())
        else:
            path.write_bytes(data)


def sound(loader, tmp_path):
    store = loader.sets.members[0].store
    assert len(cached_shards(tmp_path)) == 8
    for path in cached_shards(tmp_path):
        assert path.read_bytes() == store.read(path.name.split("-", 2)[2])


@pytest.mark.parametrize("spoil", ["byte", "cut", "swap", "gone"])
def test_an_altered_cache_file_is_fetched_again(remote, expected, tmp_path, spoil):
    slowly(remote())
    alter(cached_shards(tmp_path), spoil)
    assert slowly(remote()) == expected[0]  # found when the process first uses it
    sound(remote(), tmp_path)


@pytest.mark.parametrize("spoil", ["byte", "cut", "gone"])
def test_a_cache_file_altered_under_way_is_fetched_again(remote, expected, tmp_path, spoil):
    loader = remote()
    slowly(loader)
    alter(cached_shards(tmp_path), spoil)
    assert slowly(loader) == expected[1]
    assert slowly(loader) == expected[2]
    slowly(loader)
    if spoil == "gone":
        sound(loader, tmp_path)


def test_a_cache_that_is_cleared_under_way_is_filled_again(remote, expected, tmp_path):
    loader = remote()
    slowly(loader)
    shutil.rmtree(tmp_path / "cache")
    assert slowly(loader) == expected[1]
    sound(loader, tmp_path)


def test_files_that_vanish_while_they_are_written_are_read_by_range(remote, expected, tmp_path, monkeypatch):
    def removed(file, data):  # the folder stays where the other thread has begun a file meanwhile
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    monkeypatch.setattr(downloads, "write_all", removed)
    with pytest.warns(
        UserWarning, match="read by range, which is slower: another program removes files"
    ) as said:
        assert slowly(remote()) == expected[0]
    assert len(said) == 1


def pipes(paths, monkeypatch):
    """Pipes lie where the files were."""
    for path in paths:
        path.unlink()
        os.mkfifo(path)


def do_not_read(paths, monkeypatch):
    """The disk tells that the files are there, and reads none of their bytes."""
    monkeypatch.setattr(page_cache, "_PREADV2", lambda *given: -1)
    monkeypatch.setattr(files.os, "preadv", raising(errno.EIO))


def raising(number):
    def fails(*_):
        raise OSError(number, os.strerror(number))

    return fails


@pytest.mark.parametrize(("what", "spoil"), [("labels", pipes), ("labels", do_not_read), ("images", pipes)])
def test_a_cache_that_cannot_be_read_any_more_leaves_it_to_ranges(
    local, remote, s3_server, tmp_path, monkeypatch, what, spoil
):
    loader, here = remote(), local["embedded"]
    if what == "images":
        here, url = local["tars"], f"{remote.url}-images"
        upload(here.images, url, s3_server.options())
        cache = {"cache_dir": str(tmp_path / "cache"), "store_options": s3_server.options()}
        loader = here.loader(images=url, global_batch_size=12, lanes=3, prefetch=1, **cache)
    alike = here.loader(global_batch_size=12, lanes=3)
    expected = [comparable(alike) for _ in range(3)]
    assert slowly(loader) == expected[0]
    files_before = len(cached_shards(tmp_path))
    with monkeypatch.context() as disk:
        spoil(cached_shards(tmp_path), disk)
        with pytest.warns(UserWarning, match="by range, which is slower: the cache fails: the file") as said:
            assert comparable(loader) == expected[1]
        assert len(said) == 1
    assert slowly(loader) == expected[2]  # and what cannot be read was fetched again
    assert len(cached_shards(tmp_path)) == files_before and all(
        path.is_file() for path in cached_shards(tmp_path)
    )


def test_a_disk_that_fails_at_a_shard_s_end_leaves_it_to_ranges(remote, expected, tmp_path, monkeypatch):
    loader = remote()
    monkeypatch.setattr("pathlib.Path.replace", raising(errno.EIO))
    with pytest.warns(UserWarning, match="read by range, .*: the cache fails: Input/output error") as said:
        assert slowly(loader) == expected[0]
    assert len(said) == 1 and list((tmp_path / "cache").iterdir()) == []


def test_on_a_full_disk_what_nobody_uses_makes_room(remote, expected, tmp_path, monkeypatch):
    """The bytes that the cache may hold are more than the disk has; another training left most of what is there."""
    slowly(remote())
    size = sum(path.stat().st_size for path in cached_shards(tmp_path))
    before = [
        path.rename(path.with_name(f"slg-0123456789abcdef-{path.name[-7:]}"))
        for path in cached_shards(tmp_path)
    ]
    for path in before:
        os.utime(path, (time.time() - 7200,) * 2)
    fresh = tmp_path / "cache" / "slg-0123456789abcdef-fresh.tar"
    fresh.write_bytes(b"x" * 1000)
    disk = CacheDirectory(str(tmp_path / "cache"), 1 << 40)

    def write(file, data):
        taken = sum(length for _, length, _ in disk._files())
        if taken > 3 * size // 2:  # a download counts with all that it will have
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(data)

    monkeypatch.setattr(downloads, "write_all", write)
    loader = remote()
    assert slowly(loader) == expected[0]
    settle(loader)
    assert fresh.exists() and 0 < len([path for path in before if not path.exists()]) < len(before)


def test_a_cache_that_cannot_be_written_is_refused(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((UsageError, StoreError), match="cache"):
        remote(cache_dir=str(tmp_path / "file" / "below"))
