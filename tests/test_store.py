"""Names, URLs and what both kinds of store do; a local store under kills, races and full disks."""

from __future__ import annotations

import errno
import os
import pickle
import signal
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
from slg_wds.store import Store, expand_braces, join, open_store, split_url

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
ODD_NAMES = ["a b", "a%20b", "a#b?c", "é/ü.tar", "a{b}*c", "a\\b", "...", "a+b&c=d", "~", "pipe:cat x"]


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


def _create_all(store: Store, start: float, count: int) -> list[bool]:
    while time.time() < start:  # both at once
        pass
    return [store.create(f"race-{number:03d}", b"x" * 1000) for number in range(count)]


def test_of_two_processes_exactly_one_makes_each_object(store: Store) -> None:
    store.check_writable()
    count = 150
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2, 0.2]))  # both are up
        start = time.time() + 0.3
        one, two = (job.result() for job in [pool.submit(_create_all, store, start, count) for _ in range(2)])
    assert all(a != b for a, b in zip(one, two, strict=True))
    assert len(list(store.list())) == count


# --- the local store ---


def test_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for url, folder in {
        "rel/x": tmp_path / "rel/x",
        "./rel/../y": tmp_path / "y",
        "~/z": tmp_path / "home/z",
        str(tmp_path / "a%20b"): tmp_path / "a%20b",
        f"file://{tmp_path}/c%20d": tmp_path / "c d",
        f"FILE://localhost{tmp_path}/e": tmp_path / "e",
    }.items():
        store = open_store(url)
        assert store.is_local
        assert store.local_path("i/n") == folder / "i/n"
        assert store.create("n", b"1")
        assert (folder / "n").read_bytes() == b"1"


def test_nothing_but_the_object_is_left(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"))
    store.check_writable()
    store.create("a/b", b"1")
    store.create("a/b", b"2")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["s", "s/a", "s/a/b"]
    assert (tmp_path / "s/a/b").stat().st_nlink == 1


def test_a_long_name_still_gets_its_temporary(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert store.create("ü" * 127, b"1")
    with pytest.raises(errors.InvalidNameError, match="too long"):
        store.create("n" * 256, b"1")


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    for url, name in [(str(tmp_path), "f/x"), (str(tmp_path / "f"), "x")]:
        with pytest.raises(errors.StoreError, match="a file lies where a folder is needed"):
            open_store(url).create(name, b"")
    assert open_store(str(tmp_path)).size("f/x") is None


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    store = open_store(str(tmp_path))
    assert store.size("d") is None
    with pytest.raises(errors.NotFoundError):
        store.read("d")
    assert list(store.list()) == []


def test_listing_a_large_set_is_fast(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    for number in range(5005):
        (tmp_path / f"train-{number:06d}.tar").touch()
    store = open_store(str(tmp_path))
    best = min(_seconds_of(lambda: list(store.list())) for _ in range(5))
    assert len(list(store.list())) == 5005
    assert best < 0.1


def _seconds_of(call: object) -> float:
    start = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - start


def test_a_dangling_link_is_not_listed_and_a_link_to_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"12")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(".")
    assert [(e.name, e.size) for e in open_store(str(tmp_path)).list()] == [("link", 2), ("real", 2)]


WRITER = """
import sys
from slg_wds.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
for number in range(10**6):
    store.create(f"d/{number:06d}", number.to_bytes(4, "big") * 50_000)
"""


def _writer(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_writer_leaves_only_whole_objects(tmp_path: Path, how: signal.Signals) -> None:
    store = open_store(str(tmp_path))
    left_over = 0
    for trial in range(6):
        with _writer(tmp_path) as process:
            time.sleep(0.02 + 0.013 * trial)
            process.send_signal(how)
        entries = list(store.list())
        assert all(entry.size == 200_000 and "/.tmp-" not in entry.name for entry in entries)
        for entry in entries:
            number = int(entry.name[2:])
            assert store.read(entry.name) == number.to_bytes(4, "big") * 50_000
        left_over += sum(path.name.startswith(".tmp-") for path in (tmp_path / "d").iterdir())
        for entry in entries:
            store.delete(entry.name)
    if how == signal.SIGKILL:
        assert left_over > 0  # else no kill met a write, and nothing was tried
    store.sweep()
    assert sum(1 for _ in (tmp_path / "d").iterdir()) == left_over  # young ones may still be written
    assert store.sweep(max_age=-1) == left_over
    assert list((tmp_path / "d").iterdir()) == []


def test_old_temporaries_are_swept_when_writing_begins(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    old, young = tmp_path / "index/.tmp-a-1-ff", tmp_path / ".tmp-b-1-ff"
    other = tmp_path / "old-object"
    for path in (old, young, other):
        path.write_bytes(b"")
    for path in (old, other):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    store = open_store(str(tmp_path))
    store.check_writable()
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)
    assert store.sweep(max_age=-1) == 1
    assert not young.exists()


@pytest.mark.parametrize("where", ["fsync", "link"])
def test_an_interrupt_publishes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    store = open_store(str(tmp_path))
    monkeypatch.setattr(os, where, lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        store.create("x", b"1")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    assert store.create("x", b"1")


def test_data_that_fails_half_way_publishes_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    with pytest.raises(TypeError):
        store.create("x", [b"1", "text"])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV])
def test_a_file_system_without_hard_links_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path / "s"))
    for call in (store.check_writable, lambda: store.create("x", b"1")):
        with pytest.raises(errors.UnsupportedStoreError, match="no hard links") as caught:
            call()
        assert caught.value.url == str(tmp_path / "s")
    assert list((tmp_path / "s").iterdir()) == []


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def lose_the_answer(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)  # what an NFS client does when the first answer is lost

    monkeypatch.setattr(os, "link", lose_the_answer)
    assert open_store(str(tmp_path)).create("x", b"1") is True
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# --- real faults of the system, each met in a process of its own ---

