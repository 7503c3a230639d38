"""What a training step with the loader costs, compared with one on a batch that is already there.

usage: bench_training.py [--arch resnet18] [--batch-size 32] [--steps 8] [--rounds 5] [--threads 1] [--train-threads 1]

The step is that of `slg-wds train`. In every round come --steps steps on one batch that stays on the device and --steps
steps on batches of SoftLabelLoader from a local set with embedded photographs; which comes first alternates. The
student must be slow enough for the loader's threads: the loader's own rate is printed beside the need. On a CPU the
loader's threads need cores of their own, so --train-threads and --threads together are at most the cores.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from bench_generate import lay_out
from replay_parts.labels import make_set

from slg_wds import SoftCrossEntropy, SoftLabelLoader
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.replay.batch import Batch
from slg_wds.replay.device import DeviceLoader
from slg_wds.training.flags import parse
from slg_wds.training.processes import start_process_group, take_place
from slg_wds.training.step import train_step
from slg_wds.training.student import make_student, set_up


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch-size", type=int, default=32, help="crops")
    parser.add_argument("--crops", type=int, default=4, help="of an image")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the loader")
    parser.add_argument("--train-threads", type=int, default=1, help="of torch, without a GPU")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--amp", default="off")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "images", options.images)
        made = argparse.Namespace(num_crops=100, samples_per_shard=64, aa=None, reprob=0.0, mixed=0.0)
        make_set(folder / "images", str(folder / "labels"), made)
        bench(options, str(folder / "labels"))


def bench(options: argparse.Namespace, labels: str) -> None:
    keep_freed_memory()
    args = parse(["-a", options.arch, "-b", str(options.batch_size), "--amp", options.amp])
    take_place(args)
    start_process_group(args)
    if args.device.type == "cpu":
        torch.set_num_threads(options.train_threads)
    training = set_up(args, *make_student(args, 1000, {}))
    training.net.train()
    criterion = SoftCrossEntropy()
    loader = open_loader(options, labels, args.device)
    batches = endless(loader)
    constant = next(batches)

    def steps(source: Iterator[Batch]) -> float:
        """Return seconds per step. It favours the loader a little, which prepares batches while the other kind runs."""
        wait(args.device)
        start = time.perf_counter()
        for batch in itertools.islice(source, options.steps):
            train_step(args, training, criterion, batch)
        wait(args.device)
        return float((time.perf_counter() - start) / options.steps)

    kinds = {"constant": itertools.repeat(constant), "loader": batches}
    for source in kinds.values():
        steps(source)  # the first steps cost more
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(options.rounds):
        for kind in sorted(kinds, reverse=bool(number % 2)):
            times[kind].append(steps(kinds[kind]))
    report(options, args, times, alone(loader))


def open_loader(options: argparse.Namespace, labels: str, device: torch.device) -> DeviceLoader:
    loader = SoftLabelLoader(
        labels,
        global_batch_size=options.batch_size,
        crops_per_image=options.crops,
        threads=options.threads,
        size=224,
    )
    return loader.to(device)


def endless(loader: DeviceLoader) -> Iterator[Batch]:
    while True:
        yield from loader


def alone(loader: DeviceLoader) -> float:
    """Return crops per second of the loader without a student."""
    loader.set_epoch(1_000_000)
    start, crops = time.perf_counter(), 0
    for batch in loader:
        crops += len(batch)
    return crops / (time.perf_counter() - start)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(
    options: argparse.Namespace, args: argparse.Namespace, times: dict[str, list[float]], rate: float
) -> None:
    ratios = [a / b for a, b in zip(times["loader"], times["constant"], strict=True)]
    median = {kind: statistics.median(values) for kind, values in times.items()}
    need = options.batch_size / median["constant"]
    print(
        f"{options.arch}, {options.batch_size} crops of 224, {options.crops} an image, amp {options.amp}, {args.device}"
    )
    for kind, value in median.items():
        print(
            f"{kind:9} {value * 1e3:8.1f} ms a step, rounds {' '.join(f'{t * 1e3:.1f}' for t in times[kind])}"
        )
    print(
        f"loader / constant: {statistics.median(ratios):.3f} (rounds {' '.join(f'{r:.3f}' for r in ratios)})"
    )
    print(
        f"the loader alone: {rate:,.0f} crops/s on {options.threads} threads; the student takes {need:,.0f}"
    )


if __name__ == "__main__":
    main()
