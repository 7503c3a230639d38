"""Whatever name an image has in a folder: if generate labels it, every reader of the folder finds it again."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from slg_wds.cli import main
from slg_wds.config import ReportConfig
from slg_wds.report.command import report as write_report
from support.sets.replay_sets import Made, make, truth

NAMES = (
    "new\nline.jpg",
    "tab\t.jpg",
    "escape\x1b[31m.jpg",
    "delete\x7f.jpg",
    ".tmp-1.jpg",
    " space .jpg",
    "%2E.jpg",
)


@pytest.fixture(scope="module")
def odd(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    root = tmp_path_factory.mktemp("odd-names")
    folders = [root / "images" / name for name in ("line\nfeed", "plain")]
    paths = sorted((photographs / "train").rglob("*.jpg"))
    for folder in folders:
        folder.mkdir(parents=True)
        for name in NAMES:
            shutil.copy(paths.pop(), folder / name)
    return Made(make(root / "images", root / "labels"), str(root / "images"))


def test_the_loader_reads_them(odd: Made) -> None:
    expected, seen = truth(odd.labels, odd.images), set()
    assert len(expected) == 2 * len(NAMES) * 12
    for batch in odd.loader(last="pad"):
        for key, crop, image in zip(batch.key, batch.crop.tolist(), batch.images, strict=True):
            if crop >= 0:
                assert image.equal(expected[key, crop][0])
                seen.add(key)
    assert len(seen) == 2 * len(NAMES)


def test_verify_and_report_read_them(odd: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", odd.labels, "--images", str(odd.images), "--json", "--processes", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["compared"], found["problems"]) == (2 * len(NAMES), [])
    page = str(tmp_path / "page.html")
    assert write_report(ReportConfig(labels=(odd.labels,), images=odd.images, output=page)).images == 2 * len(
        NAMES
    )


def test_a_pipe_in_the_place_of_an_image_is_named(
    odd: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = Path(shutil.copytree(str(odd.images), tmp_path / "images"))
    path = min(images.rglob("tab*.jpg"))
    path.unlink()
    os.mkfifo(path)
    assert main(["verify", odd.labels, "--images", str(images), "--json", "--processes", "1"]) == 1
    [problem] = json.loads(capsys.readouterr().out)["problems"]
    assert problem["what"] == "the image is not there: it is a named pipe, not a file"
    assert "tab" in problem["key"]
