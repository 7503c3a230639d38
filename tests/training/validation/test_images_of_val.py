"""Which images a student is validated on: those of val, of a folder or a URL alike, and none where there is no val."""

from __future__ import annotations

from pathlib import Path

import pytest

from slg_wds.errors import NoImagesError
from slg_wds.training.flags import parse
from slg_wds.training.validation.images import open_val
from support.images.sources import tar_bytes


def val_of(data: str) -> list[str] | None:
    """The paths of the images of val; None without val."""
    args = parse([data])
    args.rank = 0
    source = open_val(args)
    return None if source is None else sorted(source.plan(0, 100).paths)


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("train-0", "train-1", "val-0"):
        files = [(f"{name}.cls", b"1"), (f"{name}.jpg", b"an image")]
        (tmp_path / f"{name}.tar").write_bytes(tar_bytes(files))
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_tars_that_are_named_for_training_hold_no_val(tars, scheme):
    """As `generate` prints the command for training: a URL was refused for an option that training does not have."""
    assert val_of(f"{scheme}{tars}/train-{{0..1}}.tar") is None
    assert val_of(f"{scheme}{tars}/train-0.tar") is None


def test_without_images_there_is_no_val(tars, monkeypatch):
    monkeypatch.chdir(tars)
    assert open_val(parse([])) is None


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_val_is_found_by_name_and_may_be_missing(tars, scheme):
    assert val_of(f"{scheme}{tars}") == ["val-0.jpg"]
    (tars / "val-0.tar").unlink()
    (tars / "devkit.tar.gz").touch()
    assert val_of(f"{scheme}{tars}") is None
    (tars / "folders" / "train" / "a").mkdir(parents=True)
    (tars / "folders" / "train" / "a" / "1.jpg").write_bytes(b"an image")
    assert val_of(f"{scheme}{tars}/folders") is None
    (tars / "folders" / "val" / "a").mkdir(parents=True)
    with pytest.raises(NoImagesError, match="no images"):
        val_of(f"{scheme}{tars}/folders")
    (tars / "folders" / "val" / "a" / "2.jpg").write_bytes(b"an image")
    assert val_of(f"{scheme}{tars}/folders") == ["a/2.jpg"]
