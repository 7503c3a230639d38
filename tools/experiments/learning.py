"""Do students learn from stored labels what they learn from the teacher itself?

usage: learning.py [--crops 100] [--steps 300] [--seeds 5] [--student cnn] [--size 96] [--temperatures 1 4]

EfficientNet-Lite2 labels crops of real photographs. A small student is trained from scratch for the same steps, on the
same crops in the same order, from the teacher's hard top-1, marginal smoothing, the shared tail and low-rank labels of
several sizes, and from the live teacher's full softmax of the replayed crop. Measured is KL(teacher || student) and the
agreement of the likeliest classes on crops of a view of each photograph that was kept from training, and of photographs
that were kept whole. At a temperature T, labels are read at T and the student's logits divided by T; held-out crops are
compared at 1, so that the tables of all temperatures compare. Prints a markdown table for each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from students import all_crops, divergence, log_probabilities, make_student, spread, table, train
from torch import Tensor

import slg_wds
from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.demo.photographs import PHOTOGRAPHS, VIEWS, cut_views
from slg_wds.labels import SoftLabels, from_topk
from slg_wds.teachers.load import load_teacher
from slg_wds.teachers.spec import TeacherSpec

TEACHER = "slg_wds.demo.teacher:lite2"
HELD_OUT_VIEW = 5  # the central one
UNSEEN = {
    "astronaut": skimage.data.astronaut,
    "coins": skimage.data.coins,
    "hubble": skimage.data.hubble_deep_field,
}


KINDS: dict[str, dict[str, Any]] = {
    "marginal smoothing k=5, float32": {"label_type": "marginal_smoothing_k5", "values": "float32"},
    "marginal smoothing k=5, log8": {"label_type": "marginal_smoothing_k5", "values": "log8"},
    "shared tail k=5, log8": {"label_type": "shared_tail_k5", "values": "log8"},
    "shared tail k=10, log8": {"label_type": "shared_tail_k10", "values": "log8"},
    "low-rank 0.2": {"label_type": "lowrank", "max_kl": 0.2},
    "low-rank 0.1": {"label_type": "lowrank", "max_kl": 0.1},
    "low-rank 0.05": {"label_type": "lowrank", "max_kl": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=100)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--student", default="cnn", help="cnn, or a model of timm")
    parser.add_argument("--size", type=int, default=96)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(cores())
    with tempfile.TemporaryDirectory() as name:
        experiment(args, Path(name))


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    counts = lay_out(folder)
    sets = {split: generate(folder, split, args.crops if split == "train" else 20) for split in counts}
    kinds = {name: convert(sets["train"], **options) for name, options in KINDS.items()}
    images, logits = live_teacher(sets["train"], args.size)
    held_out = {split: held(sets[split], args.size) for split in ("held", "unseen")}
    print(
        f"{len(images)} crops of {counts['train']} views of {len(PHOTOGRAPHS)} photographs; "
        f"{counts['held']} views held out, {counts['unseen']} of unseen photographs; "
        f"{args.student} at {args.size}, {args.steps} steps of {args.batch}, {args.seeds} seeds; "
        f"labelling and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    for temperature in args.temperatures:
        live = from_topk(None, (logits / temperature).softmax(1), logits.shape[1], rule="full")
        labels = read_labels(args, kinds, temperature)
        labels["live teacher"] = live
        found = {kind: trained(args, images, rows, held_out, temperature) for kind, rows in labels.items()}
        print(f"\ntemperature {temperature:g}, {time.monotonic() - start:.0f} s so far\n")
        report(found, {kind: mean_divergence(live, rows) for kind, rows in labels.items()}, sizes(kinds))


def read_labels(args: argparse.Namespace, kinds: dict[str, str], temperature: float) -> dict[str, SoftLabels]:
    """Return the distributions of all training crops, in one order, by kind of label."""
    first = next(iter(kinds.values()))
    labels = {"hard top-1": all_crops(first, None, args.size, "hard")[1]}
    for kind, url in kinds.items():
        labels[kind] = all_crops(url, None, args.size, None, temperature)[1]
    return labels


def sizes(kinds: dict[str, str]) -> dict[str, float]:
    """Return the bytes of the records for each crop, by kind of label."""
    found = {}
    for kind, url in kinds.items():
        labels = slg_wds.open_labels(url)
        records = [size for number in range(labels.num_shards) for _, size, _ in labels.index(number).records]
        found[kind] = sum(records) / len(records) / labels.num_crops
    return found


def lay_out(folder: Path) -> dict[str, int]:
    """Write views to train on, one held-out view of each photograph, and photographs that are held out."""
    counts = dict.fromkeys(("train", "held", "unseen"), 0)

    def put(split: str, wnid: str, name: str, image: Image.Image) -> None:
        path = folder / split / wnid / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, quality=92)
        counts[split] += 1

    for wnid, photographs in PHOTOGRAPHS.items():
        for name, load in photographs.items():
            for number, view in enumerate(cut_views(load(), VIEWS)):
                put("held" if number == HELD_OUT_VIEW else "train", wnid, f"{name}_{number}", view)
    for name, load in UNSEEN.items():
        pixels = np.asarray(load())  # type: ignore[no-untyped-call]
        pixels = np.stack([pixels] * 3, axis=2) if pixels.ndim == 2 else pixels[..., :3]
        for number, view in enumerate(cut_views(pixels, VIEWS)):
            put("unseen", "unseen", f"{name}_{number}", view)
    return counts


def generate(folder: Path, split: str, crops: int) -> str:
    """Store all probabilities of the teacher; the other kinds of labels are computed from them."""
    target = str(folder / f"labels-{split}")
    config = slg_wds.GenerateConfig(
        data=str(folder / split), save_path=target, teacher_source="private", arch=TEACHER, label_type="full",
        values="float32", num_crops=crops, embed_images="original", seed=len(split),
    )  # fmt: skip
    slg_wds.generate(config)
    return target


def convert(source: str, label_type: str, **options: Any) -> str:
    """Write the labels of a full set as labels of another type."""
    target = f"{source}-{label_type}-{'-'.join(map(str, options.values()))}"
    config = slg_wds.EnsembleConfig(
        sets=(source,), save_path=target, label_type=label_type, processes=1, **options
    )
    slg_wds.ensemble(config)
    return target


def live_teacher(labels: str, size: int) -> tuple[Tensor, Tensor]:
    """Return all crops at the student's size, uint8 [N, 3, S, S], and the teacher's logits of the replayed crops."""
    teacher = load_teacher(TeacherSpec("private", TEACHER))
    images, stored, names = all_crops(labels, None, teacher.preprocessing.input_size)
    with torch.no_grad():
        # Cloned: what inference mode made cannot be trained with.
        logits = torch.cat([teacher.logits(part) for part in torch.split(images, 50)]).clone()
    worst = float((logits.softmax(1) - stored.dense()).abs().max())
    print(f"stored and live probabilities differ by at most {worst:.1e}", flush=True)
    smaller, _, others = all_crops(labels, None, size)
    assert names == others
    return smaller, logits


def held(labels: str, size: int) -> tuple[Tensor, Tensor]:
    """Return crops of a held-out set, uint8 [N, 3, S, S], and the teacher's probabilities, [N, C]."""
    images, stored, _ = all_crops(labels, None, size)
    return images, stored.dense()


