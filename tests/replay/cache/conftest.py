"""Sets here, and one of them on S3, of which the loader keeps shards in a cache."""

from __future__ import annotations

import pytest

import slg_wds
from support.sets.replay_sets import comparable, upload


@pytest.fixture(scope="session")
def local(places):
    return places


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
