"""A reader of low-rank labels in some forty lines, written from FORMAT.md alone: it imports nothing of slg_wds."""

import zlib

import numpy as np


def bits(data):
    return "".join(f"{byte:08b}" for byte in data)


def bands(N):
    """The number of entries in bands that end at 4, 16, 64 ... and N."""
    edges = [0, *(4**i for i in range(1, 13) if 4**i < N), N]
    return np.diff(edges).tolist()


def rice(groups, parameters, quotients, remainders):
    read, at = iter(quotients.split("1")), 0
    for count, k in zip(groups, parameters, strict=True):
        group = np.zeros(count, np.int64)
        for i in range(count if k != 15 else 0):
            group[i] = len(next(read)) << k | int("0" + remainders[at : at + k], 2)
            at += k
        yield group


def signed(group):
    return group >> 1 ^ -(group & 1)


def low_rank(data, block_of, C):
    """The distributions of the crops of a column `low_rank`, float64 [M, C]."""
    assert zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little")
    crops = [np.flatnonzero(block_of == b) for b in range(len(set(block_of.tolist())))]
    wide = 2 if C < 65536 else 4
    table, data = data[4 : 4 + len(crops) * (wide + 2)], data[4 + len(crops) * (wide + 2) :]
    rows = [table[i : i + wide + 2] for i in range(0, len(table), wide + 2)]
    sizes = [(int.from_bytes(row[:wide], "little"), *row[wide:]) for row in rows]
    groups = []
    for mine, (n, r, _) in zip(crops, sizes, strict=True):
        N = n + (n < C)
        groups += [n if n < C else 0, N, r, *[len(mine)] * r, *bands(N) * r]
    middle = (len(groups) + 1) // 2
    parameters = [int(digit, 16) for digit in data[:middle].hex()][: len(groups)]
    kept = sum(k * count for k, count in zip(parameters, groups, strict=True) if k != 15)
    end = len(data) - (kept + 7) // 8
    numbers = rice(groups, parameters, bits(data[middle:end]), bits(data[end:]))
    out = np.zeros((len(block_of), C))
    for mine, (n, r, step) in zip(crops, sizes, strict=True):
        gaps, base, scales = (next(numbers) for _ in range(3))
        classes = np.cumsum(gaps + 1) - 1 if n < C else np.arange(C)
        u = (2 * base + 1) / np.linalg.norm(2.0 * base + 1)
        coefficients = np.array([signed(next(numbers)) for _ in range(r)], np.int64).reshape(r, len(mine))
        z = np.tile(2 * np.log(u), (len(mine), 1))
        for j in range(r):
            row = np.zeros(len(u))
            row[np.argsort(-base, kind="stable")] = np.concatenate(
                [signed(next(numbers)) for _ in bands(len(u))]
            )
            z += np.outer(coefficients[j], 4 * 2 ** (-step / 16) * row * 2 ** (-scales[j] / 2) / u)
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        if n < C:
            out[mine] = p[:, n:] / (C - n)
        out[mine[:, None], classes] = p[:, :n]
    return out
