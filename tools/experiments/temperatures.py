"""How close labels read at a temperature are to the teacher's own softmax at that temperature.

usage: temperatures.py [--images 16] [--crops 500] [--arch A] [--made-at 1 2] [--read-at 1 2 4 8]

A teacher labels real photographs once at each temperature of --made-at, as `full` float32. Those labels are coded as
low-rank labels and as top-k with a shared tail, and read at each temperature T of --read-at. Printed is, for each,
KL(softmax(z / T) || label) in nats, mean over all crops, where z are the teacher's logits: of labels made at 1 in
float32, the logarithms.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure_fidelity import divergence
from students import table

import slg_wds
from slg_wds.demo.photographs import write_photographs

FIRST_VIEWS = 3  # of each photograph, so that 16 images are of all six
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
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--arch", default="slg_wds.demo.teacher:lite0")
    parser.add_argument("--made-at", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--read-at", type=float, nargs="+", default=[1.0, 2.0, 4.0, 8.0])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photographs(folder / "images" / "train")
        exact = labelled(folder, options, 1.0)
        rows = []
        for made_at in options.made_at:
            source = exact if made_at == 1 else labelled(folder, options, made_at)
            rows += [[kind, f"{made_at:g}", *measured(source, exact, kind, options)] for kind in KINDS]
    header = ["labels", "made at", *(f"KL at {temperature:g}" for temperature in options.read_at)]
    print(f"{options.images} photographs, {options.crops} crops, {options.arch.rpartition(':')[2]}\n")
    print(table(header, rows))


def labelled(folder: Path, options: argparse.Namespace, temperature: float) -> str:
    """Return the folder of a set with all probabilities, made at a temperature."""
    images = folder / "images"
    paths = sorted(p for p in (images / "train").rglob("*.jpg") if int(p.stem[-1]) < FIRST_VIEWS)
    chosen, target = folder / "list", str(folder / f"full-{temperature:g}")
    chosen.write_text("\n".join(str(p.relative_to(images / "train")) for p in paths[: options.images]))
    config = slg_wds.GenerateConfig(
        data=str(images), arch=options.arch, teacher_source="private", save_path=target, num_crops=options.crops,
        label_type="full", values="float32", list_file=str(chosen), temp=temperature,
    )  # fmt: skip
    slg_wds.generate(config)
    return target


def measured(source: str, exact: str, kind: str, options: argparse.Namespace) -> list[str]:
    """Return the mean KL at each temperature, as text, of one kind of labels made from those of `source`."""
    target = f"{source}-{kind.replace(' ', '-')}"
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(source,), save_path=target, processes=1, **KINDS[kind]))
    pairs = list(zip(slg_wds.open_labels(exact), slg_wds.open_labels(target), strict=True))
    return [
        f"{np.mean([_of_one(*pair, temperature) for pair in pairs]):.4f}" for temperature in options.read_at
    ]


def _of_one(exact: slg_wds.Record, record: slg_wds.Record, temperature: float) -> float:
    rows = record.distribution(rule=record.rule, temperature=temperature)
    return divergence(exact.distribution(temperature=temperature), rows)


if __name__ == "__main__":
    main()
