"""Paths of images -> their keys, their shuffled order, and shards of that order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from slg_wds.console import counted
from slg_wds.errors import DuplicateKeyError, ImageSourceError, UsageError
from slg_wds.format.shards.names import key_of

TargetOf = Sequence[int | None] | NDArray[np.integer] | Callable[[int], int | None]

MAX_TARGET = 2**31 - 1
# Paths whose key is simply the part before the last dot, which are nearly all. `key_of` has the whole rule.
PLAIN = re.compile(r"(?!__)(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+(?=\.[A-Za-z0-9]+\Z)")
PLAIN_LENGTH = 1024


def keys_of(paths: Sequence[str], keep_extensions: bool, url: str) -> list[str]:
    """Return the key of each path; no two are the same.

    Args:
        paths: of images, below their source.
        keep_extensions: whether keys keep the paths' extensions.
        url: of the source, for messages.

    Raises:
        ImageSourceError: a path that has no key (not UTF-8, or with `..`).
        DuplicateKeyError: two paths with the same key. The message names both.
    """
    keys = make_keys(paths, keep_extensions, url)
    check_distinct(paths, keys, keep_extensions, url)
    return keys


def make_keys(paths: Sequence[str], keep_extensions: bool, url: str) -> list[str]:
    """Return the key of each path; several may be the same. Raises ImageSourceError for a path that has no key."""
    try:
        return [key_of(path, True) for path in paths] if keep_extensions else list(map(_key_of, paths))
    except ImageSourceError as error:
        raise error.located(url=url) from None


def check_distinct(paths: Sequence[str], keys: Sequence[str], keep_extensions: bool, url: str) -> None:
    """Raise DuplicateKeyError if two paths have the same key."""
    if len(set(keys)) != len(keys):
        _raise_duplicate(paths, keys, keep_extensions, url)


def _key_of(path: str) -> str:
    plain = PLAIN.match(path)
    return plain[0] if plain and len(path) < PLAIN_LENGTH else key_of(path)


def _raise_duplicate(paths: Sequence[str], keys: Sequence[str], keep_extensions: bool, url: str) -> None:
    first: dict[str, str] = {}
    pairs = [
        (first[key], path)
        for path, key in zip(paths, keys, strict=True)
        if first.setdefault(key, path) != path
    ]
    if not pairs:  # the very same path twice
        raise DuplicateKeyError("the same image appears twice", url=url)
    more = f" (and {counted(len(pairs) - 1, 'more such pair')})" if len(pairs) > 1 else ""
    raise DuplicateKeyError(
        f"{pairs[0][0]} and {pairs[0][1]} would have the same key{more}",
        url=url,
        hint=None if keep_extensions else "--keep-extensions keeps the extensions in keys",
    )


def shuffled(count: int, seed: int) -> NDArray[np.int64]:
    """Return a random permutation of 0..count-1, int64 [count]; a seed gives the same one on every machine.

    Numbers are sorted by raw Philox words, ties by number. numpy promises that these words stay the same in all
    versions; it does not promise that for `shuffle`.

    Args:
        count: the length of the permutation.
        seed: 0 <= seed < 2**64.

    Raises:
        UsageError: a seed outside that range.
    """
    if not 0 <= seed < 2**64:
        raise UsageError(f"the seed {seed} is not inside 0..2^64-1")
    words = np.random.Philox(key=seed).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def split_evenly(count: int, samples_per_shard: int) -> NDArray[np.int64]:
    """Return the number of samples of each shard, int64 [n]: all are full but the last.

    Raises:
        UsageError: `samples_per_shard` is below 1.
    """
    if samples_per_shard < 1:
        raise UsageError(f"{samples_per_shard} samples per shard are below 1")
    sizes = np.full(-(-count // samples_per_shard), samples_per_shard, np.int64)
    if count % samples_per_shard:
        sizes[-1] = count % samples_per_shard
    return sizes


def shard_names(prefix: str, count: int) -> list[str]:
    """Return the names PREFIX-000000, PREFIX-000001 and so on."""
    return [f"{prefix}-{number:06d}" for number in range(count)]


def map_targets(numbers: NDArray[np.int64], target_of: TargetOf | None) -> NDArray[np.int32]:
    """Map class numbers to targets.

    Args:
        numbers: int64 [N], the class number of each sample; -1 for none.
        target_of: the target of each class number, None for no target; a sequence or a function. None: the number
            itself.

    Returns:
        int32 [N], -1 for samples without a target.

    Raises:
        ImageSourceError: a class that the mapping lacks, or a target that is not in 0..2**31-1.
    """
    distinct, places = np.unique(numbers, return_inverse=True)
    targets = np.array([_target(int(number), target_of) for number in distinct], np.int64)
    return targets[places.reshape(-1)].astype(np.int32)


def _target(number: int, target_of: TargetOf | None) -> int:
    if number < 0:
        return -1
    if target_of is None:
        target: int | None = number
    elif callable(target_of):
        target = target_of(number)
    elif number < len(target_of):
        target = None if target_of[number] is None else int(target_of[number])  # type: ignore[arg-type]
    else:
        raise ImageSourceError(f"class {number} is outside the {len(target_of)} classes that have a target")
    if target is None:
        return -1
    if not 0 <= target <= MAX_TARGET:
        raise ImageSourceError(f"the target {target} of class {number} is not inside 0..{MAX_TARGET}")
    return target
