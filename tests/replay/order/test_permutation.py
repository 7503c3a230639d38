"""The keyed permutation against a scalar restatement, and its statistics."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.replay.order.permutation import permute, permute_one, subkeys
from support.oracles.order_oracle import scalar_permutation


def u64(values) -> np.ndarray:
    return np.asarray(values, np.uint64)


def whole_permutation(n: int, key: int) -> list[int]:
    return permute(np.arange(n, dtype=np.uint64), u64([n] * n), u64([key] * n)).tolist()


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permutation_is_the_scalar_one(n, key):
    found = whole_permutation(n, key)
    assert found == scalar_permutation(n, key) == [permute_one(x, n, key) for x in range(n)]
    assert sorted(found) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 63, 64, 65, 1000, 1024, 1025, 99_999, 262_144])
def test_permutation_is_one_of_any_size(n):
    assert np.array_equal(np.sort(whole_permutation(n, 99)), np.arange(n))


def test_every_element_has_its_own_size_and_key():
    rng = random.Random(0)
    cases = []
    for _ in range(500):
        n = rng.choice([1, 2, 5, 30, 256, 1000, rng.randrange(1, 5000), rng.randrange(1, 2**51)])
        cases.append((rng.randrange(n), n, rng.randrange(2**64)))
    together = permute(*(u64(column) for column in zip(*cases, strict=True)))
    assert together.tolist() == [permute_one(*case) for case in cases]
    assert (together < u64([n for _, n, _ in cases])).all()


def test_sizes_about_squares_use_exact_roots():
    for root in (8, 9, 1000, 46_341, 2**20, 2**26 - 1):
        for n in (root * root - 1, root * root, root * root + 1):
            x = [0, 1, n // 2, n - 1]
            found = permute(u64(x), u64([n] * 4), u64([5] * 4)).tolist()
            assert found == [permute_one(i, n, 5) for i in x] and len(set(found)) == 4


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_permutations_of_few_are_alike_often(n):
    keys = subkeys(u64([n]), np.arange(60_000, dtype=np.uint64))
    columns = [permute(np.full_like(keys, x), np.full_like(keys, n), keys).astype(np.int64) for x in range(n)]
    code = sum(column * n**x for x, column in enumerate(columns))
    counts = np.unique(code, return_counts=True)[1]
    kinds = math.factorial(n)
    assert counts.size == kinds
    expected = keys.size / kinds
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < kinds - 1 + 4 * math.sqrt(2 * (kinds - 1))


@pytest.mark.parametrize("n", [16, 37, 100, 256, 1000])
def test_neighbours_go_independent_ways(n):
    """The step from x's to x+1's image is as uniform as a random permutation's; so are two keys' images of x."""
    keys = subkeys(u64([3]), np.arange(2000, dtype=np.uint64))
    x = np.arange(2000) % (n - 1)
    sizes = np.full_like(keys, n)
    here, there = (permute(u64(x + i), sizes, keys).astype(np.int64) for i in (0, 1))
    other = permute(u64(x), sizes, np.roll(keys, 1)).astype(np.int64)
    bins = min(n - 1, 16)
    for difference, least in (((there - here) % n - 1, n - 1), ((other - here) % n, n)):
        counts = np.bincount(difference * bins // least, minlength=bins)
        share = np.bincount(np.arange(least) * bins // least, minlength=bins) / least
        chi_squared = ((counts - 2000 * share) ** 2 / (2000 * share)).sum()
        assert chi_squared < bins - 1 + 4.5 * math.sqrt(2 * (bins - 1))
    assert abs(np.corrcoef(here, there)[0, 1] + 1 / (n - 1)) < 0.1


# These values never change while ORDER_VERSION does not.


def test_golden_permutations():
    assert permute(u64(range(8)), u64([1000] * 8), u64([2**64 - 1] * 8)).tolist() == GOLDEN_PERMUTATION
    assert whole_permutation(5, 0) == GOLDEN_FIVE


GOLDEN_PERMUTATION = [131, 16, 884, 107, 129, 58, 766, 9]
GOLDEN_FIVE = [3, 2, 0, 1, 4]
