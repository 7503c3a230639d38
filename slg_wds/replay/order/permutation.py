"""Keys and keyed permutations that are the same on every platform and with every version of numpy.

The order of samples and the choice of crops are both made of these; they cannot change without changing both.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from slg_wds.arrays import U64

_ROUNDS = 8
_SMALLEST_RADIX = 8  # a smaller one is visibly uneven for permutations of 5 and 6
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_FEW = 12  # below this many, Python integers are quicker than arrays
_GOLDEN_U, _FIRST_U, _SECOND_U = (np.uint64(v) for v in (_GOLDEN, _FIRST, _SECOND))
_S27, _S30, _S31, _S32 = (np.uint64(v) for v in (27, 30, 31, 32))


def mix(value: int) -> int:
    """Apply splitmix64's finaliser, a bijection of 64-bit words."""
    value = ((value ^ (value >> 30)) * _FIRST) & _WORD
    value = ((value ^ (value >> 27)) * _SECOND) & _WORD
    return value ^ (value >> 31)


def subkey(key: int, number: int) -> int:
    """Derive key `number` from `key`; injective in `number`."""
    return mix((key + number * _GOLDEN) & _WORD)


def subkeys(key: U64, number: U64) -> U64:
    """Derive keys for arrays [n] of keys and numbers (at least 1-D: numpy warns of overflow in scalars)."""
    word: U64 = number * _GOLDEN_U
    word += key
    word ^= word >> _S30
    word *= _FIRST_U
    word ^= word >> _S27
    word *= _SECOND_U
    word ^= word >> _S31
    return word


def hashed_key(*parts: object) -> int:
    """Return the first 8 bytes, little-endian, of the SHA-256 of the parts as text, newlines between."""
    text = "\n".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def permute(x: U64, n: U64, key: U64) -> U64:
    """Permute range(n[i]) by key[i] and return where x[i] goes, for each i.

    A permutation of any n without tables: eight Feistel-like rounds on (left, right) in a mixed radix
    a*b >= n, each adding a hash of one half to the other modulo its radix, hence a bijection of range(a*b).
    What lands outside range(n) goes round again: along its cycle it comes back inside, since x < n.

    Args:
        x: uint64 [count], below n.
        n: uint64 [count], 1 <= n < 2**52: square roots of larger numbers are not exact in float64.
        key: uint64 [count].

    Returns:
        uint64 [count], below n.
    """
    root = np.ceil(np.sqrt(n.astype(np.float64))).astype(np.uint64)
    a = np.maximum(root, np.uint64(_SMALLEST_RADIX))
    b = np.maximum((n + a - np.uint64(1)) // a, np.uint64(_SMALLEST_RADIX))
    result = _rounds(x, a, b, key)
    result[n == 1] = 0  # a long walk would end there too
    outside = np.flatnonzero(result >= n)
    while outside.size > _FEW:
        result[outside] = _rounds(result[outside], a[outside], b[outside], key[outside])
        outside = outside[result[outside] >= n[outside]]
    for i in outside.tolist():
        result[i] = _walk(int(result[i]), int(n[i]), int(a[i]), int(b[i]), int(key[i]))
    return result


def permute_one(x: int, n: int, key: int) -> int:
    """Do what `permute` does for one x, without numpy: some 4 us instead of 80."""
    if n == 1:
        return 0
    a = max(math.isqrt(n - 1) + 1, _SMALLEST_RADIX)
    return _walk(x, n, a, max(-(-n // a), _SMALLEST_RADIX), key)


def _rounds(x: U64, a: U64, b: U64, key: U64) -> U64:
    """Apply the bijection of range(a*b) that `permute` walks along."""
    left = x // b
    right = x - left * b
    round_key, word, other = key.copy(), np.empty_like(key), np.empty_like(key)
    for _ in range(_ROUNDS):
        round_key += _GOLDEN_U
        np.add(round_key, right, out=word)
        np.right_shift(word, _S30, out=other)
        word ^= other
        word *= _FIRST_U
        np.right_shift(word, _S27, out=other)
        word ^= other
        word *= _SECOND_U
        word >>= _S32
        word *= a  # the hash's upper half, a fraction of 2**32, times the radix: no division
        word >>= _S32
        left += word
        np.subtract(left, a, out=other)
        np.minimum(left, other, out=left)  # modulo a: for left < a the difference wraps and is larger
        left, right, a, b = right, left, b, a
    return left * b + right


def _walk(x: int, n: int, a: int, b: int, key: int) -> int:
    """Apply `_rounds` to one x until it is below n."""
    while True:
        left, right = divmod(x, b)
        round_key, radix, other = key, a, b
        for _ in range(_ROUNDS):
            round_key += _GOLDEN
            word = (round_key + right) & _WORD
            word = ((word ^ (word >> 30)) * _FIRST) & _WORD
            word = ((word ^ (word >> 27)) * _SECOND) & _WORD
            left, right = right, (left + ((word >> 32) * radix >> 32)) % radix
            radix, other = other, radix
        x = left * b + right
        if x < n:
            return x
