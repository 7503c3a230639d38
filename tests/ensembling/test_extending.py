"""Sets that extend others, alone and joined with them."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.format.records.tail_sums import decode_tail_sums
from slg_wds.generation.extension import Extension
from slg_wds.transforms.crops import CropRule
from slg_wds.transforms.drawn import DrawnCrops
from support.models.names import TINY
from support.paths import MODELS

OTHER = f"{MODELS / 'other_teacher.py'}:tiny_other"


def label(data, target, crops, **options):
    defaults = {"teacher_source": "private", "arch": TINY, "num_seg": 16, "samples_per_shard": 5}
    defaults |= {"threads_per_forward": 1, "num_crops": crops}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(data), save_path=str(target), **{**defaults, **options}))
    return slg_wds.open_labels(str(target))


def join(target, *sets):
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=tuple(map(str, sets)), save_path=str(target), processes=1))
    return slg_wds.open_labels(str(target))


@pytest.fixture(scope="module")
def few(photographs, tmp_path_factory):
    """A set of half of the photographs with 20 crops, and their folder."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(photographs / "train", folder / "data" / "train")
    for path in sorted((folder / "data" / "train").rglob("*.jpg"))[1::6]:
        path.unlink()
    label(folder / "data", folder / "old", 20)
    return folder


def test_extended_and_joined_is_what_one_run_makes(photographs, few, tmp_path):
    """New images, further crops: boxes, flips, classes and values are those of one run, tails within their coding."""
    new = label(photographs, tmp_path / "new", 40, extend=str(few / "old"))
    counts = {record.key: record.num_crops for record in new}
    assert sorted(set(counts.values())) == [20, 40] and sum(n == 40 for n in counts.values()) == 6
    both = join(tmp_path / "both", few / "old", tmp_path / "new")
    whole = label(photographs, tmp_path / "whole", 40)
    assert both.num_crops == 40 and both.plan == whole.plan
    for mine, theirs in zip(both, whole, strict=True):
        for name in ("crops", "flips", "index", "value"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name
        assert len(mine.tail.classes) == len(theirs.tail.classes)
        assert np.abs(mine.distribution() - theirs.distribution()).max() < 0.05


def same(mine, theirs):
    """Whether two records are equal, with their tails."""
    names = ("crops", "flips", "index", "value")
    tails = [(t.classes.tolist(), t.codes.tolist(), t.scale, t.rest) for t in (mine.tail, theirs.tail)]
    return all(np.array_equal(getattr(mine, n), getattr(theirs, n)) for n in names) and tails[0] == tails[1]


def test_an_extendable_set_extended_and_joined_is_exactly_what_one_run_makes(photographs, few, tmp_path):
    """Bit by bit, tails too: new images, a second extension, and the way through `ensemble`."""
    label(few / "data", tmp_path / "a", 20, extendable=True)
    label(photographs, tmp_path / "b", 33, extendable=True, extend=str(tmp_path / "a"))
    label(photographs, tmp_path / "c", 50, extendable=True, extend=str(tmp_path / "b"))
    parts = [tmp_path / name for name in "cab"]
    for crops, sets in ((33, parts[1:]), (50, parts)):
        both, whole = (
            join(tmp_path / f"both{crops}", *sets),
            label(photographs, tmp_path / f"w{crops}", crops),
        )
        assert len(both) == 36 and both.num_crops == crops
        assert all(same(mine, theirs) for mine, theirs in zip(both, whole, strict=True))


def test_only_records_of_extendable_sets_have_sums(few, tmp_path):
    extendable = label(few / "data", tmp_path / "new", 20, extendable=True)
    sums, none = (
        decode_tail_sums(labels.record_bytes(0, 0))
        for labels in (extendable, slg_wds.open_labels(str(few / "old")))
    )
    assert none is None
    outside = extendable[0].num_crops - extendable[0].value.sum(dtype=np.float64)
    assert sums.sum() == pytest.approx(outside, rel=1e-3)


def test_how_far_the_tails_of_sets_without_sums_are_off(few, tmp_path):
    """Recovered: within 0.03 of each probability, and nearer to one run's than even tails; the parts keep 5 classes."""
    label(few / "data", tmp_path / "new", 40, extend=str(few / "old"))
    both = join(tmp_path / "both", few / "old", tmp_path / "new")
    far, kl, even = 0.0, [], []
    for mine, theirs in zip(both, label(few / "data", tmp_path / "whole", 40), strict=True):
        p, q = (record.distribution(None, "shared_tail_k5").astype(np.float64) for record in (theirs, mine))
        far = max(far, np.abs(p - q).max())
        flat = theirs.distribution(None, "marginal_smoothing_k5").astype(np.float64)
        for found, other in ((kl, q), (even, flat)):
            found.append((p * (np.log(p + 1e-30) - np.log(other + 1e-30))).sum(axis=1).mean())
    print(f"largest difference {far:.4f}, KL {np.mean(kl):.5f}, of even tails {np.mean(even):.5f}")
    assert far < 0.03 and np.mean(kl) < np.mean(even) / 2


def test_a_set_that_extends_is_refused_alone_by_all_that_read_it(few, tmp_path, monkeypatch):
    """Also by readers that do not know the feature, since slg.json requires it."""
    label(few / "data", tmp_path / "new", 40, extend=str(few / "old"))
    new = slg_wds.open_labels(str(tmp_path / "new"))
    assert new.description.requires == ["extends", "trailer"] and slg_wds.open_labels(
        str(few / "old")
    ).description.requires == ["trailer"]
    with pytest.raises(
        errors.UsageError, match=r"only the crops that the set it extends lacks.*ensemble OLD NEW"
    ):
        label(few / "data", tmp_path / "other", 40, reference_path=str(tmp_path / "new"))
    with pytest.raises(errors.UsageError, match="only the crops that the set it extends lacks"):
        slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(tmp_path / "new"), fkd_dir=str(tmp_path / "fkd")))
    monkeypatch.setattr("slg_wds.format.manifest.description.FEATURES", frozenset())
    with pytest.raises(errors.UnsupportedFeatureError, match=r"requires extends.*update"):
        slg_wds.open_labels(str(tmp_path / "new"))


