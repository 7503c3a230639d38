"""Prove on a machine with a GPU what can only be proved there: one command, no network, JSON out.

usage: gpu_check.py [--device cuda:0] [--quick] [--out gpu_check.json] [--seconds 470] [--parts forwards sets ...]

It takes random-weight ResNet-50 and ViT-B and generated photographs, and runs these parts, the most valuable first:

- machine: what it is, its software, and how fast it copies and multiplies.
- forwards: two runs give the same bits. A CUDA graph, and weights that are cast once, are used and change no bit. fp32
  is that of the CPU, and tf32, fp16 and bf16 are near it. Normalisation and top-k are the CPU's, bit for bit.
- sets: two runs make the same bytes, also with views and mixing, by two processes on one GPU, with nearly full memory,
  and without a CUDA graph. While either stream is delayed, labels stay those of a loop that waits after each step.
  Nothing makes the host wait.
- batches: a loader's batches on the GPU are those on the CPU for every label type, for views, mixed views, embeddings,
  several sets and other temperatures, also while copies are late; the loss is the CPU's; nothing makes the host wait.
- generation: crops per second of `generate` against the bare forward: 256 crops a forward, as a graph, compiled, plain.
- replay: crops per second of the loader alone, at 1, 4 and 8 crops an image.
- training: the step of `slg-wds train` never makes the host wait, with mixing, clipping, accumulation and averaged
  weights; ResNet-50 at bf16, plain and compiled, with the loader and on a constant batch.
- resuming: two trainings with --seed end with the same weights, and so does one that was stopped and resumed, and one
  that torchrun started. Two processes train together on one GPU.
- faults: a full memory and a broken device are different errors.
- commands: `evaluate` has the CPU's figures, `verify` finds the teacher's labels, a dry run times every precision.
- simulation: what tools/bench/simulate_gpu.py says of this machine, beside what was measured.
- settings: generation at 50 crops a forward, with 4 threads, and with few crops an image.

Each part runs in a process of its own and is killed if it takes too long. The JSON is written all the time, so whoever
ends this program keeps what was found. A *check* holds or fails. A *bar* is a figure that should be reached: beside it
stand what was found and what was predicted. The JSON has all checks and bars, and lists what failed, which bars were
missed, and what was left out because the time was over. The exit code is 1 if a check failed or a part went wrong;
missed bars do not count.

--device cpu --quick runs all that a CPU can run, with small models and sizes. It tests this program; its figures mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from gpu_parts.parts import PARTS
from gpu_parts.supervision.run import Run

VERDICTS = {True: "met", False: "MISSED", None: "not measured"}


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of parts end too
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        parts = {name: PARTS[name] for name in options.parts}
        run = Run(parts, options.device, options.quick, Path(folder), options.seconds, Path(options.out))
        report = run.run()
    print(json.dumps(report, indent=1), flush=True)
    print(*summary(report), sep="\n", file=sys.stderr)
    return 1 if report["failed"] else 0


def summary(report: dict[str, Any]) -> list[str]:
    """Return what matters most, for those who see only the end of the output."""
    lines = [
        f"{VERDICTS[bar['met']]}: {name} {bar['found']}, at least {bar['wanted']}, predicted {bar['predicted']}"
        for name, bar in report["bars"].items()
    ]
    checks = [one["met"] for part in report["parts"].values() for one in part.get("checks", {}).values()]
    lines.append(f"{sum(checks)} of {len(checks)} checks hold, in {report['seconds']:.0f} s")
    lines += [f"left out: {what}" for what in report["left_out"]]
    return lines + [f"FAILED: {what[:300]}" for what in report["failed"]]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument(
        "--quick", action="store_true", help="small models and sizes: only a test of this program"
    )
    parser.add_argument("--out", default="gpu_check.json", help="file for the JSON, which is also printed")
    parser.add_argument("--seconds", type=float, default=470.0, help="the whole run ends after these")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
