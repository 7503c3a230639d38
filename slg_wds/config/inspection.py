"""Options of the commands that look at label sets: `inspect`, `verify`, `report`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from tyro.conf import Positional

from slg_wds.config.checks import check_at_once, check_least
from slg_wds.config.command_line import option, required
from slg_wds.config.shared import PixelOptions, ProcessOptions, RecheckOptions, StoreConfig
from slg_wds.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class InspectConfig(StoreConfig):
    """Show how a label set was made, how much of it exists, and its bytes per crop.

    Example: slg-wds inspect /data/labels
    """

    labels: Annotated[Positional[str], option("SET")]
    """The label set: a folder or URL. It may be unfinished."""
    key: Annotated[str | None, option("KEY")] = None
    """Show the crops and labels of this image instead. Give its key, or its path below the images' folder."""
    crops: Annotated[int | None, option("N", default="20")] = None
    """Crops to show with --key."""
    json: bool = False
    """Print JSON, for scripts."""

    def check(self) -> None:
        """Raise UsageError for a number of crops below 1, and for one without --key."""
        check_least(self, crops=1)
        if self.crops is not None and self.key is None:
            raise UsageError("--crops is for --key", hint="name an image by --key KEY")

    @property
    def shown_crops(self) -> int:
        """How many crops of the image are shown."""
        return self.crops or 20


@dataclass(frozen=True, kw_only=True)
class RepairOptions:
    """What is repaired."""

    PANEL: ClassVar[str] = "Repair"

    fix: bool = False
    """Make missing or wrong index parts, which say where a shard's records lie, and _info.json again, from undamaged
    shards. No label is changed."""
    delete_damaged: bool = False
    """Do what --fix does, and remove damaged shards and shards of another set. Then run the command that made the set
    again: it makes what is missing. Until then the exit code is 1."""
    delete_left_out: bool = False
    """Do what --fix does, and remove the shards that left images out. Use it after mending those images, and run the
    command that made the set again."""


@dataclass(frozen=True, kw_only=True)
class ComparedImageOptions:
    """Which images are compared with those that were labelled."""

    PANEL: ClassVar[str] = "Image"

    images: Annotated[str | None, option("IMAGES")] = None
    """Compare these images, a folder or tars, with those that were labelled, and list all that differ or are gone. Use
    it before training on a copy of the images."""
    decode_images: bool = True
    """Whether the images that the set embeds are decoded too. --no-decode-images only compares their checksums, which
    is faster."""


@dataclass(frozen=True, kw_only=True)
class AskedImageOptions:
    """Which images the teachers label again."""

    PANEL: ClassVar[str] = "Check"

    teacher: Annotated[
        str | None, option("IMAGES", default="those of --images, else those that the set embeds")
    ] = None
    """The images for -a, not a teacher: the teachers given with -a label a random sample of their crops again, and the
    result is compared with the stored labels."""
    bank: Annotated[str | None, option("FILE")] = None
    """The bank with which labels over prototypes were made, for -a."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig(
    RepairOptions,
    ComparedImageOptions,
    PixelOptions,
    AskedImageOptions,
    RecheckOptions,
    ProcessOptions,
    StoreConfig,
):
    """Check every byte and every label of a set.

    With -a, it also checks whether the labels are those of that teacher.

    Problems are listed. If there are any, the exit code is 1.

    Example: slg-wds verify /data/labels
    """

    labels: Annotated[Positional[str], option("SET")]
    """The label set: a folder or URL."""
    allow_incomplete: bool = False
    """Do not report missing shards. Use it while the set is being made."""
    json: bool = False
    """Print the result as JSON, for scripts."""

    def check(self) -> None:
        """Check values against each other and their ranges.

        Raises:
            UsageError: an option has a value that makes no sense. The set has not been opened by then.
        """
        check_least(self, check_crops=1, max_pixels=1)
        check_at_once(self, processes=0)
        if self.teacher is not None and self.arch is None:
            raise UsageError("--teacher names the images; -a must name the teachers")
        if self.bank is not None and self.arch is None:
            raise UsageError("--bank is for -a, which asks the teachers again")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StoreConfig):
    """Draw a label set as one page for the browser.

    Several sets of the same images are drawn side by side, to compare teachers.

    Example: slg-wds report /data/labels -o report.html --images /data/imagenet
    """

    labels: Annotated[Positional[tuple[str, ...]], required("SET ...")]
    """The label sets: folders or URLs, unfinished ones too. The first decides which images are sampled."""
    output: Annotated[str, option("FILE", short="-o")] = "report.html"
    """The page to write. It is one file that loads nothing from elsewhere."""
    images: Annotated[str | None, option("IMAGES", default="those that the set embeds")] = None
    """The labelled images, to draw them in the gallery. Give what `generate` was given."""
    samples: Annotated[int, option("N")] = 2000
    """Images to read, from shards drawn at random; all images if the set has no more."""

    def check(self) -> None:
        """Raise UsageError for no label set, and for a number of samples below 1."""
        if not self.labels:
            raise UsageError("no label set is given")
        check_least(self, samples=1)