def test_extendable_only_where_there_are_tails_and_only_with_its_like(few, tmp_path):
    with pytest.raises(errors.UsageError, match="hard labels have none"):
        label(few / "data", tmp_path / "n", 20, label_type="hard", extendable=True)
    with pytest.raises(
        errors.IdentityMismatchError, match=r"extendable: absent != True.*options that made it"
    ):
        label(few / "data", tmp_path / "n", 40, extend=str(few / "old"), extendable=True)


def test_a_set_that_extends_can_be_extended_and_the_three_joined(few, tmp_path):
    label(few / "data", tmp_path / "second", 30, extend=str(few / "old"))
    label(few / "data", tmp_path / "third", 45, extend=str(tmp_path / "second"))
    three = join(tmp_path / "all", tmp_path / "third", few / "old", tmp_path / "second")
    for mine, theirs in zip(three, label(few / "data", tmp_path / "whole", 45), strict=True):
        for name in ("crops", "flips", "index", "value"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name)), name


def test_what_cannot_be_extended(few, tmp_path):
    with pytest.raises(errors.UsageError, match="has 20 crops"):
        label(few / "data", tmp_path / "n", 20, extend=str(few / "old"))
    with pytest.raises(errors.IdentityMismatchError, match="seed: 0 != 1"):
        label(few / "data", tmp_path / "n", 40, extend=str(few / "old"), seed=1)
    label(few / "data", tmp_path / "new", 40, extend=str(few / "old"))
    with pytest.raises(errors.UsageError, match="must be given too"):
        join(tmp_path / "both", tmp_path / "new")


