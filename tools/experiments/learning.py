"""Do students learn from stored labels what they learn from the teacher itself?

usage: learning.py [--seeds 5] [--temperatures 1 4] [--kinds ...] [--crops 100] [--steps 300] [--folder F]

EfficientNet-Lite2 labels crops of real photographs. A small student is trained from scratch for the same steps, on the
same crops in the same order, from the teacher's hard top-1, marginal smoothing, the shared tail and low-rank labels of
several sizes, and from the live teacher's full softmax of the replayed crop. Measured is KL(teacher || student) and the
agreement of the likeliest classes on crops of a view of each photograph that was kept from training, and of photographs
that were kept whole. At a temperature T, labels are read at T and the student's logits divided by T; held-out crops are
compared at 1, so that the tables of all temperatures compare.

Prints a line as each student is done, all kinds of labels for one seed before the next, and at the end a markdown table
for each temperature. With --folder, photographs, labels and students' figures are kept there, and the same command goes
on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from PIL import Image
from students import all_crops, divergence, log_probabilities, make_student, spread, table, train
from teacher_labels import working_folder
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
HARD, LIVE = "hard top-1", "live teacher"


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
    parser.add_argument("--kinds", nargs="+", choices=(HARD, *KINDS, LIVE), default=[HARD, *KINDS, LIVE])
    parser.add_argument("--folder", type=Path, help="keep all here, and go on from what is there")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(cores())
    with working_folder(args) as folder:
        experiment(args, folder)


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    counts = lay_out(folder)
    sets = {split: generate(folder, split, args.crops if split == "train" else 20) for split in counts}
    kinds = {name: convert(sets["train"], **KINDS[name]) for name in args.kinds if name in KINDS}
    images, logits = live_teacher(sets["train"], args.size, folder / "live-logits.pt")
    held_out = {split: held(sets[split], args.size) for split in ("held", "unseen")}
    print(
        f"{len(images)} crops of {counts['train']} views of {len(PHOTOGRAPHS)} photographs; "
        f"{counts['held']} views held out, {counts['unseen']} of unseen photographs; "
        f"{args.student} at {args.size}, {args.steps} steps of {args.batch}, {args.seeds} seeds; "
        f"labelling and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    live, labels = {}, {}
    for temperature in args.temperatures:
        live[temperature] = from_topk(None, (logits / temperature).softmax(1), logits.shape[1], rule="full")
        labels[temperature] = read_labels(args, sets["train"], kinds, temperature)
        labels[temperature] |= {LIVE: live[temperature]} if LIVE in args.kinds else {}
    students = Students(folder / "students.jsonl", args, images, held_out)
    for seed in range(args.seeds):
        for temperature, of_temperature in labels.items():
            for kind, rows in of_temperature.items():
                students.train(seed, temperature, kind, rows)
    for temperature, of_temperature in labels.items():
        print(f"\ntemperature {temperature:g}, {time.monotonic() - start:.0f} s so far\n")
        apart = {kind: mean_divergence(live[temperature], rows) for kind, rows in of_temperature.items()}
        report({kind: students.of(temperature, kind) for kind in of_temperature}, apart, sizes(kinds))


def read_labels(
    args: argparse.Namespace, full: str, kinds: dict[str, str], temperature: float
) -> dict[str, SoftLabels]:
    """Return the distributions of all training crops, in one order, by kind of label."""
    labels = {HARD: all_crops(full, None, args.size, "hard")[1]} if HARD in args.kinds else {}
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


def live_teacher(labels: str, size: int, kept: Path) -> tuple[Tensor, Tensor]:
    """Return all crops at the student's size, uint8 [N, 3, S, S], and the teacher's logits of the replayed crops.

    The logits are kept in a file, and taken from there if it exists.
    """
    if kept.exists():
        return all_crops(labels, None, size)[0], torch.load(kept, weights_only=True)
    teacher = load_teacher(TeacherSpec("private", TEACHER))
    images, stored, names = all_crops(labels, None, teacher.preprocessing.input_size)
    with torch.no_grad():
        # Cloned: what inference mode made cannot be trained with.
        logits = torch.cat([teacher.logits(part) for part in torch.split(images, 50)]).clone()
    worst = float((logits.softmax(1) - stored.dense()).abs().max())
    print(f"stored and live probabilities differ by at most {worst:.1e}", flush=True)
    smaller, _, others = all_crops(labels, None, size)
    assert names == others
    torch.save(logits, kept)
    return smaller, logits


def held(labels: str, size: int) -> tuple[Tensor, Tensor]:
    """Return crops of a held-out set, uint8 [N, 3, S, S], and the teacher's probabilities, [N, C]."""
    images, stored, _ = all_crops(labels, None, size)
    return images, stored.dense()


