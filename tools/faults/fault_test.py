"""Disturb runs of `slg-wds generate` as clusters do, and compare the label sets that they leave.

usage: fault_test.py [--rounds 20] [--only worker driver ...] [--seed 0]

Each round makes one small label set under one fault, at a moment drawn by the seed. The finished set must be that of
an undisturbed run, byte for byte (of slg.json the identity), and hold every sample once. Prints a line per fault and a
table, and exits 1 where any set differs.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tarfile
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "tests")]

from fault_jobs import Run, end_all  # noqa: E402
from faults import FAULTS, SMALL, Fault, Round  # noqa: E402
from kill_test import command, contents  # noqa: E402

from support.images.photographs import lay_out  # noqa: E402


@dataclass
class Result:
    """The result of all rounds of one fault.

    hits: rounds in which the fault met a run under way. restarts: workers that were started again, and runs that were
    resumed. lost, twice: samples that finished sets lack, or have twice. wrong: by round, what differed from the
    undisturbed set.
    """

    rounds: int = 0
    hits: int = 0
    restarts: int = 0
    lost: int = 0
    twice: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        """Return one row of the table."""
        counts = (self.rounds, self.hits, self.restarts, self.lost, self.twice, len(self.wrong))
        return f"{name:12}" + "".join(
            f"{count:>{width}}" for count, width in zip(counts, WIDTHS, strict=True)
        )


COLUMNS = ("rounds", "hits", "restarts", "samples lost", "samples twice", "sets that differ")
WIDTHS = tuple(len(column) + 2 for column in COLUMNS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS), metavar="NAME")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = run(options.only, options.rounds, options.seed)
    print("\n" + f"{'fault':12}" + "".join(f"{column:>{len(column) + 2}}" for column in COLUMNS))
    for name, result in results.items():
        print(result.line(name))
    wrong = [f"{name}: {what}" for name, result in results.items() for what in result.wrong]
    print("\n".join(wrong) or "every set is the undisturbed one, byte for byte")
    return 1 if wrong else 0


def run(names: list[str], rounds: int, seed: int) -> dict[str, Result]:
    """Run these faults and print a line after each."""
    results = {}
    with tempfile.TemporaryDirectory(prefix="slg-") as name:
        folder = Path(name)
        data, whole = lay_out(folder / "photographs"), folder / "undisturbed"
        Run(command(data, whole, *SMALL)).check()
        for name in names:
            results[name] = repeat(name, FAULTS[name], rounds, seed, data, whole)
            result = results[name]
            each = result.seconds / max(1, result.rounds)
            state = "; ".join(result.wrong) or "all sets equal the undisturbed one"
            print(
                f"{name}: {result.rounds} rounds of {each:.0f} s, {result.hits} hits, {result.restarts} restarts, "
                f"{result.lost} samples lost, {result.twice} twice; {state}",
                flush=True,
            )
    return results


def repeat(name: str, fault: Fault, rounds: int, seed: int, data: Path, whole: Path) -> Result:
    """Run several rounds of one fault."""
    result = Result()
    begin = time.monotonic()
    for number in range(rounds):
        folder = whole.parent / f"{name}{number}"
        folder.mkdir()
        round_ = Round(data, folder, random.Random(f"{name} {seed} {number}"))
        try:
            hit, restarts = fault(round_)
        except Exception as error:  # the other rounds are of interest all the same
            result.wrong.append(f"round {number}: {type(error).__name__}: {error}")
        else:
            result.hits += hit
            result.restarts += restarts
            compare(round_.target, whole, number, result)
        end_all()
        result.rounds += 1
        shutil.rmtree(folder, ignore_errors=True)
    result.seconds = time.monotonic() - begin
    return result


def compare(target: Path, whole: Path, number: int, result: Result) -> None:
    """Count samples, and every file that readers would see, against the undisturbed set."""
    found, expected = samples(target), samples(whole)
    result.lost += sum((expected - found).values())
    result.twice += sum((found - expected).values())
    differing = sorted({name for name, _ in contents(target).items() ^ contents(whole).items()})
    if differing or found != expected:
        result.wrong.append(f"round {number}: {', '.join(differing[:8])} differ")


def samples(folder: Path) -> Counter[str]:
    """Count how often the record of each sample is in the shards of a set."""
    found: Counter[str] = Counter()
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            found.update(name for name in tar.getnames() if name.endswith(".slg.msgpack"))
    return found


if __name__ == "__main__":
    sys.exit(main())
