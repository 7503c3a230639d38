"""Is a student of stored labels as accurate as one of the live teacher, on real labelled images?

usage: digits.py [--crops 8] [--steps 400] [--seeds 5]

scikit-learn's 1,797 handwritten digits as PNG files in class folders, a third held out. A small teacher is trained on
their true classes first; `slg-wds generate` labels crops of the others with it; smaller students are trained for the
same steps on the same crops, in the same order, from the stored labels, from the live teacher's softmax of the
replayed crops, and from the true classes. Prints the accuracies on the held-out digits as a markdown table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from students import (
    MEAN,
    STD,
    all_crops,
    each,
    log_probabilities,
    paired,
    run,
    small_cnn,
    spread,
    table,
    train,
)
from teacher_labels import generated
from torch import Tensor, nn

from slg_wds.labels import SoftLabels, from_topk

SIZE, CLASSES, BATCH, RATE = 32, 10, 64, 3e-3
KINDS = {
    "stored, marginal smoothing k=3, float16": {"label_type": "marginal_smoothing_k3", "values": "float16"},
    "stored, shared tail k=3, log8": {"label_type": "shared_tail_k3", "values": "log8"},
}
LIVE = "live teacher"


def teacher() -> nn.Module:
    """Return the teacher that `slg-wds generate` calls; its weights come from a file."""
    model = small_cnn(CLASSES, 24)
    preprocessing = {"input_size": SIZE, "mean": MEAN, "std": STD, "interpolation": "bilinear"}
    model.preprocessing = preprocessing  # type: ignore[assignment]
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=4, help="of the student; the teacher has 24")
    run(experiment, parser.parse_args())


def experiment(args: argparse.Namespace, folder: Path) -> None:
    start = time.monotonic()
    digits, classes, kept = lay_out(folder)
    weights, right = train_teacher(digits, classes, kept, folder)
    sets = {
        kind: labels_of_digits(
            folder / "digits", folder / options["label_type"], weights, args.crops, **options
        )
        for kind, options in KINDS.items()
    }
    labels: dict[str, SoftLabels] = {}
    images: Tensor | None = None
    for kind, url in sets.items():
        again, labels[kind], names = all_crops(url, None, SIZE)
        assert images is None or torch.equal(images, again)
        images = again
    assert images is not None
    model = teacher()
    model.load_state_dict(load_file(weights))
    labels[LIVE] = from_topk(None, log_probabilities(model, images).exp(), CLASSES, rule="full")
    true = torch.tensor([classes[int(key.rpartition("/")[2])] for key, _ in names])
    labels["true classes"] = from_topk(true[:, None], torch.ones(len(true), 1), CLASSES, rule="hard")
    print(
        f"{len(names)} crops of {len(names) // args.crops} digits, {int((~kept).sum())} held out; teacher "
        f"{right:.2f}%; students of width {args.width}, {args.steps} steps of {BATCH}, {args.seeds} seeds; "
        f"labelling and replay {time.monotonic() - start:.0f} s",
        flush=True,
    )
    report(args, images, labels, digits[~kept], torch.tensor(classes)[~kept])
    print(f"{time.monotonic() - start:.0f} s in all")


def lay_out(folder: Path) -> tuple[Tensor, list[int], Tensor]:
    """Write PNG files to train on; return all digits, uint8 [N, 3, S, S], classes, and which are for training."""
    data = load_digits()
    kept = torch.from_numpy(np.random.default_rng(0).permutation(len(data.images)) % 3 != 0)
    pixels = []
    for number, (image, digit) in enumerate(zip(data.images, data.target.tolist(), strict=True)):
        picture = Image.fromarray(np.uint8(image * 255 / 16)).convert("RGB")
        pixels.append(np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)))
        if kept[number]:
            path = folder / "digits" / "train" / str(digit) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2), data.target.tolist(), kept


def train_teacher(digits: Tensor, classes: list[int], kept: Tensor, folder: Path) -> tuple[str, float]:
    """Train the teacher; return its weights file and its accuracy on the held-out digits, in percent."""
    torch.manual_seed(100)
    model, path = teacher(), str(folder / "teacher.safetensors")
    numbers = torch.tensor(classes)
    true = from_topk(numbers[kept][:, None], torch.ones(int(kept.sum()), 1), CLASSES, rule="hard")
    train(model, digits[kept], lambda rows: true[rows], 400, BATCH, RATE, seed=100)
    save_file(model.state_dict(), path)
    return path, accuracy(model, digits[~kept], numbers[~kept])


def labels_of_digits(images: Path, target: Path, weights: str, crops: int, **more: Any) -> str:
    """Label crops of a folder of digits with the teacher of a weights file; return the set's URL."""
    return generated(
        images, target, f"{__file__}:teacher", crops, teacher_path=weights, flip_prob=0.0, min_scale_crops=0.4, **more
    )  # fmt: skip


def students_of(args: argparse.Namespace, images: Tensor, labels: SoftLabels) -> Iterator[nn.Module]:
    """Yield a trained student for each seed."""
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        student = small_cnn(CLASSES, args.width)
        train(student, images, lambda rows: labels[rows], args.steps, BATCH, RATE, seed)
        yield student


def accuracy(student: nn.Module, images: Tensor, true: Tensor) -> float:
    """Return the share of images whose likeliest class is the true one, in percent."""
    return 100 * float((log_probabilities(student, images).argmax(1) == true).float().mean())


def report(
    args: argparse.Namespace,
    images: Tensor,
    labels: dict[str, SoftLabels],
    held: Tensor,
    true: Tensor,
) -> None:
    found = {
        kind: [accuracy(student, held, true) for student in students_of(args, images, rows)]
        for kind, rows in labels.items()
    }
    header = ["trained from", "accuracy, %", "minus the live teacher's", "of each seed"]
    lines = [
        [kind, spread(values, 2), paired(values, found[LIVE], 2), each(values, ".2f")]
        for kind, values in found.items()
    ]
    print(table(header, lines), flush=True)


if __name__ == "__main__":
    main()
