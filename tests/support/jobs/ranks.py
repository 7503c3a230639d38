"""Ranks that no launcher started, and what each of them was given."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist

from slg_wds import SoftLabelLoader
from slg_wds.replay.batch import Batch


def write_given(folder: Path, loader: SoftLabelLoader, batches: Sequence[Batch]) -> None:
    """Write to FOLDER/RANK.json the crops of the batches, and among how many ranks the loader shares this machine."""
    given = {
        "rank": [loader.rank, loader.world_size],
        "seen": [list(zip(batch.key, batch.crop.tolist(), strict=True)) for batch in batches],
        "threads": loader._pace.threads,
        "prefetch": loader._pace.prefetch,
        "caches": loader._context.caches.options.processes,
    }
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(given))
    dist.barrier()


def spawned(rank: int, labels: str, folder: str) -> None:
    """Walk through an epoch as one of two ranks of `torch.multiprocessing.spawn`."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    loader = SoftLabelLoader(labels, global_batch_size=24, crops_per_image=2)
    write_given(Path(folder), loader, list(loader))
    dist.destroy_process_group()
    os._exit(0)  # see walking_rank.py
