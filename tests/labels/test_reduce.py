"""Reducing a teacher's probabilities to the top-k and the sum outside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slg_wds.labels import tail_sums, topk
from slg_wds.labels.reduce import _packed_topk

TINY = float(np.float32(1e-45))
# Few distinct values, so that ties are everywhere; and both zeros, denormals and 1.
LEVELS = st.sampled_from(
    [float(np.float32(level)) for level in (0.0, -0.0, TINY, 2 * TINY, 1e-30, 0.125, 0.25, 0.2500001, 1.0)]
)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 40)), elements=LEVELS)


def sorted_topk(probs: np.ndarray, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """The top-k by Python's stable sort: descending probability, then ascending class."""
    order = [sorted(range(len(row)), key=lambda c, row=row: (-row[c], c))[:k] for row in probs.tolist()]
    return order, [[row[c] for c in classes] for row, classes in zip(probs.tolist(), order, strict=True)]


@settings(max_examples=100, deadline=None)
@given(ROWS, st.data())
@pytest.mark.parametrize("function", [topk, _packed_topk])
def test_exact_with_ties_to_the_lower_class(function, rows: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, rows.shape[1]))
    index, value = function(torch.from_numpy(rows), k)
    assert index.dtype == torch.int64 and value.dtype == torch.float32
    assert (index.tolist(), value.tolist()) == sorted_topk(rows, k)


def test_sharp_and_flat_rows_of_many_classes() -> None:
    sharp = torch.softmax(torch.randn(64, 1000, generator=torch.manual_seed(0)) * 300, dim=1)
    flat = torch.full((3, 1000), 0.001)
    probs = torch.cat([sharp, flat, torch.nn.functional.one_hot(torch.arange(9), 1000).float()])
    for k in (1, 5, 999, 1000):
        index, value = topk(probs, k)
        assert (index.tolist(), value.tolist()) == sorted_topk(probs.numpy(), k)


def test_under_inference_mode_and_of_a_view() -> None:
    with torch.inference_mode():
        probs = torch.softmax(torch.zeros(4, 20) + torch.arange(4.0)[:, None], dim=1)[:, ::2]
        assert topk(probs, 3)[0].tolist() == [[0, 1, 2]] * 4


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"float32.*float64"):
        topk(torch.ones(2, 3, dtype=torch.float64), 1)


def test_the_sum_outside_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(50, 0.1), size=23).astype(np.float32)
    index, _ = topk(torch.from_numpy(probs), 4)
    segments = [(0, 7), (7, 7), (7, 8), (8, 23)]
    wanted = np.zeros((4, 50))
    for number, (start, end) in enumerate(segments):
        for row in range(start, end):
            for c in range(50):
                if c not in index[row]:
                    wanted[number, c] += float(probs[row, c])
    before = probs.copy()
    got = tail_sums(torch.from_numpy(probs), index, segments)
    assert got.dtype == torch.float64 and got.shape == (4, 50)
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-14, atol=0)
    np.testing.assert_array_equal(probs, before)
    assert tail_sums(torch.from_numpy(probs), index, []).shape == (0, 50)
    assert not tail_sums(torch.from_numpy(probs[:, :4]), torch.arange(4).expand(23, 4), [(0, 23)]).any()


def test_the_sum_outside_is_the_same_every_time() -> None:
    probs = torch.softmax(torch.randn(256, 1000, generator=torch.manual_seed(1)), dim=1)
    index, _ = topk(probs, 5)
    first = tail_sums(probs, index, [(0, 100), (100, 256)])
    shifted = tail_sums(torch.cat([probs[:9], probs]), torch.cat([index[:9], index]), [(9, 109), (109, 265)])
    assert torch.equal(first, shifted)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert torch.equal(first, tail_sums(probs, index, [(0, 100), (100, 256)]))
    finally:
        torch.set_num_threads(threads)
