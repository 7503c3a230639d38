"""Images to learn from and to test on: folders by name, tars by number, and one beside the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from slg_wds.errors import NoTargetsError
from slg_wds.images.pairing import paired_plans
from support.images.sources import fill, opened, tar_bytes

IDS = ("n01443537", "n01440764", "n02123045")  # the classes 1, 0 and 281 of ImageNet


def folders(root: Path, *classes: str) -> Path:
    return fill(root, tuple(f"{name}/{number}.jpg" for name in classes for number in (1, 2)))


def tars(root: Path, *classes: int) -> Path:
    """A tar with one image of each class, whose key is the class."""
    files = [
        (f"{number}.{kind}", content)
        for number in classes
        for kind, content in (("cls", b"%d" % number), ("jpg", b"x"))
    ]
    root.mkdir(parents=True, exist_ok=True)
    (root / "0.tar").write_bytes(tar_bytes(files))
    return root


def numbers(train: Path, test: Path) -> list[dict[str, int]]:
    """The number of each class, by the name of its folder or by the key of its image."""
    plans = paired_plans(opened(train, need_targets=True), opened(test, need_targets=True))
    return [
        {key.partition("/")[0]: target for key, target in zip(plan.keys, plan.targets.tolist(), strict=True)}
        for plan in plans
    ]


def test_a_class_folder_has_the_number_that_the_folder_of_its_name_has_in_train(tmp_path):
    train = folders(tmp_path / "train", "ant", "bee", "caf\u00e9")
    of_train, of_test = numbers(train, folders(tmp_path / "val", "bee", "cafe\u0301"))
    assert of_test == {"bee": of_train["bee"], "cafe\u0301": of_train["caf\u00e9"]}
    with pytest.raises(NoTargetsError, match="not among the class folders to learn from: wasp"):
        numbers(train, folders(tmp_path / "other", "bee", "wasp"))


@pytest.mark.parametrize(
    ("names", "classes"),
    [(("07", "3", "12"), (7, 3, 12)), (IDS, (1, 0, 281))],
    ids=["numbers", "WordNet ids"],
)
def test_folders_beside_tars_have_the_class_numbers_of_their_names(tmp_path, names, classes):
    folder, tar = folders(tmp_path / "folders", *names), tars(tmp_path / "tars", *classes)
    for of_folders, of_tars in (numbers(folder, tar), reversed(numbers(tar, folder))):
        assert of_folders == dict(zip(names, classes, strict=True))
        assert of_tars == {str(number): number for number in classes}


@pytest.mark.parametrize("train_is_a_folder", [True, False])
def test_folders_whose_names_say_no_number_are_not_compared_with_those_of_tars(tmp_path, train_is_a_folder):
    both = folders(tmp_path / "folders", "ant", "bee"), tars(tmp_path / "tars", 0, 1)
    with pytest.raises(
        NoTargetsError, match=r"which class numbers 2 class folders are, and the samples of .*tars have class"
    ):
        numbers(*both if train_is_a_folder else reversed(both))
    strange = folders(tmp_path / "strange", "n01440764", "n99999999", "n99999998")
    with pytest.raises(NoTargetsError, match="no class of ImageNet: n99999998, n99999999"):
        numbers(strange, both[1])


def test_a_class_number_that_train_lacks_is_refused(tmp_path):
    train = tars(tmp_path / "train", 0, 1, 5)
    assert numbers(train, tars(tmp_path / "val", 5))[1] == {"5": 5}
    with pytest.raises(NoTargetsError, match="no image to learn from has the classes 2, 7"):
        numbers(train, tars(tmp_path / "other", 2, 5, 7))
    with pytest.raises(NoTargetsError, match="no image to learn from has the classes 12"):
        numbers(train, folders(tmp_path / "folders", "12", "5"))
