"""The loader on imported label files: the crops, labels and targets that FKD's own reader gives a student."""

from __future__ import annotations

import shutil
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

import slg_wds
from slg_wds.errors import ImageChangedError, UsageError
from slg_wds.replay.stages import CollateCrops, decode_record_stage
from support.oracles import fkd_original as original

RESIZE = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
CLASSES = 1000


def imported(labels, images, target):
    config = slg_wds.ImportConfig(
        fkd_dir=str(labels), images=str(images), save_path=str(target), processes=1, samples_per_shard=2
    )
    slg_wds.import_fkd(config)
    return str(target)


def reader(labels, images, key, side, interpolation):
    """What the original's dataset gives of one image: uint8 [M, 3, S, S] before normalising, and dense labels [M, C].

    Its steps said again: relative coordinates times the picture's size, Pillow's crop and resize, the flip; the
    probability that is not stored spread evenly.
    """
    picture = Image.open(images / "train" / f"{key}.jpg").convert("RGB")
    coords, flips, stored = original.load(labels / "dataset" / "train" / f"{key}.tar")
    pixels, rows = [], []
    for (i, j, h, w), flip, (index, value) in zip(coords.astype(np.float64), flips, stored, strict=True):
        width, height = picture.size
        crop = F.crop(picture, i * height, j * width, h * height, w * width)
        crop = F.resize(crop, [side, side], RESIZE[interpolation])
        pixels.append(np.asarray(F.hflip(crop) if flip else crop).transpose(2, 0, 1))
        value = value.astype(np.float32)
        row = np.full(CLASSES, (1 - value.sum()) / (CLASSES - len(value)), np.float32)
        row[index.astype(int)] = value
        rows.append(row)
    return np.stack(pixels), np.stack(rows)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("side", "interpolation", "rare"),
    [
        (224, "bilinear", 0.0),  # FKD's own
        (160, "bilinear", 0.0),
        # Bicubic overshoots, and Pillow clips to 0..255 after rows as well as columns: beside edges at black and white
        # a few values in 100,000 are further off.
        (160, "bicubic", 1e-4),
    ],
)
def test_a_student_gets_what_fkds_reader_gives(
    label_files, images, tmp_path, half, side, interpolation, rare
):
    labels = label_files(half=half)
    loader = slg_wds.SoftLabelLoader(
        imported(labels, images, tmp_path / "set"), str(images / "train"), global_batch_size=12,
        crops_per_image=4, size=side, interpolation=interpolation, threads=2, last="pad",
    )  # fmt: skip
    seen, off = set(), np.zeros(256, np.int64)
    for _ in range(original.CROPS // 4):
        for batch in loader:
            dense = batch.labels.dense()
            for i in torch.nonzero(batch.mask)[:, 0].tolist():
                key, crop = batch.key[i], int(batch.crop[i])
                pixels, rows = reader(labels, images, key, side, interpolation)
                difference = np.abs(pixels[crop].astype(int) - batch.images[i].numpy().astype(int))
                off += np.bincount(difference.ravel(), minlength=256)
                np.testing.assert_allclose(dense[i].numpy(), rows[crop], atol=2e-6)
                seen.add((key, crop))
    assert off[3:].sum() <= rare * off.sum() and not off[17:].any()
    assert len(seen) == 5 * original.CROPS


def test_without_a_size_the_loader_asks_for_one(label_files, images, tmp_path):
    labels = imported(label_files(), images, tmp_path / "set")
    with pytest.raises(UsageError, match=r"does not say what its teacher saw.*size= and interpolation="):
        slg_wds.SoftLabelLoader(labels, str(images), global_batch_size=12)


def test_another_temperature_takes_their_own_as_1_and_says_so(label_files, images, tmp_path):
    labels = slg_wds.open_labels(imported(label_files("marginal_smoothing_k5"), images, tmp_path / "set"))
    assert labels.temperature is None
    options = {"global_batch_size": 2, "crops_per_image": 2, "size": 32, "interpolation": "bilinear"}
    with pytest.warns(UserWarning, match="do not say their temperature; it is taken as 1"):
        loader = slg_wds.SoftLabelLoader(labels, str(images), temperature=2, **options)
    batch = next(iter(loader))
    roots = np.sqrt(labels[batch.key[0]].distribution().astype(np.float64))[batch.crop.numpy()]
    np.testing.assert_allclose(batch.labels.dense(), roots / roots.sum(axis=1, keepdims=True), atol=2e-6)


def test_records_and_stages_take_no_temperature_for_granted(label_files, images, tmp_path):
    files = label_files("marginal_smoothing_k5")
    labels = slg_wds.open_labels(imported(files, images, tmp_path / "set"))
    record = labels[0]
    decode, collate = decode_record_stage(labels=labels), CollateCrops(temperature=2)
    sample = decode({"slg.msgpack": labels.record_bytes(0, 0)})
    sample["images"] = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for asked in (lambda: record.distribution(temperature=2), lambda: collate([sample])):
        with pytest.raises(UsageError, match=r"need the one that they were made at.*made_at=1\.0"):
            asked()
    options = {"save_path": str(tmp_path / "said"), "images": str(images), "num_classes": CLASSES}
    said = slg_wds.import_fkd(slg_wds.ImportConfig(fkd_dir=str(files), temp=4, processes=1, **options)).labels
    assert said.temperature == 4.0
    squares = np.square(record.distribution().astype(np.float64))
    found = said[record.key].distribution(temperature=2)
    np.testing.assert_allclose(found, squares / squares.sum(axis=1, keepdims=True), atol=2e-6)


def test_images_are_those_of_the_import(label_files, images, tmp_path):
    """Label files do not say which images they are of: from the import on, the set does."""
    pictures = tmp_path / "images"
    shutil.copytree(images, pictures)
    labels = imported(label_files("marginal_smoothing_k5"), pictures, tmp_path / "set")
    opened = slg_wds.open_labels(labels)
    assert opened.description.image_checksums
    assert {record.key: record.image_crc32 for record in opened} == {
        key: zlib.crc32((pictures / "train" / path).read_bytes())
        for key, path in zip(opened.plan.keys, opened.plan.paths, strict=True)
    }
    path = pictures / "train" / opened.plan.paths[0]
    with Image.open(path) as image:
        ImageOps.mirror(image).save(path)
    loader = slg_wds.SoftLabelLoader(
        labels,
        str(pictures),
        global_batch_size=2,
        crops_per_image=2,
        size=32,
        interpolation="bilinear",
        last="pad",
    )
    with pytest.raises(ImageChangedError, match="is not the image that was labelled"):
        for _ in loader:
            pass
