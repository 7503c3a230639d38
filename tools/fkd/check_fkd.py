"""Compare import and export with the original: with files that its generator wrote, and by its readers on our files.

usage: check_fkd.py FKD_CHECKOUT MEAL_V2_CHECKOUT [--crops 18] [--images 5]

The original generator labels photographs with EfficientNet-Lite0 (run_original.py), with every label type, in
float32 and float16; of forwards of 8 it leaves the last, uneven one out. Each folder is imported and exported, and then

* the arrays of every file must be the original's, byte by byte (coordinates of float16 may be others that cut the same
  boxes), of the crops that have a label;
* the dataset classes of train_FKD.py and of MEAL V2's FKD_train.py must give the same pixels, targets and labels from
  our files as from the original's.

About ten minutes on two cores. Exits 1 at the first difference.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torchvision import transforms

import slg_wds
from slg_wds.demo.photographs import write_photographs
from slg_wds.interop.fkd import cut_boxes

HERE = Path(__file__).resolve().parent
TYPES = ("hard", "smoothing", "marginal_smoothing_k5", "marginal_smoothing_k10", "marginal_renorm_k5")
FORWARD = 8
SEEDS = 4  # of the readers' choice of crops


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("fkd", type=Path)
    parser.add_argument("meal", type=Path)
    parser.add_argument("--crops", type=int, default=18)
    parser.add_argument("--images", type=int, default=5)
    options = parser.parse_args()
    os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # as torch was when the originals were written
    warnings.filterwarnings("ignore", "Environment variable TORCH_FORCE")
    readers = {
        "fkd": module(options.fkd / "FKD/utils_FKD.py"),
        "mealv2": module(options.meal / "utils_FKD.py"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = lay_out(folder, options.images)
        for label_type in TYPES:
            for half in (False, True):
                theirs = folder / f"{label_type}-{half}"
                generate(options.fkd, data, theirs, label_type, half, options.crops)
                compare(theirs, data, label_type, half, readers)


def module(path: Path) -> ModuleType:
    """Import a module of a checkout."""
    spec = importlib.util.spec_from_file_location(f"reader_{path.parent.name.replace('-', '_')}", path)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def lay_out(folder: Path, images: int) -> Path:
    """Write images to the train and val folders that the original expects."""
    write_photographs(folder / "photographs" / "train")
    data = folder / "dataset"
    for path in sorted((folder / "photographs/train").rglob("*.jpg"))[::7][:images]:
        for split in ("train", "val"):
            target = data / split / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return data


def generate(fkd: Path, data: Path, target: Path, label_type: str, half: bool, crops: int) -> None:
    """Let the original label the photographs."""
    command = [
        sys.executable,
        HERE / "run_original.py",
        fkd / "FKD/FKD_SLG/generate_soft_label.py",
        "-a",
        "lite0",
    ]
    command += ["-j", "0", "-b", "2", "--num_crops", crops, "--num_seg", FORWARD, "--input_size", 224]
    command += ["--label_type", label_type, "--save_path", target, data, *(["--use_fp16"] if half else [])]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def compare(theirs: Path, data: Path, label_type: str, half: bool, readers: dict[str, ModuleType]) -> None:
    """Import the files of a folder, export them again, and compare."""
    labels = theirs.parent / f"{theirs.name}.set"
    asked = label_type if label_type.startswith("marginal_renorm") else None
    slg_wds.import_fkd(
        slg_wds.ImportConfig(
            fkd_dir=str(theirs), images=str(data), save_path=str(labels), label_type=asked, processes=1
        )
    )
    ours = {}
    for layout in readers:
        ours[layout] = theirs.parent / f"{theirs.name}.{layout}"
        slg_wds.export_fkd(
            slg_wds.ExportConfig(labels=str(labels), fkd_dir=str(ours[layout]), layout=layout, use_fp16=half)
        )
    records = {record.path: record for record in slg_wds.open_labels(str(labels))}
    assert slg_wds.open_labels(str(labels)).label_type == label_type
    for path, record in records.items():
        name = Path("train", path).with_suffix(".tar")
        original = torch.load(theirs / data.name / name)
        for layout, root in ours.items():
            same_file(
                original,
                torch.load(root / (data.name if layout == "mealv2" else "") / name),
                record.size,
                half,
            )
    looks = 0
    for layout, reader in readers.items():
        root = theirs / data.name if layout == "fkd" else theirs
        looks += same_batches(dataset(reader, root, data), dataset(reader, ours[layout], data))
    print(
        f"{label_type}, {'float16' if half else 'float32'}: {len(records)} files, {looks} images read: the same"
    )


def same_file(theirs: list[Any], ours: list[Any], size: tuple[int, int], half: bool) -> None:
    """Raise AssertionError unless our file has the same arrays as the original's, for all crops that have a label."""
    count = len(theirs[2])
    assert type(ours) is type(theirs) and len(ours) == 3
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        other = other[:count]
        assert (type(mine), mine.dtype, mine.shape) == (type(other), other.dtype, other.shape)
        if place or not half:
            assert mine.tobytes() == np.ascontiguousarray(other).tobytes()
    assert np.array_equal(cut_boxes(ours[0], size).boxes, cut_boxes(theirs[0][:count], size).boxes)


def dataset(reader: ModuleType, labels: Path, data: Path) -> Any:
    """Return the dataset that the training scripts make from a folder of label files."""
    steps = [
        reader.RandomResizedCrop_FKD(size=224, interpolation="bilinear"),
        reader.RandomHorizontalFlip_FKD(),
    ]
    steps += [transforms.ToTensor()]
    transform = reader.Compose_FKD(transforms=steps)
    root = str(data / "train")
    return reader.ImageFolder_FKD(num_crops=4, softlabel_path=str(labels), root=root, transform=transform)


def same_batches(theirs: Any, ours: Any) -> int:
    """Raise AssertionError unless both datasets give the same; return how many images were read from each."""
    for seed in range(SEEDS):
        for number in range(len(theirs)):
            torch.manual_seed(seed)
            pixels, targets, rows = theirs[number]
            torch.manual_seed(seed)
            mine = ours[number]
            assert mine[1] == targets
            assert all(torch.equal(a, b) for a, b in zip(mine[0], pixels, strict=True))
            assert all(np.array_equal(a, b) for a, b in zip(mine[2], rows, strict=True))
    return SEEDS * len(theirs)


if __name__ == "__main__":
    main()
