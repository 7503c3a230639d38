"""A store that fails during replay: correct samples or an error that names the shard, and no hang."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import slg_wds
from slg_wds.errors import (
    PermissionDeniedError,
    SlgWdsError,
    StoreUnavailableError,
)
from slg_wds.store import open_store
from support.paths import TESTS
from support.servers.shaky_proxy import at_random, shaky
from support.sets.replay_sets import Made, comparable, make

COMMON = {"global_batch_size": 12, "crops_per_image": 2, "threads": 2, "lanes": 3, "prefetch": 1}


@pytest.fixture(scope="module")
def local(photographs, tmp_path_factory):
    return Made(make(photographs, tmp_path_factory.mktemp("sets") / "set", embed_images="original"), None)


@pytest.fixture(scope="module")
def url(local, s3_server):
    """The set on the server."""
    url = f"{s3_server.url}/faults"
    source, store = open_store(local.labels), open_store(url, s3_server.options())
    for entry in source.list():
        store.create(entry.name, source.read(entry.name))
    return url


@pytest.fixture(scope="module")
def expected(local):
    """Three epochs."""
    loader = local.loader(**COMMON)
    return [comparable(loader) for _ in range(3)]


@pytest.fixture
def remote(url, tmp_path):
    def remote(proxy, **options):
        defaults = {
            **COMMON,
            "cache_dir": str(tmp_path / "cache"),
            "store_options": proxy.options(),
            "deadline": 30,
        }
        return slg_wds.SoftLabelLoader(url, **{**defaults, **options})

    return remote


def with_pauses(loader):
    """An epoch, with time for the downloads beside it."""
    seen = []
    for batch in loader:
        seen += comparable([batch])
        time.sleep(0.05)
    return seen


@pytest.mark.parametrize(
    "chances",
    [{"status": 0.5}, {"short": 0.5}, {"reset": 0.5}, {"late": 0.5}, {"stall": 0.2}],
    ids=lambda chances: next(iter(chances)),
)
def test_faults_that_pass_lose_and_change_nothing(remote, expected, s3_server, chances):
    with shaky(s3_server, at_random(7, **chances)) as proxy:
        loader = remote(proxy)
        assert [with_pauses(loader) for _ in expected] == expected
        assert sum(proxy.failed.values()) >= 2


@pytest.mark.parametrize(
    "fault", ["503", "short", "reset", "stall", pytest.param("trickle", marks=pytest.mark.slow), "hush"]
)
def test_a_shard_that_always_fails_is_named_within_the_deadline(remote, s3_server, fault):
    def one(request):
        return fault if request.method == "GET" and request.path.endswith("train-000003.tar") else ""

    with shaky(s3_server, one) as proxy:
        options = proxy.options(retry_timeout="2", max_retries="2")
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError) as caught:
            loader = remote(proxy, deadline=8, store_options=options)
            begun = time.monotonic()
            list(loader)
        # The deadline, the end of the threads, and what a busy machine adds.
        assert time.monotonic() - begun < 8 + 10 + 30
        assert caught.value.shard == "train-000003.tar" and caught.value.url.startswith(loader.sets.url)


def test_the_deadline_holds_where_the_store_would_wait_for_ever(remote, s3_server):
    """With a store's limits far above it, the loader's own ends the wait, and says how long it was and where."""
    with shaky(s3_server, lambda request: "hush" if request.path.endswith("2.tar") else "") as proxy:
        loader = remote(
            proxy, deadline=1.5, store_options=proxy.options(read_timeout="60", retry_timeout="60")
        )
        with pytest.raises(
            StoreUnavailableError, match=r"batch is not there after 1\.5 s.*raise deadline="
        ) as caught:
            list(loader)
        assert (caught.value.shard, caught.value.key is None) == ("train-000002.tar", False)
        proxy.ended.set()  # lets the readers end


def test_a_fault_that_ends_is_waited_out(remote, expected, s3_server):
    """A store that is gone for a second from the second shard on: nothing is lost, no error."""
    asked, begun = [], []

    def gone(request):
        if request.method == "GET" and request.path.endswith(".tar"):
            asked.append(request.path)
        if len(set(asked)) < 2:
            return ""
        begun.append(time.monotonic())
        return "503" if begun[-1] < begun[0] + 1 else ""

    with shaky(s3_server, gone) as proxy:
        assert with_pauses(remote(proxy)) == expected[0]
        assert proxy.failed["503"] > 0


def test_missing_credentials_and_a_missing_bucket_say_so(url, s3_server, tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    endpoint = {"endpoint": s3_server.endpoint}
    wrong = {**endpoint, "access_key_id": "owner", "secret_access_key": "not-it"}
    with pytest.raises(PermissionDeniedError, match="refused by the store") as caught:
        slg_wds.SoftLabelLoader(url, **COMMON, cache_dir=str(tmp_path), store_options=wrong)
    assert caught.value.url.startswith(url)
    with pytest.raises(SlgWdsError) as caught:
        slg_wds.SoftLabelLoader("s3://no-such-bucket/set", **COMMON, store_options=s3_server.options())
    assert "no-such-bucket" in str(caught.value)


FULL = (
    "import hashlib, json, resource, signal, sys, time, slg_wds\n"
    "sys.path.insert(0, sys.argv[1])\n"
    "from support.sets.replay_sets import comparable\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    "url, more = (json.loads(one) for one in sys.argv[2:4])\n"
    "loader = slg_wds.SoftLabelLoader(url, **more)\n"
    "for batch in loader:\n"
    "    print(hashlib.sha256(repr(comparable([batch])).encode()).hexdigest())\n"
    "    time.sleep(0.2)\n"
)


def test_a_cache_whose_disk_is_full_is_said_once_and_all_is_read_by_range(url, s3_server, tmp_path, expected):
    """A process that can write no file of a shard's size."""
    cache = tmp_path / "cache"
    more = {**COMMON, "cache_dir": str(cache), "store_options": s3_server.options()}
    given = [str(TESTS), json.dumps(url), json.dumps(more)]
    done = subprocess.run([sys.executable, "-c", FULL, *given], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(repr([one]).encode()).hexdigest() for one in expected[0]]
    said = "shards are read by range, which is slower: the cache's disk is full"
    assert done.stderr.count(said) == done.stderr.count("UserWarning") == 1
    assert str(cache) in done.stderr and "cache_dir= on another disk" in done.stderr
    assert list(cache.iterdir()) == []


