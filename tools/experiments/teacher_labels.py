"""What experiments start from: photographs, what a real teacher says of their crops, and the teacher asked again."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import slg_wds
from slg_wds.demo.photographs import cut_views, write_photographs
from slg_wds.teachers.load import load_teacher
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.teacher import Teacher

# EfficientNet-Lite0 without its head: 1280 pooled features.
TOWER = f"{Path(__file__).resolve().parents[2] / 'tests' / 'support' / 'models' / 'towers.py'}:lite0_features"
FORWARD = 50  # crops
OTHERS = (
    "astronaut", "brick", "camera", "clock", "coins", "grass", "gravel", "hubble_deep_field", "immunohistochemistry",
    "moon", "page", "retina", "text",
)  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `labelled` and `working_folder`."""
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--arch", default="slg_wds.demo.teacher:lite0")
    parser.add_argument(
        "--folder", type=Path, help="keep photographs and labels here, and use those of another run"
    )


@contextlib.contextmanager
def working_folder(options: argparse.Namespace) -> Iterator[Path]:
    """Yield the folder of --folder, or one that is removed afterwards."""
    kept: Path | None = getattr(options, "folder", None)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def labelled(folder: Path, options: argparse.Namespace, crops: int, temperature: float = 1.0) -> str:
    """Return the URL of a set with all probabilities of the photographs' crops, as float32."""
    images, chosen = photographs(folder, options.images)
    target = folder / f"full-{options.images}-{crops}-{temperature:g}"
    return labels_of(images, target, options.arch, crops, temp=temperature, list_file=chosen)


def photographs(folder: Path, count: int, views: int = 3) -> tuple[Path, str]:
    """Write the demo's photographs unless they are there; choose the first of those that are its first views.

    Returns:
        The folder of images, and the file that lists the chosen ones.
    """
    images = folder / "images" / "train"
    if not images.exists():
        write_photographs(images)
    paths = sorted(path for path in images.rglob("*.jpg") if int(path.stem[-1]) < views)
    chosen = folder / f"list-{count}"
    chosen.write_text("\n".join(str(path.relative_to(images)) for path in paths[:count]))
    return images.parent, str(chosen)


def other_images(folder: Path) -> Path:
    """Write images of scikit-image and matplotlib that are not among the demo's photographs; return their folder."""
    import matplotlib.cbook
    import skimage.data

    found = {name: np.asarray(getattr(skimage.data, name)()) for name in OTHERS}
    found["grace_hopper"] = np.asarray(Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg")))
    target = folder / "others"
    for name, pixels in found.items():
        path = target / "train" / "others" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        (view,) = cut_views(pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=2), [None])
        if not path.exists():
            view.save(path, quality=92)
    return target


def labels_of(images: Path, target: Path, arch: str, crops: int, **more: Any) -> str:
    """Write the set with all probabilities of the crops of a folder of images, unless it is there; return its URL."""
    return generated(images, target, arch, crops, label_type="full", values="float32", **more)


def embeddings_of(images: Path, target: Path, crops: int, **more: Any) -> str:
    """Write the set with the tower's embeddings of the crops of a folder of images, unless it is there."""
    return generated(images, target, TOWER, crops, output="embedding", **more)


def generated(images: Path, target: Path, arch: str, crops: int, **more: Any) -> str:
    """Write a label set with its images, unless it is there; return its URL."""
    config = slg_wds.GenerateConfig(
        data=str(images), arch=arch, teacher_source="private", save_path=str(target), num_crops=crops,
        embed_images="original", **more,
    )  # fmt: skip
    slg_wds.generate(config)
    return str(target)


def crops_in_order(url: str, size: int, images: str | None = None, **more: Any) -> slg_wds.SoftLabelLoader:
    """Return a loader of every crop of a set once, in one order, with the crops of one image in each batch."""
    crops = slg_wds.open_labels(url).num_crops
    return slg_wds.SoftLabelLoader(
        url, images, global_batch_size=crops, crops_per_image=crops, size=size, shuffle=False, **more
    )


@torch.no_grad()
def answers(teacher: Teacher, images: Tensor) -> Tensor:
    """Return what the teacher says of crops, uint8 [N, 3, S, S]: its logits or embeddings, float32 [N, C]."""
    # Cloned: what inference mode made cannot be trained with.
    return torch.cat([teacher.logits(part).clone() for part in torch.split(images, FORWARD)])


def live_answers(url: str, arch: str, kept: Path, headless: bool = False) -> Tensor:
    """Return what a teacher says of the crops of a set, cut as students get them, float32 [N, C].

    The answers are kept in a file, and taken from there if it exists.
    """
    if not kept.exists():
        teacher = load_teacher(TeacherSpec("private", arch), headless=headless)
        batches = crops_in_order(url, teacher.preprocessing.input_size)
        torch.save(torch.cat([answers(teacher, batch.images) for batch in batches]), kept)
    found: Tensor = torch.load(kept, weights_only=True)
    return found


def asked_again(url: str, arch: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each image's key and the teacher's probabilities [M, C] of its crops, cut as students get them."""
    teacher = load_teacher(TeacherSpec("private", arch))
    for batch in crops_in_order(url, teacher.preprocessing.input_size):
        rows = np.empty((len(batch.images), batch.labels.num_classes))
        rows[batch.crop.numpy()] = answers(teacher, batch.images).double().softmax(1).numpy()
        yield batch.key[0], rows


def divergences(exact: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return KL(exact || labels) of each row in nats, float64 [M]."""
    p, q = (np.maximum(rows.astype(np.float64), 1e-30) for rows in (exact, labels))
    each: NDArray[np.float64] = (p * (np.log(p) - np.log(q))).sum(axis=1)
    return each
