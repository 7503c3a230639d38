"""What the replay order costs and how well it mixes, on ImageNet's numbers: about 5 s on one core.

    python tools/bench/bench_order.py [--seed 0]

Amplification: shards read by all ranks together, over the shards there are. Open: the most shards that one rank is
between its first and last use of. Shards in a batch: mean over the epoch. Spread: the standard deviation, over the
epoch's batches, of a batch's mean of a feature that is constant in a shard (mean over 200 normal features), relative to
a global shuffle's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from slg_wds.arrays import F32, I64
from slg_wds.replay.order.crop_schedule import KeyHashes, batch_crop_numbers, crop_numbers
from slg_wds.replay.order.shuffled import ShuffledOrder

IMAGENET = np.array([1000] * 1281 + [167])
BATCH = 1024
RANKS = (1, 8, 64)
SETTINGS = ((64, 1), (256, 1), (256, 4))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    print_mixing(seed)
    print_shuffle(seed)
    print_order_times(seed)
    print_schedule_times(seed)


def print_mixing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((IMAGENET.size, 200)).astype(np.float32)
    shuffled = rng.permutation(np.repeat(np.arange(IMAGENET.size), IMAGENET))
    shuffled = shuffled[: shuffled.size // BATCH * BATCH].reshape(-1, BATCH)  # [T, B]
    reference = spread(shuffled, features)
    rows = []
    for lanes, window in SETTINGS:
        order = ShuffledOrder(IMAGENET, "bench", seed, 0, BATCH, lanes, window)
        shard, _ = order.batches(0, len(order))
        reads, most = zip(*(rank_figures(order, shard, ranks) for ranks in RANKS), strict=True)
        amplification = " / ".join(f"{figure:.3f}" for figure in reads)
        opened = " / ".join(map(str, most))
        relative = f"{spread(shard, features) / reference:.1f}"
        rows.append([f"{lanes}, {window}", amplification, opened, f"{shards_in_batch(shard):.0f}", relative])
    rows.append(["global shuffle", "-", "-", f"{shards_in_batch(shuffled):.0f}", "1.0"])
    title = f"{IMAGENET.size:,} shards of 1,000 samples, B = {BATCH}; at {' / '.join(map(str, RANKS))} ranks"
    print_table(title, ["L, m", "amplification", "open per rank", "shards in a batch", "spread"], rows)


def rank_figures(order: ShuffledOrder, shard: I64, ranks: int) -> tuple[float, int]:
    """Return read amplification, and the most shards that one rank has open, from what is read: shard [T, B]."""
    batches, shards = len(shard), IMAGENET.size
    reads, most = 0, 0
    for rank in range(ranks):
        first, last = (edge * BATCH // ranks for edge in (rank, rank + 1))
        start, stop = np.full(shards, batches), np.full(shards, -1)
        for t in range(batches):
            stop[shard[t, first:last]] = t
        for t in reversed(range(batches)):
            start[shard[t, first:last]] = t
        used = stop >= 0
        opened, closed = (np.bincount(times[used], minlength=batches + 1) for times in (start, stop + 1))
        reads += int(used.sum())
        most = max(most, int(np.cumsum(opened - closed).max()))
    return reads / shards, most


def shards_in_batch(shard: I64) -> float:
    return float(1 + (np.diff(np.sort(shard, axis=1), axis=1) != 0).sum(axis=1).mean())


def spread(shard: I64, features: F32) -> float:
    """Return the standard deviation over batches of features' batch means; shard [T, B], features [shards, F]."""
    means = np.stack(
        [np.bincount(row, minlength=len(features)).astype(np.float32) @ features for row in shard]
    )
    return float(means.std(axis=0).mean())


def print_shuffle(seed: int) -> None:
    """Print how well 4,096 consecutive samples are mixed, of a source that is sorted by class, 12 images each."""
    samples, size, taken = 10_240 * 12, 256, 4096
    rng = np.random.default_rng(seed)
    perfect = np.mean([distinct(rng.choice(samples, taken, replace=False)) for _ in range(20)], axis=0)
    rows = []
    for name, source in (("once", rng.permutation(samples)), ("never", np.arange(samples))):
        for lanes, window in SETTINGS:
            order = ShuffledOrder([size] * (samples // size), "bench", seed, 0, BATCH, lanes, window)
            shard, sample = (part.reshape(-1) for part in order.batches(0, len(order)))
            replayed = source[shard * size + sample]
            starts = range(0, samples - taken + 1, BATCH)
            found = np.array([distinct(replayed[i : i + taken]) for i in starts]) / perfect
            ranges = [
                f"{low:.3f} to {high:.3f}" for low, high in zip(found.min(0), found.max(0), strict=True)
            ]
            rows.append([name, f"{lanes}, {window}", *ranges])
    title = "Distinct among 4,096 consecutive samples, relative to a perfect shuffle"
    print_table(title, ["shuffled at planning", "L, m", "classes", "source neighbours"], rows)


def distinct(source: I64) -> tuple[int, int]:
    return np.unique(source // 12).size, np.unique(np.concatenate((source - 1, source + 1))).size


def print_order_times(seed: int) -> None:
    rows = []
    for sizes in (IMAGENET, np.full(10_000, 256)):
        for lanes, window in SETTINGS:
            figures = order_times(sizes, lanes, window, seed)
            rows.append(
                [f"{sizes.size:,}", f"{lanes}, {window}", *(f"{1e3 * figure:.2f}" for figure in figures)]
            )
    head = [
        "shards",
        "L, m",
        "setup",
        "first batch",
        "last",
        "mean",
        "mean in blocks of 16",
        "spans at 8 ranks",
    ]
    print_table(f"Milliseconds; indices of a batch of {BATCH}", head, rows)


def order_times(sizes: I64, lanes: int, window: int, seed: int) -> list[float]:
    def made() -> ShuffledOrder:
        made = ShuffledOrder(sizes, "bench", seed, 0, BATCH, lanes, window)
        made.batch(0, 0, 0)  # no columns: only what is prepared once
        return made

    order = made()
    some = np.linspace(0, len(order) - 16, 20).astype(int).tolist()
    return [
        best_of(made),
        best_of(lambda: order.batch(0)),
        best_of(lambda: order.batch(len(order) - 1)),
        best_of(lambda: [order.batch(t) for t in some]) / len(some),
        best_of(lambda: [order.batches(t, t + 16) for t in some]) / len(some) / 16,
        best_of(lambda: order.spans(0, BATCH // 8)),
    ]


def print_schedule_times(seed: int) -> None:
    keys = KeyHashes(256).of(np.arange(256), [f"n01440764/n01440764_{i}" for i in range(256)])
    rows = []
    for num_crops in (500, 100, 37, 8):
        batch = best_of(partial(batch_crop_numbers, seed, keys, 3, num_crops, 4)) / keys.size
        one = best_of(partial(crop_numbers, seed, 12345, 3, num_crops, 4))
        rows.append([str(num_crops), f"{1e6 * batch:.1f}", f"{1e6 * one:.0f}"])
    title = "Microseconds an image to choose 4 crops"
    print_table(title, ["crops of an image", "256 images together", "one by itself"], rows)


def best_of(call: Callable[[], object], times: int = 15) -> float:
    """Return the shortest of several calls, in seconds."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"{title}:\n")
    for row in (head, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
    print(flush=True)


if __name__ == "__main__":
    main()
