"""A set of embeddings -> the embeddings of a random sample of its crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slg_wds.engines.reports.live import ImageProgress
from slg_wds.errors import UsageError
from slg_wds.labelset.keyed import KeyedSet, Missing
from slg_wds.labelset.labelset import LabelSet

CROPS_PER_IMAGE = 8  # crops of one image are alike, and reading a record costs the same for all of its crops


def sample(labels: LabelSet, name: str, count: int, seed: int) -> NDArray[np.float32]:
    """Draw crops, and read their embeddings.

    Images are drawn first, then the same number of crops of each. So the sample is a pure function of the set and the
    arguments, and only the records of those images are read.

    Args:
        labels: a finished set.
        name: of the embedding.
        count: crops to draw.
        seed: decides which.

    Returns:
        float32 [N, D], N at most `count`: fewer if the set has fewer crops, or left images out.
    """
    images, chance = len(labels), np.random.default_rng(seed)
    each = min(labels.num_crops, max(CROPS_PER_IMAGE, -(-count // max(1, images))))
    chosen = np.sort(chance.permutation(images)[: -(-count // max(1, each))]).tolist()
    keyed, parts = KeyedSet(labels), []
    keyed.prepare(chosen)
    with ImageProgress(len(chosen)) as progress:
        for number in chosen:
            crops = np.sort(chance.permutation(labels.num_crops)[:each])
            record = keyed.read(number)
            if not isinstance(record, Missing):
                parts.append((record.embeddings or {})[name][crops].vectors)
            progress.add(1)
    return _joined(parts, labels)[:count]


def _joined(parts: Sequence[NDArray[np.float32]], labels: LabelSet) -> NDArray[np.float32]:
    if not parts:
        raise UsageError("the set has no image with embeddings", url=labels.url)
    return np.concatenate(parts)
