"""How many crops SoftLabelLoader gives on a machine with many cores, from a machine that has few.

This is `simulate_gpu.py replay`. The real loader runs, with its order, reads, checksums, records, labels, batches and
threads. Only decoding and cutting are replaced: a thread passes their arguments to a compiled function that does
nothing, then sleeps for as long as they would take. So 16 threads need no 16 cores, but they compete for the
interpreter as real ones do. With --rate, a trainer takes the batches: each step launches as many tiny operators as a
training step has. A clock stands for the GPU, which is at most two steps behind.

Limits, beside those of simulate_gpu.py: all that is real has to fit the cores of this machine, so where `cores` comes
near their number, a machine with more of them is faster than this says. Processes on one machine share its memory,
disk and network alone, none of which is simulated; where each has cores of its own, eight GPUs are eight times one.
Between epochs the threads end and others start, some 50 ms: fewer --images make more of that than it is.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from replay_parts.labels import make_set
from simulated import exact_sleeps, photographs

from slg_wds import SoftLabelLoader
from slg_wds.replay.assembly import jpeg_crops
from slg_wds.replay.processes import loader_processes
from slg_wds.transforms.cutting import scripted

# To decode and cut one image of 500 x 375 on one core, by its crops.
SECONDS = {1: 1.0e-3, 4: 1.65e-3, 8: 2.1e-3}


@dataclass(frozen=True)
class ReplaySetting:
    """One simulated loader.

    Attributes:
        threads: that decode and cut.
        processes: that make batches, each with its part of the threads; 0: the trainer's own.
        crops: of an image in a batch, a key of SECONDS.
        batch: crops of a batch.
        external: whether the images are read from their folder, not from the shards.
        epochs: walks over the images that are measured, after one that is not.
        rate: crops/s that the GPU trains on; 0 for no trainer.
        launches: operators of a training step.
    """

    threads: int = 16
    processes: int = 0
    crops: int = 4
    batch: int = 128
    external: bool = False
    epochs: int = 2
    rate: float = 0.0
    launches: int = 500


@dataclass(frozen=True)
class ReplayResult:
    """What a loader did.

    Attributes:
        crops_per_second, images_per_second: from the first batch to the last.
        of_threads: the same as a share of what the sleeping threads alone would give.
        microseconds: of processor time for an image, of all that is real.
        cores: processor time over time.
        switches: how often a thread of this process gave its processor away, for an image.
        of_step: the rate of training steps over that of the same steps on one batch; 0 without a trainer.
    """

    crops_per_second: float
    images_per_second: float
    of_threads: float
    microseconds: float
    cores: float
    switches: float
    of_step: float


class Trainer:
    """Takes batches as a training step on a GPU does."""

    def __init__(self, setting: ReplaySetting) -> None:
        self._setting, self._tensor = setting, torch.zeros(4)
        self._busy = time.perf_counter()

    def step(self) -> None:
        """Launch a step, and wait while the GPU is two steps behind."""
        if not self._setting.rate:
            return
        for _ in range(self._setting.launches):
            self._tensor.add_(1.0)
        seconds, now = self._setting.batch / self._setting.rate, time.perf_counter()
        self._busy = max(self._busy, now) + seconds
        time.sleep(max(0.0, self._busy - now - 2 * seconds))


def replay(setting: ReplaySetting, folder: Path) -> ReplayResult:
    """Simulate a loader of the set that `lay_out_set` made in a folder."""
    exact_sleeps()
    with mock.patch.object(loader_processes, "PROGRAM", "simulated_program"):
        loader = SoftLabelLoader(
            str(folder / "labels"),
            str(folder / "images") if setting.external else None,
            global_batch_size=setting.batch,
            crops_per_image=setting.crops,
            threads=setting.threads,
            processes=setting.processes,
        )
    with sleeping():
        pids = loader.processes
        loader.wait_for_processes()
        _walk(loader, 1, Trainer(setting))
        before, start = _used(pids), time.perf_counter()
        images = _walk(loader, setting.epochs, Trainer(setting)) / setting.crops
        wall, after = time.perf_counter() - start, _used(pids)
    rate = images / wall
    return ReplayResult(
        crops_per_second=rate * setting.crops,
        images_per_second=rate,
        of_threads=rate * SECONDS[setting.crops] / setting.threads,
        microseconds=(after[0] - before[0]) / images * 1e6,
        cores=(after[0] - before[0]) / wall,
        switches=(after[1] - before[1]) / images,
        of_step=_alone(setting) * rate * setting.crops / setting.batch if setting.rate else 0.0,
    )


def lay_out_set(folder: Path, images: int, num_crops: int) -> None:
    """Write photographs, and made-up labels of so many crops of each, in whose shards they are too."""
    photographs(folder / "images", images)
    make_set(
        folder / "images",
        str(folder / "labels"),
        argparse.Namespace(aa=None, reprob=0.0, mixed=0.0, num_crops=num_crops, samples_per_shard=256),
    )


@contextmanager
def sleeping() -> Iterator[None]:
    """Let decoding and cutting take their time without a processor."""
    nothing = scripted(_nothing)

    def slept(memory, where, boxes, flips, out, *_):
        done = nothing(memory, where, boxes, flips, out)
        time.sleep(SECONDS[boxes.shape[1]] * len(boxes))
        return done

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with mock.patch.object(jpeg_crops, "_COMPILED", slept):
        yield
    torch.set_num_threads(threads)


def _nothing(
    memory: list[torch.Tensor],
    where: torch.Tensor,
    boxes: torch.Tensor,
    flips: torch.Tensor,
    out: torch.Tensor,
) -> list[bool]:
    return [True for _ in range(boxes.size(0))]


def _walk(loader: SoftLabelLoader, epochs: int, trainer: Trainer) -> int:
    """Take the batches of some epochs; return the number of crops."""
    given = 0
    for _ in range(epochs):
        for batch in loader:
            given += len(batch)
            trainer.step()
    return given


def _used(pids: Sequence[int]) -> tuple[float, int]:
    """Seconds of processor time, of other processes too, and switches from thread to thread of this process alone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds, tick = used.ru_utime + used.ru_stime, os.sysconf("SC_CLK_TCK")
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / tick
    return seconds, used.ru_nvcsw + used.ru_nivcsw


