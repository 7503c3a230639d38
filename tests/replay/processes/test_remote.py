"""Shards in object storage: the loader's own threads ask for them, and processes read what is cached."""

from __future__ import annotations

import slg_wds
from support.sets.replay_sets import comparable, settle, upload
from support.sets.same_batches import assert_same_walk


def test_remote_shards_go_to_processes_once_they_are_cached(
    embedded, s3_server, s3_url, tmp_path, only_processes
):
    upload(embedded.labels, s3_url, s3_server.options())
    expected = embedded.loader()
    options = {"global_batch_size": 24, "crops_per_image": 2, "threads": 2, "processes": 1}
    options |= {"cache_dir": str(tmp_path / "cache"), "store_options": s3_server.options()}
    loader = slg_wds.SoftLabelLoader(s3_url, **options)
    assert comparable(loader) == comparable(expected)  # not yet there: its own threads ask for it
    for _ in range(20):
        if len(list((tmp_path / "cache").glob("*.tar"))) == loader.sets.members[0].num_shards:
            break
        list(loader)
        settle(loader)
    for one in (loader, expected):
        one.set_epoch(30)
    last = list(expected)
    assert_same_walk(only_processes(loader), last)
