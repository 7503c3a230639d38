"""What a run made, and the summary that every command which makes labels prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slg_wds.config.prototypes import number_that_fits
from slg_wds.config.training import BATCH_SIZE, flags_that_fit
from slg_wds.console import counted, duration
from slg_wds.engines.workers.supervisor import FAILURES
from slg_wds.errors import IncompleteSetError, LabelSetError
from slg_wds.images.tars.files import SPLITS
from slg_wds.labelset.left_out import how_to_mend, left_out_images

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

LISTED = 20  # names in a summary


@dataclass(frozen=True)
class RunFinished:
    """What one run leaves behind.

    Attributes:
        stats: counts of what it made, a RunStats.
        given_up: names of the shards that it gave up, each with how the last attempt ended.
        complete: whether every shard of the set exists.
        seconds: wall time of the work, without the start-up.
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
        """Do nothing if the set is complete.

        Raises:
            LabelSetError: the run gave shards up.
            IncompleteSetError: other shards are missing.
        """
        if self.given_up:
            name, how = min(self.given_up.items())
            more = len(self.given_up) - 1
            raise LabelSetError(
                f"workers failed on this shard {FAILURES} times or more: {how}"
                + (f"; given up too: {counted(more, 'more shard')}" if more else ""),
                url=labels.url,
                shard=labels.shard_name(labels.plan.shard_names.index(name)),
                hint="what was made is kept; run the same command to try these shards again",
            )
        if not self.complete:
            names = [labels.shard_name(number) for number in labels.missing()]
            raise IncompleteSetError(
                f"{counted(len(names), 'shard')} missing at the end of this run: {', '.join(names[:LISTED])}",
                url=labels.url,
                hint="they were removed while it ran; run the same command to make them again",
            )


def summary(labels: LabelSet, run: RunFinished, more: str, lines: Sequence[str]) -> list[str]:
    """Return what a run made, in lines for the user.

    Args:
        labels: the set as it is now.
        run: what the run made.
        more: text after the label type in the second line.
        lines: what the command adds about the labels that it made, shown below the counts if any were made.

    Raises:
        FormatError, StoreError: what the set leaves out cannot be read.
    """
    stats = run.stats
    state = "complete" if run.complete else "not complete"
    if run.given_up:
        state = f"not complete, {counted(len(run.given_up), 'shard')} given up"
    text = [
        f"label set {labels.url}: {state}",
        f"  {counted(len(labels), 'image')} planned, {counted(labels.num_shards, 'shard')}, "
        f"{counted(labels.num_crops, 'crop')} an image, {labels.label_type}{more}",
    ]
    if stats.shards:
        each = bytes_a_crop(stats.bytes, stats.image_bytes, stats.crops) if stats.crops else "no crops"
        text.append(
            f"  made here: {counted(stats.images, 'image')}, {counted(stats.crops, 'crop')}, "
            f"{counted(stats.shards, 'shard')}, {stats.bytes / 1e6:,.2f} MB, {each}"
        )
        text += lines
    else:
        text.append("  nothing was left to make" if run.complete else "  nothing was made")
    if stats.lost_races:
        text.append(f"  {counted(stats.lost_races, 'shard')} made by another process first")
    return [*text, *_left_out(labels, stats.left_out)]


def _left_out(labels: LabelSet, ours: Sequence[tuple[str, str]]) -> list[str]:
    """Name the images that the set leaves out, whichever run left them out; those of this run first."""
    count, found = left_out_images(labels, LISTED)
    named = dict([*sorted(ours), *found])
    head = "LEFT OUT" if len(ours) == count else f"LEFT OUT ({len(ours)} by this run)"
    lines = listed(head, [f"{path}: {reason}" for path, reason in named.items()], count)
    return [*lines, f"  to label them after all: {how_to_mend(labels)}"] if lines else []


def bytes_a_crop(total: float, images: float, crops: int) -> str:
    """Describe the size of shards per crop: the labels with the tar around them, and embedded images apart.

    Args:
        total: bytes of the shards.
        images: bytes of the embedded images among them.
        crops: number of crops, at least 1.
    """
    if not images:
        return f"{total / crops:.2f} bytes/crop"
    return f"{(total - images) / crops:.2f} bytes/crop of labels, {images / crops:,.2f} of images"


def next_commands(labels: LabelSet, extended: Sequence[str] = ()) -> list[str]:
    """Return commands for a shell that use a finished set, with the sets that it extends where a command needs them."""
    sets = [shlex.quote(url) for url in (*extended, labels.url)]
    embedded = labels.identity.embed_images is not None
    images = "" if embedded else shlex.quote(str(labels.description.provenance.get("image_root") or "IMAGES"))
    used = len(labels) - left_out_images(labels, 0)[0]
    first, *others = [
        f"slg-wds inspect {sets[-1]}",
        f"slg-wds report {' '.join(sets)} -o report.html{f' --images {images}' if images else ''}",
        f"{_training(labels, sets, used)} {images}".rstrip(),
        *_joining(sets),
        *_clustering("ALL" if extended else sets[0], labels, used * labels.num_crops),
    ]
    return [f"  next: {first}", *(f"        {command}" for command in others)]


def _training(labels: LabelSet, sets: Sequence[str], used: int) -> str:
    """Return the command that trains a student on the sets, or tests one on them if they are of held-out images."""
    distill = " --distill embedding" if labels.holds_embeddings else ""
    student = f"slg-wds train -a resnet50{distill}"
    if labels.split in {*SPLITS["val"], *SPLITS["test"]}:
        tested = sets[0] if len(sets) == 1 else "ALL"
        return f"{student} --softlabel_path LABELS_OF_TRAIN --val-softlabels {tested}"
    batch = f" {flags_that_fit(used)}" if 0 < used < BATCH_SIZE else ""
    return " ".join([student + batch, *(f"--softlabel_path {url}" for url in sets)])


def _joining(sets: Sequence[str]) -> list[str]:
    """Return the command that writes a set and those that it extends as one, for commands that take one set."""
    return [f"slg-wds ensemble {' '.join(sets)} --save-path ALL"] if len(sets) > 1 else []


def _clustering(url: str, labels: LabelSet, crops: int) -> list[str]:
    """Return the command that makes a bank of embeddings, of as many prototypes as so many crops can make."""
    names = [shlex.quote(one["name"]) for one in labels.identity.embeddings or []]
    if not names or crops < 2:
        return []
    chosen = f" --embedding {names[0]}" if len(names) > 1 else ""
    return [f"slg-wds prototypes {url}{chosen} -k {number_that_fits(crops)} --save-path bank.safetensors"]


def listed(what: str, names: Sequence[str], count: int | None = None) -> list[str]:
    """Return lines that give a number and the first names; no lines if the number is 0.

    Args:
        what: what is counted.
        names: names to show, at most LISTED of them.
        count: how many there are, if `names` are not all.
    """
    count = len(names) if count is None else count
    if not count:
        return []
    shown = names[:LISTED]
    lines = [f"  {what}: {count:,}", *(f"    {name}" for name in shown)]
    return [*lines, f"    ... and {count - len(shown):,} more"] if count > len(shown) else lines
