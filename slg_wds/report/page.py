"""`slg-wds report`: a label set, or several, as one page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from slg_wds.console import counted, tell
from slg_wds.errors import LabelSetError, MissingDependencyError, UsageError
from slg_wds.store.whole_file import whole_file

if TYPE_CHECKING:
    from slg_wds.config import ReportConfig
    from slg_wds.report.comparing import Comparison
    from slg_wds.report.reading import ReportedSets, Sample
    from slg_wds.report.statistics import Statistics

MOST_BYTES = 5_000_000


@dataclass(frozen=True)
class Report:
    """What was written. path: the page; bytes: its size; images, shards: how many were read; skipped: how many images
    the first set left out."""

    path: str
    bytes: int
    images: int
    shards: int
    skipped: int


def main(config: ReportConfig) -> int:
    """The body of the command, with a summary on stdout."""
    made = report(config)
    left = f", {made.skipped} without labels" if made.skipped else ""
    of = f"from {counted(made.images, 'image')} of {counted(made.shards, 'shard')}"
    tell(f"{made.path}: {made.bytes / 1e6:.2f} MB, {of}{left}")
    return 0


def report(config: ReportConfig) -> Report:
    """Write the page of some label sets. Nothing is written where anything fails.

    Raises MissingDependencyError without the extra `report`, UsageError, LabelSetError, FormatError, ImageError,
    StoreError.
    """
    config.check()
    _check_installed()
    target = _target(config.output)
    from slg_wds.report.document import render
    from slg_wds.report.images import check_images
    from slg_wds.report.reading import ExternalPictures, ReportedSets, open_pictures_of

    sets = ReportedSets([config.at(url) for url in config.labels])
    pictures = open_pictures_of(sets, None if config.images is None else config.at(config.images))
    sample = sets.sample(config.samples)
    each, comparison = count(sets, sample)
    if isinstance(pictures, ExternalPictures):
        check_images(each[0].rows, pictures)
    page = render(sets, sample, each, comparison, pictures).encode("utf-8")
    if len(page) > MOST_BYTES:
        raise LabelSetError(f"the page would have {len(page)} bytes", hint="give a smaller --samples")
    with whole_file(target) as file:
        file.write(page)
    return Report(str(target), len(page), each[0].images, len(sample.shards), sets.skipped)


def _check_installed() -> None:
    lacking = [name for name in ("jinja2", "matplotlib", "PIL") if find_spec(name) is None]
    if lacking:
        raise MissingDependencyError(
            f"a report needs {' and '.join(lacking)}", hint="pip install 'slg-wds[report]'"
        )


def _target(output: str) -> Path:
    path = Path(output).expanduser()
    if path.is_dir():
        raise UsageError(f"-o {output} is a folder", hint="name a file, such as report.html")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of -o {output} does not exist", hint="make it first")
    return path


def count(sets: ReportedSets, sample: Sample) -> tuple[list[Statistics], Comparison | None]:
    """Read the sample once and count, set by set and pair by pair.

    Raises LabelSetError where nothing can be counted or compared.
    """
    from slg_wds.report.comparing import Comparison
    from slg_wds.report.measures import measure
    from slg_wds.report.statistics import Statistics

    rules = [labels.label_type for labels in sets.labels]
    each = [Statistics(sets.first.num_classes, sets.comparable) for _ in rules]
    comparison = Comparison(len(rules), sets.first.num_classes, rules) if len(rules) > 1 else None
    for read in sets.read(sample):
        records = [record for record in read.records if record is not None]
        measures, rows = [], []
        for record, rule, statistics in zip(read.records, rules, each, strict=True):
            if record is not None:
                measures.append(measure(record, rule))
                rows.append(statistics.add(read.number, record, measures[-1]))
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
