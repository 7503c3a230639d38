"""Which sample is read when: a pure function of set, seed, epoch and global batch size; no IO.

The order is a contract across versions, platforms and numbers of ranks; tests pin its values.

S shards that hold samples, in the epoch's order; N samples; B columns (images) of a global batch; L lanes;
T = N // B full batches. A *slot* is a place in the sequence of shards laid end to end, 0 <= slot < N.

1. One 64-bit key from SHA-256 of (digest, seed, epoch); further keys from it by splitmix64's finaliser. numpy's
   Generator is not used: its streams are not promised across versions.
2. Shards are sorted by mix(key, shard), which is injective, so no two tie.
3. Lane l owns columns [l*B//L, (l+1)*B//L) and its share of the slots: the sequence is cut by samples, in
   proportion to columns, so that all lanes end together whatever the sizes of shards.
4. Even lanes walk their slots upwards, odd ones downwards: neighbours read the shard they share at one time.
5. Inside a lane, slots are permuted within windows of m shards (m = 1: this step does nothing).
6. A slot's shard is the one that holds it; the sample in it is a keyed permutation of the slot's place there.

Rank r of R takes columns [r*B//R, (r+1)*B//R), so global batches do not depend on R. See the tests for a scalar
restatement of all six steps.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from slg_wds.errors import ReplayError

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

ORDER_VERSION = 1
_ROUNDS = 8
_SMALLEST_RADIX = 8  # a smaller one is visibly uneven for permutations of 5 and 6
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_GOLDEN_U, _FIRST_U, _SECOND_U = (np.uint64(v) for v in (_GOLDEN, *_MULTIPLIERS))
_S27, _S30, _S31, _S32 = (np.uint64(v) for v in (27, 30, 31, 32))


def mix(value: int) -> int:
    """Apply splitmix64's finaliser, a bijection of 64-bit words."""
    value = ((value ^ (value >> 30)) * _MULTIPLIERS[0]) & _WORD
    value = ((value ^ (value >> 27)) * _MULTIPLIERS[1]) & _WORD
    return value ^ (value >> 31)


def subkey(key: int, number: int) -> int:
    """Derive key `number` from `key`; injective in `number`."""
    return mix((key + number * _GOLDEN) & _WORD)


def subkeys(key: U64, number: U64) -> U64:
    """Derive keys for arrays [n] of keys and numbers (at least 1-D: numpy warns of overflow in scalars)."""
    word = number * _GOLDEN_U
    word += key
    word ^= word >> _S30
    word *= _FIRST_U
    word ^= word >> _S27
    word *= _SECOND_U
    word ^= word >> _S31
    return word


def hashed_key(*parts: object) -> int:
    """Hash the parts, as text with newlines between, to a 64-bit key."""
    text = "\n".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def permute(x: U64, n: U64, key: U64) -> U64:
    """Permute range(n[i]) by key[i] and return where x[i] goes, for each i.

    A permutation of all n without tables: eight Feistel-like rounds on (left, right) in mixed radix a*b >= n,
    each adding a hash of one half to the other modulo its radix, hence bijective; whatever lands outside range(n)
    goes round again, which follows the cycle of the larger permutation back inside (x < n <= a*b guarantees it).

    Args:
        x, n, key: uint64 [count], x < n, 1 <= n < 2**52 (where float64's square root rounds as exact ones do).

    Returns:
        uint64 [count], below n.
    """
    a = np.maximum(np.ceil(np.sqrt(n)).astype(np.uint64), np.uint64(_SMALLEST_RADIX))
    b = np.maximum((n + a - np.uint64(1)) // a, np.uint64(_SMALLEST_RADIX))
    result = _rounds(x, a, b, key)
    result[n == 1] = 0  # the walk would be long and end there anyway
    outside = np.flatnonzero(result >= n)
    if outside.size:
        a, b, n, key = a[outside], b[outside], n[outside], key[outside]
        walker = result[outside]
        while outside.size:
            walker = _rounds(walker, a, b, key)
            inside = walker < n
            result[outside[inside]] = walker[inside]
            stay = ~inside
            outside, walker, a, b, n, key = (v[stay] for v in (outside, walker, a, b, n, key))
    return result


def _rounds(x: U64, a: U64, b: U64, key: U64) -> U64:
    """Apply the bijection of range(a*b) that `permute` walks along."""
    left = x // b
    right = x - left * b
    round_key, word, temporary = key.copy(), np.empty_like(key), np.empty_like(key)
    for _ in range(_ROUNDS):
        round_key += _GOLDEN_U
        np.add(round_key, right, out=word)
        np.right_shift(word, _S30, out=temporary)
        word ^= temporary
        word *= _FIRST_U
        np.right_shift(word, _S27, out=temporary)
        word ^= temporary
        word *= _SECOND_U
        word >>= _S32
        word *= a  # the high half, as a fraction of 2**32, times the radix: no division
        word >>= _S32
        left += word
        np.subtract(left, a, out=temporary)
        np.minimum(left, temporary, out=left)  # modulo a: below a, the difference wraps and is larger
        left, right, a, b = right, left, b, a
    return left * b + right
