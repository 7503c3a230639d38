"""Do students learn from stored embeddings what they learn from the live teacher?

usage: embeddings.py [--crops 50] [--steps 200] [--seeds 5] [--size 64] [--loss cosine] [--folder F]

EfficientNet-Lite0 without its head gives 1280 features for crops of real photographs. A small student with a linear
projector is trained from scratch for the same steps, on the same crops in the same order, to match the embeddings that
are stored as int8, as float16 and as low-rank embeddings of a mean cosine, and those of the live teacher, which sees
each replayed crop (once: it says the same in every epoch and for every seed). As a control, students are trained from
the live teacher's embeddings with their last bits changed: what separates these from the live teacher's own is what
training makes of any change.

Measured is, on crops of a view of each photograph that was kept from training and of photographs that were kept whole:
the cosine to the teacher's own embedding, and how many of the 10 training crops that are nearest to a held-out crop by
the student's features are among the 10 nearest by the teacher's.

Prints a line as each student is done, all kinds of embeddings for one seed before the next, and at the end markdown
tables. With --folder, photographs, embeddings and students' figures are kept there, and the same command goes on where
it was stopped. Embeddings that are there are not made anew.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from held_out import CROP_SEEDS, lay_out
from students import Figures, KeptFigures, each, normalised, paired, run, small_cnn, spread, table, train
from teacher_labels import TOWER, crops_in_order, embeddings_of, live_answers
from torch import Tensor, nn
from torch.nn import functional as F

from slg_wds import EmbeddingLoss

NEAREST = 10
HELD_OUT_CROPS = 20  # of an image
LOSSES = {"cosine": {}, "both": {"cosine": 0.9, "smooth_l1": 0.1}}
KINDS: dict[str, dict[str, Any]] = {
    "int8": {"values": "int8"},
    "float16": {"values": "float16"},
    "low-rank 0.99": {"min_cosine": 0.99},
}
LIVE, CONTROL = "live teacher", "live teacher, last bits changed"
LAST_BITS = 1e-6  # of a number, the standard deviation of the change
SHOWN = {"held cosine": 4, "held nearest": 1, "unseen cosine": 4}  # and digits after the point


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=50)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--loss", choices=list(LOSSES), default="cosine")
    parser.add_argument("--folder", type=Path, help="keep all here, and go on from what is there")
    run(experiment, parser.parse_args())


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    counts = lay_out(folder)
    sets = {kind: embedded(args, folder, "train", kind, args.crops, **KINDS[kind]) for kind in KINDS}
    images = sets["int8"][0]
    live = live_answers(str(folder / "train-int8"), TOWER, folder / "live.pt", headless=True)
    rows = {kind: of_kind for kind, (_, of_kind) in sets.items()} | {CONTROL: disturbed(live), LIVE: live}
    held_out = {
        split: embedded(args, folder, split, "exact", HELD_OUT_CROPS, values="float32")
        for split in ("held", "unseen")
    }
    print(
        f"{len(images)} crops of {counts['train']} views; {counts['held']} views held out, {counts['unseen']} of "
        f"unseen photographs; student of {args.size} pixels, loss {args.loss}, {args.steps} steps of {args.batch}, "
        f"{args.seeds} seeds; embedding and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    settings = {name: getattr(args, name) for name in ("crops", "steps", "batch", "rate", "size", "loss")}
    kept = KeptFigures(folder / "students.jsonl", settings)
    for seed in range(args.seeds):
        for kind, of_kind in rows.items():
            which = {"kind": kind, "seed": seed}
            kept.measure(which, partial(trained, args, images, of_kind, live, held_out, seed))
    faithful = {kind: float(F.cosine_similarity(of_kind, live).mean()) for kind, of_kind in rows.items()}
    report({kind: kept.of(args.seeds, kind=kind) for kind in rows}, faithful)
    print(f"{time.monotonic() - start:.0f} s in all")


def embedded(
    args: argparse.Namespace, folder: Path, split: str, kind: str, crops: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """Store embeddings of a split; return its crops, uint8 [N, 3, S, S], and what is read back, float32 [N, D]."""
    url = embeddings_of(folder / split, folder / f"{split}-{kind}", crops, seed=CROP_SEEDS[split], **options)
    batches = list(crops_in_order(url, args.size))
    rows = torch.cat([next(iter(batch.embedding.values())) for batch in batches])
    return torch.cat([batch.images for batch in batches]), rows


def disturbed(rows: Tensor) -> Tensor:
    """Return the embeddings with their last bits changed, the same way in every run."""
    noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(0))
    return rows * (1 + LAST_BITS * noise)


def trained(
    args: argparse.Namespace,
    images: Tensor,
    embeddings: Tensor,
    live: Tensor,
    held_out: dict[str, tuple[Tensor, Tensor]],
    seed: int,
) -> Figures:
    """Train a student; return the cosine and the agreement of neighbours, in percent, on each held-out set."""
    torch.manual_seed(seed)
    student = small_cnn(embeddings.shape[1]).to(memory_format=torch.channels_last)
    criterion = EmbeddingLoss(**LOSSES[args.loss])
    train(
        student, images, lambda rows: embeddings[rows], args.steps, args.batch, args.rate, seed, criterion=criterion
    )  # fmt: skip
    own = outputs(student, images)[0]
    found: Figures = {}
    for split, (crops, theirs) in held_out.items():
        features, projected = outputs(student, crops)
        found[f"{split} cosine"] = float(F.cosine_similarity(projected, theirs).mean())
        same = nearest(features, own)[:, :, None] == nearest(theirs, live)[:, None, :]
        found[f"{split} nearest"] = 100 * float(same.any(2).float().mean())
    return found


@torch.no_grad()
def outputs(student: nn.Sequential, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the student's features and what its projector makes of them."""
    student.eval()
    features = torch.cat([student[:-1](normalised(part)) for part in torch.split(images, 256)])
    return features, student[-1](features)


def nearest(queries: Tensor, rows: Tensor) -> Tensor:
    """Return the numbers of the NEAREST rows by cosine, int64 [N, NEAREST]."""
    return (F.normalize(queries, dim=1) @ F.normalize(rows, dim=1).T).topk(NEAREST).indices


def report(found: dict[str, list[Figures]], faithful: dict[str, float]) -> None:
    """Print the figures of each kind, then their differences to those of the live teacher's students, by seed."""
    columns = {
        kind: {name: [one[name] for one in students] for name in SHOWN} for kind, students in found.items()
    }
    header = ["trained from", "cosine of the embeddings", "cosine, held-out views", "same neighbours there, %",
              "cosine, unseen photographs", "held-out cosine of each seed"]  # fmt: skip
    lines = [
        [kind, f"{faithful[kind]:.5f}", *(spread(of_kind[name], digits) for name, digits in SHOWN.items()),
         each(of_kind["held cosine"])]
        for kind, of_kind in columns.items()
    ]  # fmt: skip
    print(table(header, lines), end="\n\n")
    header = ["minus the live teacher's", "cosine, held-out views", "same neighbours there, %",
              "cosine, unseen photographs"]  # fmt: skip
    lines = [
        [kind, *(paired(of_kind[name], columns[LIVE][name], digits) for name, digits in SHOWN.items())]
        for kind, of_kind in columns.items()
        if kind != LIVE
    ]
    print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
