"""What low-rank labels cost the loader and the loss, beside top-k with a shared tail of the same crops.

usage: bench_low_rank.py [--images 32] [--num-crops 500] [--crops 1 4 8] [--max-kl 0.1] [--rounds 5] [--threads 2]

A real teacher labels photographs. Two sets are made of its labels, with the images in them: shared_tail_k5 in log8, and
low-rank labels. In rounds that alternate, SoftLabelLoader walks over each, and SoftCrossEntropy takes the labels of a
batch, forward and backward. Printed are crops a second, and microseconds of processor time a crop, which other work on
the machine moves less; ratios are medians over the rounds.
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

import slg_wds
from slg_wds import SoftCrossEntropy, SoftLabelLoader

TEACHER = "slg_wds.demo.teacher:lite0"
TAIL, LOW_RANK = "shared tail", "low-rank"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--num-crops", type=int, default=500)
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--max-kl", type=float, default=0.1)
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
    logits = torch.randn(len(batch), batch.labels.num_classes, requires_grad=True)
    used = time.process_time()
    for _ in range(epochs):
        SoftCrossEntropy()(logits, batch.labels).backward()
    figures["loss, us"] = 1e6 * (time.process_time() - used) / (epochs * len(batch))
    return figures


def report(crops: int, found: Figures) -> None:
    print(f"{crops} crops an image")
    for name in found[TAIL]:
        tail, low_rank = found[TAIL][name], found[LOW_RANK][name]
        ratio = statistics.median(b / a for a, b in zip(tail, low_rank, strict=True))
        print(
            f"  {name:12} {TAIL} {statistics.median(tail):10,.1f}   {LOW_RANK} {statistics.median(low_rank):10,.1f}"
            f"   {LOW_RANK} / {TAIL} {ratio:.3f}"
        )


if __name__ == "__main__":
    main()