FAULT = """
import os, resource, signal, sys
from slg_wds import errors
from slg_wds.store import open_store
store = open_store(sys.argv[1])
def refused(kind, call):
    try:
        call()
    except kind as error:
        assert error.url and error.url.startswith(sys.argv[1]), error.url
        print(error)
    else:
        raise SystemExit("not refused")
"""


def _meet(body: str, folder: Path, mount: str | None = None) -> str:
    """Run FAULT + body on folder, over which `mount` is mounted for that process alone; return what it prints."""
    command = [sys.executable, "-c", FAULT + body, str(folder)]
    if mount is not None:
        inside = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"]), "sh", "-ec"]
        try:
            subprocess.run([*inside, f"mount {mount} '{folder}'"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"cannot mount a file system here: {error}")
        command = [*inside, f"mount {mount} '{folder}'; exec \"$@\"", "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk_publishes_nothing(tmp_path: Path) -> None:
    said = _meet(
        """
refused(errors.StoreFullError, lambda: store.create("large", bytes(2 << 20)))
assert os.listdir(sys.argv[1]) == []
assert store.create("small", bytes(1000))
assert store.create("fill", bytes((1 << 20) - 8192 - 4096))
refused(errors.StoreFullError, store.check_writable)
assert sorted(os.listdir(sys.argv[1])) == ["fill", "small"]
""",
        tmp_path,
        "-t tmpfs -o size=1m none",
    )
    assert said.count("No space left on device") == 2


def test_a_full_disk_without_a_folder_for_it(tmp_path: Path) -> None:
    said = _meet(
        'refused(errors.StoreFullError, lambda: store.create("a/b", b""))',
        tmp_path,
        "-t tmpfs -o nr_inodes=1 none",
    )
    assert "No space left on device" in said


def test_a_limit_on_file_size_publishes_nothing(tmp_path: Path) -> None:
    said = _meet(
        """
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
refused(errors.StoreFullError, lambda: store.create("large", bytes(20_000)))
assert os.listdir(sys.argv[1]) == []
assert store.create("small", bytes(10_000))
""",
        tmp_path,
    )
    assert "File too large" in said


def test_a_read_only_file_system(tmp_path: Path) -> None:
    said = _meet(
        """
refused(errors.PermissionDeniedError, store.check_writable)
refused(errors.PermissionDeniedError, lambda: store.create("x", b""))
refused(errors.PermissionDeniedError, lambda: store.create("a/x", b""))
assert store.size("x") is None and list(store.list()) == []
""",
        tmp_path,
        "-t tmpfs -o ro none",
    )
    assert said.count("Read-only file system") == 3


def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    said = _meet(
        """
os.makedirs(sys.argv[1] + "/closed"), open(sys.argv[1] + "/closed/x", "w").close()
os.chmod(sys.argv[1] + "/closed", 0); os.chmod(sys.argv[1], 0o555)
if os.getuid() == 0:
    os.setuid(65534)
refused(errors.PermissionDeniedError, store.check_writable)
refused(errors.PermissionDeniedError, lambda: store.create("x", b""))
refused(errors.PermissionDeniedError, lambda: store.read("closed/x"))
refused(errors.PermissionDeniedError, lambda: store.size("closed/x"))
refused(errors.PermissionDeniedError, lambda: list(store.list()))
""",
        tmp_path,
    )
    assert said.count("Permission denied") == 5


# --- URLs ---


def test_braces_expand_as_in_a_shell() -> None:
    assert expand_braces("s3://b/train-{000000..000002}.tar") == [
        f"s3://b/train-00000{n}.tar" for n in range(3)
    ]
    assert expand_braces("{8..11}") == ["8", "9", "10", "11"]
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
    ["", "ftp://h/x", "s3:/b/x", "s3:b", "pipe:cat x", "file://host/x", "s3://", "s3:///x", "s3://b/../c"]
    + ["s3://b/a//c", "gs://", "https://", "https://h/x?y=1", "https://h/x#y", "az://c/x"],
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
