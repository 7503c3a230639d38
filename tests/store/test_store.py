"""Names, URLs and what both kinds of store do."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slg_wds import errors
from slg_wds.store import Location, Store, expand_braces, join, open_store, split_url
from support.jobs.store_jobs import create_all

BAD_NAMES = [
    "",
    "/a",
    "a//b",
    "a/",
    "../a",
    "a/../b",
    "..",
    ".",
    "./a",
    "a/.",
    "a\0b",
    "a\nb",
    ".tmp-x",
    "a/.tmp-x",
]
ODD_NAMES = ["a b", "a%20b", "a#b?c", "é/ü.tar", "a{b}*c", "...", "a+b&c=d", "~", "pipe:cat x"]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "deep" / "set"))
    server = request.getfixturevalue("s3_server")
    return open_store(request.getfixturevalue("s3_url"), server.options())


# --- what every store does ---


def test_an_object_is_made_once_and_read_back(store: Store) -> None:
    store.check_writable()
    assert list(store.list()) == []
    assert store.size("train-000000.tar") is None
    before = time.time()
    assert store.create("train-000000.tar", b"0123456789") is True
    assert store.create("train-000000.tar", b"another") is False
    assert store.read("train-000000.tar") == b"0123456789"
    assert store.size("train-000000.tar") == 10
    [entry] = store.list()
    assert (entry.name, entry.size) == ("train-000000.tar", 10)
    assert abs(entry.modified - before) < 30  # S3 tells whole seconds


def test_data_may_come_in_parts(store: Store) -> None:
    large = os.urandom(6 << 20)  # more than the 5 MiB from which obstore would upload in parts
    assert store.create("parts", [b"abc", memoryview(large), bytearray(b"xyz"), b""])
    assert store.read("parts") == b"abc" + large + b"xyz"
    assert store.create("view", memoryview(b"0123456789")[2:5])
    assert store.read("view") == b"234"
    assert store.create("empty", b"")
    assert (store.read("empty"), store.size("empty")) == (b"", 0)
    assert store.create("none", [])
    assert store.read("none") == b""


def test_ranges(store: Store) -> None:
    store.create("x", b"0123456789")
    assert store.read_range("x", 0, 10) == b"0123456789"
    assert store.read_range("x", 3, 4) == b"3456"
    assert store.read_range("x", 10, 0) == b""
    for offset, size in [(0, 11), (9, 2), (10, 1), (11, 5)]:
        with pytest.raises(errors.OutOfRangeError) as caught:
            store.read_range("x", offset, size)
        assert caught.value.url == store.url_of("x")
    with pytest.raises(ValueError, match="negative"):
        store.read_range("x", -1, 3)


def test_what_is_not_there(store: Store) -> None:
    for call in (lambda: store.read("a/b"), lambda: store.read_range("a/b", 0, 1)):
        with pytest.raises(errors.NotFoundError) as caught:
            call()
        assert caught.value.url == store.url_of("a/b")
    assert store.size("a/b") is None
    store.delete("a/b")
    assert list(store.list("a/")) == []


def test_reading_is_bounded(store: Store) -> None:
    store.create("x", b"0123456789")
    assert store.read("x", max_bytes=10) == b"0123456789"
    with pytest.raises(errors.ObjectTooLargeError, match="10 bytes where at most 9") as caught:
        store.read("x", max_bytes=9)
    assert caught.value.url == store.url_of("x")


def test_listing_goes_deep_and_is_sorted(store: Store) -> None:
    names = ["b", "a/x", "a b", "a.tar", "index/train-1", "index/train-0", "index2/x", "index/deep/y"]
    for name in names:
        store.create(name, name.encode())
    assert [entry.name for entry in store.list()] == sorted(names)
    in_index = ["index/deep/y", "index/train-0", "index/train-1"]
    assert [entry.name for entry in store.list("index/")] == in_index
    assert [entry.name for entry in store.list("index")] == in_index
    assert [entry.size for entry in store.list("a/")] == [3]
    assert [entry.name for entry in store.list(deep=False)] == ["a b", "a.tar", "b"]
    assert [entry.name for entry in store.list("index", deep=False)] == in_index[1:]
    assert list(store.list("nothing", deep=False)) == []
    store.delete("index/train-0")
    assert [entry.name for entry in store.list("index/")] == ["index/deep/y", "index/train-1"]


def test_odd_names_stand_for_themselves(store: Store) -> None:
    for name in ODD_NAMES:
        assert store.create(name, name.encode()), name
        assert store.read(name) == name.encode()
    assert [entry.name for entry in store.list()] == sorted(ODD_NAMES)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_cannot_leave_the_store(tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path))
    for call in (
        lambda: store.read(name),
        lambda: store.read_range(name, 0, 0),
        lambda: store.size(name),
        lambda: store.create(name, b""),
        lambda: store.delete(name),
        lambda: store.local_path(name),
        lambda: join("s3://b", name),
    ):
        with pytest.raises(errors.InvalidNameError):
            call()


def test_a_store_survives_pickling(store: Store) -> None:
    store.create("x", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert (copy.url, copy.read("x"), copy.is_local) == (store.url, b"1", store.is_local)


def test_of_two_processes_exactly_one_makes_each_object(store: Store) -> None:
    store.check_writable()
    count = 150
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2, 0.2]))  # both are up
        start = time.time() + 0.3
        one, two = (job.result() for job in [pool.submit(create_all, store, start, count) for _ in range(2)])
    assert all(a != b for a, b in zip(one, two, strict=True))
    assert len(list(store.list())) == count


# --- URLs ---


def test_braces_expand_as_in_a_shell() -> None:
    assert expand_braces("s3://b/train-{000000..000002}.tar") == [
        f"s3://b/train-00000{n}.tar" for n in range(3)
    ]
    assert expand_braces("{8..11}") == ["8", "9", "10", "11"]
    assert expand_braces("{0..10}") == [str(n) for n in range(11)]
    assert expand_braces("{08..11}") == ["08", "09", "10", "11"]
    assert expand_braces("{a,b}-{0..1}") == ["a-0", "a-1", "b-0", "b-1"]
    assert expand_braces("x{,.bak}") == ["x", "x.bak"]
    assert expand_braces("plain") == ["plain"]


@pytest.mark.parametrize(
    "url", ["{a", "a}", "{{a,b}}", "{}", "{a}", "{3..1}", "{0..9999999}", "{0..1999}" * 3]
)
def test_braces_that_mean_nothing(url: str) -> None:
    with pytest.raises(errors.UsageError):
        expand_braces(url)


@given(st.integers(0, 3000), st.integers(0, 40), st.integers(1, 8))
def test_ranges_are_padded_as_their_ends(first: int, count: int, width: int) -> None:
    low, high = f"{first:0{width}d}", f"{first + count:0{width}d}"
    expected = [f"{number:0{width}d}" for number in range(first, first + count + 1)]
    assert expand_braces(f"a{{{low}..{high}}}b") == [f"a{number}b" for number in expected]


@pytest.mark.parametrize(
    ("url", "parent", "name"),
    [
        ("s3://bucket/train.tar", "s3://bucket", "train.tar"),
        ("s3://bucket/a/b%20c.tar", "s3://bucket/a", "b%20c.tar"),
        ("https://host/a%20b/c%20d.tar", "https://host/a%20b", "c d.tar"),
        ("file:///x.tar", "file:///", "x.tar"),
        ("file:///a/x%25.tar", "file:///a", "x%.tar"),
        ("/x.tar", "/", "x.tar"),
        ("x.tar", ".", "x.tar"),
        ("../d/x.tar", "../d", "x.tar"),
    ],
)
def test_split_url_and_join(url: str, parent: str, name: str) -> None:
    assert split_url(url) == (parent, name)
    assert join(parent, name) == (f"./{url}" if parent == "." else url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "dir/", "", "https://host"])
def test_split_url_wants_a_file(url: str) -> None:
    with pytest.raises(errors.UsageError):
        split_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://h/x", "pipe:cat x", "s3:/b/x", "s3:b", "s3://", "s3:///x", "s3://b/../c", "s3://b/a//c"),
        *("file://host/x", "gs://", "https://", "https://h/x?y=1", "https://h/x#y", "az://c/x"),
    ],
)
def test_urls_that_cannot_be(url: str) -> None:
    with pytest.raises(errors.UsageError):
        open_store(url)


def test_importing_the_store_is_cheap() -> None:
    code = (
        "import sys, slg_wds.store as s; s.open_store('x')\n"
        "print([m for m in ('torch', 'numpy', 'obstore', 'msgpack', 'slg_wds.format') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_location_is_opened_with_its_options_and_shows_none_of_them():
    """It travels in pickled tasks and stands in their reprs."""
    secret = Location("s3://name:hush@bucket/set?sig=hush", {"secret_access_key": "hush"})
    assert "hush" not in repr(secret)
    other = pickle.loads(pickle.dumps(secret)).at("s3://other/set")
    assert (other.url, other.options) == ("s3://other/set", secret.options)
    with pytest.raises(errors.UsageError, match="not_an_option"):
        Location("s3://bucket/set", {"not_an_option": "1"}).open()
