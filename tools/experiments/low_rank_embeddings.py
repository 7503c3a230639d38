"""Bytes, faithfulness and time of embeddings coded to a mean cosine, on real photographs with a real teacher.

usage: low_rank_embeddings.py [--images 12] [--crops 500] [--set SET]

Embeds photographs once as float32 with EfficientNet-Lite0 without its head, or reads such a set. Then it codes the
first 32, 100, 200 and all crops of each image as int8 and to some mean cosines, and prints bytes of a crop in the
record's columns, their share of bf16's, the cosine of all crops, the worst crop, components, and processor time of
coding.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from students import table
from teacher_labels import embeddings_of, photographs, working_folder

import slg_wds
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.codec import embedding_columns
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.labels.low_rank_embeddings import encode_embedding

HEADER = ("crops", "coded to", "bytes/crop", "of bf16", "cosine", "worst", "components", "us/crop")
CROPS = (32, 100, 200)
TARGETS = (None, 0.95, 0.98, 0.99, 0.995, 0.999)  # None for int8
BF16_BYTES = 2  # of a number
FIRST_VIEWS = 2  # of each photograph, so that 12 images are of all six


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--crops", type=int, default=500)
    parser.add_argument("--set", help="a set of one float32 embedding, made before")
    options = parser.parse_args()
    with working_folder(options) as folder:
        labels = slg_wds.open_labels(options.set or embedded(options, folder))
        exact = [next(iter(record.embeddings.values())).vectors for record in labels]
    print(f"{len(exact)} photographs, D = {exact[0].shape[1]}")
    with one_blas_thread():
        rows = [
            [str(crops), str(target or "int8"), *measured([x[:crops] for x in exact], target)]
            for crops in sorted({*CROPS, options.crops})
            for target in TARGETS
        ]
    print(table(HEADER, rows))


def embedded(options: argparse.Namespace, folder: Path) -> str:
    images, chosen = photographs(folder, options.images, FIRST_VIEWS)
    return embeddings_of(images, folder / "exact", options.crops, values="float32", list_file=chosen)


def measured(exact: list[np.ndarray], target: float | None) -> list[str]:
    """Code each image's embeddings; return the cells of a row."""
    start = time.process_time()
    coded: list[AnyEmbedding] = [
        Embedding.of(one, "int8") if target is None else encode_embedding(one, target) for one in exact
    ]
    columns = [embedding_columns({"a": one}) for one in coded]
    seconds = time.process_time() - start
    crops = sum(map(len, exact))
    size = sum(len(plane) for one in columns for planes in one.values() for plane in planes) / crops
    each = np.concatenate([cosines(x, one.vectors) for x, one in zip(exact, coded, strict=True)])
    ranks = [one.blocks[0].rank for one in coded if isinstance(one, LowRankEmbedding)]
    return [
        f"{size:.1f}",
        f"{size / (BF16_BYTES * exact[0].shape[1]):.4f}",
        f"{each.mean():.5f}",
        f"{each.min():.4f}",
        f"{np.mean(ranks):.1f}" if ranks else "",
        f"{seconds / crops * 1e6:.0f}",
    ]


if __name__ == "__main__":
    main()