def _alone(setting: ReplaySetting, steps: int = 50) -> float:
    """Seconds of a training step without a loader."""
    trainer = Trainer(setting)
    trainer.step()
    start = time.perf_counter()
    for _ in range(steps):
        trainer.step()
    return (time.perf_counter() - start) / steps


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay` to the commands of simulate_gpu.py."""
    command = commands.add_parser("replay", help="SoftLabelLoader, alone or with a trainer")
    command.add_argument("--threads", type=int, nargs="+", default=[1, 4, 16])
    command.add_argument(
        "--processes", type=int, nargs="+", default=[0], help="that make batches; 0: the trainer's"
    )
    command.add_argument("--crops", type=int, nargs="+", default=sorted(SECONDS), choices=sorted(SECONDS))
    command.add_argument("--images", type=int, default=8192)
    command.add_argument("--num-crops", type=int, default=500, help="of a record")
    command.add_argument("--batch", type=int, default=ReplaySetting.batch, help="crops of a batch")
    command.add_argument("--epochs", type=int, default=ReplaySetting.epochs)
    command.add_argument("--external", action="store_true", help="read images from their folder")
    command.add_argument("--rate", type=float, default=0.0, help="crops/s that the GPU trains on")
    command.add_argument("--launches", type=int, default=ReplaySetting.launches, help="of a training step")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a row for each number of crops and threads."""
    names = ("batch", "external", "epochs", "rate", "launches")
    common = {name: getattr(options, name) for name in names}
    print(
        "crops threads processes |  crops/s images/s of threads | us/image cores switches"
        + " of step" * bool(options.rate)
    )
    with tempfile.TemporaryDirectory() as name:
        lay_out_set(Path(name), options.images, options.num_crops)
        for crops in options.crops:
            for threads, processes in itertools.product(options.threads, options.processes):
                setting = ReplaySetting(threads=threads, processes=processes, crops=crops, **common)
                found = replay(setting, Path(name))
                print(
                    f"{crops:5} {threads:7} {processes:9} | "
                    f"{found.crops_per_second:8,.0f} {found.images_per_second:8,.0f} "
                    f"{found.of_threads:10.3f} | {found.microseconds:8.0f} {found.cores:5.2f} {found.switches:8.2f}"
                    + f" {found.of_step:7.3f}"
                    * bool(options.rate),
                    flush=True,
                )
