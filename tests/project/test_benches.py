"""The parts of benchmarks that use the loader's inside, on small sets."""

from __future__ import annotations

import slg_wds
from support.programs import tool


def test_images_of_the_first_batches_are_all_that_the_loader_reads(tmp_path):
    start = tool("bench_start")
    labels, pictures = tmp_path / "labels", tmp_path / "pictures"
    start.bench_looking.make(labels, shards=40, images=8, crops=16)
    start.lay_out(labels, pictures, 16)
    loader = slg_wds.SoftLabelLoader(
        str(labels), str(pictures), global_batch_size=16, size=32, interpolation="bilinear", threads=1
    )
    batch = next(iter(loader))
    assert len(batch) == 16 and batch.mask.all()
    assert len(list(pictures.rglob("*.JPEG"))) < 320
