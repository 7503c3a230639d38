"""The encoder of low-rank embeddings: the mean cosine that was asked for, whatever the embeddings are."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.errors import RecordError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding, StatedCosine
from slg_wds.format.records.encoding import encode_record
from slg_wds.labels.low_rank_embeddings import encode_embedding
from support.format.records import make_embedding_record, same

RNG = np.random.default_rng(0)


def smooth(crops: int, dim: int, rank: int = 5, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """Embeddings of crops that are views of one thing: few components, noise, lengths of their own."""
    rng = np.random.default_rng(seed)
    directions = 1 + rng.normal(size=(crops, rank)) @ rng.normal(size=(rank, dim)) / 2
    return (directions + noise * rng.normal(size=(crops, dim))) * rng.lognormal(size=(crops, 1))


def stored(coded: LowRankEmbedding) -> tuple[int, np.ndarray]:
    """The bytes that embeddings take in a record, and the numbers that a reader finds there."""
    record = dataclasses.replace(make_embedding_record(crops=len(coded)), embeddings={})
    full = encode_record(dataclasses.replace(record, embeddings={"a": coded}))
    found = decode_record(full)
    stated = StatedCosine(float(np.float32(coded.cosine.mean)), float(np.float32(coded.cosine.worst)))
    expected = {"a": dataclasses.replace(coded, cosine=stated)}
    assert same(found, dataclasses.replace(record, embeddings=expected))
    return len(full), found.embeddings["a"].vectors


def independent_cosines(one: Any, other: Any) -> np.ndarray:
    """The cosine of each pair of rows, one after the other; a zero vector has 1 with itself, 0 with others."""
    found = []
    for a, b in zip(np.asarray(one, np.float64), np.asarray(other, np.float64), strict=True):
        a, b = a / max(np.abs(a).max(), 1e-300), b / max(np.abs(b).max(), 1e-300)
        lengths = np.sqrt(a @ a) * np.sqrt(b @ b)
        found.append(float(a @ b / lengths) if lengths else float(not a.any() and not b.any()))
    return np.array(found)


@pytest.mark.parametrize("target", [0.9, 0.99, 0.999, 0.999999])
@pytest.mark.parametrize("crops", [1, 7, 100, 600])
def test_the_mean_cosine_is_the_one_asked_for_and_little_more(crops, target):
    vectors = smooth(crops, 64).astype(np.float32)
    coded = encode_embedding(vectors, target)
    each = independent_cosines(vectors, coded.vectors)
    assert coded.cosine.mean == pytest.approx(each.mean(), abs=1e-9)
    assert coded.cosine.worst == pytest.approx(each.min(), abs=1e-9)
    assert target <= coded.cosine.mean and coded.cosine.worst >= 1 - 4 * (1 - target)
    if crops >= 100 and target < 0.9999:
        assert 1 - coded.cosine.mean > 0.8 * (1 - target), "bytes were spent on what nobody asked for"
    lengths = np.linalg.norm(coded.vectors, axis=1) / np.linalg.norm(vectors, axis=1)
    assert (np.abs(lengths - 1) < 0.006).all()


def test_bytes_are_far_fewer_than_those_of_int8():
    vectors = smooth(200, 256)
    size, read = stored(encode_embedding(vectors, 0.99))
    assert size < 200 * 256 / 6
    assert independent_cosines(vectors, read).mean() >= 0.99


def mostly(crops: int, others: int, seed: int = 0) -> np.ndarray:
    """Embeddings of which a few are of another thing than the rest: a mean alone would hide these."""
    rng = np.random.default_rng(seed)
    common, apart = 1 + 0.01 * rng.normal(size=(crops, 60)), rng.normal(size=(others, 60))
    return np.concatenate([common, apart])[rng.permutation(crops + others)]


ODD = {
    "D = 1": RNG.normal(size=(50, 1)),
    "D = 1, one against many": np.where(np.arange(500) == 77, -1.0, 1.0)[:, None],
    "a few others": mostly(150, 2),
    "more others": mostly(150, 9),
    "D = 8192": RNG.normal(size=(12, 8192)),
    "one crop": RNG.normal(size=(1, 1280)),
    "no crop": np.zeros((0, 5)),
    "the same crop": np.repeat(RNG.normal(size=(1, 300)), 40, 0),
    "two that are opposite": np.outer([1, -1], RNG.normal(size=50)),
    "zeros": np.zeros((30, 7)),
    "some zeros": RNG.normal(size=(30, 70)) * (np.arange(30) % 3 > 0)[:, None],
    "the largest numbers": np.full((5, 9), np.finfo(np.float32).max),
    "huge": RNG.normal(size=(20, 30)) * 1e38 / 4,
    "tiny": RNG.normal(size=(20, 30)) * 1e-40,
    "all lengths": RNG.normal(size=(40, 30)) * 10.0 ** RNG.integers(-30, 30, (40, 1)),
    "unlike each other": np.eye(64),
    "an outlier": np.concatenate([1 + 0.01 * RNG.normal(size=(99, 40)), 100 * RNG.normal(size=(1, 40))]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("target", [0.5, 0.99, 0.99999])
def test_odd_embeddings_are_within_the_target(name, target):
    coded = encode_embedding(ODD[name], target)
    exact = ODD[name].astype(np.float32)
    _, read = stored(coded)
    assert np.isfinite(read).all() and np.array_equal(read, coded.vectors)
    each = independent_cosines(exact, read) if len(exact) else np.ones(1)
    assert each.mean() >= target - 1e-12 and each.min() >= 1 - 4 * (1 - target) - 1e-12
    assert not read[~exact.any(axis=1)].any()
    if name in ("D = 1", "the largest numbers"):
        assert np.allclose(read / exact, 1, atol=0.006)


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 6), st.floats(0.01, 0.9999), st.integers(0, 99))
def test_any_shape_keeps_to_any_target(crops, dim, rank, target, seed):
    vectors = smooth(crops, dim, rank, seed=seed)
    coded = encode_embedding(vectors, target)
    each = cosines(np.asarray(vectors, np.float32), coded.vectors)
    assert each.mean() >= target - 1e-12 and each.min() >= 1 - 4 * (1 - target) - 1e-12
    assert (coded.dim, len(coded)) == (dim, crops)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    with pytest.raises(RecordError, match="not finite"):
        encode_embedding(np.array([[1.0, bad]]), 0.9)


def test_a_target_beyond_the_format_is_refused_with_what_to_do():
    with pytest.raises(RecordError, match=r"no low-rank embeddings have .* give a lower --min-cosine"):
        encode_embedding(RNG.normal(size=(20, 30)), 1 - 1e-14)


def test_many_crops_are_coded_in_blocks():
    vectors = smooth(1200, 16)
    coded = encode_embedding(vectors, 0.99)
    assert len(coded.blocks) == 3 and (np.diff(coded.block_of) >= 0).all()
    assert independent_cosines(vectors, coded.vectors).mean() >= 0.99
    few = coded[[1100, 3]]
    assert np.allclose(few.vectors, coded.vectors[[1100, 3]], rtol=1e-4, atol=1e-5)


def test_bytes_do_not_depend_on_the_number_of_threads():
    """A process of its own, since the number of BLAS threads counts when numpy is imported."""
    program = (
        "import hashlib, numpy as np\n"
        "from slg_wds.concurrency.threads import one_blas_thread\n"
        "from slg_wds.format.records.embeddings.low_rank_codec import low_rank_columns\n"
        "from slg_wds.labels.low_rank_embeddings import encode_embedding\n"
        "vectors = np.random.default_rng(0).normal(size=(300, 400)) @ np.diag(1 / np.arange(1, 401))\n"
        "with one_blas_thread():\n"
        "    columns = low_rank_columns(encode_embedding(vectors, 0.99), 0)\n"
        "print(hashlib.sha256(repr(columns).encode()).hexdigest())\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"OPENBLAS_NUM_THREADS": str(threads), "PATH": ""},
            capture_output=True, text=True, check=True,
        ).stdout
        for threads in (1, 4)
    }  # fmt: skip
    with one_blas_thread():
        vectors = np.random.default_rng(0).normal(size=(300, 400)) @ np.diag(1 / np.arange(1, 401))
        again = [encode_embedding(vectors, 0.99) for _ in range(2)]
    assert len(found) == 1 and np.array_equal(again[0].coefficients, again[1].coefficients)
