"""What low-rank labels, or embeddings, cost the loader and the loss, beside top-k with a shared tail of the same crops.

usage: bench_low_rank.py [--images 32] [--num-crops 500] [--crops 1 4 8] [--max-kl 0.1] [--embedding D] [--rounds 5]
                         [--threads 2]

A real teacher labels photographs. Two sets are made of its labels, with the images in them: shared_tail_k5 in log8, and
low-rank labels. With --embedding, the second set holds int8 embeddings: the first D of the teacher's 1280 features. In
rounds that alternate, SoftLabelLoader walks over each, and the loss takes the labels of a batch, forward and backward:
SoftCrossEntropy, or EmbeddingLoss with a linear projector from 512 numbers. Printed are crops a second, and
microseconds of processor time a crop, on which other work has less effect; ratios are medians over the rounds.

With D = 768, the projector takes eight tenths of the time of EmbeddingLoss, and the loss itself one tenth. Low-rank
labels become distributions in the loss, top-k labels in the loader: compare the sums of loader and loss.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path

import torch
from bench_generate import lay_out
from torch import nn

import slg_wds
from slg_wds import EmbeddingLoss, SoftCrossEntropy, SoftLabelLoader

TEACHER = "slg_wds.demo.teacher:lite0"
TAIL, LOW_RANK, EMBEDDING = "shared tail", "low-rank", "embedding"
WIDTH = 512  # of a student's features
# A module of the set's folder, so that `generate` can call it in any process.
FEATURES = """
from torch import nn
from slg_wds.demo.teacher import lite0


class First(nn.Module):
    def forward(self, rows):
        return rows[:, :{dim}]


def features():
    model = lite0()
    model.classifier = First()
    return model
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--num-crops", type=int, default=500)
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--max-kl", type=float, default=0.1)
    parser.add_argument(
        "--embedding", type=int, help="compare int8 embeddings of so many numbers, at most 1280"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4, help="walks of a round")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as name:
        urls = make_sets(Path(name), options)
        for crops in options.crops:
            report(crops, compared(urls, crops, options))


def make_sets(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    lay_out(folder / "images", options.images)
    kinds = labels_of(folder, options)
    if options.embedding:
        kinds.pop(LOW_RANK)
        (folder / "first.py").write_text(FEATURES.format(dim=options.embedding))
        kinds[EMBEDDING] = str(folder / EMBEDDING)
        slg_wds.generate(
            slg_wds.GenerateConfig(
                data=str(folder / "images"), save_path=kinds[EMBEDDING], arch=f"{folder / 'first.py'}:features",
                teacher_source="private", output="embedding", num_crops=options.num_crops, embed_images="original",
            )
        )  # fmt: skip
    return kinds


def labels_of(folder: Path, options: argparse.Namespace) -> dict[str, str]:
    full = str(folder / "full")
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(folder / "images"), save_path=full, arch=TEACHER, teacher_source="private", label_type="full",
            values="float32", num_crops=options.num_crops, embed_images="original",
        )
    )  # fmt: skip
    kinds = {
        TAIL: {"label_type": "shared_tail_k5", "values": "log8"},
        LOW_RANK: {"label_type": "lowrank", "max_kl": options.max_kl},
    }
    for kind, more in kinds.items():
        target = str(folder / kind.replace(" ", "-"))
        slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(full,), save_path=target, processes=1, **more))
        kinds[kind] = target
    return kinds


Figures = dict[str, dict[str, list[float]]]


def compared(urls: dict[str, str], crops: int, options: argparse.Namespace) -> Figures:
    """Return, for each kind of labels, the figures of every round after the first."""
    loaders = {
        kind: SoftLabelLoader(
            url, global_batch_size=options.images * crops, crops_per_image=crops, threads=options.threads
        )
        for kind, url in urls.items()
    }
    found: Figures = {kind: defaultdict(list) for kind in urls}
    for number in range(options.rounds + 1):
        for kind, loader in loaders.items():
            figures = walked(loader, options.epochs)
            for name, value in figures.items() if number else ():
                found[kind][name].append(value)
    return found


def walked(loader: SoftLabelLoader, epochs: int) -> dict[str, float]:
    start, used, count = time.perf_counter(), time.process_time(), 0
    for _ in range(epochs):
        for batch in loader:
            count += len(batch)
    figures = {
        "crops/s": count / (time.perf_counter() - start),
        "loader, us": 1e6 * (time.process_time() - used) / count,
    }
    criterion: nn.Module = SoftCrossEntropy()
    if batch.labels is None:
        ((_, answers),) = batch.embedding.items()
        criterion, width = EmbeddingLoss(nn.Linear(WIDTH, answers.shape[1])), WIDTH
    else:
        answers, width = batch.labels, batch.labels.num_classes
    outputs = torch.randn(len(batch), width, requires_grad=True)
    used = time.process_time()
    for _ in range(epochs):
        criterion(outputs, answers).backward()
    figures["loss, us"] = 1e6 * (time.process_time() - used) / (epochs * len(batch))
    return figures


def report(crops: int, found: Figures) -> None:
    print(f"{crops} crops an image")
    other = next(kind for kind in found if kind != TAIL)
    for name in found[TAIL]:
        tail, theirs = found[TAIL][name], found[other][name]
        ratio = statistics.median(b / a for a, b in zip(tail, theirs, strict=True))
        print(
            f"  {name:12} {TAIL} {statistics.median(tail):10,.1f}   {other} {statistics.median(theirs):10,.1f}"
            f"   {other} / {TAIL} {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
