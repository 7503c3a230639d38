"""How many images a thread takes at a time, and how many batches are made ahead for that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slg_wds.replay.settings import BatchShare, Pace


def pace(images: int, crops: int, threads: int, processes: int = 0, prefetch: int | None = None) -> Pace:
    share = BatchShare.of(images * crops, crops, rank=0, world_size=1, evaluation=False)
    return Pace.of(share, threads, processes, prefetch, deadline=1.0)


@pytest.mark.parametrize(
    ("threads", "crops", "together"),
    [(2, 1, 16), (8, 1, 16), (9, 1, 32), (64, 1, 32), (16, 2, 16), (16, 4, 16), (64, 64, 16)],
)
def test_many_threads_take_more_images_where_each_has_few_crops(threads, crops, together):
    assert pace(128, crops, threads).together == together


@given(
    st.integers(1, 2000), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 200), st.none() | st.integers(1, 9)
)
def test_each_thread_has_its_images_twice(images, crops, threads, prefetch):
    found = pace(images, crops, threads, prefetch=prefetch)
    ahead = found.prefetch * images
    assert found.together == 1 or 2 * threads * found.together <= ahead
    if prefetch is None:
        assert found.together >= 16 and ahead < 2 * threads * found.together + 2 * images
    else:
        assert found.prefetch == prefetch
