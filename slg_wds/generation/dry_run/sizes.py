"""The bytes of the shards of a run, from the samples of a few images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.format.shards.tar import ARCHIVE_UNIT, BLOCK, members

if TYPE_CHECKING:
    from slg_wds.format.shards.shard import EncodedSample
    from slg_wds.generation.job import Job

CRC_CHARACTERS = 11  # of a member's checksum in the trailer, with its comma
DIGEST = "0" * 64  # as long as a set's digest


@dataclass(frozen=True)
class PredictedSizes:
    """Bytes of a run.

    Attributes:
        shards: of all its shards: samples, the headers of tar, trailers, and the zeros that fill a tar up.
        images: of the embedded images among them.
        samples: the images that were measured.
    """

    shards: int
    images: int
    samples: int


def predict_sizes(job: Job, samples: Sequence[EncodedSample], missing: Sequence[int]) -> PredictedSizes:
    """Predict the bytes of the shards that a run makes, if all images are like those that were measured.

    Args:
        job: the run.
        samples: of the measured images, those that were not left out.
        missing: numbers of the shards to make.
    """
    sizes = [(one.tar_bytes, one.image_bytes) for one in samples] or [(0, 0)]
    whole, image = np.mean(sizes, axis=0).tolist()
    in_shard = job.labels.plan.shard_sizes[list(missing)].astype(np.float64)
    trailer = _trailer(job, samples) + CRC_CHARACTERS * np.mean(
        [len(one.fields) for one in samples] or [0]
    ) * (in_shard - len(samples))
    # Two blocks of zeros end a tar, and it is filled up to whole units.
    content = whole * in_shard + BLOCK + np.ceil(trailer / BLOCK) * BLOCK + 2 * BLOCK
    shards = int((np.ceil(content / ARCHIVE_UNIT) * ARCHIVE_UNIT).sum())
    return PredictedSizes(shards, round(image * in_shard.sum()), len(samples))


def _trailer(job: Job, samples: Sequence[EncodedSample]) -> int:
    """Return the bytes of the trailer of a shard of these samples."""
    labels = dataclasses.replace(job.labels, digest=DIGEST)
    data = labels.encode_shard(0, samples, [], dict(job.provenance))
    *_, last = members(memoryview(data))
    return last.size
