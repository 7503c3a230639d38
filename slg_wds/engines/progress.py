"""Progress of a run: a live display on a terminal, a line a shard elsewhere."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from slg_wds import console
from slg_wds.console import counted, duration
from slg_wds.engines.live import Live, live_display
from slg_wds.engines.run_stats import RunObserver, RunStarted, RunStats
from slg_wds.errors import IncompleteSetError, LabelSetError

if TYPE_CHECKING:
    from slg_wds.labelset.labelset import LabelSet

LISTED = 20  # names in a summary


class Progress(RunObserver):
    """Counts images, crops and shards of a run and shows rate and time left. Threads may report at once.

    Everything goes to stderr, so stdout keeps only results. Processes of one launcher often share a terminal, where
    only lines can stand beside each other; and each of them expects to make its part.

    Attributes:
        total: what has been made, the stats given with that of every shard added.
        ranks: processes that a launcher started for this work, this one among them.
        start: what the first worker that was ready said, None before.
    """

    def __init__(self, total: RunStats, ranks: int = 1) -> None:
        self.total = total
        self.ranks = ranks
        self.start: RunStarted | None = None
        self.shards_left = 0
        self.crops_left = 0
        self._done: set[str] = set()
        self.done_crops = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._display: Live | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.stop()

    def begin(self, start: RunStarted) -> None:
        """The first worker is ready: the clock and the display start. Raises LabelSetError for one of another set."""
        if self.start is not None:
            if start.digest != self.start.digest:
                raise LabelSetError("the label set has been replaced by another since the start")
            return
        self.start = start
        self.shards_left, self.crops_left = start.shards, start.crops
        self._began = time.monotonic()
        console.note(*start.said)
        if self.ranks == 1:
            self._display = live_display(start.crops_there + start.crops, start.crops_there, "crops")

    def say(self, text: str) -> None:
        """Print a line above the display."""
        if self._display is not None:
            self._display.say(text)
        else:
            console.note(text)

    @property
    def seconds(self) -> float:
        """Seconds since the first worker was ready."""
        return time.monotonic() - self._began

    def crops(self, count: int) -> None:
        """So many crops have been labelled."""
        with self._lock:
            self.done_crops += count
        self._show()

    def shard(self, name: str, stats: RunStats, made: bool) -> None:
        """A shard is committed, or was there already."""
        with self._lock:
            self._done.add(name)
            self.total.add(stats if made else stats.lost())
            if not made:
                self.done_crops -= stats.crops  # counted by the process that was first
        if self._show():
            return
        rate = self._rate()
        left = max(0.0, self.crops_left / self.ranks - self.done_crops) / rate if rate else 0.0
        note = "" if made else " (another process was first; dropped)"
        console.note(
            f"{name}: {counted(stats.images, 'image')}, {counted(stats.crops, 'crop')}, "
            f"{stats.bytes / 1e6:.2f} MB{note}; "
            f"shard {self._shards()}, {rate:,.0f} crops/s, about {duration(left)} left"
        )

    def _show(self) -> bool:
        """Show on the display how far the set is; False where there is none."""
        if self._display is None or self.start is None:
            return False
        # No more than all, where several processes are at the last shards at once.
        done = self.start.crops_there + min(self.done_crops, self.crops_left)
        self._display.show(done, f"{self._rate():,.0f} crops/s, shards {self._shards()}")
        return True

    def _rate(self) -> float:
        return self.done_crops / max(self.seconds, 1e-9)

    def _shards(self) -> str:
        there = self.start.shards_there if self.start else 0
        return f"{there + len(self._done)}/{there + self.shards_left}"


@dataclass(frozen=True)
class Finished:
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
            f"Finished({'' if self.complete else 'in'}complete, {counted(made.images, 'image')}, "
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


def summary(labels: LabelSet, run: Finished, more: str, lines: Sequence[str]) -> list[str]:
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


def started(
    labels: LabelSet, missing: Sequence[int], crops_each: int, said: Sequence[str] = ()
) -> RunStarted:
    """How a run begins that is to make the `missing` shards, with so many crops an image."""
    crops = int(labels.plan.shard_sizes[list(missing)].sum()) * crops_each
    there = len(labels) * crops_each - crops
    return RunStarted(labels.digest, len(missing), crops, said, labels.num_shards - len(missing), there)


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Lines that count names and show the first of them; none for none."""
    if not names:
        return []
    lines = [f"  {what}: {len(names)}", *(f"    {name}" for name in names[:LISTED])]
    return [*lines, f"    ... and {len(names) - LISTED} more"] if len(names) > LISTED else lines
