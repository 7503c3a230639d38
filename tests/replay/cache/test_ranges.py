"""Shards that are not in the cache yet: read whole or by range, and how long a batch waits for them."""

from __future__ import annotations

import threading
import time

import pytest

import slg_wds
from slg_wds.errors import (
    PermissionDeniedError,
    StoreUnavailableError,
)
from slg_wds.replay.sources.shards import ShardRange
from support.sets.replay_sets import comparable, slowly, upload


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
