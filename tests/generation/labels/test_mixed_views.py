"""Mixed views: the teacher labels the recorded mix of both images' own views, whatever makes the set and however."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.format.records.mixing import Mixing
from slg_wds.format.records.views import same_views
from slg_wds.images import decode
from slg_wds.transforms.drawn import DrawnCrops
from support.models.witness_teacher import hashed, witnessed
from support.programs import tool
from support.sets.witnessed_pixels import MEAN, STD, WITNESS, labelled

MIX = {"mixup": 0.8, "cutmix": 1.0}
EVERYTHING = {**MIX, "aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25, "color_jitter": 0.3}
CONTENTS = tool("kill_test").contents


def own_views(record: slg_wds.format.records.record.Record, data: bytes) -> torch.Tensor:
    crops = DrawnCrops.of(record)
    out = torch.empty((len(crops), 97, 97, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    crops.cut(decode(data), out, "bilinear")
    return out


def mixed_by_hand(own: torch.Tensor, other: torch.Tensor, lam: int, box: np.ndarray) -> torch.Tensor:
    """FORMAT.md's text on mixing, pixel by pixel, in Python's whole numbers."""
    if lam:
        return ((lam * own.long() + (256 - lam) * other.long() + 128) // 256).to(torch.uint8)
    top, left, height, width = map(int, box)
    edges = [(edge * 97 + 127) // 255 for edge in (top, top + height, left, left + width)]
    inside = torch.zeros(97, 97, dtype=torch.bool)
    inside[edges[0] : edges[1], edges[2] : edges[3]] = True
    return torch.where(inside, other, own)


def check(url: str, images: Path, crops: int = 8) -> np.ndarray:
    """Compare what the teacher saw with what the records say; return all partners."""
    labels = slg_wds.open_labels(url)
    records = dict(enumerate(labels))
    keys = list(labels.plan.keys)
    assert [record.key for record in records.values()] == keys
    views = {n: own_views(one, (images / "train" / one.path).read_bytes()) for n, one in records.items()}
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    for number, record in records.items():
        mixing = record.views.mixing
        assert len(mixing.partners()) <= 4 and number not in mixing.partners()
        for n in range(crops):
            pixels = views[number][n]
            if mixing.partner[n] >= 0:
                other = views[int(mixing.partner[n])][int(mixing.crop[n])]
                pixels = mixed_by_hand(pixels, other, int(mixing.lam[n]), mixing.box[n])
            image = pixels.float().div(255).sub(mean).div(std)
            assert (hashed(image) == witnessed(record.value[n])).all()
    return np.stack([record.views.mixing.partner for record in records.values()])


def merge(one: str, other: str, target: Path) -> str:
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(one, other), save_path=str(target), processes=1))
    return str(target)


@pytest.fixture(scope="module")
def mixed(photographs, tmp_path_factory):
    return labelled(photographs, tmp_path_factory.mktemp("mixed") / "set", **MIX)


def test_the_teacher_labels_the_mixed_pixels(photographs, mixed):
    partner = check(mixed, photographs)
    # Shards have 5 images, the last one a single one, which stays unmixed.
    assert (partner[:35] >= 0).all() and (partner[35:] == -1).all()
    assert (partner[:35] // 5 == np.arange(35)[:, None] // 5).all()
    described = slg_wds.open_labels(mixed).description
    assert described.requires == ["views", "mixing", "trailer"]
    mix = {"mixup": 0.8, "cutmix": 1.0, "mixup_prob": 1.0, "mixup_switch_prob": 0.5}
    assert described.identity["views"] == {"fill": 0, "erase_fill": 0, **mix}


@pytest.mark.parametrize("policy", [pytest.param("cutmix", marks=pytest.mark.slow), "everything"])
def test_other_policies_are_mixed_too(photographs, tmp_path, policy):
    options = {"cutmix": 1.0, "mixup_prob": 0.5} if policy == "cutmix" else EVERYTHING
    partner = check(labelled(photographs, tmp_path / "set", **options), photographs)
    assert 0.3 < (partner[:35] >= 0).mean() < 0.7 if policy == "cutmix" else (partner[:35] >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["cutmix", "everything"])
def test_ten_thousand_mixed_views_are_what_the_teacher_saw(photographs, tmp_path, policy):
    options = {"cutmix": 1.0} if policy == "cutmix" else EVERYTHING
    check(labelled(photographs, tmp_path / "set", num_crops=280, **options), photographs, 280)


def test_bytes_do_not_depend_on_threads_memory_or_who_writes(photographs, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr("slg_wds.generation.opening.KEPT_BYTES", 1)  # each image is decoded again and again
    labelled(photographs, tmp_path / "set", workers=1, batch_size=3, **MIX)
    assert CONTENTS(tmp_path / "set") == CONTENTS(Path(mixed))


@pytest.mark.slow
def test_two_processes_make_the_same_mixed_set(photographs, mixed, tmp_path):
    labelled(photographs, tmp_path / "set", devices="cpu:2", **MIX)
    assert CONTENTS(tmp_path / "set") == CONTENTS(Path(mixed))


def test_an_image_is_decoded_once(photographs, tmp_path, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        "slg_wds.generation.opening.decode", lambda *a, path, **o: decoded.append(path) or decode(*a, **o)
    )
    labelled(photographs, tmp_path / "set", **MIX)
    assert len(decoded) == len(set(decoded)) == 36


def test_unmixed_crops_are_those_of_a_set_without_mixing(photographs, mixed, tmp_path):
    plain = labelled(photographs, tmp_path / "set")
    for one, other in zip(slg_wds.open_labels(plain), slg_wds.open_labels(mixed), strict=True):
        assert np.array_equal(one.crops, other.crops) and np.array_equal(one.flips, other.flips)
        assert one.views is None and other.views.mixing is not None


def images_but(photographs: Path, folder: Path, path: str, data: bytes | None) -> Path:
    """Copy the photographs, one of them with other bytes, or without it."""
    shutil.copytree(photographs, folder)
    broken = folder / "train" / path
    broken.unlink() if data is None else broken.write_bytes(data)
    return folder


def without_shard(folder: Path, shard: str) -> None:
    """Take a shard out of a set, so that the next run makes it again."""
    for name in (f"{shard}.tar", f"index/{shard}", "_info.json"):
        (folder / name).unlink()


def test_what_cannot_be_read_is_mixed_into_nothing(photographs, mixed, tmp_path, capsys):
    broken = slg_wds.open_labels(mixed).plan.paths[2]
    images = images_but(photographs, tmp_path / "images", broken, b"no image")
    with pytest.raises(errors.ImageError, match="mend it, or leave such images out") as found:
        labelled(images, tmp_path / "failed", **MIX)
    assert broken in str(found.value)
    target = labelled(images, tmp_path / "set", on_error="skip", max_left_out=0.1, **MIX)
    whole = {record.key: record for record in slg_wds.open_labels(mixed)}
    lost = 0
    for record in slg_wds.open_labels(target):
        own, mixing = whole[record.key].views.mixing, record.views.mixing
        assert not (mixing.partner == 2).any()
        lost += int((own.partner == 2).sum())
        expected = own.without(own.partner == 2)
        assert same_views(record.views, whole[record.key].views) == (not (own.partner == 2).any())
        assert np.array_equal(mixing.partner, expected.partner) and np.array_equal(mixing.box, expected.box)
    assert lost > 0
    assert main(["verify", target]) == 0
    refused = pytest.raises(
        errors.IdentityMismatchError, match="--reference_path of the set that left images out"
    )
    with pytest.warns(UserWarning, match="given twice"), refused:  # both were made with the same options
        merge(mixed, target, tmp_path / "merged")


@pytest.mark.slow
def test_an_image_that_was_left_out_is_mixed_in_by_the_set_that_extends(photographs, mixed, tmp_path):
    """Crops that exist stay unmixed, and those that are new have the mended image mixed in."""
    broken = slg_wds.open_labels(mixed).plan.paths[2]
    images = images_but(photographs, tmp_path / "images", broken, b"no image")
    base = labelled(images, tmp_path / "base", on_error="skip", max_left_out=0.1, **MIX)
    more = labelled(photographs, tmp_path / "more", num_crops=12, extend=base, **MIX)
    assert main(["verify", more]) == 0
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(base, more), save_path=str(tmp_path / "all"), processes=1))
    partner = check(str(tmp_path / "all"), photographs, 12)
    assert not (partner[:, :8] == 2).any() and (partner[:, 8:] == 2).any()


@pytest.mark.slow
def test_an_image_that_the_extended_set_mixes_in_is_not_left_out(photographs, mixed, tmp_path):
    options = {**MIX, "num_crops": 12, "extend": mixed, "on_error": "skip", "max_left_out": 0.1}
    more = labelled(photographs, tmp_path / "more", **options)
    without_shard(tmp_path / "more", "train-000000")
    gone = slg_wds.open_labels(mixed).plan.paths[2]
    with pytest.raises(errors.ImageGoneError, match="mixed into views of others, so it cannot be left out"):
        labelled(images_but(photographs, tmp_path / "images", gone, None), more, **options)


@pytest.mark.slow
def test_a_partner_that_another_shard_left_out_is_found(photographs, mixed, tmp_path, capsys):
    """The image was there when a shard was made that mixes it in, and gone when its own shard was made."""
    options = {"reference_path": mixed, "samples_per_shard": 9, "seed": 3, "on_error": "skip"}
    target = labelled(photographs, tmp_path / "set", max_left_out=0.1, **options)
    path = slg_wds.open_labels(mixed).plan.paths[2]
    plan = slg_wds.open_labels(target).plan
    number = int(plan.place(list(plan.paths).index(path))[0])
    without_shard(tmp_path / "set", f"train-{number:06d}")
    images = images_but(photographs, tmp_path / "images", path, None)
    labelled(images, target, max_left_out=0.1, **options)
    capsys.readouterr()
    assert main(["verify", target]) == 1
    assert "is mixed into it, which has no record" in capsys.readouterr().out
    with pytest.raises(errors.LabelSetError, match="is mixed into its views, and is left out"):
        merge(target, mixed, tmp_path / "merged")


def test_a_lone_image_is_not_mixed(photographs, tmp_path):
    target = labelled(photographs, tmp_path / "set", samples_per_shard=1, **MIX)
    assert all(
        np.array_equal(one.views.mixing.partner, Mixing.none(8).partner)
        for one in slg_wds.open_labels(target)
    )


def test_another_teacher_sees_the_same_mixed_views(photographs, mixed, tmp_path):
    again = labelled(photographs, tmp_path / "set", reference_path=mixed, samples_per_shard=9, seed=3)
    check(again, photographs)
    first = slg_wds.open_labels(mixed)
    whole = {record.key: record for record in first}
    labels = slg_wds.open_labels(again)
    assert labels.has_mixing
    for record in labels:
        own, other = record.views.mixing, whole[record.key].views.mixing
        assert [labels.plan.keys[n] for n in own.partner[own.mixed].tolist()] == [
            first.plan.keys[n] for n in other.partner[other.mixed].tolist()
        ]
        assert np.array_equal(record.value, whole[record.key].value)


def test_a_part_of_a_mixed_set_is_no_reference(photographs, mixed, tmp_path):
    (tmp_path / "list.txt").write_text("\n".join(list(slg_wds.open_labels(mixed).plan.paths)[:2]))
    with pytest.raises(errors.ReferenceSetError, match="label all images of that set"):
        labelled(photographs, tmp_path / "set", reference_path=mixed, list_file=str(tmp_path / "list.txt"))


def test_a_mixed_set_is_extended(photographs, tmp_path):
    once = labelled(photographs, tmp_path / "once", num_crops=12, **MIX)
    base = labelled(photographs, tmp_path / "base", num_crops=8, **MIX)
    more = labelled(photographs, tmp_path / "more", num_crops=12, extend=base, **MIX)
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(base, more), save_path=str(tmp_path / "all"), processes=1))
    joined = list(slg_wds.open_labels(str(tmp_path / "all")))
    for one, other in zip(slg_wds.open_labels(once), joined, strict=True):
        assert same_views(one.views, other.views) and np.array_equal(one.value, other.value)
    with pytest.raises(errors.UsageError, match="images of the same shard"):
        labelled(photographs, tmp_path / "other", num_crops=12, extend=base, samples_per_shard=7, **MIX)


def test_verify_and_inspect_know_mixing(photographs, mixed, tmp_path, capsys):
    assert main(["verify", mixed, "-a", WITNESS, "--teacher-source", "private", "--check-crops", "40"]) == 0
    assert "probabilities differ by 0.00000 on average and 0.0000 at most" in capsys.readouterr().out
    record = next(iter(slg_wds.open_labels(mixed)))
    keys, mixing = slg_wds.open_labels(mixed).plan.keys, record.views.mixing
    assert main(["inspect", mixed, "--key", record.key, "--json"]) == 0
    said = [crop["views"][-1] for crop in json.loads(capsys.readouterr().out)["image"]["crops"]]
    for n, words in enumerate(said):
        second = f"crop {mixing.crop[n]} of {keys[mixing.partner[n]]}"
        top, left, height, width = (f"{part / 255:.0%}" for part in mixing.box[n].tolist())
        blended = f"mixed with {1 - mixing.lam[n] / 256:.0%} of {second}"
        pasted = f"pasted {width} x {height} at {left}, {top} from {second}"
        assert words == (blended if mixing.lam[n] else pasted)


def test_sets_of_other_mixing_are_not_averaged_or_exported(photographs, mixed, tmp_path):
    plain = labelled(photographs, tmp_path / "plain", aa="ra-n2-m9")
    with pytest.raises(errors.IdentityMismatchError, match="the first has mixed crops, the second none"):
        merge(mixed, plain, tmp_path / "a")
    other = labelled(photographs, tmp_path / "other", mixup=0.2)
    with pytest.raises(errors.IdentityMismatchError, match="operations, erased boxes or mixing"):
        merge(mixed, other, tmp_path / "b")
    with pytest.raises(errors.UsageError, match="images mixed into its crops"):
        slg_wds.export_fkd(slg_wds.ExportConfig(labels=mixed, fkd_dir=str(tmp_path / "fkd")))


def test_averages_and_copies_number_partners_by_their_own_plan(photographs, mixed, tmp_path):
    again = labelled(photographs, tmp_path / "set", reference_path=mixed, samples_per_shard=9, seed=3)
    check(merge(mixed, again, tmp_path / "a"), photographs)
    check(merge(again, mixed, tmp_path / "b"), photographs)
    merged = slg_wds.EnsembleConfig(sets=(mixed,), save_path=str(tmp_path / "c"), samples_per_shard=11)
    slg_wds.ensemble(merged)
    check(str(tmp_path / "c"), photographs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": -0.1}, r"--mixup -0.1 is not within 0 to 100"),
        ({"cutmix": float("nan")}, r"--cutmix nan is not within"),
        ({"mixup": 101.0}, r"--mixup 101 is not within"),
        ({"mixup": 1.0, "mixup_prob": 1.5}, r"--mixup-prob 1.5 is not a probability"),
        ({"mixup": 1.0, "mixup_prob": float("nan")}, r"--mixup-prob nan is not a probability"),
        ({**MIX, "mixup_switch_prob": -1.0}, r"--mixup-switch-prob -1 is not a probability"),
        ({"mixup_prob": 0.5}, "--mixup-prob is for --mixup or --cutmix"),
        ({"mixup": 0.5, "mixup_switch_prob": 0.1}, "--mixup together with --cutmix"),
        ({"mixup": 0.5, "num_crops": 70_000}, "above 65,536"),
        ({"cutmix": 0.5, "reference_path": "/nowhere"}, "--cutmix draws views, and --reference-path"),
    ],
)
def test_bad_options_are_refused(tmp_path, options, message):
    with pytest.raises(errors.UsageError, match=message):
        labelled("/nowhere", tmp_path / "set", **options)