def test_crops_that_are_not_the_sets_own_are_not_added_to_it(few):
    """Without checksums of images, only the crops tell that an image has another size than it had."""
    labels = slg_wds.open_labels(str(few / "old"))
    record, extension = labels[0], Extension(labels, 40, None)
    height, width = record.size
    drawn = DrawnCrops.draw(0, record.key, (height, width), 40, CropRule(), None)
    added = extension.lacking(record.key, drawn, DrawnCrops.of(record), labels.plan.keys)
    assert len(added) == 20 and added.same_as(drawn[20:])
    other = DrawnCrops.draw(0, record.key, (height, width + 1), 40, CropRule(), None)
    with pytest.raises(errors.ImageError, match="other crops of this image than those drawn now") as caught:
        extension.lacking(record.key, other, DrawnCrops.of(record), labels.plan.keys)
    assert caught.value.key == record.key


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_an_image_that_has_changed_is_not_extended(few, tmp_path, on_error):
    shutil.copytree(few / "data", tmp_path / "data")
    paths = sorted((tmp_path / "data").rglob("*.jpg"))
    other = next(path for path in paths if path.stat().st_size != paths[0].stat().st_size)
    with Image.open(other) as image:
        image.resize((image.width // 2, image.height // 2)).save(paths[0])
    with pytest.raises(errors.ImageChangedError, match="not the image that was labelled"):
        label(tmp_path / "data", tmp_path / "new", 40, extend=str(few / "old"), on_error=on_error)


def test_full_sets_merged_are_the_ensemble_of_one_pass(photographs, tmp_path, capsys):
    """--check, which runs the teachers themselves, finds no difference."""
    options = {"label_type": "full", "values": "float32", "weights": None}
    label(photographs, tmp_path / "a", 12, **options)
    label(photographs, tmp_path / "b", 12, **options, temp=1.0, teacher_path=None, arch=OTHER)
    label(photographs, tmp_path / "one", 12, **options | {"arch": f"{TINY},{OTHER}"})
    merged = join(tmp_path / "m", tmp_path / "a", tmp_path / "b")
    for mine, theirs in zip(merged, slg_wds.open_labels(str(tmp_path / "one")), strict=True):
        assert np.abs(mine.value - theirs.value).max() < 1e-6
    result = slg_wds.ensemble(
        slg_wds.EnsembleConfig(
            sets=(str(tmp_path / "a"), str(tmp_path / "b")),
            save_path=str(tmp_path / "m"),
            check_data=str(photographs),
            arch=f"{TINY},{OTHER}",
            teacher_source="private",
            check_crops=64,
        )
    )
    assert result.fidelity.crops == 64 and result.fidelity.kl < 1e-6 and result.fidelity.agreement == 1.0


def test_check_asks_each_teacher_with_the_pixels_that_it_saw(photographs, tmp_path, capsys):
    """Other input sizes and normalisation than the teachers' own, different for the two; more crops of few images."""
    full, reference = {"label_type": "full", "values": "float32"}, str(tmp_path / "a")
    label(photographs, reference, 20, **full, input_size=40, mean=(0.3, 0.4, 0.5))
    other = {"arch": OTHER, "interpolation": "bilinear", "reference_path": reference}
    label(photographs, tmp_path / "b", 20, **full, **other)
    command = f"ensemble {reference} {tmp_path / 'b'} --save-path {tmp_path / 'm'} --processes 1".split()
    check = ["--check", str(photographs), "--teacher-source", "private", "--check-crops", "600"]
    assert main([*command, *check, "-a", f"{TINY},{OTHER}"]) == 0
    said, progress = capsys.readouterr()
    assert "measured on 612 crops against the teachers: KL 0.0000 nats, the same top class for 100.0%" in said
    assert said.index("measured on") < said.index("  next: ")
    assert f"-o report.html --images {photographs}\n" in said  # both sets are of these
    assert "running the teachers on a sample" in progress
    assert main([*command, *check, "-a", f"{OTHER},{TINY}"]) == 2
    assert "weights_sha256" in (error := capsys.readouterr().err) and "in the order" in error
    assert main([*command, *check, "-a", TINY]) == 2
    assert "names 1 of the labels' 2 teachers" in capsys.readouterr().err


def test_check_refuses_other_images_of_the_same_sizes(photographs, tmp_path, capsys):
    label(photographs, tmp_path / "a", 12)
    shutil.copytree(photographs, tmp_path / "data")
    for path in (tmp_path / "data").rglob("*.jpg"):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path)
    command = ["ensemble", str(tmp_path / "a"), "--save-path", str(tmp_path / "m"), "--processes", "1"]
    check = ["--check", str(tmp_path / "data"), "--teacher-source", "private", "-a", TINY]
    assert main([*command, *check]) == 1
    assert "is not the image that was labelled" in capsys.readouterr().err


def test_check_tells_both_readings_of_labels_with_tails(photographs, tmp_path):
    """k-classes labels whose type leaves the stored tails aside: the loader reads by type unless told otherwise."""
    label(photographs, tmp_path / "a", 16, label_type="marginal_smoothing_k3")
    result = slg_wds.ensemble(
        slg_wds.EnsembleConfig(
            sets=(str(tmp_path / "a"),),
            save_path=str(tmp_path / "m"),
            check_data=str(photographs),
            arch=TINY,
            teacher_source="private",
            processes=1,
        )
    )
    found = result.fidelity
    assert 0 < found.kl < found.kl_by_type
    assert f"({found.kl_by_type:.4f} when read as marginal_smoothing_k3)" in str(found)
