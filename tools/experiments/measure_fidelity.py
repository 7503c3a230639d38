"""Bytes and faithfulness of labels, on real photographs with a real teacher.

usage: measure_fidelity.py [--crops 8 32 100 500] [--images 16] [--arch A] [--folder F] [--plot FILE]

A teacher labels the photographs once, as `full` float32. The first crops of each become labels of every kind: the top k
in log8 with a shared tail, the top five with an even tail (FKD's labels), and low-rank labels. They go through the
bytes of a shard. What is read back is compared with the teacher, which is asked again about the crops as the loader
cuts them for a student. Printed are, for each kind and number of crops:

    payload, record, shard   bytes a crop: of the columns of labels alone, of records, of all with the tar
    KL                       KL(teacher || label) in nats, mean over all crops
    worst image, worst crop  the largest mean KL of an image, and KL of a crop
    TV                       mean total variation
    same top                 share of crops whose likeliest class is the teacher's

Then the payload of top-k at the KL that low-rank labels have, between the two nearest k. --plot draws bytes against KL.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from fidelity_plot import draw
from students import table
from teacher_labels import add_options, asked_again, divergences, labelled, working_folder

import slg_wds
from slg_wds.arrays import F64
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.format.records.decoding import unpack_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.shards.header import ShardHeader
from slg_wds.format.shards.shard import Sample, encode_shard, read_shard
from slg_wds.inspection.sizes import REST, of_record
from slg_wds.labels.low_rank import encode

K = (5, 10, 20, 50, 100)
MAX_KL = (0.2, 0.1, 0.05, 0.02)
OF_BOXES = ("boxes", "flips", REST)  # what records have whatever their labels are


@dataclass(frozen=True)
class Store:
    """A kind of labels.

    Attributes:
        name: as the table has it.
        family: kinds that differ by a parameter are one line of the plot.
        coded: makes such labels of a full record.
        rule: by which distributions are recovered; None for what uses all that is stored.
    """

    name: str
    family: str
    coded: Callable[[Record], Record]
    rule: str | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured of one kind of labels for one number of crops; the units are in the docstring of this file."""

    crops: int
    store: Store
    payload: float
    record: float
    shard: float
    kl: float
    worst_image: float
    worst_crop: float
    variation: float
    same: float

    def row(self) -> list[str]:
        """Return the figures as text, in the order of HEADER."""
        return [
            f"{self.crops}", self.store.name, f"{self.payload:.2f}", f"{self.record:.2f}", f"{self.shard:.2f}",
            f"{self.kl:.4f}", f"{self.worst_image:.3f}", f"{self.worst_crop:.2f}", f"{self.variation:.4f}",
            f"{self.same:.3f}",
        ]  # fmt: skip


HEADER = (
    "crops",
    "labels",
    "payload",
    "record",
    "shard",
    "KL",
    "worst image",
    "worst crop",
    "TV",
    "same top",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, nargs="+", default=[8, 32, 100, 500])
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    add_options(parser)
    options = parser.parse_args()
    with working_folder(options) as folder:
        url = labelled(folder, options, max(options.crops))
        records = {record.key: record for record in slg_wds.open_labels(url)}
        teacher = dict(asked_again(url, options.arch))
    off = max(float(np.abs(records[key].value - rows).max()) for key, rows in teacher.items())
    print(
        f"{len(records)} photographs, {options.arch.rpartition(':')[2]}; stored and live differ by at most {off:.1e}\n"
    )
    with one_blas_thread():
        found = [measured(records, teacher, crops, store) for crops in options.crops for store in STORES]
    print(table(HEADER, [figures.row() for figures in found]), end="\n\n")
    print(table(("crops", "labels", "KL", "payload", "payload of top-k there", "ratio"), list(ratios(found))))
    if options.plot:
        draw(
            options.plot, {key: [(one.payload, one.kl) for one in part] for key, part in lines(found).items()}
        )


