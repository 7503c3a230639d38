"""Targets from class folders to readers: the teacher's classes, none, or marked as other numbers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.config import EvaluateConfig
from slg_wds.errors import ImageShardError, ImageSourceError, NoTargetsError, UsageError
from slg_wds.generation.evaluation import evaluate
from slg_wds.images.targets import Targets, class_subset, resolve_targets
from slg_wds.inspection.inspect import inspect
from slg_wds.report.command import measure_sets
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.store import Location
from support.images.sources import tar_bytes
from support.models.names import LITE0, TINY

THOUSAND_CLASSES = TINY.replace(":tiny", ":thousand")
THOUSAND = [f"n{number:08d}" for number in range(1000)]


def config(data, target, **options):
    defaults = {
        "teacher_source": "private",
        "arch": TINY,
        "num_crops": 4,
        "num_seg": 16,
        "samples_per_shard": 36,
    }
    return slg_wds.GenerateConfig(data=str(data), save_path=str(target), **{**defaults, **options})


def renamed(photographs, folder, name_of):
    """The photographs with each of their six class folders under another name."""
    for number, path in enumerate(sorted((photographs / "train").iterdir())):
        shutil.copytree(path, folder / name_of(number, path.name))
    return folder


def targets(classes, num_classes=1000, class_map=None, subset=None) -> Targets:
    options = EvaluateConfig(data="images", arch="any", class_map=class_map)
    return resolve_targets(options, classes, num_classes, subset)


def test_folders_named_by_numbers_are_those_classes():
    names = sorted(str(number) for number in range(1000))  # 0, 1, 10, 100, ...
    found = targets(names)
    assert found.of_class == [int(name) for name in names]
    assert found.comparable and "named by numbers" in found.note
    assert targets([f"{number:04d}" for number in range(1000)]).of_class == list(range(1000))
    assert targets(["007", "3"]).of_class == [7, 3]
    from_one = targets(sorted(str(number) for number in range(1, 1001)))  # 1000 is no class of the teacher
    assert not from_one.comparable and "--class-map" in from_one.note
    assert targets(["3", "7", "cat"]).comparable is False


def test_wordnet_ids_stand_before_names_and_outside_the_teachers_classes():
    found = targets(["n01440764-tench", "n02085620-Chihuahua", "n99999999-unicorn"])
    assert found.of_class == [0, 151, None]
    assert found.comparable and found.class_names is not None
    assert (found.class_names[151], len(found.class_names)) == ("n02085620", 1000)
    assert "1 of 3 class folders have no class in the teacher: n99999999-unicorn" in found.note
    with pytest.raises(ImageSourceError, match=r"1 of 3 class folders .*: tmp; .*--class-map"):
        targets(["n01440764", "n02085620-Chihuahua", "tmp"])


def test_a_class_map_says_what_names_do_not(tmp_path):
    file = tmp_path / "map"
    file.write_text("tmp -\ncafé 5\n")
    found = targets(["cafe\u0301", "n01440764", "n99999999", "tmp"], class_map=str(file))
    assert found.of_class == [5, 0, None, None]
    with pytest.raises(UsageError, match="lacks the class folders dog"):
        targets(["dog", "tmp"], class_map=str(file))
    file.write_text("dog 20\n")
    with pytest.raises(UsageError, match=r"gives dog the class 20, outside 0\.\.19"):
        targets(["dog"], 20, class_map=str(file))


def test_images_outside_the_teachers_classes_have_no_target_and_are_not_evaluated(
    photographs, tmp_path, capsys
):
    data = renamed(photographs, tmp_path / "data", lambda number, name: name if number else "n99999999")
    gone = len(list((data / "n99999999").iterdir()))
    result = slg_wds.generate(config(data, tmp_path / "set", arch=THOUSAND_CLASSES))
    said = capsys.readouterr().err
    assert f"without a target: {gone} of 36 images" in said and "n99999999" in said
    assert int((result.labels.plan.targets < 0).sum()) == gone and result.stats.targeted == (36 - gone) * 4
    accuracy = evaluate(EvaluateConfig(data=str(data), arch=THOUSAND_CLASSES, teacher_source="private"))
    assert accuracy.count == 36 - gone
    assert f"without a target: {gone} of 36 images" in capsys.readouterr().err


def test_evaluate_takes_folders_named_by_numbers(photographs, tmp_path):
    from slg_wds.images import imagenet_targets

    for folder in (photographs / "train").iterdir():
        for path in sorted(folder.iterdir())[:2]:
            (tmp_path / "few/train" / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "few/train" / folder.name)
    few = tmp_path / "few"
    plain = evaluate(EvaluateConfig(data=str(few / "train"), arch=LITE0, teacher_source="private"))
    names = [str((imagenet_targets([path.name]) or [None])[0]) for path in sorted((few / "train").iterdir())]
    data = renamed(few, tmp_path / "numbered", lambda number, name: names[number])
    assert evaluate(EvaluateConfig(data=str(data), arch=LITE0, teacher_source="private")) == plain
    assert plain.top1 > 0.5


@pytest.mark.parametrize("text", ["3 1\n7", "# of the teacher\n3\n1\n7\n", "[3, 1, 7]"])
def test_files_of_class_numbers(tmp_path, text):
    (tmp_path / "subset").write_text(text)
    options = EvaluateConfig(data="images", arch="resnet50", class_subset=str(tmp_path / "subset"))
    assert class_subset(options, None, 20) == (1, 3, 7)


@pytest.mark.parametrize("text", ["[3, 2.7]", "[3, true]", "3 1_0", "3 -1", "n01440764", "[[3]]", "\u0663"])
def test_what_is_no_whole_number_is_no_class(tmp_path, text):
    (tmp_path / "subset").write_text(text, encoding="utf-8")
    options = EvaluateConfig(data="images", arch="resnet50", class_subset=str(tmp_path / "subset"))
    with pytest.raises(UsageError, match="is not a class number"):
        class_subset(options, None, 20)


def test_a_class_subset_leaves_the_accuracy_as_it_is(photographs, tmp_path, capsys):
    """The teacher is asked for all of its classes, by its own numbers, which are not the order of the folders."""
    for folder in (photographs / "train").iterdir():
        (tmp_path / "val" / folder.name).mkdir(parents=True)
        shutil.copy(min(folder.iterdir()), tmp_path / "val" / folder.name)
    names, numbers = sorted(path.name for path in (tmp_path / "val").iterdir()), [9, 4, 17, 2, 13, 0]
    rows = [f"{name} {number}\n" for name, number in zip(names, numbers, strict=True)]
    (tmp_path / "map").write_text("".join(rows))
    (tmp_path / "subset").write_text(" ".join(map(str, [*numbers[1:], 19])))
    about = {
        "data": str(tmp_path),
        "class_map": str(tmp_path / "map"),
        "arch": TINY,
        "teacher_source": "private",
    }
    whole = evaluate(EvaluateConfig(**about))
    assert whole.count == 6 and "--class-subset" not in capsys.readouterr().err
    for subset in ("auto", str(tmp_path / "subset")):
        assert evaluate(EvaluateConfig(**about, class_subset=subset)) == whole
        assert "over all 20 classes of the teacher" in capsys.readouterr().err
    labelling = slg_wds.GenerateConfig(**about, save_path="", class_subset="auto", evaluate=True)
    assert slg_wds.generate(labelling) == whole


def numbered_shards(photographs, folder, numbers):
    files = []
    for at, (path, number) in enumerate(
        zip(sorted((photographs / "train").rglob("*.jpg")), numbers, strict=False)
    ):
        files += [(f"{at}.cls", str(number).encode()), (f"{at}.jpg", path.read_bytes())]
    folder.mkdir()
    (folder / "a.tar").write_bytes(tar_bytes(files))
    return folder


def test_numbers_in_image_shards_follow_a_class_subset(photographs, tmp_path):
    data = numbered_shards(photographs, tmp_path / "data", [3, 7, 11, 3])
    (tmp_path / "subset").write_text("7 3 19 15 16")
    result = slg_wds.generate(config(data, tmp_path / "set", class_subset=str(tmp_path / "subset")))
    assert [record.target for record in result.labels] == [0, 1, None, 0]  # of the classes 3, 7, 15, 16, 19


def test_numbers_in_image_shards_outside_the_teachers_classes_are_refused(photographs, tmp_path):
    data = numbered_shards(photographs, tmp_path / "data", [3, 20])
    with pytest.raises(
        ImageSourceError, match=r"has the class 20, .* are 0\.\.19 .*--class-map .*--no-targets"
    ):
        slg_wds.generate(config(data, tmp_path / "set"))
    (tmp_path / "map").write_text("3 5\n20 -\n")
    result = slg_wds.generate(config(data, tmp_path / "set", class_map=str(tmp_path / "map")))
    assert [record.target for record in result.labels] == [5, None]


def test_targets_that_only_number_folders_are_used_by_no_reader(photographs, tmp_path, capsys):
    data = renamed(photographs, tmp_path / "data", lambda number, name: f"breed{number}")
    result = slg_wds.generate(config(data, tmp_path / "set"))
    assert "targets only number the folders" in capsys.readouterr().err
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert not labels.targets_are_classes and labels.description.targets_are_classes is False
    sets = ReportedSets([Location(labels.url)])
    (counted,), _ = measure_sets(sets, sets.sample(100))
    assert result.stats.targeted and counted.images == len(labels) and counted.agreement is None
    with pytest.raises(UsageError, match=r"only number the folders .*--class-map") as caught:
        slg_wds.SoftLabelLoader(labels, str(data), global_batch_size=4, label_adaptation=(0.9,))
    assert caught.value.url == labels.url
    assert not inspect(labels.url)["images"]["targets_are_classes"]
    assert main(["inspect", labels.url]) == 0
    assert "only number their folders" in " ".join(capsys.readouterr().out.split())


def test_that_they_do_is_handed_on_and_is_no_part_of_the_digest(photographs, tmp_path):
    data = renamed(photographs, tmp_path / "data", lambda number, name: f"breed{number}")
    labels = slg_wds.generate(config(data, tmp_path / "set")).labels
    merged = slg_wds.ensemble(
        slg_wds.EnsembleConfig(sets=(labels.url,), save_path=str(tmp_path / "again"), processes=1)
    ).labels
    assert merged.description.targets_are_classes is False
    (tmp_path / "map").write_text("".join(f"breed{number} {number}\n" for number in range(6)))
    known = config(data, tmp_path / "known", class_map=str(tmp_path / "map"))
    other = slg_wds.generate(known).labels
    assert other.targets_are_classes and other.digest == labels.digest
    loader = slg_wds.SoftLabelLoader(other, str(data), global_batch_size=4, label_adaptation=(0.9,))
    assert len(next(iter(loader)).key) == 4


@pytest.mark.parametrize(
    ("names", "subset", "expected"),
    [
        (None, None, True),
        (None, [3, 7], False),  # of samples in tars: the teacher's numbers, not those of the subset
        (["a", "b"], None, True),
        (["a", "b", "c"], None, False),
        (["0", "1"], None, True),
        (["0", "1", "10", "2", *"3456789"], None, False),  # sorted as text
        (["a", "b"], [3, 7], False),
        (["b", "a"], [3, 7], True),
        (["n01440764", "n01443537"], [0, 1], True),
    ],
)
def test_sets_that_do_not_say_it(photographs, tmp_path_factory, old_set, names, subset, expected):
    number = len(names) if names and names[0] == "0" else 2
    description = dataclasses.replace(
        old_set.description,
        class_names=names,
        targets_are_classes=None,
        identity={**old_set.identity, "class_subset": subset, "num_classes": number, "k": 1},
    )
    assert dataclasses.replace(old_set, description=description).targets_are_classes is expected


@pytest.fixture(scope="module")
def old_set(photographs, tmp_path_factory):
    return slg_wds.generate(config(photographs, tmp_path_factory.mktemp("old") / "set")).labels


def test_without_targets(photographs, tmp_path):
    labels = slg_wds.generate(config(photographs, tmp_path / "set", no_targets=True)).labels
    assert (np.asarray(labels.plan.targets) == -1).all()
    assert {record.target for record in labels} == {None}
    with pytest.raises(UsageError, match="36 of 36 have no class"):
        slg_wds.SoftLabelLoader(labels, str(photographs), global_batch_size=4, label_adaptation=(0.9,))
    with pytest.raises(NoTargetsError):
        evaluate(
            EvaluateConfig(
                data=str(photographs / "train"), arch=TINY, teacher_source="private", no_targets=True
            )
        )


def test_samples_of_tars_without_targets(photographs, tmp_path):
    """The member of the target is not even read."""
    paths = sorted((photographs / "train").rglob("*.jpg"))[:3]
    with tarfile.open(tmp_path / "n01440764.tar", "w") as tar:
        for path in paths:
            tar.add(path, f"{path.stem}.jpg")
            tar.add(__file__, f"{path.stem}.cls")
    with pytest.raises(ImageShardError, match="no class number"):
        slg_wds.generate(config(tmp_path / "n01440764.tar", tmp_path / "set"))
    labels = slg_wds.generate(config(tmp_path / "n01440764.tar", tmp_path / "set", no_targets=True)).labels
    assert labels.plan.targets.tolist() == [-1] * 3


def test_labels_saved_among_the_class_folders_are_resumed(photographs, tmp_path):
    data = shutil.copytree(photographs / "train", tmp_path / "data")
    options = {"num_crops": 2, "samples_per_shard": 9}
    expected = slg_wds.generate(config(photographs / "train", tmp_path / "set", **options)).labels
    first = slg_wds.generate(config(data, data / "labels", **options)).labels
    (data / "labels" / "train-000001.tar").unlink()
    again = slg_wds.generate(config(data, data / "labels", **options))
    assert again.complete and again.stats.images == 9
    assert again.labels.digest == first.digest == expected.digest
    other = slg_wds.generate(config(data, data / "more" / "labels", **options)).labels
    assert other.digest == expected.digest
    told = json.loads(json.dumps(inspect(str(data / "more" / "labels"))))
    assert told["images"]["planned"] == 36
