"""Label files -> a label set: every type exactly, what is refused, resume, and the crops that a student sees."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.images import decode
from slg_wds.transforms.crops import cut
from support.oracles import fkd_original as original
from support.programs import tool

KILL = tool("kill_test")
TYPES = ("hard", "smoothing", "marginal_smoothing_k5", "marginal_smoothing_k10", "full")


def run(labels, images, target, **options):
    options = {"processes": 1, "samples_per_shard": 2, **options}
    return slg_wds.import_fkd(
        slg_wds.ImportConfig(fkd_dir=str(labels), images=str(images), save_path=str(target), **options)
    )


def file_of(labels, record):
    return labels / "dataset" / "train" / record.path.replace(".jpg", ".tar")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("label_type", TYPES)
def test_every_type_is_found_and_held_exactly(label_files, images, tmp_path, label_type, half):
    labels = label_files(label_type, half)
    result = run(labels, images, tmp_path / "set")
    assert result.complete and result.stats.images == 5 and result.stats.inexact == result.stats.clamped == 0
    assert result.labels.label_type == label_type
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        coords, flips, stored = original.load(file_of(labels, record))
        with Image.open(images / "train" / record.path) as picture:
            assert record.size == (picture.height, picture.width)
        boxes = [original.readers_box(row, record.size) for row in coords]
        assert [(left, top, left + w, top + h) for top, left, h, w in record.crops.tolist()] == boxes
        assert np.array_equal(record.flips, flips)
        expected = stored if label_type == "full" else stored.reshape(len(stored), -1)
        if label_type == "full":
            assert np.array_equal(record.value, expected.astype(np.float32))
            continue
        assert np.array_equal(record.index, expected[:, : record.k])
        value = 1 if label_type == "hard" else expected[:, record.k :].astype(np.float32)
        assert np.array_equal(record.value, np.broadcast_to(value, record.value.shape))


def test_targets_are_those_of_the_class_folders(label_files, images, tmp_path):
    run(label_files(), images, tmp_path / "set")
    wanted = {
        "n02123045": 281,
        "n07920052": 967,
        "n04266014": 812,
    }  # of ImageNet-1k: tabby, espresso, shuttle
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        assert record.target == wanted[record.path.split("/")[0]]


@pytest.mark.parametrize("inner", ["dataset/train", "dataset", "."])
def test_label_files_in_any_of_the_layouts(label_files, images, tmp_path, inner):
    """As the generator wrote them, as the student reads them, or the class folders alone."""
    result = run(label_files() / inner, images, tmp_path / "set")
    assert result.complete and result.stats.images == 5


def test_marginal_renorm_must_be_said(label_files, images, tmp_path):
    labels = label_files()
    for name in ("marginal_renorm", "marginal_renorm_k5"):
        assert run(labels, images, tmp_path / name, label_type=name).labels.label_type == "marginal_renorm_k5"
    with pytest.raises(errors.LabelFileError, match=r"are not marginal_renorm_k10 .*chelsea_0\.tar"):
        run(labels, images, tmp_path / "set", label_type="marginal_renorm_k10")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("half", [False, True])
def test_a_student_sees_the_pixels_that_fkds_reader_cuts(label_files, images, tmp_path, half):
    labels = label_files(half=half)
    run(labels, images, tmp_path / "set")
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        file = images / "train" / record.path
        out = torch.empty((record.num_crops, 3, 96, 96), dtype=torch.uint8).contiguous(
            memory_format=torch.channels_last
        )
        cut(decode(file.read_bytes()), record.crops, record.flips, out, "bilinear")
        picture = Image.open(file).convert("RGB")
        coords, flips, _ = original.load(file_of(labels, record))
        for row, flip, crop in zip(coords, flips, out.numpy(), strict=True):
            theirs = original.readers_crop(picture, row, flip, 96)
            assert np.abs(theirs.astype(int) - crop.astype(int)).max() <= 2


def spoil(labels, name, change):
    file = labels / "dataset" / "train" / f"{name}.tar"
    parts = original.load(file)
    torch.save(change(*parts), file)


def changed(array, value, at):
    array = array.copy()
    array[at] = value
    return array


FAULTS = {
    "NaN": (lambda c, f, x: [c, f, changed(x, np.nan, (3, 1, 0))], "not finite"),
    "above 1": (lambda c, f, x: [c, f, changed(x, 1.5, (3, 1, 0))], "not within"),
    "below 0": (lambda c, f, x: [c, f, changed(x, -0.5, (3, 1, 4))], "not within"),
    "sum above 1": (lambda c, f, x: [c, f, changed(x, 0.9, (3, 1))], "sum to"),
    "class 1000": (lambda c, f, x: [c, f, changed(x, 1000, (3, 0, 0))], "class index 1000 is outside"),
    "class -1": (lambda c, f, x: [c, f, changed(x, -1, (3, 0, 0))], "class index -1 is outside"),
    "class 1.5": (lambda c, f, x: [c, f, changed(x, 1.5, (3, 0, 0))], "not whole"),
    "class twice": (lambda c, f, x: [c, f, changed(x, x[3, 0, 1], (3, 0, 0))], "twice"),
    "rising": (lambda c, f, x: [c, f, x[:, :, ::-1]], "rise"),
    "of another type": (lambda c, f, x: [c, f, x[:, 0, 0].astype(np.int64)], "are not marginal_smoothing_k5"),
    "of another k": (lambda c, f, x: [c, f, x[:, :, :4]], "are not marginal_smoothing_k5"),
    "fewer crops": (lambda c, f, x: [c[:5], f[:5], x[:5]], "5 crops, other files have 12"),
    "float16": (lambda c, f, x: [np.float16(c), f, np.float16(x)], "float16, other files are float32"),
    "an empty box": (lambda c, f, x: [changed(c, 0.0, (3, 2)), f, x], "no pixel"),
}


@pytest.mark.parametrize("fault, message", FAULTS.values(), ids=FAULTS)
def test_a_bad_file_is_named_or_left_out(label_files, images, tmp_path, fault, message):
    labels = label_files()
    spoil(labels, "n07920052/coffee_0", fault)
    with pytest.raises(errors.LabelFileError, match=rf"(?s){message}.*n07920052/coffee_0\.tar"):
        run(labels, images, tmp_path / "set")
    assert not (tmp_path / "set").exists()  # its digest would be that of the bad file, which is to be mended
    result = run(labels, images, tmp_path / "other", on_error="skip")
    assert result.complete and result.stats.images == 4
    ((path, reason),) = result.stats.left_out
    assert path == "n07920052/coffee_0.jpg" and "coffee_0.tar" in reason
    assert len(list(slg_wds.open_labels(str(tmp_path / "other")))) == 4


def test_a_truncated_file_a_pickle_of_else_and_the_first_file_bad(label_files, images, tmp_path):
    labels = label_files()
    first = labels / "dataset/train/n02123045/chelsea_0.tar"
    first.write_bytes(first.read_bytes()[:300])
    with pytest.raises(errors.LabelFileError, match=r"no whole file.*chelsea_0\.tar"):
        run(labels, images, tmp_path / "set")
    result = run(labels, images, tmp_path / "set", on_error="skip")
    assert result.complete and result.stats.images == 4


@pytest.mark.parametrize(
    ("label_type", "wrong", "message", "right"),
    [
        ("marginal_smoothing_k5", {"num_classes": 500}, "outside the 500 classes.* give --num-classes", {}),
        ("full", {}, "class indices .* not whole.* give --num-classes 2 if", {"num_classes": 2, "label_type": "full"}),
    ],
)  # fmt: skip
def test_a_wrong_number_of_classes_is_told_before_a_set_is_begun(
    answers, images, tmp_path, label_type, wrong, message, right
):
    for picture, (coords, flips, p) in answers.items():
        p = p.roll(500, 1) if label_type != "full" else p[:, :2] / p[:, :2].sum(1, keepdims=True)
        file = tmp_path / "labels/train" / picture.replace(".jpg", ".tar")
        original.write(file, coords, flips, original.quantised(p, label_type), False)
    for on_error in ("fail", "skip") if label_type == "full" else ("fail",):
        with pytest.raises(errors.InteropError, match=message):
            run(tmp_path / "labels", images, tmp_path / "set", on_error=on_error, **wrong)
    assert not (tmp_path / "set").exists()
    assert run(tmp_path / "labels", images, tmp_path / "set", **right).complete


def test_partners_that_are_missing_are_counted_and_listed(label_files, images, tmp_path, capsys):
    labels = label_files()
    (labels / "dataset/train/n02123045/chelsea_1.tar").rename(labels / "dataset/train/n02123045/other.tar")
    arguments = ["import", str(labels), "--images", str(images), "--save-path", str(tmp_path / "set")]
    assert main(arguments) == 1
    message = capsys.readouterr().err
    assert "no label file for 1 of 5 images: n02123045/chelsea_1.jpg" in message
    assert "no image for 1 label file: dataset/train/n02123045/other.tar" in message
    assert not (tmp_path / "set").exists()
    assert main([*arguments, "--on-error", "skip"]) == 0
    report = capsys.readouterr().out
    assert (
        "LABEL FILES OF NO IMAGE: 1" in report and "LEFT OUT: 1" in report and "boxes that cannot" in report
    )
    assert report.index("OF NO IMAGE") < report.index("  next: ")


@pytest.fixture
def of_twenty(answers, images, tmp_path):
    """(label files, images) of a teacher of 20 classes; the class folders have names of no WordNet ids."""
    names = {"n02123045": "cat", "n07920052": "cup", "n04266014": "rocket"}
    for picture, (coords, flips, p) in answers.items():
        folder, name = picture.split("/")
        copy = tmp_path / "data" / "train" / names[folder] / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / "train" / picture, copy)
        few = p[:, :20] / p[:, :20].sum(1, keepdims=True)
        file = tmp_path / "twenty" / names[folder] / name.replace(".jpg", ".tar")
        original.write(file, coords, flips, original.quantised(few, "marginal_smoothing_k5"), False)
    return tmp_path / "twenty", tmp_path / "data"


def test_a_default_that_nothing_confirms_is_said(of_twenty, label_files, images, tmp_path, capsys):
    def said(*more: str, files=of_twenty[0], data=of_twenty[1]) -> tuple[str, str]:
        target = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        assert main(["import", str(files), "--images", str(data), "--save-path", str(target), *more]) == 0
        output, errors = capsys.readouterr()
        return output, "".join(
            line + "\n" for line in errors.splitlines() if "warning" in line or "fold" in line
        )

    highest = max(
        int(record.index.max()) for record in run(*of_twenty, tmp_path / "known", num_classes=20).labels
    )
    capsys.readouterr()
    output, errors = said()
    assert f"highest class in a label: {highest} of 0..999" in output
    assert "3 class folders for 1,000 classes of the teacher, so targets only number the folders" in errors
    warning = errors.splitlines()[-1]
    assert warning.startswith(
        "slg-wds import: warning: --num-classes is not given, so the labels are over 1000"
    )
    assert f"none names a class above {highest}." in warning and "import again with --num-classes" in warning
    for number in (20, 1000):
        output, errors = said("--num-classes", str(number))
        assert f"highest class in a label: {highest} of 0..{number - 1}" in output and "warning" not in errors
    (tmp_path / "map").write_text("cat 281\ncup 967\nrocket 812\n")  # a teacher of ImageNet's classes
    assert said("--class-map", str(tmp_path / "map"))[1] == ""
    assert said(files=label_files(), data=images)[1] == ""  # folders of WordNet ids
    output, errors = said(files=label_files("full", name="whole"), data=images)
    assert "highest class" not in output and errors == ""


def test_names_that_differ_after_the_first_dot_only_are_never_mixed(label_files, images, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    train = data / "train" / "n02123045"
    (train / "chelsea_0.jpg").rename(train / "chelsea_0.a.jpg")
    shutil.copy(train / "chelsea_1.jpg", train / "chelsea_0.b.jpg")
    labels = label_files()
    with pytest.raises(
        errors.InteropError, match=r"chelsea_0\.a\.jpg and .*chelsea_0\.b\.jpg have .*chelsea_0"
    ):
        run(labels, data, tmp_path / "set")
    result = run(labels, data, tmp_path / "set", on_error="skip")
    assert sorted(path for path, _ in result.stats.left_out) == [
        "n02123045/chelsea_0.a.jpg",
        "n02123045/chelsea_0.b.jpg",
    ]


def test_float16_indices_that_may_be_another_class(label_files, images, tmp_path):
    labels = label_files(half=True)
    for file in labels.rglob("*.tar"):
        coords, flips, stored = original.load(file)
        stored[0, 0, 0] = 2050
        torch.save([coords, flips, stored], file)
    with pytest.raises(errors.LabelFileError, match="2050 may be rounded"):
        run(labels, images, tmp_path / "set", num_classes=21841)


def test_images_of_another_size_are_counted(label_files, images, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    for file in data.rglob("*.jpg"):
        Image.open(file).resize((97, 83)).save(file)
    result = run(label_files(), data, tmp_path / "set")
    assert result.complete and result.stats.inexact > 50


def test_no_folder_no_label_files_and_labels_of_others(label_files, images, tmp_path):
    for folder in (tmp_path / "none", images):
        with pytest.raises(errors.InteropError):
            run(folder, images, tmp_path / "set")
    labels = label_files()
    (labels / "dataset").rename(labels / "one")
    shutil.copytree(labels / "one", labels / "two")
    with pytest.raises(errors.InteropError, match="several folders: one/train/, two/train/"):
        run(labels, images, tmp_path / "set")
    for folder in (labels / "one").rglob("n0*"):
        folder.rename(folder.parent / f"x{folder.name}")
    shutil.rmtree(labels / "two")
    with pytest.raises(errors.InteropError, match="none of its 5 label files"):
        run(labels, images, tmp_path / "set")


def test_label_files_that_changed_meanwhile_are_noticed(label_files, images, tmp_path):
    labels = label_files()
    run(labels, images, tmp_path / "set")
    spoil(labels, "n07920052/coffee_0", lambda c, f, x: [c, ~f, x])
    with pytest.raises(errors.IdentityMismatchError, match=r"begun with other label files .*remove that set"):
        run(labels, images, tmp_path / "set")


def test_a_file_that_was_left_out_and_is_mended_needs_a_new_import(label_files, images, tmp_path, capsys):
    labels = label_files()
    file = labels / "dataset/train/n07920052/coffee_2.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[:700])
    command = ["import", str(labels), "--images", str(images), "--on-error", "skip", "--save-path"]
    assert main([*command, str(tmp_path / "set")]) == 0 and main(["verify", str(tmp_path / "set")]) == 0
    said = re.findall(r"to label them after all: (.*)", capsys.readouterr().out)
    way = (
        "mend them, then the command that made the set, with another --save-path: it keeps to its label files"
    )
    assert said == [way, way]
    file.write_bytes(whole)
    assert main([*command, str(tmp_path / "set")]) == 1
    assert re.search(r"remove that set.* that it left out were mended", capsys.readouterr().err)
    assert main([*command, str(tmp_path / "new")]) == 0
    assert len(slg_wds.open_labels(tmp_path / "new")) == 5 and "LEFT OUT" not in capsys.readouterr().out


@pytest.mark.slow
def test_processes_and_kills_give_the_same_bytes(answers, images, tmp_path):
    """Many images with label files of 12 crops; SIGKILL in the midst of a run, resumed by two processes."""
    (picture, (coords, flips, p)), *_ = answers.items()
    for number in range(100):
        target = tmp_path / "data" / "train" / "cats" / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(images / "train" / picture, target) if number else shutil.copy(
            images / "train" / picture, target
        )
        file = tmp_path / "labels" / "train" / "cats" / f"{number}.tar"
        shift = np.roll(original.quantised(p, "marginal_smoothing_k5"), number, axis=0)
        original.write(file, coords, flips, shift)
    run(tmp_path / "labels", tmp_path / "data", tmp_path / "alone")
    command = [sys.executable, "-m", "slg_wds", "import", str(tmp_path / "labels")]
    command += ["--images", str(tmp_path / "data"), "--save-path", str(tmp_path / "set")]
    command += ["--samples-per-shard", "2"]
    process = subprocess.Popen(
        [*command, "--processes", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    for _ in range(8):  # lines, one a shard
        process.stderr.readline()
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    time.sleep(0.2)
    made = len(list((tmp_path / "set").glob("*.tar")))
    assert 0 < made < 50 and not (tmp_path / "set" / "_info.json").exists()
    subprocess.run([*command, "--processes", "2"], check=True, capture_output=True)
    assert KILL.contents(tmp_path / "set") == KILL.contents(tmp_path / "alone")