def measured(records: dict[str, Record], teacher: dict[str, F64], crops: int, store: Store) -> Figures:
    """Code the first crops of each image, and compare what is read back with the teacher."""
    stored = [store.coded(first(record, crops)) for record in records.values()]
    shard = encode_shard((Sample(record) for record in stored), ShardHeader("0" * 64, 0, "train-000000"))
    kls, variation, same = [], [], []
    for sample in read_shard(shard):
        exact, read = teacher[sample.record.key][:crops], sample.record.distribution(rule=store.rule)
        kls.append(divergences(exact, read))
        variation.append(np.abs(exact - read).sum(axis=1) / 2)
        same.append(exact.argmax(axis=1) == read.argmax(axis=1))
    payload, whole = sizes(stored)
    count = crops * len(stored)
    return Figures(
        crops, store, payload / count, whole / count, len(shard) / count, float(np.mean(kls)),
        max(float(of_image.mean()) for of_image in kls), float(np.max(kls)), float(np.mean(variation)),
        float(np.mean(same)),
    )  # fmt: skip


def sizes(records: Sequence[Record]) -> tuple[int, int]:
    """Return the bytes of the records' columns of labels, and of the whole records."""
    payload = whole = 0
    for data in map(encode_record, records):
        parts = of_record(unpack_record(data), len(data))
        payload += sum(size for name, size in parts.items() if name not in OF_BOXES)
        whole += len(data)
    return payload, whole


def first(record: Record, crops: int) -> Record:
    """Return a full record with its first crops alone."""
    return replace(
        record,
        crops=record.crops[:crops],
        flips=record.flips[:crops],
        index=record.index[:crops],
        value=record.value[:crops],
    )


def top_k(record: Record, k: int) -> Record:
    """Turn a full record into top-k labels with a shared tail, as `generate` does."""
    index = np.argsort(-record.value, axis=1, kind="stable")[:, :k]
    outside = record.value.astype(np.float64)
    np.put_along_axis(outside, index, 0.0, axis=1)
    return replace(
        record,
        index=index,
        value=np.take_along_axis(record.value, index, axis=1),
        tail=build_tail(outside.mean(axis=0), 64, record.num_crops, k),
        coding="log8",
        full=False,
    )


def without_tail(record: Record, k: int) -> Record:
    """Turn a full record into top-k labels alone."""
    return replace(top_k(record, k), tail=None)


def low_rank(record: Record, max_kl: float) -> Record:
    """Turn a full record into low-rank labels, as `generate` does."""
    none = (record.num_crops, 0)
    return replace(
        record,
        index=np.zeros(none, np.int64),
        value=np.zeros(none, np.float32),
        coding=LOW_RANK,
        full=False,
        low_rank=encode(record.value, max_kl),
    )


TOP_K, EVEN, LOW = "top k", "top k, even tail", "low-rank"
STORES = [
    *(Store(f"low-rank {kl:g}", LOW, partial(low_rank, max_kl=kl)) for kl in MAX_KL),
    *(Store(f"top {k}", TOP_K, partial(top_k, k=k)) for k in K),
    Store("top 5, even tail", EVEN, partial(without_tail, k=5), "marginal_smoothing_k5"),
]


def lines(found: Sequence[Figures]) -> dict[tuple[str, int], list[Figures]]:
    """Group figures into the lines of the plot, by family and number of crops."""
    groups: dict[tuple[str, int], list[Figures]] = {}
    for one in found:
        groups.setdefault((one.store.family, one.crops), []).append(one)
    return groups


def ratios(found: Sequence[Figures]) -> Iterator[list[str]]:
    """Yield rows: low-rank labels, and the payload of top-k at their KL."""
    groups = lines(found)
    for one in found:
        if one.store.family != LOW:
            continue
        others = sorted(groups[TOP_K, one.crops], key=lambda other: other.kl)
        logs = [np.log([getattr(other, name) for other in others]) for name in ("kl", "payload")]
        row = [f"{one.crops}", one.store.name, f"{one.kl:.4f}", f"{one.payload:.2f}"]
        if others[0].kl <= one.kl <= others[-1].kl:
            there = float(np.exp(np.interp(np.log(one.kl), *logs)))
            yield [*row, f"{there:.2f}", f"{one.payload / there:.3f}"]
        else:
            yield [*row, f"outside k = {K[0]} to {K[-1]}", "-"]


if __name__ == "__main__":
    main()
