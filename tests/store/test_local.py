"""A local store: paths, and what is left after kills, interrupts, full disks and read-only folders."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from slg_wds import errors
from slg_wds.store import open_store


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
    (tmp_path / "l").symlink_to(tmp_path / "unmounted")
    with pytest.raises(errors.StoreError, match="a link that leads nowhere lies where a folder is needed"):
        open_store(str(tmp_path / "l")).check_writable()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that makes no folders")
def test_where_no_folder_can_be_made() -> None:
    with pytest.raises(errors.StoreError, match="no folder can be made here"):
        open_store("/proc/a set").check_writable()


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


def _seconds_of(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


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
        left_over = sum(path.name.startswith(".tmp-") for path in (tmp_path / "d").iterdir())
        for entry in entries:
            store.delete(entry.name)
    if how == signal.SIGKILL:
        assert left_over > 0  # else no kill met a write, and nothing was tried
    store.check_writable()
    assert sum(1 for _ in (tmp_path / "d").iterdir()) == left_over  # young ones may still be written
    for path in (tmp_path / "d").iterdir():
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    store.check_writable()
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
full = False
while not full:
    name = f"fill-{len(os.listdir(sys.argv[1]))}"
    try:
        store.create(name, bytes(4096))
    except errors.StoreFullError:
        full = True
assert name not in os.listdir(sys.argv[1]) and len(os.listdir(sys.argv[1])) > 200
refused(errors.StoreFullError, store.check_writable)
assert all(store.size(name) == 4096 for name in os.listdir(sys.argv[1]) if name != "small")
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
