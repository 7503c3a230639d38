"""Do students learn more from views (RandAugment and erasing) than from boxes alone, of the same teacher?

usage: views.py [--crops 8] [--steps 400] [--seeds 5] [--policy rand-m9-mstd0.5-inc1] [--reprob 0.25]

The digits, teacher and students of digits.py. The teacher labels as many crops of each digit twice: as boxes, and as
views of the same boxes. Students are trained for the same steps on either. Held out are a third of the digits; of
these, accuracy on whole digits is printed, and KL(teacher || student) in nats on crops that are boxes and on views.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from digits import BATCH, SIZE, accuracy, labels_of_digits, lay_out, students_of, train_teacher
from students import all_crops, divergence, log_probabilities, paired, run, spread, table
from torch import Tensor
from torchvision.io import write_png

from slg_wds.labels import SoftLabels

HELD_CROPS = 4
Crops = tuple[Tensor, SoftLabels, list[Any]]  # pixels, labels, and (key, crop) of each row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=4, help="of the student; the teacher has 24")
    parser.add_argument("--policy", default="rand-m9-mstd0.5-inc1")
    parser.add_argument("--reprob", type=float, default=0.25)
    run(experiment, parser.parse_args())


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    digits, classes, kept = lay_out(folder)
    weights, right = train_teacher(digits, classes, kept, folder)
    true = torch.tensor(classes)
    for number in torch.nonzero(~kept).flatten().tolist():
        path = folder / "held" / "train" / str(classes[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(digits[number].contiguous(), str(path))
    views = {"aa": args.policy, "reprob": args.reprob}
    kinds: dict[str, dict[str, Any]] = {"boxes": {}, "views": views}
    sets = {kind: labelled(folder, "digits", weights, args.crops, more) for kind, more in kinds.items()}
    held = {kind: labelled(folder, "held", weights, HELD_CROPS, more) for kind, more in kinds.items()}
    print(
        f"{len(digits)} digits, {int((~kept).sum())} held out; {args.crops} crops of each; teacher {right:.2f}%; "
        f"students of width {args.width}, {args.steps} steps of {BATCH}, {args.seeds} seeds; {args.policy}, "
        f"erased {args.reprob:g}; labelling {time.monotonic() - start:.0f} s",
        flush=True,
    )
    report(args, sets, held, digits[~kept], true[~kept])
    print(f"{time.monotonic() - start:.0f} s in all")


def labelled(folder: Path, source: str, weights: str, crops: int, views: dict[str, Any]) -> Crops:
    """Label crops of a folder; return their pixels, labels and names."""
    target = folder / f"{source}-{'views' if views else 'boxes'}"
    more = {"label_type": "full", "values": "float32", **views}
    return all_crops(labels_of_digits(folder / source, target, weights, crops, **more), None, SIZE)


def report(
    args: argparse.Namespace, sets: dict[str, Crops], held: dict[str, Crops], whole: Tensor, true: Tensor
) -> None:
    found: dict[tuple[str, str], list[float]] = {}
    for kind, (images, labels, _) in sets.items():
        for student in students_of(args, images, labels):
            found.setdefault((kind, "accuracy"), []).append(accuracy(student, whole, true))
            for other, (pixels, answers, _) in held.items():
                apart = divergence(answers.dense(), log_probabilities(student, pixels))
                found.setdefault((kind, other), []).append(apart)
    header = ["trained on", "accuracy on held-out digits, %", "KL on held-out boxes", "KL on held-out views"]
    lines = [
        [kind, spread(found[kind, "accuracy"], 2), spread(found[kind, "boxes"]), spread(found[kind, "views"])]
        for kind in sets
    ]
    print(table(header, lines), flush=True)
    print(f"accuracy, views - boxes: {paired(found['views', 'accuracy'], found['boxes', 'accuracy'], 2)}")


if __name__ == "__main__":
    main()
