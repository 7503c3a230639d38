"""An identity, and plans of any paths."""

from __future__ import annotations

import numpy as np

from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.format.shards.names import key_of

IDENTITY = {
    "label_type": "shared_tail_k5",
    "num_crops": 500,
    "scale": [0.08, 1.0],
    "teachers": [{"arch": "ä"}],
}


def make_plan(paths: list[str], size: int = 2, *, keep: bool = False, tars: bool = False) -> Plan:
    N = len(paths)
    n = -(-N // size)
    sizes = np.full(n, size)
    if N % size:
        sizes[-1] = N % size
    places = {
        "source": "shards",
        "image_shards": [f"images-{i}.tar" for i in range(n)],
        "image_offset": np.arange(N) * (1 << 33),
        "image_size": np.arange(N) + 1,
    }
    return Plan(
        shard_names=[f"train-{i:06d}" for i in range(n)],
        shard_sizes=sizes,
        paths=StringColumn.of(paths),
        keys=StringColumn.of(key_of(path, keep) for path in paths),
        targets=np.arange(N, dtype=np.int32) - 1,
        **(places if tars else {}),  # type: ignore[arg-type]
    )
