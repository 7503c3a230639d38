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
on where it was stopped. Labels that are there are not made anew: after a change of the encoder take another folder.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from held_out import CROP_SEEDS, lay_out
from students import (
    Figures,
    KeptFigures,
    all_crops,
    divergence,
    each,
    log_probabilities,
    make_student,
    paired,
    run,
    spread,
    table,
    train,
)
from teacher_labels import labels_of, live_answers
from torch import Tensor

import slg_wds
from slg_wds.demo.photographs import PHOTOGRAPHS
from slg_wds.labels import SoftLabels, from_topk

TEACHER = "slg_wds.demo.teacher:lite2"
HELD_OUT_CROPS = 20  # of an image

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
    run(experiment, parser.parse_args())


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    counts = lay_out(folder)
    sets = label_sets(args, folder)
    kinds = {name: convert(sets["train"], **KINDS[name]) for name in args.kinds if name in KINDS}
    images, stored, _ = all_crops(sets["train"], None, args.size)
    logits = live_answers(sets["train"], TEACHER, folder / "live-logits.pt")
    worst = float((logits.softmax(1) - stored.dense()).abs().max())
    print(f"stored and live probabilities differ by at most {worst:.1e}", flush=True)
    held_out = {split: held(sets[split], args.size) for split in ("held", "unseen")}
    print(
        f"{len(images)} crops of {counts['train']} views of {len(PHOTOGRAPHS)} photographs; "
        f"{counts['held']} views held out, {counts['unseen']} of unseen photographs; "
        f"{args.student} at {args.size}, {args.steps} steps of {args.batch}, {args.seeds} seeds; "
        f"labelling and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    live = {
        temperature: from_topk(None, (logits / temperature).softmax(1), logits.shape[1], rule="full")
        for temperature in args.temperatures
    }
    labels = {
        temperature: read_labels(args, sets["train"], kinds, temperature)
        | ({LIVE: live[temperature]} if LIVE in args.kinds else {})
        for temperature in args.temperatures
    }
    kept = train_all(args, folder / "students.jsonl", images, labels, held_out)
    for temperature, of_temperature in labels.items():
        print(f"\ntemperature {temperature:g}, {time.monotonic() - start:.0f} s so far\n")
        apart = {kind: mean_divergence(live[temperature], rows) for kind, rows in of_temperature.items()}
        found = {kind: kept.of(args.seeds, temperature=temperature, kind=kind) for kind in of_temperature}
        report(found, apart, sizes(kinds))


def label_sets(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Label the views of each split; return where the labels lie."""
    return {
        split: labels_of(
            folder / split, folder / f"labels-{split}", TEACHER,
            args.crops if split == "train" else HELD_OUT_CROPS, seed=seed,
        )
        for split, seed in CROP_SEEDS.items()
    }  # fmt: skip


def train_all(
    args: argparse.Namespace,
    path: Path,
    images: Tensor,
    labels: dict[float, dict[str, SoftLabels]],
    held_out: dict[str, tuple[Tensor, Tensor]],
) -> KeptFigures:
    """Train the students of a seed by all labels of all temperatures, then those of the next; return their figures."""
    settings = {name: getattr(args, name) for name in ("crops", "steps", "batch", "rate", "student", "size")}
    kept = KeptFigures(path, settings)
    for seed in range(args.seeds):
        for temperature, of_temperature in labels.items():
            for kind, rows in of_temperature.items():
                which = {"temperature": temperature, "kind": kind, "seed": seed}
                kept.measure(which, partial(trained, args, images, rows, held_out, seed, temperature))
    return kept


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


def convert(source: str, label_type: str, **options: Any) -> str:
    """Write the labels of a full set as labels of another type."""
    target = f"{source}-{label_type}-{'-'.join(map(str, options.values()))}"
    config = slg_wds.EnsembleConfig(
        sets=(source,), save_path=target, label_type=label_type, processes=1, **options
    )
    slg_wds.ensemble(config)
    return target


def held(labels: str, size: int) -> tuple[Tensor, Tensor]:
    """Return crops of a held-out set, uint8 [N, 3, S, S], and the teacher's probabilities, [N, C]."""
    images, stored, _ = all_crops(labels, None, size)
    return images, stored.dense()


def trained(
    args: argparse.Namespace,
    images: Tensor,
    labels: SoftLabels,
    held_out: dict[str, tuple[Tensor, Tensor]],
    seed: int,
    temperature: float,
) -> Figures:
    """Train a student; return its KL and its agreement, in percent, on each held-out set."""
    torch.manual_seed(seed)
    student = make_student(args.student, labels.num_classes)
    train(student, images, lambda rows: labels[rows], args.steps, args.batch, args.rate, seed, temperature)
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
    """Print a table of one temperature; the last column is of held-out views, seed by seed."""
    live = [one["held"] for one in found.get(LIVE, [])]
    header = ["trained from", "bytes a crop", "KL of the labels", "KL, held-out views", "agreement there, %",
              "KL, unseen photographs", "KL minus the live teacher's" if live else "KL of each seed"]  # fmt: skip
    rows = []
    for kind, students in found.items():
        held, agreement, unseen = (
            [one[name] for one in students] for name in ("held", "held agreement", "unseen")
        )
        rows.append(
            [
                kind, f"{sizes[kind]:.1f}" if kind in sizes else "-", f"{labels_divergence[kind]:.4f}",
                spread(held), spread(agreement, 1), spread(unseen, 3), paired(held, live) if live else each(held),
            ]
        )  # fmt: skip
    print(table(header, rows), flush=True)


if __name__ == "__main__":
    main()
