"""The loader's normalised crops equal the teacher's input bit for bit; the teacher's labels encode that input."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import slg_wds
from slg_wds.store import open_store
from support.models.witness_teacher import hashed, witnessed
from support.paths import MODELS
from support.sets.replay_sets import Made, make, pack
from support.sets.witnessed_pixels import MEAN, STD, check_pixels

CROPS = 28  # of 36 images: 1,008


@pytest.fixture(scope="module")
def pictures(photographs, tmp_path_factory):
    """The photographs as JPEG (grey, CMYK, turned by EXIF), PNG (palette, alpha), WebP and BMP."""
    folder = tmp_path_factory.mktemp("pictures")
    shutil.copytree(photographs / "train", folder / "train")
    paths = sorted((folder / "train").rglob("*.jpg"))
    turned = Image.Exif()
    turned[0x0112] = 6
    saved = (
        ("jpg", "L", {}), ("jpg", "CMYK", {}), ("jpg", "RGB", {"exif": turned, "progressive": True}),
        ("png", "P", {}), ("png", "RGBA", {}), ("png", "L", {}), ("webp", "RGB", {"quality": 80}), ("bmp", "RGB", {}),
    )  # fmt: skip
    for path, (ending, mode, options) in zip(paths[::4], saved, strict=False):
        with Image.open(path) as image:
            changed = image.convert(mode)
        path.unlink()
        changed.save(path.with_suffix(f".{ending}"), **options)
    return folder


def labelled(data, target, teacher="bicubic224", **options):
    arch = f"{MODELS / 'witness_teacher.py'}:{teacher}"
    defaults = {"arch": arch, "label_type": "full", "values": "float32", "num_crops": CROPS, "num_seg": 32}
    return make(data, target, **{**defaults, **options})


KINDS = {
    "embedded": {"embed_images": "original"},
    "reencoded": {"embed_images": "max-side=180,quality=70"},
    "folder": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_crops_of_a_folder(pictures, tmp_path, kind):
    labels = labelled(pictures, tmp_path / "set", **KINDS[kind])
    check_pixels(Made(labels, None if "embed_images" in KINDS[kind] else str(pictures)), CROPS, 36)


def test_a_thousand_crops_of_image_shards(photographs, tmp_path):
    tars = pack(photographs, tmp_path / "tars")
    check_pixels(Made(labelled(tars, tmp_path / "set"), str(tars)), CROPS, 36)


def test_another_size_and_interpolation_and_several_threads(pictures, tmp_path):
    labels = labelled(pictures, tmp_path / "set", "bilinear97", num_crops=8, num_seg=50)
    check_pixels(Made(labels, str(pictures)), 8, 36, threads=4)


def test_from_object_storage(pictures, s3_server, s3_url, tmp_path):
    labels = labelled(pictures, tmp_path / "set", "bilinear97", num_crops=8, embed_images="original")
    source, store = open_store(labels), open_store(s3_url, s3_server.options())
    for entry in source.list():
        store.create(entry.name, source.read(entry.name))
    options = {"cache_dir": str(tmp_path / "cache"), "store_options": s3_server.options(), "lanes": 2}
    check_pixels(Made(s3_url, None), 8, 36, **options)


def test_it_would_show(pictures, tmp_path):
    """A difference of 1 in one pixel of one crop is detected."""
    labels = labelled(pictures, tmp_path / "set", "bilinear97", num_crops=2)
    batch = next(iter(Made(labels, str(pictures)).loader(global_batch_size=8, crops_per_image=2)))
    batch.images[3, 1, 50, 50] ^= 1
    shaped = [torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD)]
    images = batch.images.float().div(255).sub(shaped[0]).div(shaped[1])
    same = [
        (hashed(image) == witnessed(row)).all()
        for image, row in zip(images, batch.value.numpy(), strict=True)
    ]
    assert np.flatnonzero(~np.array(same)).tolist() == [3]


def test_a_teachers_set_names_its_size(pictures, tmp_path):
    labels = labelled(pictures, tmp_path / "set", "bilinear97", num_crops=2)
    loader = slg_wds.SoftLabelLoader(labels, str(pictures), global_batch_size=8)
    assert (loader.size, loader.interpolation) == (97, "bilinear")