def trained(
    args: argparse.Namespace,
    images: Tensor,
    labels: SoftLabels,
    held_out: dict[str, tuple[Tensor, Tensor]],
    temperature: float,
) -> dict[str, list[float]]:
    """Train one student per seed; return KL on each held-out set, and agreement on the first."""
    found: dict[str, list[float]] = {}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        student = make_student(args.student, labels.num_classes)
        train(
            student, images, lambda rows: labels[rows], args.steps, args.batch, args.rate, seed, temperature
        )
        for split, (crops, teacher) in held_out.items():
            student_rows = log_probabilities(student, crops)
            found.setdefault(split, []).append(divergence(teacher, student_rows))
            agreement = (student_rows.argmax(1) == teacher.argmax(1)).float().mean()
            found.setdefault(f"{split} agreement", []).append(100 * float(agreement))
    return found


def mean_divergence(live: SoftLabels, labels: SoftLabels) -> float:
    """Return the mean KL(teacher || labels) of the training crops; infinite if labels lack what the teacher has."""
    return divergence(live.dense(), labels.dense().log())


def report(
    found: dict[str, dict[str, list[float]]], labels_divergence: dict[str, float], sizes: dict[str, float]
) -> None:
    header = ["trained from", "bytes a crop", "KL of the labels", "KL, held-out views", "agreement there, %",
              "KL, unseen photographs", "KL of each seed"]  # fmt: skip
    rows = [
        [
            kind, f"{sizes[kind]:.1f}" if kind in sizes else "-", f"{labels_divergence[kind]:.4f}",
            spread(one["held"]), spread(one["held agreement"], 1), spread(one["unseen"], 3),
            " ".join(f"{value:.4f}" for value in one["held"]),
        ]
        for kind, one in found.items()
    ]  # fmt: skip
    print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
