"""A pipe or device in place of a file is an error; reading it would hang or exhaust memory."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import SlgWdsError
from support.models.names import TINY
from support.sets import trust_sets

SECONDS = 20


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Ends a test that hangs."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.fixture(params=[pipe, device])
def put(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    def instead(path: Path) -> None:
        path.unlink(missing_ok=True)
        request.param(path)

    return instead


def test_an_image(
    put: Callable[[Path], None], small_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(small_images, tmp_path / "images"))
    labels = trust_sets.make(images, tmp_path / "labels")
    loader = trust_sets.loader_of(labels, images)
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(labels), fkd_dir=str(tmp_path / "fkd")))
    path = min(images.rglob("*.jpg"))
    put(path)
    with pytest.raises(SlgWdsError, match=path.name):
        trust_sets.walked(loader)
    new, skip = str(tmp_path / "new"), ["--on-error", "skip"]
    generate = ["generate", str(images), "-a", TINY, "--teacher_source", "private", "--num_crops", "2"]
    for command in (
        [*generate, "--save-path", new, *skip],
        ["import", str(tmp_path / "fkd"), "--images", str(images), "--save-path", f"{new}-fkd", *skip],
    ):
        capsys.readouterr()
        assert main(command) == 1
        assert "not a file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--list", "--class-map", "--class-subset", "--teacher_path"])
def test_a_file_of_an_option(
    option: str,
    put: Callable[[Path], None],
    small_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    put(tmp_path / "given.pth")
    given = [option, str(tmp_path / "given.pth"), "--save-path", str(tmp_path / "new")]
    assert main(["generate", str(small_images), "-a", TINY, "--teacher_source", "private", *given]) in (1, 2)
    assert "given.pth" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train-000000.tar", "slg.json", "plan", "images-0.tar"])
def test_a_file_of_a_set(name: str, put: Callable[[Path], None], small_images: Path, tmp_path: Path) -> None:
    labels = trust_sets.make(small_images, tmp_path / "labels")
    put(labels / name)
    with pytest.raises(SlgWdsError, match="not a file"):
        if name == "images-0.tar":
            slg_wds.images.open_source(str(labels / name)).plan(0, 1)
        slg_wds.open_labels(str(labels), allow_incomplete=True).record(0, 0)


def test_an_index_is_made_from_the_shard(
    put: Callable[[Path], None], small_images: Path, tmp_path: Path
) -> None:
    labels = trust_sets.make(small_images, tmp_path / "labels")
    first = slg_wds.open_labels(str(labels)).record(0, 0)
    put(labels / "index" / "train-000000")
    assert slg_wds.open_labels(str(labels)).record(0, 0).key == first.key
