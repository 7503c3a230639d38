"""What more processes gain: two of --devices, two launches, torchrun and Ray against one; and what S3 costs.

usage: bench_scale.py [--images 144] [--crops 32] [--num-seg 16] [--rounds 3] [--only one devices ...] [--s3]

Every way labels the same photographs with efficientnet-lite0 on the CPU, one thread a process; rounds alternate. A rate
is taken from the times of the middle three fifths of the commits. So it leaves out the start, and the end, where
launches that know of no ranks make shards twice: both are as long in a run of a day. `bare` is the forward alone, in
one process and in two. It shows what the machine itself gains: cores share the memory through which forwards move
their activations. --s3 writes with one process to SeaweedFS on loopback, which shares the cores. It compares the
crops/s of the summaries, since a store gives times in whole seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_generate import lay_out

HERE = Path(__file__).resolve().parent
ONE = ["--devices", "cpu"]
Runs = Callable[[list[str]], list[list[str]]]  # a generate command -> the commands to run at once
WAYS: dict[str, tuple[list[str], Runs]] = {
    "one": (ONE, lambda command: [command]),
    "devices": (["--devices", "cpu:2"], lambda command: [command]),
    "launches": (ONE, lambda command: [command, command]),
    "torchrun": (ONE, lambda command: [[sys.executable, *_TORCHRUN, *command[1:]]]),
    "ray": (["--engine", "ray", "--actors", "2"], lambda command: [command]),
}
_TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=144)
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--num-seg", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=["bare", *WAYS], default=["bare", *WAYS])
    parser.add_argument("--s3", action="store_true", help="also what writing to S3 costs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(folder) / "photographs"
        lay_out(photographs, options.images)
        print(f"load {os.getloadavg()[0]:.1f} at the start", flush=True)
        ways = [way for way in options.only if way != "bare"]
        if "bare" in options.only:
            bare(options)
        if ways:
            scaling(Path(folder), photographs, ways, options)
        if options.s3:
            storage(Path(folder), photographs, options)
    print(f"load {os.getloadavg()[0]:.1f} at the end")


def bare(options: argparse.Namespace) -> None:
    """Print the rate of the forward alone, in one process and in two."""
    one, two = [], []
    for _ in range(options.rounds):
        for processes, found in ((1, one), (2, two)):
            found.append(forwards(processes, options.num_seg))
    print(f"bare      {statistics.median(one):8.1f} crops/s, two {ratio(two, one):.3f} of one", flush=True)


def forwards(processes: int, num_seg: int) -> float:
    """Return crops per second of processes that only run the forward, each with one thread."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(processes), context.Queue()
    workers = [
        context.Process(target=forward_alone, args=(num_seg, barrier, rates)) for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    total = sum(rates.get() for _ in workers)
    for worker in workers:
        worker.join()
    return float(total)


def forward_alone(num_seg: int, barrier: Any, rates: Any) -> None:
    """Be one of these processes."""
    import torch

    from slg_wds.concurrency.memory import keep_freed_memory
    from slg_wds.demo.teacher import lite0

    keep_freed_memory()
    torch.set_num_threads(1)
    model = lite0().eval().to(memory_format=torch.channels_last)
    inputs = torch.zeros(num_seg, 3, 224, 224).to(memory_format=torch.channels_last)
    count = 600 // num_seg
    with torch.inference_mode():
        model(inputs)
        barrier.wait()
        begin = time.perf_counter()
        for _ in range(count):
            model(inputs)
    rates.put(count * num_seg / (time.perf_counter() - begin))


def scaling(folder: Path, photographs: Path, ways: list[str], options: argparse.Namespace) -> None:
    """Print the rate of each way and its ratio to one process, medians over rounds."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    twice = dict.fromkeys(ways, 0)
    for number in range(options.rounds):
        for way in ways:
            more, runs = WAYS[way]
            target = folder / f"{way}{number}"
            twice[way] += together(runs([*generate(photographs, str(target), options), *more]))
            rates[way].append(steady_rate(target, options.crops))
    for way, found in rates.items():
        line = f"{way:<10}{statistics.median(found):8.1f} crops/s"
        for peer in ("one", "torchrun"):
            if peer in rates and peer != way and (peer == "one" or way == "ray"):
                line += f"   {ratio(found, rates[peer]):.3f} of {peer}"
        print(f"{line}   {twice[way]} shards made twice" if twice[way] else line, flush=True)


def storage(folder: Path, photographs: Path, options: argparse.Namespace) -> None:
    """Print the rate of one process that writes to disk and to S3, and the ratio."""
    sys.path.insert(0, str(HERE.parents[1] / "tests"))
    from support.servers.s3 import running_s3

    disk, remote = [], []
    with running_s3() as server:
        environment = {**os.environ, **server.environment(), "NO_PROXY": "127.0.0.1"}
        for number in range(options.rounds):
            for found, target in (
                (disk, str(folder / f"disk{number}")),
                (remote, f"{server.url}/bench{number}"),
            ):
                command = [*generate(photographs, target, options), *ONE]
                done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
                told = re.search(r"([\d,.]+) crops/s over", done.stdout)
                assert told, done.stdout
                found.append(float(told[1].replace(",", "")))
    print(
        f"disk {statistics.median(disk):.1f}, S3 {statistics.median(remote):.1f} crops/s: {ratio(remote, disk):.3f}"
    )


def generate(photographs: Path, target: str, options: argparse.Namespace) -> list[str]:
    """Return the command of one run, with one thread per process."""
    return [
        *(sys.executable, "-m", "slg_wds", "generate", str(photographs), "--save-path", target),
        *("--teacher_source", "private", "-a", "slg_wds.demo.teacher:lite0"),
        *("--samples-per-shard", "1", "--num_crops", str(options.crops), "--num_seg", str(options.num_seg)),
        *("--threads-per-forward", "1", "-j", "1"),
    ]


def together(commands: Sequence[list[str]]) -> int:
    """Run commands at once; return how many shards were made twice. Raises RuntimeError for one that fails."""
    processes = [
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    twice = 0
    for process in processes:
        _, said = process.communicate()
        if process.returncode:
            raise RuntimeError(said)
        twice += said.count("another process was first")
    return twice


def steady_rate(target: Path, crops: int) -> float:
    """Return crops per second over the middle three fifths of the commits; a shard has one image."""
    times = sorted(path.stat().st_mtime for path in target.glob("train-*.tar"))
    times = times[len(times) // 5 : len(times) * 4 // 5]
    return (len(times) - 1) * crops / (times[-1] - times[0])


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(these, those, strict=True))


if __name__ == "__main__":
    main()
