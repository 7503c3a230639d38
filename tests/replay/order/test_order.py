"""The replay order against a scalar restatement of its six steps, and its guarantees for any shape."""

from __future__ import annotations

import hashlib
import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import ReplayError
from slg_wds.replay.order.permutation import permute, permute_one, subkeys
from slg_wds.replay.order.shuffled import ShuffledOrder

DIGEST = "8f" * 32

# --- The six steps again, one number at a time: lists, no edges, no searching. ---


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


# --- The keyed permutation. ---


def u64(values) -> np.ndarray:
    return np.asarray(values, np.uint64)


def whole_permutation(n: int, key: int) -> list[int]:
    return permute(np.arange(n, dtype=np.uint64), u64([n] * n), u64([key] * n)).tolist()


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_permutation_is_the_scalar_one(n, key):
    found = whole_permutation(n, key)
    assert found == scalar_permutation(n, key) == [permute_one(x, n, key) for x in range(n)]
    assert sorted(found) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 63, 64, 65, 1000, 1024, 1025, 99_999, 262_144])
def test_permutation_is_one_of_any_size(n):
    assert np.array_equal(np.sort(whole_permutation(n, 99)), np.arange(n))


def test_every_element_has_its_own_size_and_key():
    rng = random.Random(0)
    cases = []
    for _ in range(500):
        n = rng.choice([1, 2, 5, 30, 256, 1000, rng.randrange(1, 5000), rng.randrange(1, 2**51)])
        cases.append((rng.randrange(n), n, rng.randrange(2**64)))
    together = permute(*(u64(column) for column in zip(*cases, strict=True)))
    assert together.tolist() == [permute_one(*case) for case in cases]
    assert (together < u64([n for _, n, _ in cases])).all()


def test_sizes_about_squares_use_exact_roots():
    for root in (8, 9, 1000, 46_341, 2**20, 2**26 - 1):
        for n in (root * root - 1, root * root, root * root + 1):
            x = [0, 1, n // 2, n - 1]
            found = permute(u64(x), u64([n] * 4), u64([5] * 4)).tolist()
            assert found == [permute_one(i, n, 5) for i in x] and len(set(found)) == 4


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_all_permutations_of_few_are_alike_often(n):
    keys = subkeys(u64([n]), np.arange(60_000, dtype=np.uint64))
    columns = [permute(np.full_like(keys, x), np.full_like(keys, n), keys).astype(np.int64) for x in range(n)]
    code = sum(column * n**x for x, column in enumerate(columns))
    counts = np.unique(code, return_counts=True)[1]
    kinds = math.factorial(n)
    assert counts.size == kinds
    expected = keys.size / kinds
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    assert chi_squared < kinds - 1 + 4 * math.sqrt(2 * (kinds - 1))


@pytest.mark.parametrize("n", [16, 37, 100, 256, 1000])
def test_neighbours_go_independent_ways(n):
    """The step from x's to x+1's image is as uniform as a random permutation's; so are two keys' images of x."""
    keys = subkeys(u64([3]), np.arange(2000, dtype=np.uint64))
    x = np.arange(2000) % (n - 1)
    sizes = np.full_like(keys, n)
    here, there = (permute(u64(x + i), sizes, keys).astype(np.int64) for i in (0, 1))
    other = permute(u64(x), sizes, np.roll(keys, 1)).astype(np.int64)
    bins = min(n - 1, 16)
    for difference, least in (((there - here) % n - 1, n - 1), ((other - here) % n, n)):
        counts = np.bincount(difference * bins // least, minlength=bins)
        share = np.bincount(np.arange(least) * bins // least, minlength=bins) / least
        chi_squared = ((counts - 2000 * share) ** 2 / (2000 * share)).sum()
        assert chi_squared < bins - 1 + 4.5 * math.sqrt(2 * (bins - 1))
    assert abs(np.corrcoef(here, there)[0, 1] + 1 / (n - 1)) < 0.1


# --- The order. ---

shapes = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.one_of(st.just(0), st.integers(0, 40)), min_size=0, max_size=12),
        "B": st.integers(1, 40),
        "L": st.integers(1, 50),
        "m": st.integers(1, 5),
        "seed": st.integers(-3, 2**70),
        "epoch": st.integers(0, 10**6),
    }
)


