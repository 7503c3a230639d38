"""How fast label sets merge, and how near the merge comes to the exact ensemble of the teachers.

usage: bench_ensemble.py [--crops 200] [--images 16] [--speed-only]

Speed: two sets of 64 images x 500 crops, k = 5 with shared tails, invented labels of 1000 classes, merged by one
process, start-up and imports excluded; crops/s, and the part of it that is the arithmetic.
Fidelity: the three EfficientNet-Lite teachers label the same crops of real photographs in full; from these labels k = 5
sets with shared tails and with marginal smoothing are made and merged. Printed is KL(exact || merged) in nats for both,
the exact ensemble being the mean of the full labels. With 16 photographs x 200 crops about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from bench_generate import lay_out  # noqa: E402

import slg_wds  # noqa: E402
from slg_wds.ensembling import EnsembleResult  # noqa: E402
from support.sets import made_sets  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--speed-only", action="store_true")
    parser.add_argument("--fidelity-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not options.fidelity_only:
            speed(Path(folder))
        if not options.speed_only:
            fidelity(Path(folder), options.images, options.crops)


def merge(target: Path, *sets: Path, **options) -> EnsembleResult:
    names = tuple(str(url) for url in sets)
    return slg_wds.ensemble(
        slg_wds.EnsembleConfig(sets=names, save_path=str(target), **{"processes": 1, **options})
    )


def speed(folder: Path) -> None:
    keys = [f"image{number}" for number in range(64)]
    shape = {"keys": keys, "crops": 500, "classes": 1000, "coding": "float16"}
    made_sets.label_set(folder / "s1", 1, shard=16, **shape)
    made_sets.label_set(folder / "s2", 2, shard=16, **shape)
    made_sets.label_set(folder / "s3", 2, shard=9, **{**shape, "keys": keys[::-1]})
    merge(folder / "warm", folder / "s1", samples_per_shard=64)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, other in (("the same shards", "s2"), ("other shards, other order", "s3")):
        rates = []
        for number in range(3):
            begin = time.process_time()
            result = merge(folder / f"m{other}{number}", folder / "s1", folder / other)
            rates.append((result.crops_per_second, result.stats.crops / (time.process_time() - begin)))
        wall, processor = (sorted(column)[1] for column in zip(*rates, strict=True))
        print(f"{name}: {wall:,.0f} crops/s, {processor:,.0f} crops per second of processor time")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    print(f"memory grown by {grown / 1e3:.1f} MB")


def fidelity(folder: Path, images: int, crops: int) -> None:
    photographs = folder / "photographs"
    lay_out(photographs, images)
    for number in range(3):
        slg_wds.generate(
            slg_wds.GenerateConfig(
                data=str(photographs),
                arch=f"slg_wds.demo.teacher:lite{number}",
                teacher_source="private",
                save_path=str(folder / f"full{number}"),
                num_crops=crops,
                label_type="full",
                values="float32",
            )
        )
    merge(folder / "exact", *(folder / f"full{number}" for number in range(3)))
    kls: dict[str, dict[str, float]] = {}
    for name, kind, tail in (
        ("shared tails", "shared_tail", 64),
        ("marginal smoothing", "marginal_smoothing", 0),
    ):
        options = {"values": "float16", "tail_classes": tail}
        parts = [folder / f"{kind}{number}" for number in range(3)]
        for number, part in enumerate(parts):
            merge(part, folder / f"full{number}", label_type=f"{kind}_k5", **options)
        for made in (f"{kind}_k5", f"{kind}_k10", f"{kind}_k15", "full"):
            merge(folder / f"{kind}-to-{made}", *parts, label_type=made, **options)
            found = kl(folder / "exact", folder / f"{kind}-to-{made}")
            kls.setdefault(made.rpartition("_")[2], {})[name] = found
    print("KL(exact ensemble || merged), nats, of three k=5 sets merged into")
    for made, found in kls.items():
        shared, smoothing = found["shared tails"], found["marginal smoothing"]
        print(
            f"{made:5} shared tails {shared:.4f}, marginal smoothing {smoothing:.4f}: {shared / smoothing:.3f}"
        )


def kl(exact: Path, merged: Path) -> float:
    total, count = 0.0, 0
    for truth, record in zip(*(slg_wds.open_labels(str(url)) for url in (exact, merged)), strict=True):
        p = np.maximum(truth.value.astype(np.float64), 1e-12)
        q = np.maximum(record.distribution().astype(np.float64), 1e-12)
        total += float((p * np.log(p / q)).sum())
        count += len(p)
    return total / count


if __name__ == "__main__":
    main()
