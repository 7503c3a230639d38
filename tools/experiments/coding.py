"""Processor time and bytes of low-rank labels, on real photographs with a real teacher.

usage: coding.py [--crops 500 100 32] [--max-kl 0.1] [--rounds 5] [--others] [--images 16] [--arch A] [--folder F]

A teacher labels photographs once, as `full` float32; with --folder, a second run starts from these labels. The first
crops of each become low-rank labels in one thread, which keeps its freed memory as `generate` does. Printed are, for
each number of crops and each KL:

    us        microseconds of processor time to code a crop; of each image, the fastest round counts
    first     the same, but the first round counts: nothing is in the caches yet
    low_rank  bytes a crop of the column of this name; block_of likewise
    KL        mean over all crops, worst image, worst crop, in nats
    n, r      mean classes and components of each image's largest block; blocks an image

With --others, further photographs are coded; most of them show no class of ImageNet.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from students import table
from teacher_labels import add_options, labelled, labels_of, other_images, working_folder

import slg_wds
from slg_wds.arrays import F32
from slg_wds.concurrency.memory import keep_freed_memory
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.format.records.columns import encode_column
from slg_wds.format.records.low_rank.blocks import LowRank
from slg_wds.format.records.low_rank.codec import encode_low_rank
from slg_wds.labels.low_rank import encode

HEADER = (
    "photographs", "crops", "max KL", "us", "first", "low_rank", "block_of", "KL", "worst image", "worst crop", "n",
    "r", "blocks",
)  # fmt: skip


@dataclass(frozen=True)
class Coded:
    """An image's labels, and the seconds of processor time that each round took."""

    labels: LowRank
    seconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--crops", type=int, nargs="+", default=[500, 100, 32])
    parser.add_argument("--max-kl", type=float, nargs="+", default=[0.1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", action="store_true")
    add_options(parser)
    options = parser.parse_args()
    keep_freed_memory()
    images = photographs(options)
    with one_blas_thread():
        rows = [
            measured(name, [one[:crops] for one in some], max_kl, options.rounds)
            for name, some in images.items()
            for crops in options.crops
            for max_kl in options.max_kl
        ]
    print(table(HEADER, rows))


def photographs(options: argparse.Namespace) -> dict[str, list[F32]]:
    """Return the teacher's probabilities of each image's crops, by kind of image."""
    most = max(options.crops)
    with working_folder(options) as folder:
        urls = {"known": labelled(folder, options, most)}
        if options.others:
            images = other_images(folder)
            urls["others"] = labels_of(images, folder / f"full-others-{most}", options.arch, most)
        return {
            name: [np.array(record.value) for record in slg_wds.open_labels(url)]
            for name, url in urls.items()
        }


def measured(name: str, images: Sequence[F32], max_kl: float, rounds: int) -> list[str]:
    """Code each image `rounds` times; return a row of the table."""
    found = [coded(np.ascontiguousarray(one), max_kl, rounds) for one in images]
    crops = sum(map(len, images))
    largest = [one.labels.blocks[np.bincount(one.labels.block_of).argmax()] for one in found]
    kls, blocks = [one.labels.kl for one in found], [len(one.labels.blocks) for one in found]
    per_crop = [
        1e6 * sum(min(one.seconds) for one in found),
        1e6 * sum(one.seconds[0] for one in found),
        sum(len(encode_low_rank(one.labels)) for one in found),
        sum(sum(map(len, encode_column(one.labels.block_of.astype(np.uint32)))) for one in found),
    ]
    us, first, low_rank, block_of = (total / crops for total in per_crop)
    return [
        name, f"{len(images[0])}", f"{max_kl:g}", f"{us:.1f}", f"{first:.1f}", f"{low_rank:.3f}", f"{block_of:.3f}",
        f"{np.mean([kl.mean for kl in kls]):.4f}", f"{max(kl.mean for kl in kls):.4f}",
        f"{max(kl.worst for kl in kls):.3f}", f"{np.mean([len(block.classes) for block in largest]):.0f}",
        f"{np.mean([block.rank for block in largest]):.1f}", f"{np.mean(blocks):.1f}",
    ]  # fmt: skip


def coded(probabilities: F32, max_kl: float, rounds: int) -> Coded:
    """Code one image `rounds` times."""
    seconds = []
    for _ in range(rounds):
        used = time.process_time()
        labels = encode(probabilities, max_kl)
        seconds.append(time.process_time() - used)
    return Coded(labels, seconds)


if __name__ == "__main__":
    main()
