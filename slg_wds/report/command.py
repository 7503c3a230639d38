"""`slg-wds report`: reads, measures, draws and writes the page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from slg_wds.console import counted, tell
from slg_wds.errors import LabelSetError, MissingDependencyError, UsageError
from slg_wds.labelset.places import output_path
from slg_wds.store.whole_file import whole_file

if TYPE_CHECKING:
    from slg_wds.config import ReportConfig
    from slg_wds.images import LabelledImage
    from slg_wds.report.measuring.comparison import Comparison
    from slg_wds.report.measuring.statistics import Statistics
    from slg_wds.report.reading.images import ImageReader
    from slg_wds.report.reading.sets import ReportedSets, ReportSample

MOST_BYTES = 5_000_000


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        path: path of the page.
        bytes: size of the page.
        images, shards: how many of the first set were read.
        skipped: sampled images for which the first set has no labels.
    """

    path: str
    bytes: int
    images: int
    shards: int
    skipped: int


def main(config: ReportConfig) -> int:
    """Run the command: write the page and print a summary. Returns the exit code."""
    made = report(config)
    left = f", {made.skipped} without labels" if made.skipped else ""
    of = f"from {counted(made.images, 'image')} of {counted(made.shards, 'shard')}"
    tell(f"{made.path}: {made.bytes / 1e6:.2f} MB, {of}{left}")
    return 0


def report(config: ReportConfig) -> Report:
    """Draw label sets as one page. If anything fails, nothing is written.

    Args:
        config: the sets, the images, the sample and the page's path.

    Returns:
        What was written.

    Raises:
        MissingDependencyError: the extra `report` is not installed.
        UsageError: the options do not fit the sets, or the page cannot be written there.
        LabelSetError: a set cannot be used, or the page would be too large.
        FormatError, StoreError: a set cannot be read.
        ImageError, ImageSourceError: the images are not those that were labelled, or are gone.
    """
    config.check()
    _check_installed()
    target = _target(config.output)
    from slg_wds.report.reading.images import open_image_reader
    from slg_wds.report.reading.sets import ReportedSets

    sets = ReportedSets([config.at(url) for url in config.labels])
    reader = open_image_reader(sets, None if config.images is None else config.at(config.images))
    sample = sets.sample(config.samples)
    write = _page_of_embeddings if sets.first.holds_embeddings else _page_of_labels
    text, images = write(sets, sample, reader)
    page = text.encode("utf-8")
    if len(page) > MOST_BYTES:
        raise LabelSetError(
            f"the page would have {len(page):,} bytes, more than {MOST_BYTES:,}",
            hint="give a smaller --samples",
        )
    with whole_file(target) as file:
        file.write(page)
    return Report(str(target), len(page), images, len(sample.shards), sets.skipped)


def _page_of_labels(sets: ReportedSets, sample: ReportSample, reader: ImageReader | None) -> tuple[str, int]:
    """Return the page, and how many images of the first set were read."""
    from slg_wds.report.writing.document import LabelsPage

    each, comparison = measure_sets(sets, sample)
    _check_images([(row.number, row.image) for row in each[0].rows], reader)
    return LabelsPage(sets, sample, each, comparison, reader).render(), each[0].images


def _page_of_embeddings(
    sets: ReportedSets, sample: ReportSample, reader: ImageReader | None
) -> tuple[str, int]:
    from slg_wds.report.embeddings.document import render_embeddings
    from slg_wds.report.embeddings.measuring import measure_embeddings

    images, measures = measure_embeddings(sets, sample)
    _check_images([(one.number, one.image) for one in images], reader)
    return render_embeddings(sets, sample, images, measures, reader), len(images)


def _check_images(images: list[tuple[int, LabelledImage]], reader: ImageReader | None) -> None:
    """Compare the images with those that were labelled, unless they come from the set itself."""
    from slg_wds.report.reading.images import ExternalImageReader, check_images

    if isinstance(reader, ExternalImageReader):
        check_images(images, reader)


def _check_installed() -> None:
    lacking = [name for name in ("jinja2", "matplotlib", "PIL") if find_spec(name) is None]
    if lacking:
        raise MissingDependencyError(
            f"a report needs {' and '.join(lacking)}", hint="pip install 'slg-wds[report]'"
        )


def _target(output: str) -> Path:
    path = output_path(output)
    if path.is_dir():
        raise UsageError(f"-o {output} is a folder", hint="name a file, such as report.html")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of -o {output} does not exist", hint="make it first")
    written = Path(os.path.realpath(path))  # a link is followed
    if not written.parent.is_dir():
        raise UsageError(
            f"-o {output} is a link to {written}, whose folder does not exist",
            hint="make it first, or remove the link",
        )
    return path


def measure_sets(sets: ReportedSets, sample: ReportSample) -> tuple[list[Statistics], Comparison | None]:
    """Read the sample once and measure every set and every pair of sets.

    Args:
        sets: the label sets.
        sample: the images to read.

    Returns:
        The statistics of each set, and the comparison of several; None for one set.

    Raises:
        LabelSetError: no sampled image has labels, none is in all sets, or the sets hold different crops.
        FormatError, StoreError: a record cannot be read.
    """
    from slg_wds.inspection.low_rank import coded_image
    from slg_wds.report.measuring.comparison import Comparison
    from slg_wds.report.measuring.measures import measure
    from slg_wds.report.measuring.statistics import Statistics

    rules = sets.rules
    each = [Statistics(labels.num_classes, labels.targets_are_classes) for labels in sets.labels]
    comparison = Comparison(len(rules), sets.first.num_classes, rules) if len(rules) > 1 else None
    for read in sets.read(sample):
        records = [record for record in read.records if record is not None]
        measures, rows = [], []
        for stored, record, rule, statistics in zip(read.stored, read.records, rules, each, strict=True):
            if stored is not None and record is not None:
                measures.append(measure(record, rule))
                rows.append(statistics.add(read.number, record, measures[-1]))
                statistics.coded += [coded_image(stored.low_rank)] if stored.low_rank else []
        if comparison is not None and len(records) == len(rules):
            comparison.add(read.number, rows[0].target, records, measures)
    if not each[0].images:
        raise LabelSetError("none of the sampled images has labels", url=sets.first.url)
    if comparison is not None and not comparison.images:
        raise LabelSetError(
            "no sampled image is in all of the sets",
            url=sets.labels[1].url,
            hint="give sets of the same images",
        )
    return each, comparison
