"""Measures the embeddings of all sampled images.

Shapes: n images, M crops of an image, D numbers of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from slg_wds.arrays import F32, F64
from slg_wds.errors import LabelSetError
from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.embeddings.cosines import similarity, unit_rows
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding, StatedCosine
from slg_wds.images import LabelledImage
from slg_wds.report.reading.sets import ReportedSets, ReportSample

BINS = 40  # of the histogram of cosines, over -1..1
PAIRS = 8  # most alike pairs that are shown
MOST_CROPS = 64  # of an image whose pairs are compared


@dataclass(frozen=True)
class SampledImage:
    """An image of the sample.

    Attributes:
        number: in the plan of the first set.
        image: which file was labelled.
        target: number of its class folder; None without one.
    """

    number: int
    image: LabelledImage
    target: int | None


@dataclass(frozen=True)
class Pair:
    """Two images, by their places in the sample, and the cosine of their means."""

    one: int
    other: int
    cosine: float


@dataclass
class EmbeddingMeasures:
    """What one teacher's embeddings say.

    Attributes:
        name: of the embedding.
        place: number of its set.
        means: for each image the mean over crops of the embeddings at unit length, float32 [D].
        counts: float64 [BINS], pairs of crops of one image by their cosine over -1..1.
        crops: crops that were counted.
        stated: the cosines that the record of each image states, if the embedding is low-rank; else empty.
    """

    name: str
    place: int
    means: list[F32] = field(default_factory=list)
    counts: F64 = field(default_factory=lambda: np.zeros(BINS))
    crops: int = 0
    total: float = 0.0
    stated: list[StatedCosine] = field(default_factory=list)

    def add(self, embedding: AnyEmbedding) -> None:
        """Count an image's embeddings."""
        if isinstance(embedding, LowRankEmbedding):
            self.stated.append(embedding.cosine)
        unit = unit_rows(embedding.vectors)
        self.means.append(unit.mean(axis=0).astype(np.float32))
        some = unit[np.linspace(0, len(unit) - 1, min(len(unit), MOST_CROPS)).round().astype(int)]
        cosines = (some @ some.T)[np.triu_indices(len(some), 1)]
        self.counts += np.histogram(np.clip(cosines, -1, 1), BINS, (-1, 1))[0]
        self.total += float(cosines.sum())
        self.crops += len(unit)

    @property
    def within(self) -> float:
        """Mean cosine between two crops of an image; 1 where images have one crop."""
        pairs = float(self.counts.sum())
        return self.total / pairs if pairs else 1.0

    @property
    def between(self) -> float:
        """Mean cosine between the means of two images; 1 for a single image."""
        return similarity(np.stack(self.means))

    def nearest(self, targets: list[int | None] | None = None) -> list[Pair]:
        """Return pairs of images whose means are most alike, each image at most once, the most alike first.

        Args:
            targets: of the images; only pairs of two different ones are returned. None: pairs of any images.
        """
        cosines = (unit := unit_rows(np.stack(self.means))) @ unit.T
        np.fill_diagonal(cosines, -2.0)
        if targets is not None:
            numbers = np.array([-1 if one is None else one for one in targets])
            alike = (numbers[:, None] == numbers[None]) | (numbers < 0)[:, None] | (numbers < 0)[None]
            cosines[alike] = -2.0
        found: list[Pair] = []
        while len(found) < PAIRS and cosines.max() > -1.5:
            one, other = divmod(int(cosines.argmax()), len(cosines))
            found.append(Pair(one, other, float(cosines[one, other])))
            cosines[[one, other]] = cosines[:, [one, other]] = -2.0
        return found

    def components(self) -> tuple[F64, F64]:
        """Return the first two principal components of the means, float64 [n, 2], and the variance that each has, 0..1.

        The signs are such that the largest coordinate is positive, so that the picture is the same each time.
        """
        centred = np.stack(self.means).astype(np.float64)
        centred -= centred.mean(axis=0)
        left, strengths, _ = np.linalg.svd(centred, full_matrices=False)
        rows = np.zeros((len(centred), 2))
        kept = min(2, len(strengths))
        rows[:, :kept] = left[:, :kept] * strengths[:kept]
        rows *= np.where(rows[np.abs(rows).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)
        shares = np.zeros(2)
        shares[:kept] = np.square(strengths[:kept]) / max(float(np.square(strengths).sum()), 1e-30)
        return rows, shares


def measure_embeddings(
    sets: ReportedSets, sample: ReportSample
) -> tuple[list[SampledImage], list[EmbeddingMeasures]]:
    """Read the sampled images that all sets have, and measure every embedding of every set.

    Args:
        sets: the sets.
        sample: the images to read.

    Raises:
        LabelSetError: no sampled image is in all sets.
        FormatError, StoreError: a record cannot be read.
    """
    found = [
        EmbeddingMeasures(one["name"], place)
        for place, labels in enumerate(sets.labels)
        for one in labels.identity.embeddings or []
    ]
    images: list[SampledImage] = []
    for read in sets.read(sample):
        records = [record for record in read.records if record is not None]
        if len(records) < len(sets.labels):
            continue
        images.append(SampledImage(read.number, LabelledImage.of(records[0]), records[0].target))
        for measures in found:
            measures.add((records[measures.place].embeddings or {})[measures.name])
    if not images:
        raise LabelSetError("no sampled image is in all of the sets", url=sets.first.url)
    return images, found
