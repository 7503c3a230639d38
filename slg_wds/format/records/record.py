"""The labels of one image, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slg_wds.format.records.embeddings.by_name import AnyEmbedding
from slg_wds.format.records.low_rank.blocks import LowRank
from slg_wds.format.records.tail import Tail
from slg_wds.format.records.views import Views
from slg_wds.format.recovery.distributions import distribution
from slg_wds.format.recovery.temperature import power_of


@dataclass(frozen=True, eq=False)
class Record:
    """The labels of one image: M crops, k classes stored for each, of C classes.

    Attributes:
        key: names the image within the set; 1 to 4096 bytes of UTF-8.
        path: the image's path below its source, as long.
        target: the image's class, or None.
        size: (height, width) of the image in pixels.
        crops: int64 [M, 4], the boxes in pixels of the image: top, left, height, width.
        flips: bool [M], whether each crop is mirrored.
        index: int64 [M, k], the classes of each crop, distinct, the most probable first; for full labels 0 to C - 1,
            read-only.
        value: float32 [M, k], the probabilities of these classes, never rising along a row unless full; ones for
            coding "none".
        tail: the shared tail, or None.
        coding: how probabilities are stored, one of CODINGS, "lowrank" or "embedding".
        full: whether every class is stored, in class order.
        num_classes: C.
        rule: the default rule of recovery. It comes from the label set; records do not store it.
        tail_sums: float64 [C], for each class the sum over crops of its probability outside the top-k. Only sets
            that can be extended store it. Only `decode_tail_sums` reads it; a decoded record has None.
        image_crc32: CRC-32 of the image file whose pixels were labelled: the embedded one, if images are embedded.
            None in sets from before there were checksums.
        source_crc32: CRC-32 of the file that the embedded image was re-encoded from; None if it was not re-encoded.
        temperature: what the teachers' logits were divided by. It comes from the label set, as `rule`; else None.
        views: what is done to the pixels of the crops after they are cut, [M]; None for nothing.
        low_rank: the labels, if they are low-rank; then k is 0, and there is no tail. Else None.
        embeddings: if teachers' embeddings are stored and no labels, the embeddings of the crops by their names; then
            k and num_classes are 0. Else None.
    """

    key: str
    path: str
    target: int | None
    size: tuple[int, int]
    crops: NDArray[np.int64]
    flips: NDArray[np.bool_]
    index: NDArray[np.int64]
    value: NDArray[np.float32]
    tail: Tail | None
    coding: str
    full: bool
    num_classes: int
    rule: str | None = None
    tail_sums: NDArray[np.float64] | None = None
    image_crc32: int | None = None
    source_crc32: int | None = None
    temperature: float | None = None
    views: Views | None = None
    low_rank: LowRank | None = None
    embeddings: dict[str, AnyEmbedding] | None = None

    @property
    def num_crops(self) -> int:
        """Number of crops, M."""
        return len(self.crops)

    @property
    def k(self) -> int:
        """Classes stored for each crop."""
        return int(self.index.shape[1])

    def distribution(
        self, num_classes: int | None = None, rule: str | None = None, temperature: float | None = None
    ) -> NDArray[np.float32]:
        """Recover the labels as distributions.

        Args:
            num_classes: C, as a check; None for no check.
            rule: a label type such as "marginal_smoothing_k5"; None uses all that is stored.
            temperature: of the teachers' softmax, T; None: as the labels were made. For labels made at T0, which the
                record has from its label set, the recovered probabilities are raised to T0 / T and divided by their
                sum.

        Returns:
            float32 [M, C]; each row sums to 1 within 1e-6.

        Raises:
            UsageError: the rule is unknown, `num_classes` is not the record's, or the temperature is not above 0 or
                that of the labels not known.
            RuleError: the stored columns cannot give the rule.
        """
        return distribution(self, num_classes, rule, power_of(temperature, self.temperature))
