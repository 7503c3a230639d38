"""Which crops of an image are replayed in which epoch: a pure function of seed, key and epoch; no IO.

An image with M crops, c of them an epoch, has one endless sequence; epoch e takes places e*c to e*c + c - 1.
The sequence is made of rounds of M places, and every round is a permutation of all M crops: none comes again
before all have come, and what an epoch leaves of a round begins the next epoch.

An epoch that spans two rounds must not take one crop from both. So the permutation changes only where a round
and an epoch end together, after c / gcd(M, c) rounds, and until then each round repeats the one before:

    crop at place p = permutation number p // lcm(M, c), by a key of the image, of p % M

- Each round is exactly one permutation: the lcm(M, c) places that share one are whole rounds.
- An epoch lies within places that share one permutation, since c divides lcm(M, c). Its c places follow each
  other, so for c <= M they differ modulo M, and so do its crops; for c > M every crop comes floor(c / M) or
  ceil(c / M) times.

When c divides M, as with 4 of 500, every round has a permutation of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from math import lcm

import numpy as np
import numpy.typing as npt

from slg_wds.arrays import I64, U64
from slg_wds.errors import ReplayError
from slg_wds.replay.order.permutation import hashed_key, mix, permute, permute_one, subkey, subkeys

SCHEDULE_VERSION = 1


def hash_key(key: str) -> int:
    """Return 64 bits that stand for an image's key: BLAKE2b of its UTF-8, little-endian."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


class KeyHashes:
    """The `hash_key` of each of so many images, kept once it was asked for: later epochs take half as long to lay out.

    Args:
        count: of images.
    """

    def __init__(self, count: int) -> None:
        self._known = np.zeros(count, np.uint64)

    def of(self, numbers: I64, keys: Sequence[str]) -> U64:
        """Return the hashes of the images of these numbers, which have these keys, uint64 [n]."""
        found: U64 = self._known[numbers]
        for i in np.flatnonzero(found == 0).tolist():
            found[i] = hash_key(keys[i])
        self._known[numbers] = found
        return found


def crop_numbers(seed: int, key: str | int, epoch: int, num_crops: int, crops_per_image: int) -> I64:
    """Return the crops of one image in an epoch, int64 [crops_per_image], below num_crops.

    After a filter, num_crops is the number of crops it left and the result indexes the rising list of them.

    Args:
        seed: the order's.
        epoch: from 0.
        key: the image's key, or its `hash_key`.
        num_crops: M, 1 or more.
        crops_per_image: c, 1 or more.

    Raises:
        ReplayError: a number that cannot be.
    """
    _check(epoch, num_crops, crops_per_image)
    image_key = mix((hash_key(key) if isinstance(key, str) else int(key)) ^ _seed_key(seed))
    first = epoch * crops_per_image
    # One permutation holds the whole epoch, see above.
    permutation = subkey(image_key, first // lcm(num_crops, crops_per_image))
    places = range(first, first + crops_per_image)
    return np.array([permute_one(p % num_crops, num_crops, permutation) for p in places], np.int64)


def batch_crop_numbers(
    seed: int, keys: U64, epoch: int, num_crops: npt.ArrayLike, crops_per_image: int
) -> I64:
    """Return `crop_numbers` of many images, int64 [n, crops_per_image]: one image's cost less than 2 us.

    Args:
        seed: the order's.
        keys: `hash_key` of the images, uint64 [n].
        epoch: from 0.
        num_crops: one number for all, or int64 [n].
        crops_per_image: c, 1 or more.
    """
    counts = np.broadcast_to(np.asarray(num_crops, np.int64), keys.shape)
    if not keys.size:
        return np.empty((0, crops_per_image), np.int64)
    _check(epoch, int(counts.min()), crops_per_image)
    first = epoch * crops_per_image
    number = (first // np.lcm(counts, crops_per_image)).astype(np.uint64)
    permutation = subkeys(subkeys(keys ^ np.uint64(_seed_key(seed)), np.uint64(0)), number)
    places = first + np.arange(crops_per_image, dtype=np.int64)
    x = places % counts[:, None]  # [n, c]
    n, key = (np.repeat(v, crops_per_image) for v in (counts.astype(np.uint64), permutation))
    return permute(x.reshape(-1).astype(np.uint64), n, key).astype(np.int64).reshape(x.shape)


@lru_cache(maxsize=16)
def _seed_key(seed: int) -> int:
    return hashed_key(f"slg-wds crops {SCHEDULE_VERSION}", seed)


def _check(epoch: int, num_crops: int, crops_per_image: int) -> None:
    if epoch < 0:
        raise ReplayError(f"epoch is {epoch}")
    if num_crops < 1:
        raise ReplayError(f"an image with {num_crops} crops to choose from", hint="leave it out")
    if crops_per_image < 1:
        raise ReplayError(f"crops per image is {crops_per_image}")
