"""Validation counts against the classes that the label set gives its folders, in training and long after it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

import slg_wds
from slg_wds.cli import main as slg_wds_main
from slg_wds.errors import NoTargetsError
from slg_wds.images import decode
from slg_wds.images.class_folders import ClassFolders
from slg_wds.teachers import eval_transform
from slg_wds.teachers.preprocessing import resolve
from slg_wds.training.command import main
from slg_wds.training.flags import parse
from slg_wds.training.validation.class_folders import known_folders, targets_of_val
from support.models.names import TINY
from support.models.tiny_teacher import tiny
from support.sets.replay_sets import make
from support.training import train

CLASSES = 20
LEFT_OUT, TWIN = "f05", "f06"  # a folder without a class, and one with the class of the folder after it


def class_of(folder: str) -> int | None:
    """Against the order of names."""
    number = int(folder[1:]) + (folder == TWIN)
    return None if folder == LEFT_OUT else CLASSES - 1 - number


@pytest.fixture(scope="module")
def folders(photographs, tmp_path_factory) -> Path:
    """The photographs in as many folders as the teacher has classes, train and val alike, and a class map."""
    data = tmp_path_factory.mktemp("folders")
    paths = sorted((photographs / "train").rglob("*.jpg"))
    for number, path in enumerate(paths):
        folder = data / "train" / f"f{number % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{number}.jpg")
    (data / "val").symlink_to(data / "train")
    names = sorted(folder.name for folder in (data / "train").iterdir())
    lines = (f"{name} {'-' if class_of(name) is None else class_of(name)}\n" for name in names)
    (data / "map").write_text("".join(lines))
    return data


@pytest.fixture(scope="module")
def labels(folders, tmp_path_factory) -> str:
    return make(
        folders, tmp_path_factory.mktemp("named") / "set", num_crops=4, class_map=str(folders / "map")
    )


@pytest.fixture(scope="module")
def trained(folders, labels, tmp_path_factory) -> tuple[Path, str]:
    """A student that is the teacher and stays it: its folder, and what its training said."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
        train(folder, labels, folders, "-a", TINY, "--lr", "0", "--epochs", "1", "--num_crops", "1")
    return folder, "\n".join(said)


def accuracy(folders: Path) -> tuple[str, int]:
    """The percentages and the number of images, by the map and the bare teacher."""
    model, ranks = tiny().eval(), []
    shown = resolve(model.pretrained_cfg, "", {})[0]
    mean, std = (torch.tensor(one)[:, None, None] for one in (shown.mean, shown.std))
    for path in (folders / "train").rglob("*.jpg"):
        if (number := class_of(path.parent.name)) is None:
            continue
        image = (eval_transform(decode(path.read_bytes()), shown) / 255 - mean) / std
        with torch.no_grad():
            ranks.append(model(image[None])[0].argsort(descending=True).tolist().index(number))
    shares = (100 * sum(rank < most for rank in ranks) / len(ranks) for most in (1, 5))
    return "top-1 {:.2f}%, top-5 {:.2f}%".format(*shares), len(ranks)


def test_training_counts_against_the_classes_of_the_set(folders, trained):
    shares, count = accuracy(folders)
    assert f"{shares} on {count} images" in trained[1] and count < 36
    assert f"validation leaves out {36 - count} of 36 images" in trained[1]
    assert f"1 class folder of val of no class of the student: {LEFT_OUT}" in trained[1]


def test_a_checkpoint_is_validated_as_its_training_was(folders, trained, capsys):
    """By the command that training printed; the label set is not asked for."""
    flags = re.search(r"slg-wds train (.*) validates it again", trained[1])[1].split()
    assert "--evaluate" in flags and main(flags) == 0
    shares, count = accuracy(folders)
    assert f"{shares} on {count} images" in capsys.readouterr().out


def test_a_checkpoint_that_does_not_say_it_takes_the_order_and_tells(folders, trained, tmp_path, capsys):
    found = torch.load(trained[0] / "checkpoint.pth.tar", weights_only=True)
    del found["class_folders"]
    torch.save(found, tmp_path / "old.pth.tar")
    words = ["-a", TINY, "-e", "--resume", str(tmp_path / "old.pth.tar"), "-j", "1", str(folders)]
    assert main(words) == 0
    assert "numbered in the order of their names; --class-map says it" in capsys.readouterr().out
    names = sorted({path.name for path in (folders / "train").iterdir()} - {LEFT_OUT})
    shorter = tmp_path / "data" / "val"
    shutil.copytree(folders / "train", shorter, ignore=lambda *_: [LEFT_OUT])
    assert len(names) == 19 and main([*words[:-1], str(shorter.parent)]) == 1
    assert (
        "nothing says which of the student's classes 19 class folders of val are" in capsys.readouterr().err
    )


@pytest.fixture
def student(trained) -> list[str]:
    """The flags with which the student is a teacher."""
    return [
        "-a",
        TINY,
        "--teacher-source",
        "private",
        "--teacher-path",
        str(trained[0] / "model_best.pth.tar"),
    ]


def test_a_student_as_a_teacher_has_the_classes_of_its_training(folders, student, capsys):
    """As many folders as classes are not numbered by their order."""
    for command in (["evaluate"], ["generate", "--evaluate"]):
        assert slg_wds_main([*command, str(folders), *student]) == 0
        told, (shares, count) = capsys.readouterr(), accuracy(folders)
        assert f"on {count} images" in told.out and shares in told.out
        assert f"1 of 20 class folders have no class in the teacher: {LEFT_OUT}" in told.err


