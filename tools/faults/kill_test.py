"""Kill runs of `slg-wds generate` at random moments, and compare the finished sets with that of an undisturbed run.

usage: kill_test.py [--runs 50] [--images 40] [--seed 0]

Each of the runs is a process that is killed with SIGKILL after a random part of the undisturbed time, again and again
until the set is complete; then every shard, the plan, slg.json's identity and _info.json must be byte-identical to the
undisturbed run's. Prints one line and exits 1 at the first difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEACHER = f"{HERE.parents[1] / 'tests' / 'support' / 'models' / 'tiny_teacher.py'}:tiny"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--images", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", nargs=argparse.REMAINDER, help="further options of generate, last")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        more = options.more or ()
        kills, seconds = kill_and_compare(Path(folder), options.runs, options.images, options.seed, *more)
    print(
        f"{options.runs} runs, {kills} kills: every set is byte-identical to the undisturbed one ({seconds:.0f} s)"
    )
    return 0


def kill_and_compare(folder: Path, runs: int, images: int, seed: int, *more: str) -> tuple[int, float]:
    """Return (number of kills, seconds) of runs with `more` options.

    Raises:
        AssertionError: a set differs; it names the run and the file.
    """
    begin = time.monotonic()
    chance = random.Random(seed)
    data = folder / "photographs"
    sys.path.insert(0, str(HERE.parent / "bench"))
    from bench_generate import lay_out

    lay_out(data, images)
    start = time.monotonic()
    finish(command(data, folder / "undisturbed", *more))
    undisturbed = time.monotonic() - start
    expected = contents(folder / "undisturbed")
    kills = 0
    for run in range(runs):
        target = folder / f"run{run}"
        while not (target / "_info.json").exists():
            kills += kill_after(command(data, target, *more), chance.uniform(0.3, 1.1) * undisturbed)
        found = contents(target)
        assert found == expected, f"run {run}: {sorted(set(found.items()) ^ set(expected.items()))}"
        shutil.rmtree(target)
    return kills, time.monotonic() - begin


def command(data: Path, target: Path, *more: str) -> list[str]:
    """Return the command line of one run. Shards are small, so that many can be hit."""
    options = [
        "--num_crops",
        "200",
        "--num_seg",
        "50",
        "--samples-per-shard",
        "3",
        "--threads-per-forward",
        "1",
    ]
    return [
        *(sys.executable, "-m", "slg_wds", "generate", str(data), "--save-path", str(target)),
        *("--teacher_source", "private", "-a", TEACHER, *options, *more),
    ]


def finish(arguments: list[str]) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_after(arguments: list[str], seconds: float) -> int:
    """Run a command and kill it after so many seconds if it is still there; return whether it was killed."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        return 1
    assert process.returncode == 0, errors.decode()
    return 0


def contents(folder: Path) -> dict[str, str]:
    """Return the digests of a finished set's files; of slg.json only that of the identity: provenance has a date."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name.startswith(".tmp-"):
            continue
        data = path.read_bytes()
        if name == "slg.json":
            data = json.dumps(json.loads(data)["identity"], sort_keys=True).encode()
        found[name] = hashlib.sha256(data).hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
