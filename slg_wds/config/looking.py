"""Options of the commands that look at label sets: `inspect`, `verify`, `report`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Positional, arg

from slg_wds.config.shared import (
    StoreConfig,
)
from slg_wds.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class InspectConfig(StoreConfig):
    """Say what a label set is, how it was made, how complete it is and what it costs; or show one image's labels."""

    labels: Positional[str]
    """The label set: a folder or URL, finished or not."""
    key: str | None = None
    """Show this image's crops and labels: its key, or its path below the source."""
    crops: int = 20
    """Crops shown with --key."""
    json: bool = field(default=False)
    """Print JSON, for scripts."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be."""
        if self.crops < 1:
            raise UsageError(f"--crops {self.crops} is below 1")


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(StoreConfig):
    """Check every byte and every label of a set, and with --teacher whose labels they are. Exit code 1 and a table
    where anything is wrong."""

    labels: Positional[str]
    """The label set: a folder or URL."""
    fix: bool = False
    """Make missing or wrong index parts and _info.json again, from whole shards."""
    delete_damaged: bool = False
    """Remove damaged shards too, for the command that made the set to redo. The exit code is 1: the set lacks them."""
    delete_left_out: bool = False
    """Remove the shards that left images out, in the same way, to have them made again with the images mended since."""
    allow_incomplete: bool = False
    """Take no offence at shards that an unfinished set lacks."""
    decode_images: bool = True
    """Decode embedded images; without, their checksums alone are compared."""
    max_pixels: int = 67_108_864
    """Largest embedded image that is decoded, in pixels."""
    images: str | None = None
    """Compare these images, the folder or tars, with those that were labelled; list all that are others or gone."""
    teacher: str | None = None
    """The images, to ask the teachers of -a again about a random sample of crops (not needed where embedded)."""
    arch: Annotated[str | None, arg(aliases=["-a"])] = None
    """The teachers to ask, as for generate; what the set says of them is compared, never loaded."""
    teacher_source: str = "timm"
    """Where -a is looked up: timm, pytorch (torchvision) or private."""
    teacher_path: str | None = None
    """Weights of those teachers: as for generate."""
    check_crops: int = 512
    """Crops that the teachers are asked about."""
    processes: int = 0
    """Processes that check (0: one per core)."""
    json: bool = field(default=False)
    """Print the result as JSON."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything is opened."""
        for name, least in (("processes", 0), ("check_crops", 1), ("max_pixels", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)} is below {least}")
        if self.teacher is not None and self.arch is None:
            raise UsageError("--teacher names the images; -a must name the teachers")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoreConfig):
    """Draw a label set, or several of the same images side by side, as one page for the browser."""

    labels: Positional[tuple[str, ...]]
    """Label sets: folders or URLs, unfinished ones too. With several, teachers are compared; the first leads."""
    output: Annotated[str, arg(aliases=["-o"])] = "report.html"
    """The page to write: one file that loads nothing from anywhere."""
    images: str | None = None
    """The labelled images, for the gallery, where the set does not embed them: what generate was
    given."""
    samples: int = 2000
    """Images to look at, from shards drawn at random; all where the set has no more."""

    def check(self) -> None:
        """Raise UsageError for option values that cannot be, before anything is opened."""
        if not self.labels:
            raise UsageError("no label set is given")
        if self.samples < 1:
            raise UsageError(f"--samples {self.samples} is below 1")