Figures = dict[str, float]


class Students:
    """Students that were trained, kept in a file, a line each.

    Args:
        path: the file.
        args: the command's, of which those that decide a student are kept with it.
        images: uint8 [N, 3, S, S], the training crops.
        held_out: for each held-out set, its crops and the teacher's probabilities of them.
    """

    def __init__(
        self, path: Path, args: argparse.Namespace, images: Tensor, held_out: dict[str, tuple[Tensor, Tensor]]
    ) -> None:
        self._path, self._args, self._images, self._held_out = path, args, images, held_out
        self._settings = {
            name: getattr(args, name) for name in ("crops", "steps", "batch", "rate", "student", "size")
        }
        lines = path.read_text().splitlines() if path.exists() else []
        self._found: list[dict[str, Any]] = [
            one for one in map(json.loads, lines) if self._settings.items() <= one.items()
        ]

    def train(self, seed: int, temperature: float, kind: str, labels: SoftLabels) -> None:
        """Train a student and keep its KL on each held-out set and its agreement, unless that is there already."""
        which = {"temperature": temperature, "kind": kind, "seed": seed}
        if any(which.items() <= one.items() for one in self._found):
            return
        args = self._args
        torch.manual_seed(seed)
        student = make_student(args.student, labels.num_classes)
        train(
            student,
            self._images,
            lambda rows: labels[rows],
            args.steps,
            args.batch,
            args.rate,
            seed,
            temperature,
        )
        self._found.append({**self._settings, **which, **compared(student, self._held_out)})
        line = json.dumps(self._found[-1])
        with open(self._path, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def of(self, temperature: float, kind: str) -> list[Figures]:
        """Return the figures of each seed, in order."""
        which = {"temperature": temperature, "kind": kind}
        found = [
            one for one in self._found if which.items() <= one.items() and one["seed"] < self._args.seeds
        ]
        return sorted(found, key=lambda one: int(one["seed"]))


def compared(student: torch.nn.Module, held_out: dict[str, tuple[Tensor, Tensor]]) -> Figures:
    """Return a student's KL and agreement, in percent, on each held-out set."""
    found: Figures = {}
    for split, (crops, teacher) in held_out.items():
        rows = log_probabilities(student, crops)
        found[split] = divergence(teacher, rows)
        found[f"{split} agreement"] = 100 * float((rows.argmax(1) == teacher.argmax(1)).float().mean())
    return found


def mean_divergence(live: SoftLabels, labels: SoftLabels) -> float:
    """Return the mean KL(teacher || labels) of the training crops; infinite if labels lack what the teacher has."""
    return divergence(live.dense(), labels.dense().log())


def report(
    found: dict[str, list[Figures]], labels_divergence: dict[str, float], sizes: dict[str, float]
) -> None:
    header = ["trained from", "bytes a crop", "KL of the labels", "KL, held-out views", "agreement there, %",
              "KL, unseen photographs", "KL of each seed"]  # fmt: skip
    rows = []
    for kind, students in found.items():
        held, agreement, unseen = (
            [one[name] for one in students] for name in ("held", "held agreement", "unseen")
        )
        rows.append(
            [
                kind, f"{sizes[kind]:.1f}" if kind in sizes else "-", f"{labels_divergence[kind]:.4f}",
                spread(held), spread(agreement, 1), spread(unseen, 3), " ".join(f"{value:.4f}" for value in held),
            ]
        )  # fmt: skip
    print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
