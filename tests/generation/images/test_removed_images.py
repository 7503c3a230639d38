"""Resuming a set whose planned images were removed, and the hints for it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from support.models.names import TINY
from support.sets import trust_sets


@pytest.fixture
def images(photographs, tmp_path) -> Path:
    return trust_sets.small_photographs(photographs, tmp_path / "images", 9)


def files(images: Path) -> list[Path]:
    return sorted(images.rglob("*.jpg"))


def make(images, target, **options):
    return trust_sets.make(images, target, samples_per_shard=2, **options)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def test_what_the_hint_says_of_an_image_that_cannot_be_decoded_works(images, tmp_path, capsys):
    bad = files(images)[4]
    spoil(bad)
    command = ["generate", str(images), "-a", TINY, "--teacher_source", "private", "--num_crops", "4"]
    command += [
        "--save-path",
        str(tmp_path / "set"),
        "--samples-per-shard",
        "2",
        "--threads-per-forward",
        "1",
    ]
    assert main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "mend it, or leave such images out with --on-error skip" in said and "remove" not in said
    bad.unlink()  # all the same
    assert main(command) == 1
    said = capsys.readouterr().err
    assert f"gone since the set was planned: 1 image, such as {bad.relative_to(images / 'train')}" in said
    assert "put it back, or leave such images out with --on-error skip" in said
    assert main([*command, "--on-error", "skip"]) == 0
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert len(labels) == 9 and len(list(labels)) == 8
    assert main(command) == 0  # nothing of it is left to make


def test_removed_images_do_not_move_the_others(images, tmp_path):
    whole = make(images, tmp_path / "whole")
    target = trust_sets.copy_of(whole, tmp_path / "set")
    for name in ("train-000001.tar", "train-000003.tar", "_info.json"):
        (target / name).unlink()
    plan = slg_wds.open_labels(str(whole)).plan
    for number in (0, 5):  # of a shard that is there: nobody needs them
        (images / "train" / plan.paths[number]).unlink()
    make(images, target)
    found, wanted = trust_sets.objects_of(target), trust_sets.objects_of(whole)
    assert {name: found[name] for name in wanted} == wanted


def test_a_list_may_name_images_that_are_gone(images, tmp_path):
    names = [str(path.relative_to(images / "train")) for path in files(images)]
    (tmp_path / "list").write_text("\n".join(names[:6]))
    spoil(files(images)[2])
    options = {"list_file": str(tmp_path / "list")}
    with pytest.raises(errors.ImageDecodeError):
        make(images, tmp_path / "set", **options)
    files(images)[2].unlink()
    make(images, tmp_path / "set", on_error="skip", **options)
    assert len(list(slg_wds.open_labels(str(tmp_path / "set")))) == 5


def test_a_flat_folder_goes_on_too(images, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in files(images):
        path.rename(flat / path.name)
    spoil(flat / files(flat)[2].name)
    with pytest.raises(errors.ImageDecodeError):
        make(flat, tmp_path / "set")
    files(flat)[2].unlink()
    make(flat, tmp_path / "set", on_error="skip")
    assert len(list(slg_wds.open_labels(str(tmp_path / "set")))) == 8


def test_new_images_are_refused_and_named(images, tmp_path):
    make(images, tmp_path / "set")
    first = files(images)[0]
    first.rename(first.with_name("a_new_one.jpg"))
    with pytest.raises(errors.IdentityMismatchError, match=r"image \d is 'n.*'"):
        make(images, tmp_path / "set")
    first.write_bytes(files(images)[1].read_bytes())
    wanted = r"9 images there, 10 now, 'n\w+/a_new_one.jpg' only now"
    with pytest.raises(errors.IdentityMismatchError, match=wanted):
        make(images, tmp_path / "set")


def test_a_class_folder_that_is_gone_is_named(images, tmp_path):
    make(images, tmp_path / "set")
    (tmp_path / "set" / "_info.json").unlink()
    gone = files(images)[0].parent
    gone.rename(tmp_path / "elsewhere")
    with pytest.raises(
        errors.IdentityMismatchError, match=f"9 images there, .* now, '{gone.name}/.*' only there"
    ):
        make(images, tmp_path / "set")


def test_an_image_in_a_tar_is_not_to_be_mended(images, tmp_path):
    """What is planned of it is its place in the tar."""
    spoil(files(images)[0])
    tar = tmp_path / "images-000000.tar"

    with tarfile.open(tar, "w") as archive:
        for path in files(images):
            archive.add(path, path.name)
    with pytest.raises(errors.ImageDecodeError) as raised:
        make(tar, tmp_path / "set")
    assert raised.value.hint == "leave such images out with --on-error skip"
