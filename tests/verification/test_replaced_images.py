"""Ten of a thousand images outside the shards are replaced: exactly these ten are reported."""

from __future__ import annotations

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

import slg_wds
from slg_wds.cli import main
from slg_wds.config import ReportConfig
from slg_wds.errors import ImageChangedError, ImageSourceError
from slg_wds.report.command import report as write_report
from support.models.names import TINY

IMAGES, BATCH = 1000, 8


def jpeg(pixels: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    pixels.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """(labels, images): pictures of noise, all of one size."""
    folder = tmp_path_factory.mktemp("thousand")
    chance = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / "images" / f"n{number % 10}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(Image.fromarray(chance.integers(0, 256, (20, 24, 3), np.uint8))))
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(folder / "images"), save_path=str(folder / "labels"), arch=TINY, teacher_source="private",
            num_crops=2, num_seg=32, samples_per_shard=64, threads_per_forward=1,
        )
    )  # fmt: skip
    return folder / "labels", folder / "images"


@pytest.fixture(scope="module")
def changed(thousand, tmp_path_factory):
    """(images, keys of the ten that were replaced)."""
    images = tmp_path_factory.mktemp("changed") / "images"
    shutil.copytree(thousand[1], images)
    paths = sorted(images.rglob("*.jpg"))[5::97][:10]
    chance = np.random.default_rng(1)
    for path in paths[:3]:
        path.write_bytes(jpeg(Image.fromarray(chance.integers(0, 256, (20, 24, 3), np.uint8))))
    for path in paths[3:5]:
        path.write_bytes(jpeg(Image.open(path), 70))
    for path in paths[5:8]:
        path.write_bytes(jpeg(ImageOps.mirror(Image.open(path))))
    swapped = [path.read_bytes() for path in paths[8:]]
    for path, data in zip(paths[8:], reversed(swapped), strict=True):
        path.write_bytes(data)
    return images, {f"{path.parent.name}/{path.stem}" for path in paths}


def test_the_loader_names_the_first_that_it_meets(thousand, changed):
    labels, (images, keys) = thousand[0], changed
    options = {
        "global_batch_size": 2 * BATCH,
        "crops_per_image": 2,
        "shuffle": False,
        "threads": 1,
        "last": "pad",
    }
    first = next(key for key in slg_wds.open_labels(str(labels)).plan.keys if key in keys)
    with pytest.raises(ImageChangedError, match="is not the image that was labelled") as caught:
        for _ in slg_wds.SoftLabelLoader(str(labels), str(images), **options):
            pass
    assert (caught.value.key, caught.value.url) == (first, str(images / f"{first}.jpg"))
    untouched = slg_wds.SoftLabelLoader(str(labels), str(thousand[1]), **options)
    assert sum(int(batch.mask.sum()) for batch in untouched) == 2 * IMAGES


def verified(labels, images, capsys) -> tuple[int, dict]:
    code = main(["verify", str(labels), "--images", str(images), "--json", "--processes", "1"])
    return code, json.loads(capsys.readouterr().out)


