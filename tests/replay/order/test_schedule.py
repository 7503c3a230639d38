"""The crop schedule against a scalar restatement, and its guarantee: no crop repeats before all were used."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import ReplayError
from slg_wds.replay.order.crop_schedule import KeyHashes, batch_crop_numbers, crop_numbers, hash_key
from slg_wds.replay.order.permutation import permute
from support.oracles.order_oracle import derived, splitmix

seeds = st.integers(-5, 2**70)
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
few_crops = st.integers(1, 40)
per_image = st.integers(1, 12)


def scalar_sequence(seed: int, key: str, M: int, c: int, length: int) -> list[int]:
    """Write the image's endless sequence out, round after round."""
    seed_key = hashlib.sha256(f"slg-wds crops 1\n{seed}".encode()).digest()
    key_hash = hashlib.blake2b(key.encode(), digest_size=8).digest()
    both = bytes(a ^ b for a, b in zip(seed_key[:8], key_hash, strict=True))
    image_key = splitmix(int.from_bytes(both, "little"))
    sequence: list[int] = []
    number, at = 0, 0
    while len(sequence) < length:
        word = derived(image_key, number)
        x = np.arange(M, dtype=np.uint64)  # permute has an oracle of its own
        sequence += permute(x, np.full_like(x, M), np.full_like(x, word)).tolist()
        at += M
        if at % c == 0:  # an epoch ends with the round: the next round has a permutation of its own
            number += 1
    return sequence


@given(seeds, keys, few_crops, per_image)
@settings(max_examples=80, deadline=None)
def test_schedule_is_the_scalar_one(seed, key, M, c):
    sequence = scalar_sequence(seed, key, M, c, 20 * c)
    for epoch in (19, 0, 7, 8):  # random access, in any order
        assert crop_numbers(seed, key, epoch, M, c).tolist() == sequence[epoch * c : (epoch + 1) * c]


@given(seeds, keys, few_crops, per_image)
@settings(max_examples=80, deadline=None)
def test_every_round_has_every_crop_once_and_no_epoch_one_twice(seed, key, M, c):
    epochs = 3 * M // math.gcd(M, c)  # three changes of the permutation
    by_epoch = [crop_numbers(seed, key, epoch, M, c).tolist() for epoch in range(epochs)]
    sequence = [crop for crops in by_epoch for crop in crops]
    for start in range(0, len(sequence), M):
        assert sorted(sequence[start : start + M]) == list(range(M))
    for crops in by_epoch:
        counts = [Counter(crops)[crop] for crop in range(M)]
        assert min(counts) == c // M and max(counts) == -(-c // M)


def hash_keys(names):
    return KeyHashes(len(names)).of(np.arange(len(names)), names)


@given(st.integers(1, 2000), per_image, st.integers(0, 10**6))
@settings(max_examples=80, deadline=None)
def test_no_epoch_repeats_a_crop_of_many(M, c, epoch):
    crops = crop_numbers(1, "a/b", epoch, M, c)
    assert crops.dtype == np.int64 and crops.shape == (c,) and crops.min() >= 0 and crops.max() < M
    assert np.unique(crops).size == min(M, c)


@given(seeds, st.lists(st.tuples(keys, st.integers(1, 600)), max_size=12), st.integers(0, 10**6), per_image)
@settings(max_examples=80, deadline=None)
def test_a_batch_is_its_images_one_by_one(seed, images, epoch, c):
    hashes = hash_keys([key for key, _ in images])
    counts = np.array([M for _, M in images], np.int64)
    found = batch_crop_numbers(seed, hashes, epoch, counts, c)
    assert found.dtype == np.int64 and found.shape == (len(images), c)
    for row, (key, M), key_hash in zip(found, images, hashes, strict=True):
        assert row.tolist() == crop_numbers(seed, key, epoch, M, c).tolist()
        assert row.tolist() == crop_numbers(seed, int(key_hash), epoch, M, c).tolist()
    if images:
        same = batch_crop_numbers(seed, hashes, epoch, 500, c)
        assert np.array_equal(same, batch_crop_numbers(seed, hashes, epoch, np.full(len(images), 500), c))


