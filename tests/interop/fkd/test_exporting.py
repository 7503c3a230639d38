"""A label set -> label files: the round trip, the original readers' layouts, and what is refused."""

from __future__ import annotations

import pickletools
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from support.models.names import TINY
from support.oracles import fkd_original as original


def bring(labels, images, target, **options):
    options = {"processes": 1, "samples_per_shard": 2, **options}
    config = slg_wds.ImportConfig(fkd_dir=str(labels), images=str(images), save_path=str(target), **options)
    return slg_wds.import_fkd(config)


def take(labels, folder, **options):
    return slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(labels), fkd_dir=str(folder), **options))


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    "label_type", ["hard", "smoothing", "marginal_smoothing_k5", "marginal_smoothing_k10", "full"]
)
def test_round_trip(label_files, images, tmp_path, label_type, half):
    labels = label_files(label_type, half)
    bring(labels, images, tmp_path / "set")
    result = take(tmp_path / "set", tmp_path / "back", use_fp16=half)
    assert (result.files, result.crops, result.inexact, result.without_tail) == (5, 60, 0, False)
    for file in sorted((labels / "dataset").rglob("*.tar")):
        theirs = original.load(file)
        ours = original.load(tmp_path / "back" / file.relative_to(labels / "dataset"))
        assert type(ours) is list and all(map(same, ours[1:], theirs[1:]))
        assert ours[0].dtype == theirs[0].dtype and ours[0].shape == theirs[0].shape
        if not half:
            assert same(ours[0], theirs[0])
        with Image.open(images / "train" / file.parent.name / f"{file.stem}.jpg") as picture:
            size = (picture.height, picture.width)
        for mine, other in zip(ours[0], theirs[0], strict=True):
            assert original.readers_box(mine, size) == original.readers_box(other, size)


@pytest.mark.parametrize("layout, components", [("fkd", 3), ("mealv2", 4)])
def test_the_readers_find_their_files(label_files, images, tmp_path, layout, components):
    """By the last 3 or 4 parts of an image's path, cut at the first dot, as the two readers join them."""
    bring(label_files(), images, tmp_path / "set")
    take(tmp_path / "set", tmp_path / "back", layout=layout)
    for image in sorted(images.rglob("*.jpg")):
        wanted = "/".join(str(image).split("/")[-components:]).split(".")[0] + ".tar"
        assert len(original.load(tmp_path / "back" / wanted)) == 3
    assert len([file for file in (tmp_path / "back").rglob("*") if file.is_file()]) == 5


def test_another_dataset_name(label_files, images, tmp_path):
    bring(label_files(), images, tmp_path / "set")
    take(tmp_path / "set", tmp_path / "back", layout="mealv2", dataset="imagenet")
    assert (tmp_path / "back/imagenet/train/n02123045/chelsea_0.tar").exists()
    for name in ("..", "a/../..", "/etc", "v1.0", "", "a/b"):
        with pytest.raises(errors.SlgWdsError):
            take(tmp_path / "set", tmp_path / "bad", layout="mealv2", dataset=name)
    assert not (tmp_path / "bad").exists()


def test_a_generated_set_of_shared_tails_leaves_them_behind(images, tmp_path, capsys):
    config = {"teacher_source": "private", "arch": TINY, "num_crops": 10, "label_type": "shared_tail_k3"}
    slg_wds.generate(
        slg_wds.GenerateConfig(data=str(images), save_path=str(tmp_path / "set"), values="float32", **config)
    )
    assert main(["export", str(tmp_path / "set"), str(tmp_path / "back")]) == 0
    assert "shared tails stayed behind" in capsys.readouterr().out
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        file = tmp_path / "back" / "train" / record.path.replace(".jpg", ".tar")
        coords, flips, stored = original.load(file)
        assert (
            stored.dtype == np.float32 and stored.shape == (10, 2, 3) and np.array_equal(flips, record.flips)
        )
        assert np.array_equal(stored[:, 0], record.index) and np.array_equal(stored[:, 1], record.value)
        top_left = [original.readers_box(row, record.size)[:2][::-1] for row in coords]
        assert top_left == [tuple(box) for box in record.crops[:, :2].tolist()]


def test_a_numpy_of_the_originals_time_can_read_the_files(label_files, images, tmp_path):
    """numpy 1 has no numpy._core, which numpy 2 names in its pickles."""
    bring(label_files(), images, tmp_path / "set")
    take(tmp_path / "set", tmp_path / "back")
    for file in (tmp_path / "back").rglob("*.tar"):
        with zipfile.ZipFile(file) as archive:
            pickled = archive.read("archive/data.pkl")
        named = {argument for code, argument, _ in pickletools.genops(pickled) if code.name == "GLOBAL"}
        assert named == {
            "numpy.core.multiarray _reconstruct",
            "numpy ndarray",
            "numpy dtype",
            "_codecs encode",
        }


