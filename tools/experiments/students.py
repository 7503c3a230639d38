"""What the experiments with students share: how they are trained, figures of several seeds, and tables of these."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from teacher_labels import crops_in_order, working_folder
from torch import Tensor, nn

from slg_wds import SoftCrossEntropy
from slg_wds.concurrency.cores import cores
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.labels import SoftLabels, from_topk

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
Labels = Callable[[Tensor], Any]  # row numbers int64 [B] -> their distributions, or their embeddings
Figures = dict[str, float]


def run(experiment: Callable[[argparse.Namespace, Path], None], args: argparse.Namespace) -> None:
    """Run an experiment in the folder of --folder, or in one that is removed at its end, on this process's cores."""
    keep_freed_memory()
    torch.set_num_threads(cores())
    with working_folder(args) as folder:
        experiment(args, folder)


class KeptFigures:
    """Figures of students in a file, a JSON line each, so that the same command goes on where it was stopped.

    Args:
        path: the file.
        settings: what else decides a student; figures of other settings stay in the file and are not used.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        lines = path.read_text().splitlines() if path.exists() else []
        found = map(json.loads, lines)
        self._lines: list[dict[str, Any]] = [one for one in found if settings.items() <= one.items()]

    def measure(self, which: dict[str, Any], measured: Callable[[], Figures]) -> None:
        """Measure, print and keep the figures of a student, unless they are there already."""
        if any(which.items() <= one.items() for one in self._lines):
            return
        self._lines.append({**self._settings, **which, **measured()})
        line = json.dumps(self._lines[-1])
        with open(self._path, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def of(self, seeds: int, **which: Any) -> list[dict[str, Any]]:
        """Return the figures of each of the first seeds, in order."""
        found = [one for one in self._lines if which.items() <= one.items() and one["seed"] < seeds]
        return sorted(found, key=lambda one: int(one["seed"]))


def small_cnn(num_classes: int, width: int = 24) -> nn.Sequential:
    """Four strided convolutions with batch norm, the last of 8 x width channels, and a linear head or projector."""
    layers: list[nn.Module] = []
    inner = 3
    for outer in (width, 2 * width, 4 * width, 8 * width):
        layers += [
            nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
        ]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, num_classes))


def make_student(name: str, num_classes: int) -> nn.Module:
    """Return the student: `cnn`, or a model of timm."""
    import timm

    model = small_cnn(num_classes) if name == "cnn" else timm.create_model(name, num_classes=num_classes)
    return model.to(memory_format=torch.channels_last)


def all_crops(
    labels: str, images: str | None, size: int, rule: str | None = None, temperature: float | None = None
) -> tuple[Tensor, SoftLabels, list[Any]]:
    """Load every crop of a label set once: uint8 [N, 3, S, S], distributions, and (key, crop) of each row."""
    batches = list(crops_in_order(labels, size, images, rule=rule, temperature=temperature))
    names = [name for batch in batches for name in zip(batch.key, batch.crop.tolist(), strict=True)]
    joined = joined_labels([batch.labels for batch in batches])
    return torch.cat([batch.images for batch in batches]), joined, names


def joined_labels(parts: Sequence[SoftLabels]) -> SoftLabels:
    """Return the rows of several batches as one; low-rank labels are made dense."""
    if any(part.tables for part in parts):
        rows = torch.cat([part.dense() for part in parts])
        return from_topk(None, rows, rows.shape[1], rule="full")
    evens = [part.even for part in parts if part.even is not None]
    return SoftLabels(
        torch.cat([part.index for part in parts]),
        torch.cat([part.mass for part in parts]),
        torch.cat(evens) if evens else None,
        parts[0].num_classes,
    )


def normalised(images: Tensor) -> Tensor:
    """Normalise uint8 [B, 3, S, S] with ImageNet's mean and standard deviation."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return images.float().div_(255).sub_(mean).div_(std)


def train(
    student: nn.Module,
    images: Tensor,
    labels: Labels,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    temperature: float = 1.0,
    criterion: nn.Module | None = None,
) -> None:
    """Train for `steps` steps of AdamW with a cosine schedule; the seed alone decides the rows of each step.

    `temperature` divides the student's logits; labels must have theirs already. `criterion` compares the student's
    output with what `labels` returns; None: soft cross-entropy.
    """
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    criterion = criterion or SoftCrossEntropy(student_temperature=temperature, t_squared=True)
    student.train()
    rows = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(rows) < batch:
            rows = torch.cat([rows, torch.randperm(len(images), generator=draw)])
        now, rows = rows[:batch], rows[batch:]
        loss = criterion(student(normalised(images[now])), labels(now))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def log_probabilities(student: nn.Module, images: Tensor) -> Tensor:
    """Return the student's log-probabilities, float32 [N, C]."""
    student.eval()
    return torch.cat([student(normalised(part)).log_softmax(1) for part in torch.split(images, 256)])


def divergence(teacher: Tensor, student: Tensor) -> float:
    """Return the mean KL(teacher || student) in nats, of probabilities [N, C] and log-probabilities [N, C]."""
    return float((torch.xlogy(teacher, teacher) - teacher * student).sum(1).mean())


def spread(values: Sequence[float], digits: int = 4, sign: str = "") -> str:
    """Return mean and standard deviation over the seeds, as text; with the sign "+", that of the mean is shown."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{sign}.{digits}f} ± {deviation:.{digits}f}"


def paired(values: Sequence[float], others: Sequence[float], digits: int = 4) -> str:
    """Return the differences of values to others of the same seeds, as text: mean ± standard deviation, then each."""
    apart = [a - b for a, b in zip(values, others, strict=True)]
    return f"{spread(apart, digits, '+')}: {each(apart, f'+.{digits}f')}"


def each(values: Sequence[float], style: str = ".4f") -> str:
    """Return the values of all seeds, as text."""
    return " ".join(f"{value:{style}}" for value in values)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a table in markdown."""
    return "\n".join(map(table_row, [header, ["---"] * len(header), *rows]))


def table_row(cells: Sequence[str]) -> str:
    """Return a line of a table in markdown."""
    return f"| {' | '.join(cells)} |"
