"""What experiments with labels start from: photographs that a real teacher labelled, and the teacher asked again."""

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

import slg_wds
from slg_wds.demo.photographs import write_photographs
from slg_wds.teachers.load import load_teacher
from slg_wds.teachers.spec import TeacherSpec

FIRST_VIEWS = 3  # of each photograph, so that 16 images are of all six
FORWARD = 50  # crops


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
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        yield options.folder
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def labelled(folder: Path, options: argparse.Namespace, crops: int, temperature: float = 1.0) -> str:
    """Return the URL of a set with all probabilities of the photographs' crops, as float32."""
    images = folder / "images" / "train"
    if not images.exists():
        write_photographs(images)
    paths = sorted(path for path in images.rglob("*.jpg") if int(path.stem[-1]) < FIRST_VIEWS)
    chosen = folder / f"list-{options.images}"
    chosen.write_text("\n".join(str(path.relative_to(images)) for path in paths[: options.images]))
    target = folder / f"full-{options.images}-{crops}-{temperature:g}"
    return labels_of(images.parent, target, options.arch, crops, temp=temperature, list_file=str(chosen))


def labels_of(images: Path, target: Path, arch: str, crops: int, **more: Any) -> str:
    """Write the set with all probabilities of the crops of a folder of images, unless it is there; return its URL."""
    config = slg_wds.GenerateConfig(
        data=str(images), arch=arch, teacher_source="private", save_path=str(target), num_crops=crops,
        label_type="full", values="float32", embed_images="original", **more,
    )  # fmt: skip
    slg_wds.generate(config)
    return str(target)


def asked_again(url: str, arch: str) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each image's key and the teacher's probabilities [M, C] of its crops, cut as students get them."""
    teacher = load_teacher(TeacherSpec("private", arch))
    crops = slg_wds.open_labels(url).num_crops
    loader = slg_wds.SoftLabelLoader(
        url,
        global_batch_size=crops,
        crops_per_image=crops,
        size=teacher.preprocessing.input_size,
        shuffle=False,
    )
    for batch in loader:
        rows = np.empty((crops, batch.labels.num_classes))
        with torch.no_grad():
            logits = torch.cat([teacher.logits(part) for part in torch.split(batch.images, FORWARD)])
        rows[batch.crop.numpy()] = logits.double().softmax(1).numpy()
        yield batch.key[0], rows


def divergences(exact: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return KL(exact || labels) of each row in nats, float64 [M]."""
    p, q = (np.maximum(rows.astype(np.float64), 1e-30) for rows in (exact, labels))
    each: NDArray[np.float64] = (p * (np.log(p) - np.log(q))).sum(axis=1)
    return each
