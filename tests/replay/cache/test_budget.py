"""Every sample exactly once with the right pixels, whatever share of the set the cache holds."""

from __future__ import annotations

import tempfile
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import slg_wds
from slg_wds.errors import ReplayError
from support.sets.replay_sets import comparable, make, settle, truth, upload

CROPS = 2


class Remote:
    """A set of 18 small shards, here and on S3."""

    def __init__(self, labels, url, options):
        self.labels, self.url, self.options = labels, url, options
        self.truth = truth(labels, None)
        opened = slg_wds.open_labels(labels)
        self.sizes = [opened.index(number).bytes for number in range(opened.num_shards)]
        self.keys = sorted(opened.plan.keys)

    def loader(self, share, **more):
        """A loader with a cache of so much of the set."""
        given = {
            "global_batch_size": 6 * CROPS, "crops_per_image": CROPS, "threads": 2, "prefetch": 1, "last": "pad",
            "cache_bytes": int(share * sum(self.sizes)), "store_options": self.options,
        }  # fmt: skip
        return slg_wds.SoftLabelLoader(self.url, **{**given, **more})

    def check_epoch(self, loader, pause):
        """Walk an epoch, with time for downloads between the batches, and compare all that comes with the truth."""
        seen = []
        for batch in loader:
            for row in batch.mask.nonzero().flatten().tolist():
                pixels, label = self.truth[batch.key[row], int(batch.crop[row])]
                assert torch.equal(batch.images[row], pixels), batch.key[row]
                torch.testing.assert_close(batch.labels.dense()[row], label, rtol=0, atol=1e-6)
                seen.append(batch.key[row])
            time.sleep(pause)
        assert sorted(seen[::CROPS]) == self.keys and sorted(seen[1::CROPS]) == self.keys


@pytest.fixture(scope="module")
def remote(photographs, tmp_path_factory, s3_server):
    folder = tmp_path_factory.mktemp("budget")
    labels = make(photographs, folder / "set", embed_images="original", samples_per_shard=2)
    url = f"{s3_server.url}/{folder.name}-budget"
    upload(labels, url, s3_server.options())
    return Remote(labels, url, s3_server.options())


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_cache_smaller_than_the_set_serves_every_epoch(remote, tmp_path, share):
    """From the second epoch on, more shards are there than fit by the size of the largest one."""
    loader = remote.loader(share, lanes=1, last="drop", cache_dir=str(tmp_path / "cache"))
    here = slg_wds.SoftLabelLoader(remote.labels, global_batch_size=12, crops_per_image=CROPS, lanes=1)
    for _ in range(3):
        seen = []
        for batch in loader:
            seen += comparable([batch])
            settle(loader)
        assert seen == comparable(here)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    share=st.floats(0.3, 1.2),
    lanes=st.integers(1, 4),
    window=st.integers(1, 2),
    prefetch=st.integers(1, 3),
    pause=st.sampled_from([0.0, 0.05]),
)
def test_every_sample_once_whatever_the_cache_holds(remote, share, lanes, window, prefetch, pause):
    with tempfile.TemporaryDirectory() as cache:
        settings = {"lanes": lanes, "window": window, "prefetch": prefetch, "cache_dir": cache}
        try:
            loader = remote.loader(share, **settings)
        except ReplayError as error:
            enough = int(error.hint.split()[2])
            loader = remote.loader(share, **settings, cache_bytes=enough)
        for _ in range(2):
            remote.check_epoch(loader, pause)


def test_a_download_that_fails_unexpectedly_is_told_at_once(remote, tmp_path, monkeypatch):
    loader = remote.loader(1.2, lanes=6, deadline=15.0, cache_dir=str(tmp_path / "cache"))
    store = loader.sets.members[0].store
    read = store.read_range

    def failing(name, offset, size):
        if offset == 0:
            time.sleep(0.3)
            raise ZeroDivisionError("a fault of ours")
        return read(name, offset, size)

    monkeypatch.setattr(store, "read_range", failing)
    begun = time.monotonic()
    with pytest.raises(ReplayError, match="ZeroDivisionError: a fault of ours") as caught:
        list(loader)
    assert caught.value.shard and time.monotonic() - begun < 10
