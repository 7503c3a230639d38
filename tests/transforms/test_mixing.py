"""The pixels of mixed views: exact in every memory layout, pinned by checksums."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.transforms.mixing import mix_view
from slg_wds.transforms.replaying import erased_pixels
from support.paths import GOLDEN

PIXELS = GOLDEN / "pixels" / "mixing.json"
NO_BOX = np.zeros(4, np.uint8)
CASES = [(lam, NO_BOX) for lam in (1, 64, 127, 128, 200, 255)] + [
    (0, np.array(box, np.uint8))
    for box in ((0, 0, 255, 255), (0, 0, 0, 0), (10, 20, 101, 200), (254, 0, 1, 255), (128, 128, 1, 1))
]


def pictures(side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Two pictures by arithmetic alone, uint8 [S, S, 3], which together have nearly every pair of values."""
    y, x = np.mgrid[:side, :side]
    one = np.stack([4 * x, 255 - 4 * y, x * y // 16], axis=-1)
    other = np.stack([4 * y + x % 4, 2 * (x + y), (x ^ y) * 4 + 3], axis=-1)
    return (one % 256).astype(np.uint8), (other % 256).astype(np.uint8)


def mixed(one: np.ndarray, other: np.ndarray, lam: int, box: np.ndarray) -> np.ndarray:
    """What `mix_view` makes of pixels in the layout of batches, uint8 [S, S, 3]."""
    out = one.copy()
    mix_view(torch.from_numpy(out).permute(2, 0, 1), torch.from_numpy(other).permute(2, 0, 1), lam, box)
    return out


def test_every_pair_of_values_is_mixed_in_whole_numbers():
    """All 256 x 256 pairs at every weight, against Python's own integers, which never overflow."""
    one, other = np.mgrid[:256, :256].astype(np.uint8)
    one, other = (np.repeat(values[..., None], 3, axis=-1) for values in (one, other))
    for lam in (1, 2, 77, 128, 254, 255):
        found = mixed(one, other, lam, NO_BOX)[..., 1].tolist()
        expected = [[(lam * a + (256 - lam) * b + 128) // 256 for b in range(256)] for a in range(256)]
        assert found == expected


boxes = st.tuples(st.integers(0, 255), st.integers(0, 255)).flatmap(
    lambda at: st.tuples(*map(st.just, at), st.integers(0, 255 - at[0]), st.integers(0, 255 - at[1]))
)


@settings(max_examples=100, deadline=None)
@given(boxes, st.integers(1, 40))
def test_cutmix_shows_the_partner_where_an_erased_box_would_be(box, side):
    rng = np.random.default_rng(side)
    one, other = rng.integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    found, box = mixed(one, other, 0, np.array(box, np.uint8)), np.array(box, np.uint8)
    top, left, bottom, right = erased_pixels(box, side)
    for y in range(side):
        for x in range(side):
            source = other if top <= y < bottom and left <= x < right else one
            assert (found[y, x] == source[y, x]).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 255), st.integers(1, 33))
def test_mixup_is_within_half_a_level_of_the_exact_blend(lam, side):
    rng = np.random.default_rng(lam)
    one, other = rng.integers(0, 256, (2, side, side, 3)).astype(np.uint8)
    exact = (lam * one.astype(float) + (256 - lam) * other.astype(float)) / 256
    assert np.abs(mixed(one, other, lam, NO_BOX) - exact).max() <= 0.5
    assert np.array_equal(mixed(one, one, lam, NO_BOX), one)


@pytest.mark.parametrize(("lam", "box"), [CASES[2], CASES[8]])
def test_memory_layout_changes_no_pixel_and_the_partner_stays(lam, box):
    one, other = pictures()
    plain, partner = (torch.from_numpy(pixels).permute(2, 0, 1).contiguous() for pixels in (one, other))
    mix_view(plain, partner, lam, box)
    assert np.array_equal(plain.permute(1, 2, 0).numpy(), mixed(one, other, lam, box))
    assert np.array_equal(partner.permute(1, 2, 0).numpy(), other)


def checksums() -> dict[str, int]:
    """The CRC-32 of the pixels of every case."""
    return {f"{lam} {box.tolist()}": zlib.crc32(mixed(*pictures(), lam, box)) for lam, box in CASES}


def test_pixels_are_the_golden_ones():
    assert checksums() == json.loads(PIXELS.read_text())


if __name__ == "__main__":
    PIXELS.write_text(json.dumps(checksums(), indent=1) + "\n")
