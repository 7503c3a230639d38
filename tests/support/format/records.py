"""Records for tests: arbitrary ones within the format's limits, and some that look like real labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.low_rank import EmbeddingBlock, LowRankEmbedding, StatedCosine
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.format.records.low_rank.blocks import LowRank, LowRankBlock, StatedKL
from slg_wds.format.records.record import Record
from slg_wds.format.records.tail import build_tail
from slg_wds.format.records.values import CODINGS, decode_values, encode_values
from slg_wds.format.records.views import same_views
from slg_wds.format.shards.shard import Sample

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


def make_record(
    key: str = "cats/tabby",
    *,
    crops: int = 20,
    k: int = 5,
    classes: int = 100,
    coding: str = "float16",
    full: bool = False,
    tail: int = 64,
    size: tuple[int, int] = (375, 500),
    target: int | None = 7,
    seed: int = 0,
    path: str | None = None,
) -> Record:
    """Make the labels of a teacher that is sure of a few classes; equal arguments give equal records."""
    rng = np.random.default_rng(seed)
    # A few classes take most of the probability, as with real images; no function whose bits could differ.
    seen = classes if full else min(classes, 300)
    weights = rng.random((crops, seen)) ** 8 + 1e-6
    weights[:, :12] *= 50
    probs = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    top = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    value = np.take_along_axis(probs, top, axis=1)
    outside = probs.astype(np.float64)
    np.put_along_axis(outside, top, 0.0, axis=1)
    where = np.sort(rng.permutation(classes)[:seen])
    mean = np.zeros(classes)
    mean[where] = outside.sum(axis=0) / max(1, crops)
    index: Any = np.broadcast_to(np.arange(classes), (crops, classes)) if full else where[top]
    return Record(
        key=key,
        path=path or f"{key}.JPEG",
        target=target,
        size=size,
        crops=random_boxes(rng, crops, size),
        flips=rng.random(crops) < 0.5,
        index=index,
        value=np.ones_like(value) if coding == "none" else probs if full else value,
        tail=None if full or coding == "none" else build_tail(mean, tail, crops, k),
        coding=coding,
        full=full,
        num_classes=classes,
    )


def make_low_rank(crops: int, classes: int, *, blocks: int = 1, rank: int = 3, seed: int = 0) -> LowRank:
    """Make arbitrary low-rank labels; each block but the first keeps all classes if there are few."""
    rng = np.random.default_rng(seed)
    blocks = min(blocks, crops)
    block_of = rng.permutation(
        np.concatenate([np.arange(blocks), rng.integers(0, max(blocks, 1), crops - blocks)])
    )
    made, coefficients = [], np.zeros((crops, rank * (blocks > 0)), np.int64)
    for number in range(blocks):
        r = int(rng.integers(0, rank + 1)) if number else rank
        kept = classes if number and classes < 50 else int(rng.integers(0, min(classes, 60) + 1))
        entries = kept + (kept < classes)
        made.append(
            LowRankBlock(
                num_classes=classes,
                classes=np.sort(rng.permutation(classes)[:kept]).astype(np.int64),
                base=rng.integers(0, 200, entries) ** 2 // 150,
                basis=rng.integers(-9, 10, (r, entries)) // 3,
                scales=rng.integers(0, 12, r),
                step_code=int(rng.integers(0, 80)),
            )
        )
        mine = block_of == number
        coefficients[mine, :r] = rng.integers(-20, 21, (int(mine.sum()), r))
    kl = StatedKL(0.0625, 0.25, "labels" if seed % 2 else "teacher", (0.125, None) if seed % 2 else ())
    return LowRank(tuple(made), block_of.astype(np.int64), coefficients, kl)


def make_low_rank_record(
    key: str = "cats/tabby", *, crops: int = 20, classes: int = 100, seed: int = 0, **options: Any
) -> Record:
    """Make a record with the labels of `make_low_rank` and the boxes of `make_record`."""
    record = make_record(key, crops=crops, classes=classes, k=1, seed=seed)
    low_rank = make_low_rank(crops, classes, seed=seed, **options)
    return replace(_without_top_k(record), coding="lowrank", low_rank=low_rank)


def _without_top_k(record: Record) -> Record:
    """The same crops without classes and probabilities, for labels of another kind."""
    none = (record.num_crops, 0)
    return replace(record, index=np.zeros(none, np.int64), value=np.zeros(none, np.float32), tail=None)


def make_embeddings(crops: int, kinds: dict[str, tuple[int, str]], seed: int = 0) -> dict[str, AnyEmbedding]:
    """Make embeddings by their names: `kinds` gives the numbers of a crop and how they are stored."""
    rng = np.random.default_rng(seed)
    return {
        name: make_low_rank_embedding(crops, dim, seed=seed)
        if values == "lowrank"
        else Embedding.of(rng.normal(size=(crops, dim)), values)
        for name, (dim, values) in kinds.items()
    }


def make_low_rank_embedding(crops: int, dim: int, *, blocks: int = 2, seed: int = 0) -> LowRankEmbedding:
    """Make an arbitrary low-rank embedding with zeros, numbers of more than a byte, and components left out."""
    rng = np.random.default_rng(seed)
    blocks = min(blocks, crops)
    ranks = [int(rng.integers(0, 4)) for _ in range(blocks)]
    block_of = np.sort(np.concatenate([np.arange(blocks), rng.integers(0, max(blocks, 1), crops - blocks)]))
    made = tuple(
        EmbeddingBlock(
            rng.integers(0, 9, 1 + rank), rng.integers(-300, 300, dim), rng.integers(-9, 10, (dim, rank)) // 3
        )
        for rank in ranks
    )
    coefficients = rng.integers(-20, 21, (crops, max(ranks, default=0)))
    coefficients[np.arange(coefficients.shape[1]) >= np.array([*ranks, 0])[block_of][:, None]] = 0
    lengths = np.where(rng.random(crops) < 0.1, 0, rng.integers(10000, 10500, crops))
    return LowRankEmbedding(
        dim, made, block_of.astype(np.int64), lengths, coefficients, StatedCosine(0.5, 0.25)
    )


def make_embedding_record(
    key: str = "cats/tabby",
    *,
    crops: int = 20,
    seed: int = 0,
    kinds: dict[str, tuple[int, str]] | None = None,
) -> Record:
    """Make a record of embeddings with the boxes of `make_record`; by default one of 48 int8 numbers."""
    record = _without_top_k(make_record(key, crops=crops, k=1, seed=seed))
    embeddings = make_embeddings(crops, kinds or {"resnet18": (48, "int8")}, seed)
    return replace(record, coding="embedding", num_classes=0, embeddings=embeddings)


def random_boxes(rng: np.random.Generator, crops: int, size: tuple[int, int]) -> Any:
    """Draw boxes, int64 [crops, 4], anywhere within the image."""
    extent = rng.integers(1, np.array(size) + 1, (crops, 2))
    corner = rng.integers(0, np.array(size) - extent + 1)
    return np.concatenate([corner, extent], axis=1)


@st.composite
def records(draw: st.DrawFn) -> Record:
    """A hypothesis strategy: any small record."""
    coding = draw(st.sampled_from(CODINGS))
    full = coding != "none" and draw(st.booleans())
    classes = draw(st.one_of(st.integers(1, 40), st.sampled_from([256, 257, 1000, 100_000])))
    classes = min(classes, 300) if full else classes
    record = make_record(
        draw(NAMES),
        path=draw(NAMES),
        crops=draw(st.one_of(st.integers(0, 3), st.integers(4, 60))),
        k=1 if coding == "none" else classes if full else draw(st.integers(1, min(classes, 12))),
        classes=classes,
        coding=coding,
        full=full,
        tail=draw(st.integers(0, 70)),
        size=draw(st.tuples(*[st.one_of(st.integers(1, 600), st.integers(60_000, 200_000))] * 2)),
        target=draw(st.none() | st.integers(0, 2**31 - 1)),
        seed=draw(st.integers(0, 99)),
    )
    checksums = st.none() | st.integers(0, 2**32 - 1)
    record = replace(record, image_crc32=draw(checksums), source_crc32=draw(checksums))
    if draw(st.booleans()):
        return record
    # Values from everywhere, ties and zeros among them.
    edges = [0.0, 1.0, 2.0**-15.875, 2.0**-16.874, 2.0**-16.876, 1e-30, 1e-45, 1.0005, 0.5]
    pool = np.array(
        draw(st.lists(st.sampled_from(edges) | st.floats(0, 1, width=32), min_size=1, max_size=8))
    )
    value = pool[np.random.default_rng(0).integers(0, len(pool), record.value.shape)].astype(np.float32)
    if coding == "none":
        return record
    return replace(record, value=value if full else -np.sort(-value, axis=1))


def make_samples(count: int, *, embed: bool = False, **options: Any) -> list[Sample]:
    """Make samples; embedded images are arbitrary bytes of different extensions."""
    samples = []
    for i in range(count):
        options.setdefault("crops", 8)
        record = make_record(f"n{i % 3}/image_{i}", seed=i, target=None if i % 4 == 3 else i, **options)
        image = bytes([i]) * (100 + i) if embed else None
        samples.append(Sample(record, image, ("jpg", "png", "webp")[i % 3] if embed else None))
    return samples


def same(a: Record, b: Record) -> bool:
    """Whether two records agree in every stored field; values are compared as a reader decodes them."""
    plain = ("key", "path", "target", "size", "coding", "full", "num_classes", "image_crc32", "source_crc32")
    arrays = ("crops", "flips", "index", "value")
    return (
        all(getattr(a, name) == getattr(b, name) for name in plain)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
        and (a.tail is None) == (b.tail is None)
        and (a.tail is None or b.tail is None or _same_tail(a.tail, b.tail))
        and same_views(a.views, b.views)
        and same_embeddings(a.embeddings, b.embeddings)
        and (a.low_rank is None) == (b.low_rank is None)
        and (a.low_rank is None or b.low_rank is None or same_low_rank(a.low_rank, b.low_rank))
    )


def same_low_rank(a: LowRank, b: LowRank) -> bool:
    """Whether two labels agree in every integer and in what they state."""
    arrays = ("classes", "base", "basis", "scales")
    return (
        a.kl == b.kl
        and np.array_equal(a.block_of, b.block_of)
        and np.array_equal(a.coefficients, b.coefficients)
        and len(a.blocks) == len(b.blocks)
        and all(
            x.step_code == y.step_code
            and x.num_classes == y.num_classes
            and all(np.array_equal(getattr(x, name), getattr(y, name)) for name in arrays)
            for x, y in zip(a.blocks, b.blocks, strict=True)
        )
    )


def same_embeddings(a: dict[str, AnyEmbedding] | None, b: dict[str, AnyEmbedding] | None) -> bool:
    """Whether two records have the same embeddings, number by number as they are stored."""
    if a is None or b is None:
        return a is b
    return list(a) == list(b) and all(_same_embedding(a[name], b[name]) for name in a)


def _same_embedding(a: AnyEmbedding, b: AnyEmbedding) -> bool:
    if isinstance(a, LowRankEmbedding):
        return isinstance(b, LowRankEmbedding) and _same_low_rank_embedding(a, b)
    return (
        isinstance(b, Embedding)
        and a.stored.dtype == b.stored.dtype
        and np.array_equal(a.stored, b.stored)
        and (a.scales is None) == (b.scales is None)
        and (a.scales is None or np.array_equal(a.scales, b.scales))
    )


def _same_low_rank_embedding(a: LowRankEmbedding, b: LowRankEmbedding) -> bool:
    return (
        (a.dim, a.cosine, len(a.blocks)) == (b.dim, b.cosine, len(b.blocks))
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("block_of", "lengths", "coefficients"))
        and all(
            np.array_equal(getattr(x, name), getattr(y, name))
            for x, y in zip(a.blocks, b.blocks, strict=True)
            for name in ("scales", "mean", "basis")
        )
    )


def _same_tail(a: Any, b: Any) -> bool:
    return (
        np.array_equal(a.classes, b.classes)
        and np.array_equal(a.codes, b.codes)
        and (a.scale, a.rest) == (b.scale, b.rest)
    )


def quantise(value: NDArray[Any], coding: str) -> NDArray[np.float32]:
    """Return probabilities of any shape as a reader of `coding` will see them; those of "none" read as ones."""
    if coding == "none":
        return np.ones(np.shape(value), np.float32)
    return decode_values(encode_values(value, coding), coding)
