"""How many crops SoftLabelLoader gives on a machine with many cores, from a machine that has few.

usage: simulate_replay.py [--threads 1 4 16] [--crops 1 4 8] [--images N] [--folder] [--gpu CROPS/S --launches N] ...

The real loader runs, with its order, reads, checksums, records, labels, batches and threads. Only decoding and cutting
are replaced: a thread passes their arguments to a compiled function that does nothing, and then sleeps for as long as
they take. So 16 threads need no 16 cores, while what they need the interpreter for is real, and so is their contention
for it. With --gpu, a trainer takes the batches: each step launches as many tiny operators as --launches says, and a
clock stands for the GPU, which is at most two steps behind.

Columns: crops/s and images/s; of what the sleeping threads alone would give; processor time an image of everything that
is real; and how many times a thread gave its processor away, an image. With --gpu also the rate of the steps over
that of the same steps on one batch.

Limits: trust ratios. The bandwidth of memory, a disk, caches shared by threads that decode, and clocks that fall with
load are not simulated. All that is real has to fit the cores of this machine: where `cores` says more than a half of
them, a machine with more cores is faster than simulated. Ranks on one machine share only its memory, disk and network,
so that eight GPUs are eight times one where each rank has cores of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from bench_replay import lay_out, make_set

from slg_wds import SoftLabelLoader
from slg_wds.replay.assembly import jpeg_crops

SECONDS = {
    1: 1.0e-3,
    4: 1.65e-3,
    8: 2.1e-3,
}  # to decode and cut one image of 500 x 375 on one core, by its crops
TIMER_SLACK = 29  # of prctl: sleeps end after microseconds, not after 50 of them


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--crops", type=int, nargs="+", default=[1, 4, 8], choices=sorted(SECONDS))
    parser.add_argument("--batch", type=int, default=128, help="crops of a batch")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--num-crops", type=int, default=500, help="of a record")
    parser.add_argument("--samples-per-shard", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--folder", action="store_true", help="read the images from a folder, not from the shards"
    )
    parser.add_argument("--gpu", type=float, default=0.0, help="crops/s that the GPU trains on")
    parser.add_argument("--launches", type=int, default=500, help="operators of a training step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder / "images", options.images)
        make_set(folder / "images", str(folder / "labels"), options)
        print(
            "crops threads |  crops/s images/s of ideal | us/image cores switches"
            + "  step" * bool(options.gpu)
        )
        with sleeping():
            for crops in options.crops:
                for threads in options.threads:
                    simulate(folder, crops, threads, options)


@contextmanager
def sleeping() -> Iterator[None]:
    """Let decoding and cutting take their time without a processor."""
    ctypes.CDLL(None).prctl(TIMER_SLACK, 1000, 0, 0, 0)
    torch.set_num_threads(1)
    nothing = torch.jit.script(_nothing)

    def slept(data, sizes, boxes, flips, out, *more):
        done = nothing(data, sizes, boxes, flips, out, *more)
        time.sleep(SECONDS[len(flips[0])] * len(data))
        return done

    with mock.patch.object(jpeg_crops, "_COMPILED", slept):
        yield


def _nothing(
    data: list[torch.Tensor],
    sizes: list[tuple[int, int]],
    boxes: torch.Tensor,
    flips: torch.Tensor,
    out: list[torch.Tensor],
    kernel: int,
    mode: int,
    fillings: torch.Tensor,
) -> list[bool]:
    return [True for _ in data]


class Trainer:
    """Takes batches as a training step on a GPU does.

    Args:
        rate: crops/s of the GPU.
        launches: operators of a step.
    """

    def __init__(self, rate: float, launches: int) -> None:
        self._rate, self._launches = rate, launches
        self._tensor, self._busy = torch.zeros(4), time.perf_counter()

    def step(self, crops: int) -> None:
        """Launch a step, and wait while the GPU is two steps behind."""
        for _ in range(self._launches):
            self._tensor.add_(1.0)
        seconds, now = crops / self._rate, time.perf_counter()
        self._busy = max(self._busy, now) + seconds
        time.sleep(max(0.0, self._busy - now - 2 * seconds))


def simulate(folder: Path, crops: int, threads: int, options: argparse.Namespace) -> None:
    """Print the row of one loader."""
    loader = SoftLabelLoader(
        str(folder / "labels"),
        str(folder / "images") if options.folder else None,
        global_batch_size=options.batch,
        crops_per_image=crops,
        threads=threads,
    )
    trainer = Trainer(options.gpu, options.launches) if options.gpu else None
    walk(loader, 1, trainer)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    given = walk(loader, options.epochs, trainer)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    images, used = given / crops, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    switches = after.ru_nvcsw + after.ru_nivcsw - before.ru_nvcsw - before.ru_nivcsw
    print(
        f"{crops:5} {threads:7} | {given / wall:8,.0f} {images / wall:8,.0f} "
        f"{given / wall / (threads * crops / SECONDS[crops]):8.3f} | {used / images * 1e6:8.0f} {used / wall:5.2f} "
        f"{switches / images:8.1f}"
        + (f" {alone(options) / (wall / (given / options.batch)):5.3f}" if trainer else ""),
        flush=True,
    )


def walk(loader: SoftLabelLoader, epochs: int, trainer: Trainer | None) -> int:
    """Take the batches of some epochs; return the number of crops."""
    given = 0
    for _ in range(epochs):
        for batch in loader:
            given += len(batch)
            if trainer:
                trainer.step(len(batch))
    return given


def alone(options: argparse.Namespace, steps: int = 50) -> float:
    """Return the seconds of a training step without a loader."""
    trainer = Trainer(options.gpu, options.launches)
    trainer.step(options.batch)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step(options.batch)
    return (time.perf_counter() - start) / steps


if __name__ == "__main__":
    main()