def test_images_epochs_rounds_and_seeds_are_unlike():
    hashes = hash_keys([f"n01440764/{i}" for i in range(4000)])
    epoch = batch_crop_numbers(0, hashes, 0, 500, 4)
    counts = np.bincount(epoch.reshape(-1), minlength=500)
    assert ((counts - 32) ** 2 / 32).sum() < 499 + 4 * math.sqrt(2 * 499)  # all crops alike often
    for other in (
        batch_crop_numbers(1, hashes, 0, 500, 4),
        batch_crop_numbers(0, hashes, 125, 500, 4),  # the next round
        np.roll(epoch, 1, axis=0),  # another image
    ):
        assert 12 < np.count_nonzero(epoch == other) < 60  # 32 expected
    rounds = [np.concatenate([crop_numbers(0, "x", r * 125 + e, 500, 4) for e in range(125)]) for r in (0, 1)]
    assert np.count_nonzero(rounds[0] == rounds[1]) < 8  # 1 expected


def test_first_crops_of_few_are_uniform():
    hashes = hash_keys([str(i) for i in range(24_000)])
    pairs = batch_crop_numbers(9, hashes, 0, 4, 2) @ [4, 1]
    counts = np.bincount(pairs, minlength=16).reshape(4, 4)
    assert np.all(np.diag(counts) == 0)
    others = counts[~np.eye(4, dtype=bool)]
    assert ((others - 2000) ** 2 / 2000).sum() < 11 + 4 * math.sqrt(22)


def test_after_a_filter_the_numbers_index_what_is_left():
    allowed = np.array([3, 17, 18, 250, 499])
    seen = np.concatenate([allowed[crop_numbers(0, "k", epoch, allowed.size, 2)] for epoch in range(5)])
    assert sorted(seen.tolist()) == sorted(allowed.tolist() * 2)


def test_fewer_crops_than_asked_repeat_evenly():
    for epoch in range(20):
        assert sorted(Counter(crop_numbers(0, "k", epoch, 3, 4).tolist()).values()) == [1, 1, 2]
        assert crop_numbers(0, "k", epoch, 1, 4).tolist() == [0, 0, 0, 0]


def test_golden_values():
    assert hash_key("n01440764/n01440764_10026") == GOLDEN_HASH
    assert crop_numbers(42, "n01440764/n01440764_10026", 7, 500, 4).tolist() == GOLDEN_CROPS
    assert [crop_numbers(0, "Ångström", epoch, 5, 3).tolist() for epoch in range(6)] == GOLDEN_EPOCHS
    hashes = hash_keys([f"{i:06d}" for i in range(2000)])
    found = batch_crop_numbers(2**65, hashes, 11, np.arange(2000) % 300 + 1, 8)
    assert hashlib.sha256(found.astype("<i8").tobytes()).hexdigest() == GOLDEN_BATCH


GOLDEN_HASH = 2465225462173413321
GOLDEN_CROPS = [384, 55, 103, 17]
GOLDEN_EPOCHS = [[0, 4, 2], [3, 1, 0], [4, 2, 3], [1, 0, 4], [2, 3, 1], [3, 1, 0]]
GOLDEN_BATCH = "796f574836e8879c2e43317f2a8390182e30e5dec5b5818f73af444d543e91d7"


@pytest.mark.parametrize(
    ("epoch", "M", "c", "words"),
    [
        (-1, 5, 2, "epoch is -1"),
        (0, 0, 2, "0 crops to choose from; leave it out"),
        (0, 5, 0, "crops per image is 0"),
    ],
)
def test_what_cannot_be_is_refused(epoch, M, c, words):
    with pytest.raises(ReplayError, match=words):
        crop_numbers(0, "k", epoch, M, c)
    with pytest.raises(ReplayError, match=words):
        batch_crop_numbers(0, hash_keys(["j", "k"]), epoch, [9, M], c)


def test_hashes_are_kept_by_number():
    kept, names = KeyHashes(7), [f"a/{number}" for number in range(7)]
    for numbers in ([5, 1, 5], [6, 5, 0], [1], [], list(range(7))):
        found = kept.of(np.array(numbers, np.int64), [names[number] for number in numbers])
        assert found.dtype == np.uint64 and found.tolist() == [hash_key(names[number]) for number in numbers]
    assert kept.of(np.arange(7), ["not asked for again"] * 7).tolist() == [hash_key(name) for name in names]


def test_a_batch_of_none():
    assert batch_crop_numbers(0, hash_keys([]), 0, 500, 4).shape == (0, 4)
