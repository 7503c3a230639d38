"""Writing files that a user names: links are followed and kept, devices are written to, a failure leaves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from slg_wds.cli import main
from slg_wds.errors import StoreError
from slg_wds.store.whole_file import whole_file
from support.sets import trust_sets

NOBODY = 65534


def write(path: Path, data: bytes = b"new") -> None:
    with whole_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Drop root's rights, which ignore folder modes."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("far/file")
    (tmp_path / "dangling").symlink_to("far/another")
    for name, there in (("link", "file"), ("dangling", "another")):
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / "far" / there).read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["another", "dangling", "far", "file", "link"]


def test_a_pipe_is_written_to_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        found: list[bytes] = []
        read = lambda found=found: found.append((tmp_path / "pipe").read_bytes())  # noqa: E731
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        write(tmp_path / name)
        reader.join(10)
        assert found == [b"new"] and stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_a_device_is_written_to_and_stays(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("no devices can be made here")
    write(device)
    assert stat.S_ISCHR(device.lstat().st_mode) and os.listdir(tmp_path) == ["null"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_process_s_own_output(tmp_path, name):
    code = (
        "import sys; from pathlib import Path; from slg_wds.store.whole_file import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as file: file.write(b'new')"
    )
    command = [sys.executable, "-c", code, name]
    assert subprocess.run(command, check=True, capture_output=True).stdout == b"new"
    with open(tmp_path / "out", "wb") as out:
        subprocess.run(command, check=True, stdout=out)
        assert os.fstat(out.fileno()).st_ino == (tmp_path / "out").stat().st_ino
    assert (tmp_path / "out").read_bytes() == b"new"


def test_modes_are_as_for_any_new_file_or_stay(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    (tmp_path / "a").chmod(0o604)
    write(tmp_path / "a", b"again")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o604


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    write(tmp_path / "a", b"old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a") as file:
        file.write(b"half")
        (beside,) = [path for path in tmp_path.iterdir() if path.name != "a"]
        assert beside.name.startswith(".a.") and len(beside.name) == len(".a.") + 16
        raise ZeroDivisionError
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


def test_what_killed_writers_left_goes_after_a_day(tmp_path):
    for name, age in ((".a." + "0" * 16, 2 * 86400), (".a." + "1" * 16, 60), (".a.0", 2 * 86400)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    write(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == [".a.0", ".a." + "1" * 16, "a"]


def test_a_file_of_ones_own_in_a_folder_of_another(open_folder):
    (open_folder / "mine").write_bytes(b"old")
    (open_folder / "mine").chmod(0o666)
    open_folder.chmod(0o555)
    with as_somebody():
        write(open_folder / "mine")
        assert (open_folder / "mine").read_bytes() == b"new"
        with pytest.raises(StoreError, match=r"it cannot be written: Permission denied \(url .*other\)"):
            write(open_folder / "other")
    open_folder.chmod(0o755)


@pytest.fixture(scope="module")
def labels(photographs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    images = trust_sets.small_photographs(photographs, folder / "images")
    return trust_sets.make(images, folder / "set", embed_images="original")


def test_a_report_onto_a_link(labels, tmp_path):
    (tmp_path / "page.html").write_text("old")
    (tmp_path / "link.html").symlink_to("page.html")
    assert main(["report", str(labels), "-o", str(tmp_path / "link.html")]) == 0
    assert (tmp_path / "link.html").is_symlink() and "<html" in (tmp_path / "page.html").read_text()


def test_an_export_into_what_a_link_leads_to(labels, tmp_path, capsys):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert main(["export", str(labels), str(tmp_path / "link")]) == 0
    assert (tmp_path / "link").is_symlink() and len(list((tmp_path / "real").rglob("*.tar"))) == 8
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]
    assert main(["export", str(labels), str(tmp_path / "link")]) == 1
    assert "the folder is not empty" in capsys.readouterr().err


def test_folders_of_exports_under_way_cannot_be_foreseen(labels, tmp_path, monkeypatch):
    names: list[str] = []
    monkeypatch.setattr(Path, "rename", lambda self, target: names.append(self.name))
    for _ in range(2):
        assert main(["export", str(labels), str(tmp_path / "a")]) == 0
    assert len(set(names)) == 2 and all(len(name) >= len(".a.unfinished-") + 16 for name in names)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["shut/a", "shut/new/a", "file/a"])
def test_an_export_to_where_nothing_can_be_made_is_refused_in_a_line(labels, open_folder, capsys, place):
    (open_folder / "file").touch()
    (open_folder / "shut").mkdir(mode=0o555)
    readable = shutil.copytree(labels, open_folder / "labels")
    for path in [readable, *readable.rglob("*")]:
        path.chmod(path.stat().st_mode | 0o555)
    with as_somebody():
        assert main(["export", str(readable), str(open_folder / place)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("slg-wds export: cannot be written: ") and "Traceback" not in "".join(said)


def test_checkpoints_onto_links_stay_links(tmp_path):

    import torch

    from slg_wds.teachers.preprocessing import resolve
    from slg_wds.training.flags import parse
    from slg_wds.training.output import checkpoints as student

    model = torch.nn.Linear(2, 2)
    training = student.Training(
        model,
        model,
        None,
        torch.optim.SGD(model.parameters(), 0.1),
        torch.amp.GradScaler("cpu"),
        resolve({}, "", {})[0],
    )
    args = parse(["-a", "a", "--num_classes", "2", "--save_checkpoint_path", str(tmp_path)])
    args.rank, args.ranks, args.device, args.logit_scale = 0, 1, torch.device("cpu"), None
    (tmp_path / "far").mkdir()
    (tmp_path / student.CHECKPOINT).symlink_to("far/file")
    (victim := tmp_path / "victim").write_text("kept")
    (tmp_path / f".{student.CHECKPOINT}.part").symlink_to(victim)
    student.save(args, training)
    assert (tmp_path / student.CHECKPOINT).is_symlink() and victim.read_text() == "kept"
    assert torch.load(tmp_path / "far" / "file", weights_only=True)["arch"] == "a"
