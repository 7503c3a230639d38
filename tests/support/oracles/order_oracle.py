"""The six steps of the replay order again, one number at a time: lists, no edges, no searching."""

from __future__ import annotations

import hashlib
import itertools
import math


def splitmix(state: int) -> int:
    z = state % 2**64
    z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z // 2**27) * 0x94D049BB133111EB % 2**64
    return z ^ z // 2**31


def derived(key: int, number: int) -> int:
    return splitmix(key + number * 0x9E3779B97F4A7C15)


def scalar_permutation(n: int, key: int) -> list[int]:
    """Tabulate the bijection of range(a*b), then leave out of its cycles what is not below n."""
    if n == 1:
        return [0]
    a = max(8, next(a for a in itertools.count(math.isqrt(n)) if a * a >= n))
    b = max(8, math.ceil(n / a))
    table = []
    for x in range(a * b):
        halves, radices = [x // b, x % b], [a, b]
        for number in range(8):
            changed, kept = number % 2, 1 - number % 2
            # The last step of the finaliser leaves the upper 32 bits as they are, but for the lowest.
            z = (key + (number + 1) * 0x9E3779B97F4A7C15 + halves[kept]) % 2**64
            z = (z ^ z // 2**30) * 0xBF58476D1CE4E5B9 % 2**64
            z = (z ^ z // 2**27) * 0x94D049BB133111EB % 2**64
            halves[changed] += z // 2**32 * radices[changed] // 2**32
            halves[changed] %= radices[changed]
        table.append(halves[0] * b + halves[1])
    result = []
    for x in range(n):
        x = table[x]
        while x >= n:
            x = table[x]
        result.append(x)
    return result


def scalar_epoch(sizes, digest, seed, epoch, B, L, m):
    """Return {(t, b): (shard, sample)}, the partial last batch included."""
    text = f"slg-wds order 1\n{digest}\n{seed}\n{epoch}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    shard_key, window_key, sample_key = (derived(key, i) for i in (1, 2, 3))
    ids = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (derived(shard_key, i), i))
    places = [(place, j) for place, i in enumerate(ids) for j in range(sizes[i])]  # one a slot
    samples = [scalar_permutation(sizes[i], derived(sample_key, i)) for i in ids]
    N, L = len(places), min(L, B)
    T, rem = divmod(N, B)
    epoch_order = {}
    for lane in range(L):
        columns = [b for b in range(B) if max(k for k in range(L) if k * B // L <= b) == lane]
        steps = [(t, b) for t in range(T + 1) for b in columns if t < T or b < rem]
        start = T * columns[0] + min(columns[0], rem)
        slots = list(range(start, start + len(steps)))
        mixed = list(slots)
        if m > 1 and slots:
            first_shard = places[slots[0]][0]
            group_of = {x: (places[x][0] - first_shard + lane % m) // m for x in slots}
            for _, group in itertools.groupby(slots, key=group_of.__getitem__):
                window = list(group)
                for x, y in zip(
                    window, scalar_permutation(len(window), derived(window_key, window[0])), strict=True
                ):
                    mixed[x - start] = window[y]
        for step, slot in zip(steps, mixed[::-1] if lane % 2 else mixed, strict=True):
            place, j = places[slot]
            epoch_order[step] = ids[place], samples[place][j]
    return epoch_order