def test_a_cache_on_a_disk_without_any_room_is_done_without(url, s3_server, tmp_path, expected, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="disk is full") as said:
        patched.setattr("builtins.open", full)
        loader = slg_wds.SoftLabelLoader(
            url, **COMMON, cache_dir=str(tmp_path), store_options=s3_server.options()
        )
    assert comparable(loader) == expected[0] and len(said) == 1


def test_a_cache_that_cannot_be_written_to_is_refused_at_once(url, s3_server, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)  # the tests may run as root, to whom nothing is forbidden
    with pytest.raises(
        PermissionDeniedError, match=r"the cache cannot be written to.*pass cache_dir="
    ) as caught:
        slg_wds.SoftLabelLoader(url, **COMMON, cache_dir=str(tmp_path), store_options=s3_server.options())
    monkeypatch.undo()
    assert caught.value.url == str(tmp_path)


WALK = (
    "import json, sys, time, slg_wds\n"
    "url, cache, options, common = (json.loads(one) for one in sys.argv[1:5])\n"
    "loader = slg_wds.SoftLabelLoader(url, **common, cache_dir=cache, store_options=options)\n"
    "seen = []\n"
    "for batch in loader:\n"
    "    seen.append([batch.key, batch.crop.tolist(), int(batch.images.long().sum())])\n"
    "    print('batch', flush=True)\n"
    "    time.sleep(0.1)\n"
    "print(json.dumps(seen))\n"
)


def walk(url, cache, options, **more) -> subprocess.Popen[str]:
    given = [json.dumps(one) for one in (url, str(cache), options, {**COMMON, **more})]
    return subprocess.Popen([sys.executable, "-c", WALK, *given], stdout=subprocess.PIPE, text=True)


def test_a_process_killed_in_mid_download_is_in_nobodys_way(url, remote, expected, s3_server, tmp_path):
    cache = tmp_path / "cache"
    begun = threading.Event()

    def stalls(request):  # downloads ask for the first bytes of a shard, samples never do
        if request.path.endswith(".tar") and request.range.startswith("bytes=0-"):
            begun.set()
            return "stall"
        return ""

    with shaky(s3_server, stalls) as proxy, walk(url, cache, proxy.options(read_timeout="60")) as process:
        assert begun.wait(60)
        while not any(path.name.startswith(".slg-tmp") for path in cache.iterdir()):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    left = [path for path in cache.iterdir() if path.name.startswith(".slg-tmp")]
    assert left
    with shaky(s3_server) as proxy:
        loader = remote(proxy, cache_dir=str(cache))
        assert [with_pauses(loader), with_pauses(loader)] == expected[:2]
    assert len(list(cache.glob("slg-*.tar"))) == 8
    for path in left:
        os.utime(path, (1, 1))
    with shaky(s3_server) as proxy:
        remote(proxy, cache_dir=str(cache))
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_ranks_that_share_a_cache_directory_see_what_they_would_alone(url, local, s3_server, tmp_path):
    import json

    with shaky(s3_server, at_random(3, reset=0.1, status=0.1)) as proxy:
        ranks = [walk(url, tmp_path, proxy.options(), rank=rank, world_size=3, lanes=6) for rank in range(3)]
        said = [process.communicate(timeout=240)[0].splitlines()[-1] for process in ranks]
    for rank, text in enumerate(said):
        alone = local.loader(**{**COMMON, "lanes": 6}, rank=rank, world_size=3)
        assert json.loads(text) == [[b.key, b.crop.tolist(), int(b.images.long().sum())] for b in alone]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".slg-tmp")]
