"""What a run made, and the summary that every command which makes labels prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slg_wds.console import counted, duration
from slg_wds.errors import IncompleteSetError, LabelSetError

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

LISTED = 20  # names in a summary


@dataclass(frozen=True)
class RunFinished:
    """What a run leaves: the stats of what it made, the shards it gave up and why, and whether every shard exists.

    seconds: wall time of the work, start-up excluded.
    """

    stats: Any
    given_up: Mapping[str, str]
    complete: bool
    seconds: float

    def __repr__(self) -> str:
        made = self.stats
        return (
            f"RunFinished({'' if self.complete else 'in'}complete, {counted(made.images, 'image')}, "
            f"{counted(made.crops, 'crop')} and {counted(made.shards, 'shard')} made in {duration(self.seconds)}, "
            f"{len(made.left_out):,} left out, {len(self.given_up):,} given up)"
        )

    def check(self, labels: LabelSet) -> None:
        """Raise LabelSetError for shards that were given up, IncompleteSetError for others that are missing."""
        if self.given_up:
            name, how = min(self.given_up.items())
            others = (
                f"; {counted(len(self.given_up) - 1, 'more shard')} failed so"
                if len(self.given_up) > 1
                else ""
            )
            raise LabelSetError(
                f"workers failed on one shard again and again: {how}{others}",
                url=labels.url,
                shard=labels.shard_name(labels.plan.shard_names.index(name)),
                hint="all other shards are finished; run the same command to try again",
            )
        if not self.complete:
            names = [labels.shard_name(number) for number in labels.missing()]
            raise IncompleteSetError(
                f"{counted(len(names), 'shard')} missing at the end of this run: {', '.join(names[:LISTED])}",
                url=labels.url,
                hint="they were removed meanwhile; run the same command to make them again",
            )


def summary(labels: LabelSet, run: RunFinished, more: str, lines: Sequence[str]) -> list[str]:
    """What a run made, in lines for people: the head and foot of every command's summary, `lines` between them.

    more: what the second line says after the label type. lines: of what was made, below the counts; unused where
    nothing was.
    """
    total, given_up = run.stats, run.given_up
    state = "complete" if run.complete else "not complete"
    if given_up:
        state = f"not complete, {counted(len(given_up), 'shard')} given up"
    text = [
        f"label set {labels.url}: {state}",
        f"  {counted(len(labels), 'image')} planned, {counted(labels.num_shards, 'shard')}, "
        f"{counted(labels.num_crops, 'crop')} an image, {labels.label_type}{more}",
    ]
    if total.crops:
        text.append(
            f"  made here: {counted(total.images, 'image')}, {counted(total.crops, 'crop')}, "
            f"{counted(total.shards, 'shard')}, "
            f"{total.bytes / 1e6:,.2f} MB, {bytes_a_crop(total.bytes, total.image_bytes, total.crops)}"
        )
        text += lines
    else:
        text.append("  nothing was left to make")
    if total.lost_races:
        text.append(f"  {counted(total.lost_races, 'shard')} made by another process first")
    text += listed("LEFT OUT", [f"{path}: {why}" for path, why in sorted(total.left_out)])
    return [*text, *next_commands(labels)] if run.complete else text


def bytes_a_crop(total: float, images: float, crops: int) -> str:
    """Bytes in shards for each crop: of labels (with all that a tar adds), and of embedded images apart from them."""
    if not images:
        return f"{total / crops:.2f} bytes/crop"
    return f"{(total - images) / crops:.2f} bytes/crop of labels, {images / crops:,.2f} of images"


def next_commands(labels: LabelSet) -> list[str]:
    """What can be done with a finished set, as lines for a shell."""
    url = shlex.quote(labels.url)
    embedded = labels.identity.get("embed_images") is not None
    images = "" if embedded else shlex.quote(str(labels.description.provenance.get("image_root") or "IMAGES"))
    return [
        f"  next: slg-wds inspect {url}",
        f"        slg-wds report {url} -o report.html{f' --images {images}' if images else ''}",
        f"        python tools/train_student.py -a resnet50 --softlabel_path {url} {images}".rstrip(),
    ]


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Lines that count names and show the first of them; none for none."""
    if not names:
        return []
    lines = [f"  {what}: {len(names)}", *(f"    {name}" for name in names[:LISTED])]
    return [*lines, f"    ... and {len(names) - LISTED} more"] if len(names) > LISTED else lines
