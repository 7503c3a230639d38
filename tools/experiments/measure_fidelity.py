"""Bytes and faithfulness of every kind of label, on real photographs with a real teacher.

usage: measure_fidelity.py [--images 16] [--crops 500] [--arch A]

Labels the photographs once as `full` float32, then codes those distributions as each label type, values and number of
crops, and prints bytes per crop of the whole shard (tar, records, shared tail) and KL(teacher || recovered label) in
nats, mean over all crops.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import slg_wds
from slg_wds.demo.photographs import write_photographs
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Sample, encode_shard, read_shard

FIRST_VIEWS = 3  # of each photograph, so that 16 images are of all six


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--arch", default="slg_wds.demo.teacher:lite0")
    options = parser.parse_args()
    records = full_labels(options)
    table = Table(title=f"{len(records)} photographs, {options.arch.rpartition(':')[2]}")
    for column in ("crops", "k", "values", "rule", "bytes/crop", "KL, nats", "of marginal smoothing"):
        table.add_column(column, justify="right")
    for crops in sorted({200, options.crops}):
        for k in (1, 5, 10):
            for values in ("float32", "float16", "log8"):
                add_rows(table, records, crops, k, values)
    Console(width=110).print(table)


def full_labels(options: argparse.Namespace) -> list[Record]:
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "photographs"
        write_photographs(images / "train")
        paths = sorted(p for p in (images / "train").rglob("*.jpg") if int(p.stem[-1]) < FIRST_VIEWS)
        chosen = Path(folder) / "list"
        chosen.write_text("\n".join(str(p.relative_to(images / "train")) for p in paths[: options.images]))
        slg_wds.generate(
            slg_wds.GenerateConfig(
                data=str(images),
                arch=options.arch,
                teacher_source="private",
                save_path=str(Path(folder) / "full"),
                num_crops=options.crops,
                label_type="full",
                values="float32",
                list_file=str(chosen),
            )
        )
        return list(slg_wds.open_labels(str(Path(folder) / "full")))


def add_rows(table: Table, records: list[Record], crops: int, k: int, values: str) -> None:
    """Add a row for each rule of recovery that these labels can be read with."""
    stored = [coded(record, crops, k, values) for record in records]
    shard = encode_shard((Sample(record) for record in stored), ShardHeader("0" * 64, 0, "train-000000"))
    size = len(shard) / (crops * len(records))
    read = [sample.record for sample in read_shard(shard)]
    base = 0.0
    for rule in (f"marginal_smoothing_k{k}", f"shared_tail_k{k}"):
        pairs = zip(records, read, strict=True)
        kl = float(
            np.mean([divergence(full.value[:crops], label.distribution(rule=rule)) for full, label in pairs])
        )
        base = base or kl
        table.add_row(f"{crops}", f"{k}", values, rule, f"{size:.2f}", f"{kl:.4f}", f"{kl / base:.3f}")


def coded(record: Record, crops: int, k: int, values: str) -> Record:
    """Turn the first crops of a full record into top-k labels with a shared tail, as `generate` does."""
    probs = record.value[:crops]
    index = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    outside = probs.astype(np.float64)
    np.put_along_axis(outside, index, 0.0, axis=1)
    return Record(
        key=record.key,
        path=record.path,
        target=record.target,
        size=record.size,
        crops=record.crops[:crops],
        flips=record.flips[:crops],
        index=index,
        value=np.take_along_axis(probs, index, axis=1),
        tail=build_tail(outside.mean(axis=0), 64, crops, k),
        coding=values,
        full=False,
        num_classes=record.num_classes,
    )


def divergence(p: np.ndarray, q: np.ndarray) -> float:
    """Return the mean KL(p || q) of the rows, in nats."""
    p, q = np.maximum(p.astype(np.float64), 1e-30), np.maximum(q.astype(np.float64), 1e-30)
    return float((p * (np.log(p) - np.log(q))).sum(axis=1).mean())


if __name__ == "__main__":
    main()
