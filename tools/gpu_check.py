"""Prove on a machine with a GPU what can only be proved there: one command, no network, JSON out.

usage: gpu_check.py [--device cuda:0] [--quick] [--out FILE] [--seconds 470] [--parts correct generation ...]

With random-weight ResNet-50 and ViT-B and generated photographs:

- correct: label sets are the same bytes over two runs, with two processes on one GPU, and with nearly full memory; a
  CUDA graph gives the bits of the plain forward; labels are those of a fully synchronous loop while either stream is
  delayed; batches of a loader on the GPU are those on the CPU, for every label type; nothing makes the host wait.
- generation: crops per second of `generate` against the bare forward: num_seg 50 and 256, plain, as a graph and
  compiled, with 4 and 16 cutting threads.
- replay: crops per second of the loader alone, at 1, 4 and 8 crops an image, with 4 and 16 threads.
- training: a bf16 compiled ResNet-50 step with the loader, and on a constant batch.
- simulation: what tools/bench/simulate_gpu.py says of this machine, beside what was measured.

The JSON has every figure, what failed, and what was left out because --seconds were over. Exit code 1 if a check of
`correct` fails. With --device cpu --quick the parts run that can, with small models and sizes: a test of this program,
whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
from gpu_parts import correct, rates
from gpu_parts.check import Check

PARTS = {
    "correct": correct.check,
    "generation": rates.generation,
    "replay": rates.replay,
    "training": rates.training,
    "simulation": rates.simulation,
}


def main() -> int:
    options = parse()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(torch.device(options.device), options.quick, Path(folder), options.seconds)
        with check.current():
            for part in options.parts:
                run_part(check, part)
    text = json.dumps(check.report(), indent=1)
    if options.out:
        Path(options.out).write_text(text + "\n")
    print(text)
    return 1 if check.failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda:0", help="cuda:N or cpu")
    parser.add_argument(
        "--quick", action="store_true", help="small models and sizes: only a test of this program"
    )
    parser.add_argument("--out", help="file for the JSON, which is printed in any case")
    parser.add_argument("--seconds", type=float, default=470.0, help="nothing new is begun after these")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("no GPU can be used here; --device cpu --quick tests the program without one")
    return options


def run_part(check: Check, part: str) -> None:
    start = time.perf_counter()
    print(f"{part} ...", file=sys.stderr, flush=True)
    try:
        PARTS[part](check)
    except Exception as error:  # the other parts still say something
        traceback.print_exc()
        check.failed.append(f"{part}: {type(error).__name__}: {error}")
    check.figures.setdefault(part, {})["seconds"] = round(time.perf_counter() - start, 1)


if __name__ == "__main__":
    sys.exit(main())