def order_of(shape, last="drop") -> ShuffledOrder:
    rest = (shape[name] for name in ("seed", "epoch", "B", "L", "m"))
    return ShuffledOrder(shape["sizes"], DIGEST, *rest, last=last)


@given(shapes)
@settings(max_examples=120, deadline=None)
def test_order_is_the_scalar_one(shape):
    expected = scalar_epoch(digest=DIGEST, **shape)
    order = order_of(shape, "pad")
    shard, sample = order.batches(0, len(order))
    found = {}
    for t, b in np.ndindex(shard.shape):
        if t < order.full_batches or b < order.remainder:
            found[t, b] = int(shard[t, b]), int(sample[t, b])
        else:
            assert shard[t, b] == sample[t, b] == -1
    assert found == expected


def random_shapes(count: int, seed: int):
    rng = random.Random(seed)
    for _ in range(count):
        most = rng.choice([1, 3, 50, 300])
        sizes = [rng.choice([0, most, rng.randint(0, most)]) for _ in range(rng.randint(1, 59))]
        yield (
            rng,
            {
                "sizes": sizes,
                "B": rng.randint(1, 199),
                "L": rng.randint(1, 100),
                "m": rng.randint(1, 5),
                "seed": rng.randrange(2**63),
                "epoch": rng.randrange(100),
            },
        )


