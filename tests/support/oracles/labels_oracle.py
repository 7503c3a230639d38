"""Invented labels, and each rule of recovery restated crop by crop and class by class in Python floats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from slg_wds.format.records.tail import build_tail
from support.format.records import quantise


@dataclass
class Made:
    """The columns of one image's labels as a record stores them, and the teacher's full probabilities."""

    probs: np.ndarray
    index: np.ndarray
    value: np.ndarray
    tail: Any
    coding: str
    full: bool
    num_classes: int
    low_rank: Any = None
    embeddings: Any = None


def make(
    seed: int, crops: int, classes: int, k: int, sharpness: float, coding: str, tail_classes: int
) -> Made:
    """Make labels whose logits share a part over the crops, as for a real image; k = 0 stores all classes."""
    rng = np.random.default_rng(seed)
    logits = sharpness * (rng.normal(size=classes) + rng.normal(size=(crops, classes)))
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    if k == 0:
        index = np.broadcast_to(np.arange(classes), probs.shape)
        return Made(probs, index, quantise(probs, coding), None, coding, True, classes)
    index = np.argsort(-probs, axis=1, kind="stable")[:, :k]
    outside = probs.astype(np.float64)
    np.put_along_axis(outside, index, 0.0, axis=1)
    tail = build_tail(outside.mean(axis=0), tail_classes, crops, k)
    value = quantise(np.take_along_axis(probs, index, axis=1), coding)
    return Made(probs, index, value, tail, coding, False, classes)


@st.composite
def made_labels(draw: st.DrawFn, full: bool = False, max_classes: int = 24) -> Made:
    classes = draw(st.integers(1, max_classes))
    return make(
        seed=draw(st.integers(0, 2**32)),
        crops=draw(st.sampled_from([1, 3, 4, 9, 20])),
        classes=classes,
        k=0 if full else draw(st.integers(1, classes)),
        sharpness=draw(st.sampled_from([0.0, 0.1, 1.0, 5.0, 20.0, 60.0, 300.0])),
        coding=draw(st.sampled_from(["float32", "float16", "log8"])),
        tail_classes=draw(st.sampled_from([0, 1, 3, 64])),
    )


def rules_of(made: Made) -> list[str]:
    """Return every rule that the columns allow."""
    k = made.index.shape[1]
    names = ["hard", "smoothing", "marginal_smoothing", "marginal_renorm"]
    names += [
        f"marginal_{kind}_k{n}" for kind in ("smoothing", "renorm") for n in {1, 2, k // 2, k} if 1 <= n <= k
    ]
    if made.full:
        names.append("full")
    elif made.tail is not None or len(made.index) < 4 or k == made.num_classes:
        names.append(f"shared_tail_k{k}")
    return names


def oracle(made: Made, rule: str) -> np.ndarray:
    """Return the distributions, float64 [M, C]."""
    kind, _, number = rule.partition("_k")
    n = 1 if kind in ("hard", "smoothing") else int(number or made.index.shape[1])
    return np.array([_row(made, crop, kind, n) for crop in range(len(made.index))])


def tempered_oracle(made: Made, rule: str, power: float) -> np.ndarray:
    """Return the distributions to a power, float64 [M, C]; up to 2^-21 outside of the top counts as nothing."""
    kind, _, number = rule.partition("_k")
    n = 1 if kind in ("hard", "smoothing") else int(number or made.index.shape[1])
    rows = [_row(made, crop, kind, n, 2.0**-21) for crop in range(len(made.index))]
    return np.array([_to_a_power(row, power) for row in rows])


def _to_a_power(row: list[float], power: float) -> list[float]:
    """Powers by logarithms: with l = power log p, each class has exp(l - log of the sum of all exp(l))."""
    logs = [power * math.log(p) if p else -math.inf for p in row]
    most = max(logs)
    log_sum = most + math.log(math.fsum(math.exp(one - most) for one in logs))
    return [math.exp(one - log_sum) for one in logs]


def _row(made: Made, crop: int, kind: str, n: int, least: float = 0.0) -> list[float]:
    classes = range(made.num_classes)
    stored = dict(zip(made.index[crop].tolist(), made.value[crop].tolist(), strict=True))
    top = {c: stored[c] for c in sorted(stored, key=lambda c: (-stored[c], list(stored).index(c)))[:n]}
    if kind == "hard":
        return [float(c == next(iter(top))) for c in classes]
    if kind == "full":
        top = stored
    row = [top.get(c, 0.0) for c in classes]
    others = [c for c in classes if c not in top]
    if kind in ("smoothing", "marginal_smoothing", "shared_tail") and others:
        left = max(0.0, 1.0 - (math.fsum(top.values()) if least else sum(top.values())))
        left = left if left > least else 0.0
        shape = dict.fromkeys(others, 1.0)
        if kind == "shared_tail" and made.tail is not None:
            shape = dict.fromkeys(others, made.tail.rest)
            pairs = zip(made.tail.classes.tolist(), made.tail.probs.tolist(), strict=True)
            shape.update({c: p for c, p in pairs if c in shape})
        if sum(shape.values()) == 0:
            shape = dict.fromkeys(others, 1.0)
        for c in others:
            row[c] = left * (shape[c] / sum(shape.values()))
    if sum(row) == 0:
        row = [float(c in top) for c in classes]
    return [p / sum(row) for p in row]
