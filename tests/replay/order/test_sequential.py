"""The order without shuffling is the plan's, cut into batches: held against plain lists."""

from __future__ import annotations

import numpy as np
import pytest

from slg_wds.replay.order.fingerprint import fingerprint
from slg_wds.replay.order.sequential import SequentialOrder

SIZES = [3, 0, 5, 1, 0, 4]
SAMPLES = [(shard, sample) for shard, size in enumerate(SIZES) for sample in range(size)]
PADDING = (-1, -1)


@pytest.mark.parametrize("batch", [1, 3, 5, 13, 20])
@pytest.mark.parametrize("last", ["drop", "pad"])
@pytest.mark.parametrize("half", [0, 1, None])
def test_batches_and_spans_are_those_of_a_list(batch, last, half):
    order = SequentialOrder(np.array(SIZES), "digest", 0, batch, last)
    assert order.fingerprint == fingerprint("digest", 0, batch, lanes=1, window=1)
    first, stop = (0, batch) if half is None else (half * batch // 2, (half + 1) * batch // 2)
    chunks = [SAMPLES[at : at + batch] for at in range(0, len(SAMPLES), batch)]
    if last == "drop" and len(chunks[-1]) < batch:
        chunks.pop()
    wanted = [(chunk + [PADDING] * (batch - len(chunk)))[first:stop] for chunk in chunks]
    assert len(order) == len(wanted)
    shard, sample = order.batches(0, len(order), first, stop)
    found = np.stack([shard, sample], axis=-1)
    assert found.tolist() == [[list(place) for place in row] for row in wanted]
    used = {shard: [t for t, chunk in enumerate(chunks) if shard in dict(chunk)] for shard, _ in SAMPLES}
    spans = order.spans(first, stop)
    assert list(zip(*(part.tolist() for part in spans), strict=True)) == [
        (shard, times[0], times[-1] + 1) for shard, times in used.items() if times
    ]
