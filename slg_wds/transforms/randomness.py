"""Random words of an image: pure functions of seed and key, the same on every machine, other ones for each use."""

from __future__ import annotations

import hashlib

import numpy as np

from slg_wds.arrays import F64, U64

# What follows the key in the digest, and the half of it that is the key of Philox. No image's key has a NUL.
BOXES, VIEWS, MIXING = (b"", slice(0, 16)), (b"", slice(16, 32)), (b"\0mixing", slice(0, 16))


def philox_of(seed: int, key: str, use: tuple[bytes, slice]) -> np.random.Philox:
    """Return the source of an image's random words of 64 bits; `random_raw` gives the next ones.

    Args:
        seed: 0 <= seed < 2**63.
        key: the image's key in the label set.
        use: BOXES (flips too), VIEWS or MIXING.
    """
    after, half = use
    digest = hashlib.sha256(seed.to_bytes(8, "little") + key.encode() + after).digest()
    return np.random.Philox(key=np.frombuffer(digest[half], "<u8").astype(np.uint64))


def uniforms(words: U64) -> F64:
    """Return a number in [0, 1) for each word: its first 53 bits, exact."""
    numbers: F64 = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return numbers