def test_verify_lists_all_ten_and_no_other(thousand, changed, capsys):
    code, found = verified(thousand[0], thousand[1], capsys)
    assert (code, found["ok"], found["compared"], found["problems"]) == (0, True, IMAGES, [])
    code, found = verified(thousand[0], changed[0], capsys)
    assert (code, found["ok"], found["compared"]) == (1, False, IMAGES)
    assert {problem["key"] for problem in found["problems"]} == changed[1] and len(found["problems"]) == 10
    assert {problem["kind"] for problem in found["problems"]} == {"image"}
    assert main(["verify", str(thousand[0]), "--images", str(changed[0]), "--processes", "1"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "10 problems" in out and "1,000 images compared with those labelled" in out
    assert all(key in out for key in changed[1])


def test_verify_lists_images_that_are_gone(thousand, tmp_path, capsys):
    images = tmp_path / "images"
    shutil.copytree(thousand[1], images)
    gone = sorted(images.rglob("*.jpg"))[::100]
    for path in gone:
        path.unlink()
    code, found = verified(thousand[0], images, capsys)
    assert code == 1
    assert sorted(problem["key"] for problem in found["problems"]) == sorted(
        f"{path.parent.name}/{path.stem}" for path in gone
    )
    assert {problem["what"] for problem in found["problems"]} == {"the image is not there"}
    assert found["compared"] == IMAGES - len(gone)


def test_mending_a_set_leaves_images_alone(thousand, changed, tmp_path, capsys):
    """Shards are whole, whatever became of the images: none is removed, and _info.json is made again."""
    labels = tmp_path / "labels"
    shutil.copytree(thousand[0], labels)
    (labels / "_info.json").unlink()
    command = ["verify", str(labels), "--images", str(changed[0]), "--fix", "--delete-damaged", "--json"]
    command += ["--processes", "1"]
    assert main(command) == 1
    found = json.loads(capsys.readouterr().out)
    assert {problem["key"] for problem in found["problems"]} == changed[1]
    assert found["fixed"] == ["rebuilt _info.json"]
    assert len(list(labels.glob("*.tar"))) == len(list(thousand[0].glob("*.tar")))


def test_a_report_names_all_ten_and_no_other(thousand, changed, tmp_path):
    def report(images):
        page = str(tmp_path / "page.html")
        return write_report(ReportConfig(labels=(str(thousand[0]),), images=str(images), output=page))

    with pytest.raises(
        ImageChangedError, match="10 of 1,000 images are not those that were labelled"
    ) as caught:
        report(changed[0])
    named = caught.value.message.partition(": ")[2].split(", ")
    assert {name.removesuffix(".jpg") for name in named} == changed[1] and len(named) == 10
    assert not (tmp_path / "page.html").exists()
    assert report(thousand[1]).images == IMAGES


def test_a_report_names_all_images_that_are_gone_and_says_what_to_do(thousand, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(thousand[1], images)
    gone = sorted(images.rglob("*.jpg"))[::100]
    for path in gone:
        path.unlink()
    config = ReportConfig(
        labels=(str(thousand[0]),), images=str(images), output=str(tmp_path / "page.html"), samples=IMAGES
    )
    with pytest.raises(ImageSourceError, match=f"{len(gone)} of 1,000 images cannot be found: ") as caught:
        write_report(config)
    named = caught.value.message.partition(": ")[2].split(", ")
    assert set(named) == {f"{path.parent.name}/{path.name}" for path in gone}
    assert "verify --images lists all" in str(caught.value)
    assert not (tmp_path / "page.html").exists()


def test_smaller_copies_are_compared_by_their_sources(photographs, tmp_path, capsys):
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(photographs), save_path=str(tmp_path / "labels"), arch=TINY, teacher_source="private",
            num_crops=2, embed_images="max-side=200", threads_per_forward=1,
        )
    )  # fmt: skip
    images = tmp_path / "images"
    shutil.copytree(photographs / "train", images)
    assert verified(tmp_path / "labels", images, capsys)[0] == 0
    path = sorted(images.rglob("*.jpg"))[3]
    path.write_bytes(jpeg(ImageOps.mirror(Image.open(path))))
    code, found = verified(tmp_path / "labels", images, capsys)
    assert code == 1
    assert [problem["key"] for problem in found["problems"]] == [f"{path.parent.name}/{path.stem}"]


def test_labels_without_checksums_cannot_be_compared(thousand, tmp_path, capsys):
    from slg_wds.format.canonical import pretty_json, seal

    labels = tmp_path / "labels"
    shutil.copytree(thousand[0], labels)
    fields = json.loads((labels / "slg.json").read_bytes())
    del fields["image_checksums"], fields["crc32"]
    (labels / "slg.json").write_bytes(pretty_json(seal(fields)))
    assert main(["verify", str(labels), "--images", str(thousand[1]), "--processes", "1"]) != 0
    assert "no checksums of its images" in capsys.readouterr().err
