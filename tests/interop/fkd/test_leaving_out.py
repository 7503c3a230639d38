"""`import --on-error skip` leaves out bad and missing files, but stops if the whole disk is unavailable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.interop.fkd.folder import LabelFolder
from support.reads import before_read


def config(labels, images, target, **options):
    given = {"processes": 1, "samples_per_shard": 1, "on_error": "skip", **options}
    return slg_wds.ImportConfig(fkd_dir=str(labels), images=str(images), save_path=str(target), **given)


def vanish(folder: Path) -> None:
    folder.rename(folder.parent / "away")


@pytest.mark.parametrize("what", ["labels", "images"])
def test_a_disk_that_vanishes_stops_the_import_which_resumes(
    label_files, images, tmp_path, monkeypatch, what
):
    labels, data = label_files(), tmp_path / "data"
    shutil.copytree(images, data)
    away = labels / "dataset" if what == "labels" else data / "train"
    with monkeypatch.context() as patch:
        before_read(2, LabelFolder, patch, lambda: vanish(away))
        with pytest.raises(errors.SlgWdsError, match="run the same command again"):
            slg_wds.import_fkd(config(labels, data, tmp_path / "set"))
    (away.parent / "away").rename(away)
    result = slg_wds.import_fkd(config(labels, data, tmp_path / "set"))
    assert result.complete and not result.stats.left_out
    assert len(list(slg_wds.open_labels(str(tmp_path / "set")))) == 5


def test_a_label_file_that_is_gone_is_left_out(label_files, images, tmp_path, monkeypatch):
    labels = label_files()
    gone = labels / "dataset/train/n07920052/coffee_2.tar"
    before_read(2, LabelFolder, monkeypatch, gone.unlink)
    result = slg_wds.import_fkd(config(labels, images, tmp_path / "set"))
    assert [path for path, _ in result.stats.left_out] == ["n07920052/coffee_2.jpg"]
    assert result.complete and "gone from its folder" in result.stats.left_out[0][1]


def test_an_image_that_is_gone_is_left_out(label_files, images, tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    before_read(2, LabelFolder, monkeypatch, (data / "train/n07920052/coffee_2.jpg").unlink)
    result = slg_wds.import_fkd(config(label_files(), data, tmp_path / "set"))
    assert [path for path, _ in result.stats.left_out] == ["n07920052/coffee_2.jpg"]


def test_the_share_is_bounded(label_files, images, tmp_path):
    labels = label_files()
    for name in ("n02123045/chelsea_1", "n07920052/coffee_2"):
        path = labels / f"dataset/train/{name}.tar"
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(errors.LabelSetError, match=r"2 of 5 images .* more than the 1 .*--max-left-out"):
        slg_wds.import_fkd(config(labels, images, tmp_path / "set", max_left_out=0.2))
    assert slg_wds.import_fkd(config(labels, images, tmp_path / "set", max_left_out=0.4)).complete
