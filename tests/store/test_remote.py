"""Object storage by a real S3 server, with nobody there, after a fork; and web servers."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from slg_wds import errors
from slg_wds.store import open_store
from support.jobs.store_jobs import create_names, read_from
from support.servers.s3 import S3Server
from support.servers.scripted import KEYS, QUICK, cut_short, hang_up, serving
from support.servers.website import web_server

# --- the real server ---


def test_writing_is_checked_without_a_trace(s3_server: S3Server, s3_url: str) -> None:
    store = open_store(s3_url, s3_server.options())
    store.check_writable()
    assert list(store.list()) == []
    assert not store.is_local
    assert store.local_path("x") is None


def test_the_environment_configures_too(
    s3_server: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(s3_url, s3_server.options()).create("x", b"1")
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    assert open_store(s3_url).read("x") == b"1"
    monkeypatch.delenv("AWS_ALLOW_HTTP")  # plain http was written in the endpoint; once is enough
    assert open_store(s3_url).read("x") == b"1"


def test_a_missing_bucket_is_named(s3_server: S3Server) -> None:
    store = open_store("s3://no-such-bucket/set", s3_server.options("reader"))
    for call in (lambda: store.read("x"), lambda: list(store.list())):
        with pytest.raises(errors.NotFoundError, match="no such bucket") as caught:
            call()
        assert str(caught.value.url).startswith("s3://no-such-bucket/set")


@pytest.mark.parametrize("wrong", ["access_key_id", "secret_access_key"])
def test_wrong_credentials(s3_server: S3Server, s3_url: str, wrong: str) -> None:
    store = open_store(s3_url, {**s3_server.options(), wrong: "wrong"})
    calls: list[Callable[[], object]] = [
        store.check_writable,
        lambda: store.read("x"),
        lambda: store.size("x"),
        lambda: store.create("x", b""),
        lambda: store.delete("x"),
        lambda: list(store.list()),
    ]
    for call in calls:
        with pytest.raises(errors.PermissionDeniedError) as caught:
            call()
        assert str(caught.value.url).startswith(s3_url)
    with pytest.raises(errors.PermissionDeniedError, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        store.check_writable()


def test_a_reader_may_not_write(s3_server: S3Server, s3_url: str) -> None:
    open_store(s3_url, s3_server.options()).create("x", b"1")
    store = open_store(s3_url, s3_server.options("reader"))
    assert store.read("x") == b"1"
    assert [entry.name for entry in store.list()] == ["x"]
    for call in (store.check_writable, lambda: store.create("y", b""), lambda: store.delete("x")):
        with pytest.raises(errors.PermissionDeniedError, match="AccessDenied"):
            call()


def test_a_listing_of_many_pages(s3_server: S3Server, s3_url: str) -> None:
    store = open_store(s3_url, s3_server.options())
    names = [f"train-{number:06d}" for number in range(1100)]  # S3 tells 1000 at a time
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        jobs = [pool.submit(create_names, store, names[half::2]) for half in range(2)]
        assert all(job.result() for job in jobs)
    store.create("index/x", b"")
    assert [entry.name for entry in store.list()] == ["index/x", *names]
    assert [entry.name for entry in store.list(deep=False)] == names


def test_a_used_store_works_in_a_spawned_process(s3_server: S3Server, s3_url: str) -> None:
    store = open_store(s3_url, s3_server.options())
    store.create("x", b"1")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(read_from, store, "x").result() == b"1"


def test_many_threads_share_a_store(s3_server: S3Server, s3_url: str) -> None:
    store = open_store(s3_url, s3_server.options())
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(store.create("x", b"1"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 7 + [True]


FORK = """
import os, sys
from slg_wds.errors import StoreError
from slg_wds.store import open_store
store = open_store(sys.argv[1])
if sys.argv[2] == "used":
    store.size("x")
child = os.fork()
if child == 0:
    for one in (store, open_store(sys.argv[1])):
        try:
            print(one.read("x"), flush=True)
        except StoreError as error:
            print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(store.read("x"))
