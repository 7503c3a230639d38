"""How close labels read at a temperature are to the teacher's own softmax at that temperature.

usage: temperatures.py [--images 16] [--crops 500] [--arch A] [--made-at 1 2] [--read-at 1 2 4 8] [--folder F]

A teacher labels real photographs once at each temperature of --made-at, as `full` float32. Those labels are coded as
low-rank labels and as top-k with a shared tail, and read at each temperature T of --read-at. Printed is, for each,
KL(softmax(z / T) || label) in nats, mean over all crops, where z are the teacher's logits: of labels made at 1 in
float32, the logarithms.
"""

from __future__ import annotations

import argparse
import shutil
from typing import Any

import numpy as np
from students import table
from teacher_labels import add_options, divergences, labelled, working_folder

import slg_wds

KINDS: dict[str, dict[str, Any]] = {
    "low-rank 0.2": {"label_type": "lowrank", "max_kl": 0.2},
    "low-rank 0.1": {"label_type": "lowrank", "max_kl": 0.1},
    "low-rank 0.05": {"label_type": "lowrank", "max_kl": 0.05},
    "shared tail k=5, log8": {"label_type": "shared_tail_k5", "values": "log8"},
    "shared tail k=10, log8": {"label_type": "shared_tail_k10", "values": "log8"},
    "marginal smoothing k=5, log8": {"label_type": "marginal_smoothing_k5", "values": "log8"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--made-at", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--read-at", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    add_options(parser)
    options = parser.parse_args()
    with working_folder(options) as folder:
        exact = labelled(folder, options, options.crops)
        rows = []
        for made_at in options.made_at:
            source = labelled(folder, options, options.crops, made_at)
            rows += [[kind, f"{made_at:g}", *measured(source, exact, kind, options)] for kind in KINDS]
    header = ["labels", "made at", *(f"KL at {temperature:g}" for temperature in options.read_at)]
    print(f"{options.images} photographs, {options.crops} crops, {options.arch.rpartition(':')[2]}\n")
    print(table(header, rows))


def measured(source: str, exact: str, kind: str, options: argparse.Namespace) -> list[str]:
    """Return the mean KL at each temperature, as text, of one kind of labels made from those of `source`."""
    target = f"{source}-{kind.replace(' ', '-')}"
    shutil.rmtree(target, ignore_errors=True)  # of an earlier run in this folder, perhaps by another encoder
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(source,), save_path=target, processes=1, **KINDS[kind]))
    pairs = list(zip(slg_wds.open_labels(exact), slg_wds.open_labels(target), strict=True))
    return [
        f"{np.mean([_of_one(*pair, temperature) for pair in pairs]):.4f}" for temperature in options.read_at
    ]


def _of_one(exact: slg_wds.Record, record: slg_wds.Record, temperature: float) -> float:
    rows = record.distribution(rule=record.rule, temperature=temperature)
    return float(divergences(exact.distribution(temperature=temperature), rows).mean())


if __name__ == "__main__":
    main()
