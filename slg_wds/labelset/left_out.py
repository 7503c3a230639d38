"""Images that were left out of a set: how many may be, which ones are, and how to label them after all."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from slg_wds.errors import LabelSetError
from slg_wds.labelset.labelset import LabelSet

SHARE, LEAST = 0.01, 10


def most_left_out(planned: int, share: float | None, known: int = 0) -> int:
    """Return how many images a set may leave out.

    Args:
        planned: number of images of the set.
        share: the share of them that may be left out, 0 to 1; None for SHARE, but at least LEAST images.
        known: number of images that certainly cannot be labelled. They may be left out in addition to the share.
    """
    others = planned - known
    if share is None:
        return known + max(LEAST, int(others * SHARE))
    return known + int(others * Fraction(str(share)))  # as it is written: 100 times 0.29 is 29, not 28.99...


def how_to_mend(labels: LabelSet) -> str:
    """Return how to label images after all that a set left out. Mended label files are others than its own."""
    if labels.identity.imported_from or str(labels.identity.reference or "").startswith("fkd:"):
        return "mend them, then the command that made the set, with another --save-path: it keeps to its label files"
    return "mend them, then slg-wds verify --delete-left-out, then the command that made the set"


class Allowance:
    """Stops a run whose label set would leave out too many images, counted over the shards of all workers.

    Nothing is read before the first image is left out. Workers that commit at the same moment do not count each
    other's shards, so a set may exceed the limit by one shard of each worker.

    Args:
        labels: the label set.
        most: the most images that it may leave out.
    """

    def __init__(self, labels: LabelSet, most: int) -> None:
        self._labels, self._most = labels, most
        self._counted: dict[int, int] = {}

    def check(self, number: int, reasons: Sequence[str]) -> None:
        """Check a shard before it is committed.

        Args:
            number: the number of the shard.
            reasons: why each image that it leaves out is left out.

        Raises:
            LabelSetError: the set would leave out too many images.
        """
        if not reasons:
            return
        self._count()
        total = len(reasons) + sum(count for shard, count in self._counted.items() if shard != number)
        if total > self._most:
            raise LabelSetError(
                f"{total} of {len(self._labels)} images would be left out, more than the {self._most} allowed; "
                f"the last one: {reasons[-1]}",
                url=self._labels.url,
                shard=self._labels.shard_name(number),
                hint="if so many are really bad, --max-left-out allows a larger share",
            )

    def _count(self) -> None:
        missing = set(self._labels.missing())
        new = [n for n in range(self._labels.num_shards) if n not in missing and n not in self._counted]
        self._counted.update({number: len(keys) for number, keys in self._labels.left_out_of(new).items()})


def left_out_images(labels: LabelSet, most: int) -> tuple[int, list[tuple[str, str]]]:
    """Count the images that the shards of a set leave out, and name the first of them.

    Args:
        labels: the label set; of an incomplete one, the shards that exist count.
        most: how many images to name.

    Returns:
        The count over all shards, and (path, reason) of at most `most` images, in the order of the plan.

    Raises:
        FormatError, StoreError: _info.json, an index part or a shard cannot be read.
    """
    counts = labels.count_left_out()
    named: list[tuple[str, str]] = []
    for number in (number for number, count in counts.items() if count):
        if len(named) >= most:
            break
        left_out = labels.trailer(number, labels.index(number)).left_out
        named += [(entry["path"], entry["reason"]) for entry in left_out]
    return sum(counts.values()), named[:most]
