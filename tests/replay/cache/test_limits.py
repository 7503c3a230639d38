"""The cache keeps to its limits of bytes and files, counts deleted open files, and serves several users."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import slg_wds
from slg_wds.errors import UsageError
from slg_wds.replay.cache.directory import CacheDirectory, NotCachedError
from slg_wds.replay.sources.files import OpenFiles
from support.paths import TESTS
from support.sets.replay_sets import comparable, make, settle, upload

COMMON = {"global_batch_size": 12, "crops_per_image": 2, "threads": 2, "prefetch": 1, "lanes": 1}


@pytest.fixture(scope="module")
def labels(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("limits")
    return make(photographs, folder / "set", embed_images="original", samples_per_shard=2)


@pytest.fixture(scope="module")
def url(labels, s3_server, tmp_path_factory):
    url = f"{s3_server.url}/{tmp_path_factory.mktemp('limits').name}-limits"
    upload(labels, url, s3_server.options())
    return url


@pytest.fixture
def expected(labels):
    return comparable(slg_wds.SoftLabelLoader(labels, **COMMON))


def deleted_bytes(folder: Path) -> int:
    """Bytes of deleted files below a folder that this process still has open, and that so still take disk space."""
    total = 0
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            name = str(link.readlink())
            if name.startswith(str(folder)) and name.endswith(" (deleted)"):
                total += link.stat().st_size
    return total


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="deleted files cannot be seen here")
def test_deleted_files_take_no_bytes_beside_the_cache(url, expected, s3_server, tmp_path):
    cache, limit = tmp_path / "cache", 5 * 145_000
    loader = slg_wds.SoftLabelLoader(
        url, **COMMON, cache_dir=str(cache), cache_bytes=limit, store_options=s3_server.options()
    )
    seen, evicted = [], set()
    for batch in loader:
        seen += comparable([batch])
        settle(loader)
        there = {path.name for path in cache.iterdir()}
        evicted |= there
        assert sum(path.stat().st_size for path in cache.iterdir()) + deleted_bytes(cache) <= limit
    assert seen == expected and len(evicted) > len(there)


def test_downloads_at_a_time_are_within_the_limit_together(tmp_path):
    """Each knows only that all of its file will come, not how much of it is there."""
    cache = CacheDirectory(str(tmp_path), 1000)
    with cache.temporary(600), cache.temporary(300):
        with (
            pytest.raises(NotCachedError, match="1000 bytes are taken by files in use"),
            cache.temporary(200),
        ):
            pass
        with cache.temporary(100):
            pass
    with cache.temporary(900):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_let_go_meanwhile_makes_room(tmp_path):
    """Between two looks of a download, when another one has already begun in its place."""
    cache = CacheDirectory(str(tmp_path), 1000)
    held = tmp_path / "slg-0123456789abcdef-train-000000.tar"
    held.write_bytes(b"x" * 300)
    with cache.temporary(600):
        with (
            pytest.raises(NotCachedError, match="taken by files in use"),
            cache.temporary(200, lambda: {str(held)}),
        ):
            pass
        assert held.exists()
        looks = iter([{str(held)}, {str(held)}, set()])
        with cache.temporary(200, lambda: next(looks)):
            assert not held.exists()


@pytest.fixture
def second_user():
    """Make this process another user's for a while: root alone can."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")

    @contextlib.contextmanager
    def become():
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)

    return become


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o777, 0o1777])
@pytest.mark.parametrize("limit", [1 << 30, 5 * 145_000])
def test_the_second_user_of_a_private_cache_reads_by_range(
    url, expected, s3_server, open_folder, second_user, mode, limit
):
    cache = open_folder / "cache"

    def walk():
        loader = slg_wds.SoftLabelLoader(
            url, **COMMON, cache_dir=str(cache), cache_bytes=limit, store_options=s3_server.options()
        )
        seen = []
        for batch in loader:
            seen += comparable([batch])
            settle(loader, most=0.1)  # nothing is cached for the second user
        return seen

    before = os.umask(0o077)
    try:
        assert walk() == expected
    finally:
        os.umask(before)
    cache.chmod(mode)
    files = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert files
    with second_user(), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert walk() == expected
    said = [str(warning.message) for warning in warned]
    assert len(said) <= 1 and all("read by range" in one and "cache_dir=" in one for one in said)
    if (
        mode != 0o777
    ):  # where anybody may remove the files, those that make room for others are not in the way
        assert said
        after = {path.name: path.stat().st_mtime_ns for path in cache.iterdir()}
        assert files.items() <= after.items()  # the first user's are all there, and as they were
        # Where the first user's walk left room for one more, a user who may write into the folder fills it.
        assert after == files or mode == 0o1777


FEW = """
import resource, sys
import torch, slg_wds
sys.path.insert(0, {tests!r})
from support.sets.replay_sets import comparable
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, hard))
loader = slg_wds.SoftLabelLoader([{labels!r}, {other!r}], global_batch_size=24, crops_per_image=2, threads=2)
batches = comparable(loader) + comparable(loader)
print(len(batches), "batches", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def under_limit(soft: int, labels: str, other: str) -> subprocess.CompletedProcess[str]:
    code = FEW.format(tests=str(TESTS), soft=soft, labels=labels, other=other)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


def test_more_shards_than_files_that_may_be_open(labels, photographs, tmp_path):
    """Two sets of 36 shards each are read with 64 descriptors."""
    sets = [
        make(photographs, tmp_path / name, samples_per_shard=1, **more)
        for name, more in (("one", {"embed_images": "original"}), ("two", {}))
    ]
    done = under_limit(64, *sets)
    assert done.returncode == 0 and done.stdout == "6 batches 64\n", done.stderr


def test_too_few_descriptors_are_refused_with_what_to_do(labels):
    done = under_limit(40, labels, labels)
    assert "UsageError: this process may open 40 files, too few for 18 threads" in done.stderr
    assert "ulimit -n 1024" in done.stderr


def test_files_that_stay_open_are_counted_by_the_limit(monkeypatch):
    import resource

    def limited(soft):
        monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 1 << 20))
        return OpenFiles(16).limit

    assert [limited(soft) for soft in (48, 50, 256, 1024, resource.RLIM_INFINITY)] == [1, 1, 104, 256, 256]
    with pytest.raises(UsageError):
        limited(47)
