"""The precision of stored probabilities, and the shared tail against its formula."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError
from slg_wds.format.records.tail import Tail, build_tail
from slg_wds.format.records.values import decode_values, encode_values
from support.format.records import quantise

PROBABILITIES = st.floats(0, 1, width=32)


def log8(p: float) -> int:
    return int(encode_values(np.array([p], np.float32), "log8")[0])


def nearest_code(p: float) -> int:
    """The code by exact arithmetic: p**32 against 2**-(2q + 1), where codes q and q + 1 meet."""
    if Fraction(p) ** 8 < Fraction(1, 2**135):
        return 255
    power = Fraction(p) ** 32
    code = min(254, max(0, math.floor(-16 * math.log2(p)) - 1))
    while code < 254 and power < Fraction(1, 2 ** (2 * code + 1)):
        code += 1
    return code


def test_every_code_stands_for_what_the_specification_says() -> None:
    value = decode_values(np.arange(256, dtype=np.uint8), "log8")
    for code, p in enumerate(value[:255].tolist()):
        # The float32 nearest to 2**(-code / 16): no neighbour's 16th power is nearer. Exactly.
        exact, mine = Fraction(1, 2**code), Fraction(p) ** 16
        lower = (Fraction(p) + Fraction(float(np.nextafter(np.float32(p), np.float32(0))))) / 2
        upper = (Fraction(p) + Fraction(float(np.nextafter(np.float32(p), np.float32(2))))) / 2
        assert lower**16 < exact < upper**16, (code, mine)
    assert value[255] == 0.0
    assert np.array_equal(encode_values(value, "log8"), np.arange(256))


def test_the_nearest_code_at_every_border() -> None:
    for code in range(254):
        border = np.float32(2.0 ** (-(2 * code + 1) / 32))
        near = [border]
        for _ in range(3):
            near = [np.nextafter(near[0], np.float32(0)), *near, np.nextafter(near[-1], np.float32(2))]
        for p in near:
            assert log8(float(p)) == nearest_code(float(p)), (code, p)


@settings(max_examples=300)
@given(PROBABILITIES)
def test_the_nearest_code(p: float) -> None:
    assert log8(p) == (255 if p == 0 else nearest_code(p))


@pytest.mark.parametrize(
    ("p", "code"),
    [(1.0, 0), (1.0009, 0), (0.0, 255), (-0.0, 255), (2.0**-15.875, 254), (2.0**-15.9, 254), (2.0**-16.8, 254),
     (2.0**-16.874, 254), (2.0**-16.876, 255), (1e-45, 255), (2.0**-8, 128)],
)  # fmt: skip
def test_log8_edges(p: float, code: int) -> None:
    assert log8(p) == code


@settings(max_examples=300)
@given(st.lists(PROBABILITIES, min_size=1, max_size=50))
def test_bounds_of_quantisation(values: list[float]) -> None:
    p = np.array(values, np.float32)
    exact = p.astype(np.float64)
    logarithmic = quantise(p, "log8").astype(np.float64)
    assert (np.abs(logarithmic - exact) <= 0.023 * exact)[exact > 2**-15.9].all()
    assert (np.abs(logarithmic - exact) <= 2.0**-16.8)[exact <= 2**-15.9].all()
    half = quantise(p, "float16").astype(np.float64)
    assert (np.abs(half - exact) <= 2.0**-11 * exact)[exact > 2**-14].all()
    assert np.array_equal(quantise(p, "float32"), p)
    assert np.array_equal(quantise(p, "none"), np.ones_like(p))


@settings(max_examples=200)
@given(st.lists(PROBABILITIES, min_size=2, max_size=50), st.sampled_from(["float32", "float16", "log8"]))
def test_order_and_what_was_coded_stay(values: list[float], coding: str) -> None:
    falling = -np.sort(-np.array(values, np.float32))
    once = quantise(falling, coding)
    assert (np.diff(once) <= 0).all()
    assert once.tobytes() == quantise(once, coding).tobytes()


def test_a_little_over_one_is_one() -> None:
    for coding in ("float32", "float16", "log8"):
        assert quantise(np.array([1 + 2**-10, 1.0, -0.0], np.float32), coding).tolist() == [1, 1, 0]
        assert not np.signbit(quantise(np.array([-0.0], np.float32), coding)).any()


@pytest.mark.parametrize("p", [np.nan, -1e-30, 1.001, np.inf, -np.inf])
@pytest.mark.parametrize("coding", ["float32", "float16", "log8"])
def test_what_is_no_probability(p: float, coding: str) -> None:
    with pytest.raises(RecordError, match=r"not within \[0, 1\]"):
        encode_values(np.array([0.5, p]), coding)


@pytest.mark.parametrize("bits", [0x7C00, 0x7E00, 0x3C01, 0xBC00])
def test_stored_numbers_that_are_no_probability(bits: int) -> None:
    with pytest.raises(RecordError, match="stored probabilities"):
        decode_values(np.array([bits], "<u2").view("<f2"), "float16")


def formula(
    v: list[float], asked: int, crops: int, k: int
) -> tuple[list[int], list[int], float, float] | None:
    """design.md's formula with plain numbers."""
    m = min(asked, crops // 4, len(v) - k)
    if m < 1:
        return None
    kept = sorted(sorted(range(len(v)), key=lambda c: (-v[c], c))[:m])
    s = float(np.float32(max(v)))
    codes = [255 if v[c] == 0 else min(254, max(0, round(-16 * math.log2(v[c] / s)))) for c in kept]
    rest = (math.fsum(v) - math.fsum(v[c] for c in kept)) / (len(v) - m)
    return kept, codes, s, float(np.float32(max(0.0, rest)))


SHARES = st.one_of(st.just(0.0), st.sampled_from([0.25, 0.125, 1e-3]), st.floats(1e-30, 1))


@settings(max_examples=300)
@given(st.lists(SHARES, min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 300), st.integers(1, 10))
def test_tail_is_the_formula(v: list[float], asked: int, crops: int, k: int) -> None:
    k = min(k, len(v))
    tail, expected = build_tail(np.array(v), asked, crops, k), formula(v, asked, crops, k)
    assert (tail is None) == (expected is None)
    if tail is None or expected is None:
        return
    kept, codes, s, rest = expected
    assert tail.classes.tolist() == kept
    assert tail.codes.tolist() == codes
    assert tail.scale == s
    assert tail.rest == pytest.approx(rest, rel=1e-6, abs=1e-15)
    value = [0.0 if q == 255 else s * 2 ** (-q / 16) for q in codes]
    assert np.array_equal(tail.probs, np.array(value, np.float32))


def test_ties_go_to_the_lower_class() -> None:
    tail = build_tail(np.array([0.1, 0.2, 0.1, 0.2, 0.1, 0.1]), 4, 100, 1)
    assert tail is not None
    assert tail.classes.tolist() == [0, 1, 2, 3]
    assert tail.rest == np.float32(0.1)


def test_a_tail_of_nothing() -> None:
    tail = build_tail(np.zeros(10), 3, 100, 1)
    assert tail is not None
    assert (tail.codes.tolist(), tail.scale, tail.rest, tail.probs.tolist()) == (
        [255] * 3,
        0.0,
        0.0,
        [0.0] * 3,
    )


def test_a_tail_adds_up_to_what_was_outside() -> None:
    v = np.random.default_rng(0).random(1000) ** 6 / 2000
    tail = build_tail(v, 64, 500, 5)
    assert tail is not None
    assert isinstance(tail, Tail)
    assert tail.probs.sum(dtype=np.float64) + tail.rest * 936 == pytest.approx(v.sum(), rel=0.023)


@pytest.mark.parametrize("v", [[0.1, -1e-9], [np.nan, 0.1], [np.inf, 0.1], [[0.1]], [1.5, 0.0], []])
def test_what_is_no_mean(v: list[float]) -> None:
    with pytest.raises(RecordError, match="a mean tail is not"):
        build_tail(np.array(v), 2, 100, 1)