"""


@pytest.mark.parametrize("before", ["opened", "used"])
def test_after_a_fork_it_works_or_says_why_not(s3_server: S3Server, s3_url: str, before: str) -> None:
    open_store(s3_url, s3_server.options()).create("x", b"1")
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, s3_url, before],
        env={**os.environ, **s3_server.environment()},
        capture_output=True,
        text=True,
        timeout=30,  # without the check, the child of a process that used obstore waits for ever
        check=True,
    ).stdout.splitlines()
    assert said[-1] == "b'1'"
    if before == "opened":
        assert said[:-1] == ["b'1'", "b'1'"]
    else:
        assert all("before this process was forked" in line and "spawn" in line for line in said[:-1])
        assert len(said) == 3


# --- nobody there ---


def test_a_closed_endpoint_is_told_in_time(s3_url: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))  # bound but not listening: refused
        options = {**KEYS, "endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        for call in (lambda s: s.check_writable(), lambda s: s.read("x"), lambda s: s.create("x", b"")):
            start = time.monotonic()
            with pytest.raises(errors.StoreUnavailableError) as caught:
                call(open_store(s3_url, options))
            assert time.monotonic() - start < 15
            assert caught.value.url == s3_url


def test_an_endpoint_that_never_answers_is_told_in_time() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
        options = {**KEYS, "endpoint": endpoint, "timeout": "1", "retry_timeout": "2"}
        start = time.monotonic()
        with pytest.raises(errors.StoreUnavailableError):
            open_store("s3://bucket/x", options).check_writable()
        assert time.monotonic() - start < 8


def test_missing_credentials_do_not_wait_long_for_a_metadata_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with socket.socket() as listener:  # takes connections and is silent, as outside EC2 where nothing refuses
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        metadata = f"http://127.0.0.1:{listener.getsockname()[1]}"
        options = {"endpoint": "http://127.0.0.1:1", "metadata_endpoint": metadata}
        start = time.monotonic()
        with pytest.raises(
            errors.PermissionDeniedError, match=r"no credentials.*AWS_ACCESS_KEY_ID"
        ) as caught:
            open_store("s3://bucket/x", {**options, "timeout": "2s"}).read("y")
        assert time.monotonic() - start < 8
        assert caught.value.url == "s3://bucket/x"


# --- options ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nonsense": "1"}, "nonsense"),
        ({"timeout": "soon"}, "soon"),
        ({"retry_timeout": "soon"}, "retry_timeout"),
        ({"virtual_hosted_style_request": "perhaps"}, "perhaps"),
        ({"region": "a", "aws_region": "b"}, "aws_region"),
    ],
)
def test_options_that_cannot_be(options: dict[str, str], said: str) -> None:
    with pytest.raises(errors.UsageError, match=said):
        open_store("s3://bucket/x", options)


def test_options_do_not_show() -> None:
    store = open_store("s3://bucket/x", {**KEYS, "secret_access_key": "hush-hush"})
    assert "hush-hush" not in repr(store) + str(store)


# --- web servers ---


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "my set").mkdir()
    (tmp_path / "my set/x").write_bytes(b"0123456789")
    (tmp_path / "my set/a b%20é.tar").write_bytes(b"odd")
    (tmp_path / "my set/empty").write_bytes(b"")
    with web_server(tmp_path) as script:
        yield f"{script.url}/my%20set"


def test_a_web_server_is_read(website: str) -> None:
    store = open_store(website, QUICK)
    assert store.read("x") == b"0123456789"
    assert store.read("empty") == b""
    assert store.read_range("x", 3, 4) == b"3456"
    assert (store.size("x"), store.size("y")) == (10, None)
    assert store.read("a b%20é.tar") == b"odd"
    assert store.url_of("a b") == f"{website}/a%20b"
    with pytest.raises(errors.NotFoundError) as caught:
        store.read("y")
    assert caught.value.url == f"{website}/y"
    for offset, size in [(8, 3), (20, 1)]:
        with pytest.raises(errors.OutOfRangeError):
            store.read_range("x", offset, size)
    with pytest.raises(errors.ObjectTooLargeError):
        store.read("x", max_bytes=5)
    assert pickle.loads(pickle.dumps(store)).read("x") == b"0123456789"


def test_a_web_server_is_only_read(website: str) -> None:
    store = open_store(website, QUICK)
    calls: list[Callable[[], object]] = [
        store.list,
        store.check_writable,
        lambda: store.create("y", b""),
        lambda: store.delete("x"),
    ]
    for call in calls:
        with pytest.raises(errors.UnsupportedStoreError, match="can only be read"):
            call()


def test_a_web_server_without_ranges_says_so(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    with web_server(tmp_path, ranges=False) as script:
        store = open_store(script.url, QUICK)
        assert store.read("x") == b"0123456789"
        with pytest.raises(errors.UnsupportedStoreError, match="ranges"):
            store.read_range("x", 1, 2)


def test_a_web_server_whose_body_is_cut() -> None:
    with serving(cut_short) as script:
        store = open_store(f"{script.url}/set", QUICK)
        with pytest.raises(errors.StoreUnavailableError):
            store.read("x")


def test_a_web_server_that_is_gone() -> None:
    with serving(hang_up) as script:
        url = f"{script.url}/set"
    with pytest.raises(errors.StoreUnavailableError) as caught:
        open_store(url, QUICK).read("x")
    assert caught.value.url == url


def test_a_web_server_takes_no_options_of_buckets() -> None:
    with pytest.raises(errors.UsageError, match="region"):
        open_store("https://host/set", {"region": "us-east-1"})