@pytest.mark.slow
def test_any_shape_is_read_exactly_once_by_any_ranks_from_anywhere():
    for rng, shape in random_shapes(1001, seed=1):
        B, N = shape["B"], sum(shape["sizes"])
        padded, dropped = order_of(shape, "pad"), order_of(shape)
        assert (len(padded), len(dropped)) == (math.ceil(N / B), N // B)
        shard, sample = padded.batches(0, len(padded))
        # Exactly once:
        real = shard >= 0
        seen = sorted(zip(shard[real].tolist(), sample[real].tolist(), strict=True))
        assert seen == [(i, j) for i, size in enumerate(shape["sizes"]) for j in range(size)]
        # What fills no batch is the last columns, and nothing before depends on it:
        assert real[: N // B].all() and (N % B == 0 or real[-1].tolist() == [b < N % B for b in range(B)])
        for whole, full in zip((shard, sample), dropped.batches(0, len(dropped)), strict=True):
            assert np.array_equal(whole[: N // B], full)
        # Whatever the ranks, and wherever one begins:
        if len(padded):
            t, R = rng.randrange(len(padded)), rng.choice([1, 2, 3, 5, 8, rng.randint(1, 2 * B)])
            fresh = order_of(shape, "pad")
            parts = {r: fresh.batch(t, *fresh.rank_columns(r, R)) for r in rng.sample(range(R), R)}
            for i, whole in enumerate((shard, sample)):
                assert np.array_equal(whole[t], np.concatenate([parts[r][i] for r in range(R)]))


def used_between(order: ShuffledOrder, first: int, last: int) -> dict[int, list[int]]:
    shard, _ = order.batches(0, len(order), first, last)
    used: dict[int, list[int]] = {}
    for t, b in np.ndindex(shard.shape):
        if shard[t, b] >= 0:
            used.setdefault(int(shard[t, b]), []).append(t)
    return used


def test_spans_say_when_a_shard_is_needed():
    for rng, shape in random_shapes(250, seed=2):
        order = order_of(shape, rng.choice(["drop", "pad"]))
        first, last = sorted(rng.choices(range(shape["B"] + 1), k=2))
        used = used_between(order, first, last)
        spans = order.spans(first, last)
        listed = dict(
            zip(
                spans.shard.tolist(), zip(spans.start.tolist(), spans.stop.tolist(), strict=True), strict=True
            )
        )
        assert len(listed) == spans.shard.size and np.all(np.diff(spans.start) >= 0)
        exact = {shard: (times[0], times[-1] + 1) for shard, times in used.items()}
        if shape["m"] == 1:
            assert listed == exact
        for shard, (start, stop) in exact.items():
            assert 0 <= listed[shard][0] <= start < stop <= listed[shard][1] <= len(order)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("ranks", [1, 8, 64])
def test_shards_are_read_about_once_and_few_at_a_time(window, ranks):
    """ImageNet's 1,282 shards, B = 1024, L = 256; the ranks divide L."""
    sizes = [1000] * 1281 + [167]
    order = ShuffledOrder(sizes, DIGEST, 0, 0, 1024, 256, window)
    reads, open_at_once = 0, []
    for rank in range(ranks):
        spans = order.spans(*order.rank_columns(rank, ranks))
        reads += spans.shard.size
        changes = np.bincount(spans.start, minlength=len(order) + 1) - np.bincount(
            spans.stop, minlength=len(order) + 1
        )
        open_at_once.append(int(np.cumsum(changes).max()))
    assert reads <= 1282 + ranks - 1
    assert max(open_at_once) <= 256 // ranks * window + 2


# --- How good the shuffle is. ---

CLASSES, PER_CLASS, SHARD = 10_240, 12, 256
N = CLASSES * PER_CLASS


def distinct(source: np.ndarray) -> dict[str, int]:
    return {
        "classes": np.unique(source // PER_CLASS).size,
        "neighbourhoods": np.unique(source // 4).size,
        "neighbours": np.unique(np.concatenate([source - 1, source + 1])).size,
    }


def quality(source_of_sample: np.ndarray, lanes: int, window: int) -> tuple[dict, dict]:
    """Return the worst and the best ratio to perfect shuffles, over all 4,096 consecutive samples of an epoch."""
    rng = np.random.default_rng(0)
    perfect = [distinct(rng.choice(N, 4096, replace=False)) for _ in range(20)]
    order = ShuffledOrder([SHARD] * (N // SHARD), DIGEST, 5, 3, 1024, lanes, window)
    shard, sample = order.batches(0, len(order))
    source = source_of_sample[shard.reshape(-1) * SHARD + sample.reshape(-1)]
    found = [distinct(source[i : i + 4096]) for i in range(0, source.size - 4095, 1024)]
    ratios = {
        name: [f[name] / np.mean([p[name] for p in perfect]) for f in found]
        for name in ("classes", "neighbourhoods", "neighbours")
    }
    return {k: min(v) for k, v in ratios.items()}, {k: max(v) for k, v in ratios.items()}


@pytest.mark.parametrize(("lanes", "window"), [(1, 1), (64, 1), (256, 1), (256, 4)])
def test_shuffle_is_as_good_as_a_perfect_one(lanes, window):
    """The source is sorted by class, and shuffled once when it is planned."""
    worst, best = quality(np.random.default_rng(7).permutation(N), lanes, window)
    assert min(worst.values()) > 0.95 and max(best.values()) < 1.05


def test_shards_written_in_class_order_would_show():
    worst, _ = quality(np.arange(N), 64, 1)
    assert worst["classes"] < 0.7 and worst["neighbours"] < 0.8


def test_epochs_and_seeds_are_unlike():
    sizes = [100] * 50
    orders = [
        ShuffledOrder(sizes, d, s, e, 50, 8, 2)
        for d, s, e in [("a", 0, 0), ("b", 0, 0), ("a", 1, 0), ("a", 0, 1)]
    ]
    flat = [(lambda r: r[0] * 100 + r[1])(order.batches(0, 100)).reshape(-1) for order in orders]
    for one, two in itertools.combinations(flat, 2):
        assert np.count_nonzero(one == two) < 10  # 1 expected
        assert abs(np.corrcoef(one % 100, two % 100)[0, 1]) < 0.05


def test_samples_of_neighbouring_shards_are_unlike():
    order = ShuffledOrder([64] * 400, DIGEST, 0, 0, 64, 1)  # a batch is a shard
    _, sample = order.batches(0, 400)
    same = [(one == two).sum() for one, two in itertools.pairwise(sample)]
    assert 0.8 < np.mean(same) < 1.2  # 1 for independent permutations
    serial = np.corrcoef(sample[:, :-1].reshape(-1), sample[:, 1:].reshape(-1))[0, 1]
    assert abs(serial + 1 / 63) < 0.025


# --- The contract: these values never change while ORDER_VERSION does not. ---


def test_golden_values():
    assert permute(u64(range(8)), u64([1000] * 8), u64([2**64 - 1] * 8)).tolist() == GOLDEN_PERMUTATION
    assert whole_permutation(5, 0) == GOLDEN_FIVE
    order = ShuffledOrder([3, 0, 7, 5, 4, 6], "ab" * 32, 42, 7, 6, 4, 2, last="pad")
    shard, sample = order.batches(0, 5)
    assert (shard * 10 + sample).tolist() == GOLDEN_EPOCH
    big = ShuffledOrder([256] * 299 + [17], DIGEST, 2**64 + 1, 12, 1000, 64, 3)
    digest = hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in big.batches(0, len(big))))
    assert digest.hexdigest() == GOLDEN_BIG


GOLDEN_PERMUTATION = [131, 16, 884, 107, 129, 58, 766, 9]
GOLDEN_FIVE = [3, 2, 0, 1, 4]
GOLDEN_EPOCH = [
    [26, 52, 51, 43, 30, 33],
    [21, 50, 53, 1, 32, 34],
    [23, 54, 55, 0, 31, 41],
    [24, 22, 25, 2, 40, 42],
    [20, -11, -11, -11, -11, -11],
]
GOLDEN_BIG = "1edd7819c88222a6609350f10069a29ce27a596250cfbcd75c2cfc351afade9e"

# --- Bad input. ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 0}, "batch is 0"),
        ({"lanes": 0}, "lanes is 0"),
        ({"window": -1}, "window is -1"),
        ({"epoch": -1}, "epoch is -1"),
        ({"last": "keep"}, "last is 'keep'"),
        ({"shard_sizes": [3, -2, 5]}, "shard 1 has -2 samples"),
        ({"shard_sizes": [1.5]}, "shard sizes are float64"),
        ({"shard_sizes": [[1], [2]]}, r"shard sizes are int64 \[2, 1\]"),
    ],
)
def test_what_cannot_be_is_refused(change, words):
    good = {"shard_sizes": [4], "digest": "", "seed": 0, "epoch": 0, "batch": 2, "lanes": 1, "window": 1}
    ShuffledOrder(**good)
    with pytest.raises(ReplayError, match=words):
        ShuffledOrder(**{**good, **change})


def test_batches_columns_and_ranks_out_of_range_are_refused():
    order = ShuffledOrder([10], "", 0, 0, 3, 1)
    for call, words in [
        (lambda: order.batch(3), "batches 3 to 4 of an epoch of 3"),
        (lambda: order.batch(-1), "batches -1 to 0"),
        (lambda: order.batch(0, 2, 1), "columns 2 to 1 of a batch of 3"),
        (lambda: order.spans(0, 4), "columns 0 to 4"),
        (lambda: order.rank_columns(2, 2), "rank 2 of 2 ranks"),
    ]:
        with pytest.raises(ReplayError, match=words):
            call()


@pytest.mark.parametrize("sizes", [[], [0], [0, 0, 0]])
@pytest.mark.parametrize("last", ["drop", "pad"])
def test_a_set_without_samples_has_no_batches(sizes, last):
    order = ShuffledOrder(sizes, DIGEST, 0, 0, 4, 2, 3, last)
    assert len(order) == 0 and order.spans().shard.size == 0


def test_fewer_samples_than_a_batch():
    order = ShuffledOrder([2, 1], DIGEST, 0, 0, 8, 4, 2, "pad")
    assert len(order) == 1 and len(ShuffledOrder([2, 1], DIGEST, 0, 0, 8, 4, 2)) == 0
    shard, sample = order.batch(0)
    assert (shard >= 0).tolist() == [True] * 3 + [False] * 5
    assert sorted(zip(shard[:3].tolist(), sample[:3].tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