def test_images_that_the_set_left_out_are_told(label_files, images, tmp_path, capsys):
    labels = label_files()
    (labels / "dataset/train/n02123045/chelsea_1.tar").unlink()
    bring(labels, images, tmp_path / "set", on_error="skip")
    assert main(["export", str(tmp_path / "set"), str(tmp_path / "back again")]) == 0
    said, progress = capsys.readouterr()
    assert "4 label files of 48 crops" in said and f"--softlabel_path '{tmp_path / 'back again'}'" in said
    assert "IMAGES WITHOUT LABELS, at which its reader stops: 1\n    n02123045/chelsea_1.jpg" in said
    assert "train-000002" in progress and "shard 3/3" in progress


def test_an_unfinished_set_is_told_without_a_hint_of_pythons(label_files, images, tmp_path, capsys):
    bring(label_files(), images, tmp_path / "set")
    for name in ("_info.json", "train-000001.tar"):
        (tmp_path / "set" / name).unlink()
    assert main(["export", str(tmp_path / "set"), str(tmp_path / "back")]) == 3
    assert capsys.readouterr().err.rstrip().endswith("; finish it with the command that began it")


def test_float16_is_refused_where_it_cannot_hold_the_classes(label_files, images, tmp_path):
    bring(label_files("hard"), images, tmp_path / "set", num_classes=2050)
    with pytest.raises(errors.UsageError, match=r"no class numbers above 2048.*2050 classes"):
        take(tmp_path / "set", tmp_path / "back", use_fp16=True)
    assert not (tmp_path / "back").exists()
    take(tmp_path / "set", tmp_path / "back")


def test_a_folder_that_holds_something_is_left_alone(label_files, images, tmp_path):
    bring(label_files(), images, tmp_path / "set")
    (tmp_path / "back").mkdir()
    take(tmp_path / "set", tmp_path / "back")
    before = sorted((tmp_path / "back").rglob("*"))
    with pytest.raises(errors.InteropError, match="not empty"):
        take(tmp_path / "set", tmp_path / "back")
    assert sorted((tmp_path / "back").rglob("*")) == before
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(errors.InteropError, match="link"):
        take(tmp_path / "set", tmp_path / "link")


def test_a_damaged_set_leaves_nothing_half_written(label_files, images, tmp_path):
    bring(label_files(), images, tmp_path / "set")
    shard = tmp_path / "set" / "train-000002.tar"
    shard.chmod(0o644)
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(errors.FormatError):
        take(tmp_path / "set", tmp_path / "back")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "paths, message",
    [
        (["a/x.1.jpg", "a/x.2.jpg"], r"a/x\.1\.jpg and a/x\.2\.jpg would share"),
        (["a.b/x.jpg"], "folders cannot have one"),
        (["../x.jpg"], "outside"),
        (["a/../../x.jpg"], "outside"),
        (["/etc/x.jpg"], "outside"),
        (["a/.jpg"], "no name"),
        (["a\\..\\x.jpg"], "outside"),
    ],
)
def test_paths_that_cannot_be_label_files(label_files, images, tmp_path, paths, message):
    from slg_wds.interop.fkd.naming import LabelFileNames

    bring(label_files(), images, tmp_path / "set")
    config = slg_wds.ExportConfig(labels="set", fkd_dir="files")
    names = LabelFileNames(slg_wds.open_labels(str(tmp_path / "set")), config)
    with pytest.raises(errors.InteropError, match=message):
        names.check(paths)


@pytest.mark.parametrize("inside", ["files", "a/files"])
def test_a_file_in_the_place_of_a_folder_is_named(label_files, images, tmp_path, inside):
    bring(label_files(), images, tmp_path / "set")
    (tmp_path / "file").write_text("x")
    with pytest.raises(errors.InteropError, match=f"{tmp_path / 'file'} is a file, not a folder"):
        take(tmp_path / "set", tmp_path / "file" / inside)


def test_label_files_are_no_class_folder(photographs, tmp_path):
    data = shutil.copytree(photographs / "train", tmp_path / "data")
    options = {"arch": TINY, "teacher_source": "private", "num_crops": 2, "samples_per_shard": 36}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(data), save_path=str(tmp_path / "set"), **options))
    (tmp_path / "link").symlink_to(data)
    for folder in (data / "fkd", tmp_path / "link" / "fkd"):
        with pytest.raises(errors.InteropError, match="among the class folders"):
            take(tmp_path / "set", folder)
    assert not (data / "fkd").exists()
    assert take(tmp_path / "set", tmp_path / "fkd").files == 36