def test_labels_of_a_student_have_its_classes_as_targets(folders, student, tmp_path):
    """Here of three folders, two of which are of one class."""
    names = ["f00", TWIN, "f07"]
    for name in names:
        shutil.copytree(folders / "train" / name, tmp_path / "few" / name)
    words = ["generate", str(tmp_path / "few"), *student, "--num_crops", "1", "--save-path"]
    assert slg_wds_main([*words, str(tmp_path / "set")]) == 0
    made = slg_wds.open_labels(str(tmp_path / "set"))
    assert {record.target for record in made} == {12, 19} and made.targets_are_classes
    found = made.description.class_names
    assert len(found) == CLASSES and (found[19], found[18], found[11]) == ("f00", "f01", "f08")
    assert (
        slg_wds_main([*words, str(tmp_path / "subset"), "--class-subset", "auto", "--label-type", "hard"])
        == 0
    )
    few = slg_wds.open_labels(str(tmp_path / "subset"))
    assert few.identity.class_subset == [12, 19] and {record.target for record in few} == {0, 1}


def test_folders_that_a_student_does_not_know_have_no_class(folders, student, tmp_path, capsys):
    for number in range(CLASSES):
        shutil.copytree(folders / "train" / "f00", tmp_path / "others" / f"g{number}")
    assert slg_wds_main(["evaluate", str(tmp_path / "others"), *student]) == 1
    assert "name them as the teacher learned them or give --class-map" in capsys.readouterr().err


def test_students_that_number_classes_differently_are_no_ensemble(folders, trained, tmp_path, capsys):
    first = trained[0] / "model_best.pth.tar"
    found = torch.load(first, weights_only=True)
    found["class_folders"]["classes"]["f00"] = 3
    torch.save(found, tmp_path / "other.pth.tar")
    two = ["-a", f"private:{TINY},private:{TINY}", "--teacher-path", f"{first},{tmp_path / 'other.pth.tar'}"]
    assert slg_wds_main(["evaluate", str(folders), *two]) == 1
    assert "the teachers number classes differently: 'f00'" in capsys.readouterr().err


def test_files_of_others_say_nothing_of_class_folders():
    kept = ClassFolders({"a": 1, "b": None}, [4, 7])
    assert ClassFolders.of(kept.kept()) == kept and not ClassFolders.of(None).known
    strange: list[object] = [
        7, ["a"], {"a": 1}, {"classes": ["a"]}, {"classes": {1: 2}}, {"classes": {"a": "b"}},
        {"classes": {"a": True}}, {"classes": {}, "subset": ["a"]}, {"classes": {}, "subset": 5},
    ]  # fmt: skip
    assert not any(ClassFolders.of(one).known for one in strange)


def known(*sets: str) -> ClassFolders:
    return known_folders([slg_wds.open_labels(one) for one in sets], None)


def flags(*more: str):
    args = parse(["images", *more])
    args.rank = 0
    return args


def test_folders_are_found_by_their_names_alone(labels):
    found = known(labels)
    others = [f"unknown{number}" for number in range(16)]
    wanted = ["f19", "f06", "f07", "f05", *others]  # as many folders as classes: no matter
    few = ClassFolders({"f19": 0, "f06": 12, "f07": 12, "f05": None})
    for one in (found, few, ClassFolders(**few.kept())):
        assert targets_of_val(flags(), one, wanted, CLASSES) == [0, 12, 12, None, *[None] * 16]
    with pytest.raises(
        NoTargetsError, match=r"2 class folders of val are \(url images\); name them as the train"
    ):
        targets_of_val(flags(), found, ["unknown", "f05"], 2)


def test_wordnet_ids_are_found_in_longer_names_and_of_sets_in_words():
    named = ClassFolders({"n01440764": 7, "n01443537-goldfish": 3})
    folders = ["n01440764-tench", "n01443537-goldfish"]
    assert targets_of_val(flags(), named, folders, 20) == [7, 3]
    assert targets_of_val(flags(), ClassFolders({"tench": 0}), folders, 1000) == [0, 1]


def test_numbers_of_samples_and_folders_are_those_of_the_teacher(photographs, tmp_path):
    """Where a set has some of the teacher's classes, the student numbers these anew."""
    (tmp_path / "subset").write_text("1\n3\n7\n")
    data = tmp_path / "data" / "train"
    for path in sorted((photographs / "train").rglob("*.jpg"))[:3]:
        folder = data / str(2 * len(list(data.glob("*"))) + 1)  # 1, 3, 5
        folder.mkdir(parents=True)
        shutil.copy(path, folder)
    made = make(
        data.parent, tmp_path / "set", num_crops=1, class_subset=str(tmp_path / "subset"), label_type="full"
    )
    found = known(made)
    numbers = targets_of_val(flags(), found, None, 3)
    assert [numbers(one) for one in (1, 3, 5, 7)] == [0, 1, None, 2]
    assert targets_of_val(flags(), found, ["1", "3", "5", "7"], 3) == [0, 1, None, 2]
    (tmp_path / "map").write_text("a 2\nb 0\n")  # a map of the user's has the student's numbers
    assert targets_of_val(flags("--class-map", str(tmp_path / "map")), found, ["a", "b"], 3) == [2, 0]
    whole = ClassFolders()
    assert targets_of_val(flags(), whole, None, 3) is None
    assert targets_of_val(flags(), whole, ["0", "2"], 3) == [0, 2]


def test_several_folders_may_be_of_one_class(folders, labels):
    one = known(labels)
    twice = known(labels, labels)
    assert twice == one and one.classes["f07"] == one.classes[TWIN] == 12 and LEFT_OUT in one.classes
