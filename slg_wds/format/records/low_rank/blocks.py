"""Low-rank labels: the distributions of an image's crops as a mean, a basis and a few coefficients for each crop.

Crops that are coded together are a *block*; an image nearly always is one. All is stored as integers. With
w = 2 base + 1 and u = w / |w|, a crop has over the N entries of its block, up to a constant, the log-probabilities

    z[e] = 2 log u[e] + step * sum over j of coefficient[j] * basis[j, e] * 2 ** (-scale[j] / 2) / u[e]

The entries are the n classes that are kept and, if others exist, one more that these share evenly. Rows of the basis
are divided by u, the root of the mean probability, because an error of a class's logit costs divergence in proportion
to its probability: so equal steps of the integers cost about equal divergence.

Shapes: M crops, C classes, n kept classes, N entries, r components, R components of the block that has most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from slg_wds.arrays import F64, I64

LOW_RANK = "lowrank"  # the coding of such records, their label type, and the feature of slg.json
LARGEST_STEP, STEPS_AN_OCTAVE = 4.0, 16
MAX_STEP_CODE = MAX_RANK = 255
MAX_SCALE = 80
AGAINST = ("teacher", "labels")


@dataclass(frozen=True)
class StatedKL:
    """How far low-rank labels are from what they were coded from, in nats.

    Attributes:
        mean: the mean over the crops of KL(exact || stored).
        worst: the largest of a crop.
        against: what is called exact: "teacher", the teacher's own distributions, or "labels", those of other labels.
        parents: for "labels", the mean KL that each of those states itself; None for one that states none.
    """

    mean: float
    worst: float
    against: str = "teacher"
    parents: tuple[float | None, ...] = ()


@dataclass(frozen=True, eq=False)
class LowRankBlock:
    """What the crops of a block share.

    Attributes:
        num_classes: C.
        classes: int64 [n], the kept classes, ascending.
        base: int64 [N], at least 0: the roots of the mean probabilities, up to a factor.
        basis: int64 [r, N].
        scales: int64 [r], 0 to MAX_SCALE: half-octaves by which a row of the basis is finer than an integer.
        step_code: 0 to 255: the step of the coefficients is 4 * 2 ** (-step_code / 16).
    """

    num_classes: int
    classes: I64
    base: I64
    basis: I64
    scales: I64
    step_code: int

    @property
    def rank(self) -> int:
        """r, the components of which a crop has coefficients."""
        return len(self.basis)

    @property
    def step(self) -> float:
        """The step of the coefficients."""
        return step_of(self.step_code)

    @cached_property
    def mean(self) -> F64:
        """The logit of each entry where all coefficients are 0, float64 [N]."""
        return mean_of(self.base)

    @cached_property
    def rows(self) -> F64:
        """What a coefficient of 1 adds to each logit, float64 [r, N]."""
        return self.step * rows_of(self.base, self.basis, self.scales)

    def distributions(self, coefficients: I64) -> F64:
        """Return the distributions of crops with these coefficients, int64 [M, r], as float64 [M, C]."""
        entries = softmax(self.mean + coefficients @ self.rows)
        return spread(entries, self.classes, self.num_classes)


@dataclass(frozen=True, eq=False)
class LowRank:
    """The low-rank labels of an image's crops.

    Attributes:
        blocks: the blocks.
        block_of: int64 [M], the block of each crop.
        coefficients: int64 [M, R]; zeros beyond the rank of the crop's block.
        kl: what the labels were coded from, and how far they are from it.
    """

    blocks: tuple[LowRankBlock, ...]
    block_of: I64
    coefficients: I64
    kl: StatedKL

    def of(self, crops: I64 | slice) -> LowRank:
        """Return the labels of some of the crops, in any order. The stated KL stays that of all."""
        return replace(self, block_of=self.block_of[crops], coefficients=self.coefficients[crops])

    def distributions(self) -> F64:
        """Return the distributions of the crops, float64 [M, C]."""
        if len(self.blocks) == 1:
            return self.blocks[0].distributions(self.coefficients)
        classes = self.blocks[0].num_classes if self.blocks else 0
        full = np.empty((len(self.block_of), classes))
        for number, block in enumerate(self.blocks):
            mine = np.flatnonzero(self.block_of == number)
            full[mine] = block.distributions(self.coefficients[mine, : block.rank])
        return full


def joined(parts: Sequence[LowRank]) -> LowRank:
    """Join the labels of an image's crops from several sets, in their order. Blocks stay as they are."""
    firsts = np.cumsum([0, *(len(part.blocks) for part in parts)])
    width = max(part.coefficients.shape[1] for part in parts)
    counts = [len(part.block_of) for part in parts]
    against = {part.kl.against for part in parts}
    kl = StatedKL(
        mean=float(np.average([part.kl.mean for part in parts], weights=counts)) if sum(counts) else 0.0,
        worst=max(part.kl.worst for part in parts),
        against="teacher" if against == {"teacher"} else "labels",
        parents=max((part.kl.parents for part in parts), key=len),
    )
    return LowRank(
        blocks=tuple(block for part in parts for block in part.blocks),
        block_of=np.concatenate([part.block_of + first for part, first in zip(parts, firsts, strict=False)]),
        coefficients=np.concatenate(
            [np.pad(part.coefficients, ((0, 0), (0, width - part.coefficients.shape[1]))) for part in parts]
        ),
        kl=kl,
    )


def step_of(code: int) -> float:
    """Return the step of coefficients that a code stands for: 4 * 2 ** (-code / 16)."""
    return float(LARGEST_STEP * 2.0 ** (-code / STEPS_AN_OCTAVE))


def mean_of(base: I64) -> F64:
    """Return 2 log u with u = w / |w| and w = 2 base + 1, float64 [N]: log-probabilities."""
    return 2.0 * np.log(_roots(base))


def rows_of(base: I64, basis: I64, scales: I64) -> F64:
    """Return the rows of the basis in logits for each unit of coefficient times step, float64 [r, N]."""
    rows: F64 = basis * np.exp2(scales / -2.0)[:, None] / _roots(base)
    return rows


def _roots(base: I64) -> F64:
    w = 2.0 * base + 1.0
    roots: F64 = w / np.sqrt(np.square(w).sum())
    return roots


def softmax(logits: F64) -> F64:
    """Return rows of logits as distributions, float64 [..., N]."""
    exponentials: F64 = np.exp(logits - logits.max(axis=-1, keepdims=True))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


def spread(entries: F64, classes: I64, num_classes: int) -> F64:
    """Return distributions over entries [M, N] as ones over classes [M, C]: classes that are not kept share evenly."""
    if len(classes) == num_classes:
        return entries
    full = np.repeat(entries[:, -1:] / (num_classes - len(classes)), num_classes, axis=1)
    full[:, classes] = entries[:, :-1]
    return full
