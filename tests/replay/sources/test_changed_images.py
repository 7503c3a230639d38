"""Other images with the names and sizes of the labelled ones never give a sample with wrong pixels."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import webdataset
from PIL import Image, ImageOps

import slg_wds
from slg_wds.errors import ImageChangedError, LabelSetError, UsageError
from slg_wds.replay.stages import cut_crops, decode_record_stage
from support.sets.replay_sets import Made, make, pack


def saved(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def mirrored(data: bytes) -> bytes:
    return saved(ImageOps.mirror(Image.open(io.BytesIO(data))))


def reencoded(data: bytes) -> bytes:
    return saved(Image.open(io.BytesIO(data)), 60)


def another(data: bytes) -> bytes:
    return saved(ImageOps.invert(Image.open(io.BytesIO(data)).convert("RGB")))


def one_bit(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


CHANGES = {change.__name__: change for change in (mirrored, reencoded, another, one_bit)}


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed")
    return Made(make(photographs, folder / "set"), str(photographs / "train"))


def walked(made: Made, **options) -> None:
    for _ in made.loader(last="pad", **options):
        pass


@pytest.mark.parametrize("change", CHANGES)
def test_an_image_that_was_replaced_is_named(made, tmp_path, change):
    images = tmp_path / "images"
    shutil.copytree(made.images, images)
    walked(made, images=str(images))
    path = sorted(images.rglob("*.jpg"))[7]
    path.write_bytes(CHANGES[change](path.read_bytes()))
    with pytest.raises(ImageChangedError, match=f"{path.name} is not the image that was labelled") as caught:
        walked(made, images=str(images))
    error = caught.value
    assert (error.key, error.url) == (f"{path.parent.name}/{path.stem}", str(path))
    assert "verify" in error.hint and "--images" in error.hint


def test_the_images_of_another_split_are_refused(made, photographs, tmp_path):
    """DATA where DATA/val was labelled: the same names, and other pixels of the same sizes in DATA/train."""
    data = tmp_path / "data"
    shutil.copytree(photographs / "train", data / "val")
    shutil.copytree(photographs / "train", data / "train")
    for path in (data / "train").rglob("*.jpg"):
        path.write_bytes(mirrored(path.read_bytes()))
    labels = make(data / "val", tmp_path / "set")
    with pytest.raises(ImageChangedError, match="is not the image that was labelled"):
        walked(Made(labels, str(data)))
    walked(Made(labels, str(data / "val")))


def test_a_member_of_a_local_tar_that_was_replaced_is_named(photographs, tmp_path):
    tars = pack(photographs, tmp_path / "tars")
    labels = make(tars, tmp_path / "set")
    plan = slg_wds.open_labels(labels).plan
    path, offset, size = tars / plan.image_shards[0], int(plan.image_offset[3]), int(plan.image_size[3])
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = one_bit(bytes(data[offset : offset + size]))
    path.write_bytes(data)
    with pytest.raises(ImageChangedError, match="is not the image that was labelled") as caught:
        walked(Made(labels, str(tars)))
    assert (caught.value.key, caught.value.url) == (plan.keys[3], str(path))


def test_smaller_copies_are_replayed_from_the_set_alone(photographs, tmp_path):
    labels = make(photographs, tmp_path / "set", embed_images="max-side=200")
    walked(Made(labels, None))
    with pytest.raises(UsageError, match=r"copies inside the set, of at most 200 pixels a side.*leave out"):
        walked(Made(labels, str(photographs)))


def test_sets_that_are_averaged_are_replayed_with_the_images_of_the_first(photographs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photographs / "train", data)
    for path in data.rglob("*.jpg"):
        path.write_bytes(reencoded(path.read_bytes()))
    first = make(photographs, tmp_path / "first")
    copies = make(data, tmp_path / "copies", reference_path=first)
    walked(Made([first, copies], str(photographs)))
    with pytest.raises(ImageChangedError):
        walked(Made([first, copies], str(data)))
    slg_wds.ensemble(
        slg_wds.EnsembleConfig(sets=(copies, first), save_path=str(tmp_path / "merged"), processes=1)
    )
    walked(Made(str(tmp_path / "merged"), str(data)))
    with pytest.raises(ImageChangedError):
        walked(Made(str(tmp_path / "merged"), str(photographs)))


def test_an_extension_of_other_images_is_refused(photographs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(photographs / "train", data)
    base = make(data, tmp_path / "base")
    make(data, tmp_path / "whole", num_crops=16, extend=base)
    path = sorted(data.rglob("*.jpg"))[0]
    path.write_bytes(mirrored(path.read_bytes()))
    with pytest.raises(ImageChangedError, match=f"{path.name} is not the image that was labelled"):
        make(data, tmp_path / "refused", num_crops=16, extend=base)


def test_parts_of_different_images_are_not_joined(photographs, tmp_path, monkeypatch):
    from slg_wds.generation.extension import Extension

    data = tmp_path / "data"
    shutil.copytree(photographs / "train", data)
    base = make(data, tmp_path / "base")
    for path in data.rglob("*.jpg"):
        path.write_bytes(mirrored(path.read_bytes()))
    monkeypatch.setattr(Extension, "check_image", lambda *_: None)  # as by a writer that does not check
    more = make(data, tmp_path / "more", num_crops=16, extend=base)
    with pytest.raises(LabelSetError, match="different files of this image"):
        walked(Made([base, more], str(data)))
    with pytest.raises(LabelSetError, match="different files of this image"):
        slg_wds.ensemble(
            slg_wds.EnsembleConfig(sets=(base, more), save_path=str(tmp_path / "joined"), processes=1)
        )


def samples(labels: str, image: bytes | None = None, size: int = 32):
    tars = [str(path) for path in sorted(Path(labels).glob("*.tar"))]
    stages = webdataset.WebDataset(tars, shardshuffle=False).map(decode_record_stage(2))
    return stages.map(cut_crops(size, "bilinear", None if image is None else lambda sample: image))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of WebDataset, which leaves its files open
def test_stages_name_another_image_too(made, photographs, tmp_path):
    first = next(iter(slg_wds.open_labels(made.labels)))
    data = (photographs / "train" / first.path).read_bytes()
    assert next(iter(samples(made.labels, data)))["images"].shape == (2, 3, 32, 32)
    with pytest.raises(ImageChangedError, match="is not the image that was labelled") as caught:
        next(iter(samples(made.labels, mirrored(data))))
    assert caught.value.key == first.key and caught.value.url.endswith(".tar")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_stages_take_the_embedded_image_smaller_or_not(photographs, tmp_path):
    labels = make(photographs, tmp_path / "set", embed_images="max-side=200")
    assert len(list(samples(labels))) == 36
