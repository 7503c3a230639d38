"""Remote shards through the cache: the same batches, within the limit, checked, and repaired."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time

import pytest

import slg_wds
from slg_wds.errors import (
    ChecksumError,
    PermissionDeniedError,
    ReplayError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from slg_wds.replay.cache import downloads
from slg_wds.replay.cache.directory import CacheDirectory
from slg_wds.replay.sources import files, page_cache
from slg_wds.replay.sources.shards import ShardRange
from slg_wds.store import open_store
from support.sets.replay_sets import comparable, settle, slowly, upload


@pytest.fixture
def remote(local, s3_server, s3_url, tmp_path):
    """The embedded set on S3: a loader of it, with a cache of its own."""
    upload(local["embedded"].labels, s3_url, s3_server.options())

    def loader(**options):
        defaults = {
            "global_batch_size": 12, "crops_per_image": 2, "threads": 2, "lanes": 3, "prefetch": 1,
            "cache_dir": str(tmp_path / "cache"), "store_options": s3_server.options(),
        }  # fmt: skip
        return slg_wds.SoftLabelLoader(s3_url, **{**defaults, **options})

    loader.url = s3_url
    return loader


@pytest.fixture
def expected(local):
    loader = local["embedded"].loader(global_batch_size=12, lanes=3)
    return [comparable(loader), comparable(loader), comparable(loader)]


def cached(tmp_path):
    return sorted((tmp_path / "cache").glob("slg-*.tar"))


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
    assert len(cached(tmp_path)) == 8
    loader.load_state_dict({**loader.state_dict(), "epoch": 1})
    assert slowly(loader) == expected[1]
    no_reads(loader, monkeypatch)
    assert comparable(loader) == expected[2]


def test_another_process_uses_what_is_there(remote, expected, tmp_path, monkeypatch):
    slowly(remote())
    again = remote()
    before = [path.stat().st_ino for path in cached(tmp_path)]
    assert slowly(again) == expected[0]
    assert [path.stat().st_ino for path in cached(tmp_path)] == before
    no_reads(again, monkeypatch)
    assert comparable(again) == expected[1]


def watched(loader):
    """Of each read of a shard from the store, as they begin: its name, offset and size."""
    store, reads = loader.sets.members[0].store, []
    read_range = store.read_range
    store.read_range = lambda *read: reads.append(read) or read_range(*read)
    return reads


def whole(loader):
    """The reads that take each shard whole."""
    sets = loader.sets
    return {(sets.members[0].shard_name(n), 0, sets.shard(n).files[0][0]) for n in range(8)}


def test_a_first_batch_of_a_few_small_shards_waits_for_them_whole(local, remote):
    loader = remote(lanes=6)
    reads = watched(loader)
    assert comparable(loader) == comparable(local["embedded"].loader(global_batch_size=12, lanes=6))
    assert sorted(reads) == sorted(whole(loader))  # each once, and nothing else


def test_a_first_batch_of_many_shards_comes_by_range(remote, expected, monkeypatch):
    monkeypatch.setattr("slg_wds.replay.cache.shard_cache.FEW", 1)
    loader = remote()
    reads, before = watched(loader), []
    advance = loader._context.caches.in_use[0].advance
    monkeypatch.setattr(
        loader._context.caches.in_use[0],
        "advance",
        lambda batch: before.append(list(reads)) or advance(batch),
    )
    assert slowly(loader) == expected[0]
    assert before[0] and not set(before[0]) & whole(loader)
    assert set(reads) >= whole(loader)


def test_a_record_and_its_image_come_by_one_range(remote, expected, monkeypatch):
    monkeypatch.setattr("slg_wds.replay.cache.shard_cache.PIECE", 1 << 12)  # no shard is waited for
    loader = remote()
    reads = watched(loader)
    next(iter(loader))
    spans = set()
    for number in range(8):
        samples, name = loader.sets.shard(number), loader.sets.members[0].shard_name(number)
        for record, image in zip(samples.records[0].tolist(), samples.images.tolist(), strict=True):
            start, stop = min(record[0], image[0]), max(sum(record[:2]), sum(image[:2]))
            spans.add((name, start, stop - start))
    samples = {read for read in reads if read[2] > 1 << 12}  # others are pieces of downloads
    assert len(samples) >= 6 and samples <= spans


def test_places_far_apart_are_read_apart(remote):
    loader = remote()
    shards, samples = loader._context.records.shards[0], loader.sets.shard(3)
    places = [samples.records[0][0].tolist(), samples.records[0][-1].tolist()]
    assert places[1][0] - sum(places[0][:2]) > 1 << 14
    reads = watched(loader)
    found = shards.read_together([ShardRange(3, "k", *place) for place in places])
    assert [(offset, size) for _, offset, size in reads] == [tuple(place[:2]) for place in places]
    data = loader.sets.members[0].store.read("train-000003.tar")
    assert [bytes(part) for part in found.parts] == [
        data[offset : offset + size] for offset, size, _ in places
    ]


def test_a_download_that_fails_is_waited_for_no_longer(remote, monkeypatch):
    loader = remote()
    store = loader.sets.members[0].store
    read = store.read_range

    def refusing(name, offset, size):
        if offset == 0:
            time.sleep(0.3)
            raise PermissionDeniedError("not permitted", url=store.url_of(name))
        return read(name, offset, size)

    monkeypatch.setattr(store, "read_range", refusing)
    begun = time.monotonic()
    with pytest.raises(PermissionDeniedError, match="not permitted") as caught:
        slowly(loader)
    assert caught.value.shard and time.monotonic() - begun < 5


def test_leaving_while_shards_are_waited_for_asks_for_nothing_more(remote, monkeypatch):
    loader = remote(deadline=0.3)
    store = loader.sets.members[0].store
    read, ranges = store.read_range, []

    def slow(name, offset, size):
        if offset:
            ranges.append(name)
        time.sleep(2.0)
        return read(name, offset, size)

    monkeypatch.setattr(store, "read_range", slow)
    with pytest.raises(StoreUnavailableError, match=r"not there after 0\.3 s"):
        next(iter(loader))
    assert ranges == []


def test_a_shard_on_its_way_in_one_piece_is_not_asked_for_in_parts(remote, expected, monkeypatch):
    loader = remote()
    store = loader.sets.members[0].store
    read, begun, late = store.read_range, {}, []

    def watched(name, offset, size):
        if offset == 0:
            begun[name] = time.monotonic()
            time.sleep(1.0)
        elif time.monotonic() - begun.get(name, float("inf")) > 0.1:  # not asked for just before
            late.append(name)
        return read(name, offset, size)

    monkeypatch.setattr(store, "read_range", watched)
    assert slowly(loader) == expected[0]
    assert begun and late == []


@pytest.mark.parametrize("spoil", ["byte", "cut", "swap", "gone"])
def test_an_altered_cache_file_is_fetched_again(remote, expected, tmp_path, spoil):
    slowly(remote())
    alter(cached(tmp_path), spoil)
    assert slowly(remote()) == expected[0]  # found when the process first uses it
    sound(remote(), tmp_path)


@pytest.mark.parametrize("spoil", ["byte", "cut", "gone"])
def test_a_cache_file_altered_under_way_is_fetched_again(remote, expected, tmp_path, spoil):
    loader = remote()
    slowly(loader)
    alter(cached(tmp_path), spoil)
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
    files_before = len(cached(tmp_path))
    with monkeypatch.context() as disk:
        spoil(cached(tmp_path), disk)
        with pytest.warns(UserWarning, match="by range, which is slower: the cache fails: the file") as said:
            assert comparable(loader) == expected[1]
        assert len(said) == 1
    assert slowly(loader) == expected[2]  # and what cannot be read was fetched again
    assert len(cached(tmp_path)) == files_before and all(path.is_file() for path in cached(tmp_path))


def test_on_a_full_disk_what_nobody_uses_makes_room(remote, expected, tmp_path, monkeypatch):
    """The bytes that the cache may hold are more than the disk has; another training left most of what is there."""
    slowly(remote())
    size = sum(path.stat().st_size for path in cached(tmp_path))
    before = [
        path.rename(path.with_name(f"slg-0123456789abcdef-{path.name[-7:]}")) for path in cached(tmp_path)
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
    assert len(cached(tmp_path)) == 8
    for path in cached(tmp_path):
        assert path.read_bytes() == store.read(path.name.split("-", 2)[2])


def test_the_cache_stays_within_its_bytes(remote, expected, tmp_path):
    largest = max(remote().sets.shard(number).files[0][0] for number in range(8))
    limit = 5 * largest
    loader = remote(lanes=1, cache_bytes=limit)
    seen = []
    for batch in loader:
        seen.append(tuple(batch.key))
        settle(loader)
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= limit
    assert 3 <= len(cached(tmp_path)) <= 7
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


def test_images_that_are_never_cached_are_asked_for_by_many_readers(local, s3_server, s3_url, tmp_path):
    """Though their labels' shard is there, or on its way: one reader would ask for one image after the other."""
    options = s3_server.options()
    upload(local["folder"].labels, f"{s3_url}/labels", options)
    upload(local["folder"].images + "/train", f"{s3_url}/pictures/train", options)
    settings = {
        "images": f"{s3_url}/pictures", "store_options": options, "cache_dir": str(tmp_path / "cache"),
        "global_batch_size": 10, "crops_per_image": 2, "shuffle": False,
    }  # fmt: skip
    loader = slg_wds.SoftLabelLoader(f"{s3_url}/labels", **settings)
    read, lock, under_way, most = (
        loader._context.images._files._tree._store.read,
        threading.Lock(),
        set(),
        [0],
    )

    def slow(name, max_bytes):
        with lock:
            under_way.add(name)
            most[0] = max(most[0], len(under_way))
        time.sleep(0.2)
        under_way.discard(name)
        return read(name, max_bytes)

    loader._context.images._files._tree._store.read = slow
    for _ in range(2):  # cold, and with all shards of labels cached
        most[0] = 0
        next(iter(loader))
        assert most[0] >= 5


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


def test_a_cache_that_cannot_be_written_is_refused(remote, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises((UsageError, StoreError), match="cache"):
        remote(cache_dir=str(tmp_path / "file" / "below"))


def test_a_disk_that_fails_at_a_shard_s_end_leaves_it_to_ranges(remote, expected, tmp_path, monkeypatch):
    loader = remote()
    monkeypatch.setattr("pathlib.Path.replace", raising(errno.EIO))
    with pytest.warns(UserWarning, match="read by range, .*: the cache fails: Input/output error") as said:
        assert slowly(loader) == expected[0]
    assert len(said) == 1 and list((tmp_path / "cache").iterdir()) == []
