"""`slg-wds verify`: the command and its result."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from slg_wds.concurrency.cores import cores
from slg_wds.config import VerifyConfig
from slg_wds.console import counted, duration, tell, tell_json, tell_table
from slg_wds.engines.workers.processes import run_processes
from slg_wds.errors import (
    FormatError,
    IncompleteSetError,
    NotFoundError,
    SlgWdsError,
    UnsupportedStoreError,
)
from slg_wds.format.manifest.info import MAX_INFO_BYTES, Info, decode_info
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.left_out import how_to_mend
from slg_wds.labelset.makers import MADE_BY, Makers, consequence, shards_by_value
from slg_wds.labelset.objects import DESCRIPTION, INDEX, INFO, PLAN
from slg_wds.labelset.opening import open_labels
from slg_wds.verification.images import ImageChecks
from slg_wds.verification.problems import INFO_FILE, MISSING, TEACHER, Problem, ShardReport
from slg_wds.verification.progress import VerifyProgress
from slg_wds.verification.repair import fix
from slg_wds.verification.work import VerifyTask

if TYPE_CHECKING:
    from slg_wds.verification.answers.embeddings import EmbeddingCheck
    from slg_wds.verification.answers.teacher import TeacherCheck

SMALL_NUMBERS, SMALL_IMAGES = 1 << 24, 64  # one process checks these in less time than others take to start
CROP_NUMBERS = 16  # numbers of a crop without embeddings and full labels: boxes, classes, values
LISTED = 200  # problems shown in the table; --json has all


@dataclass
class VerifyResult:
    """What was checked and what is wrong.

    Attributes:
        url: the label set.
        planned: shards of the plan.
        shards, samples, crops, bytes: how many were checked.
        images: embedded images that were decoded.
        compared: images that were read and compared with those that were labelled.
        left_out: how many images each shard left out, by its name; only shards that left some out.
        seconds: wall time of the checks.
        problems: what is wrong; after mending, what is still wrong.
        fixed: what was mended, in words.
        unknown: names of objects at the set's URL that belong to no label set.
        makers: how the shards were made; where that differs, nothing is wrong.
        to_mend: how to label images after all that were left out, in words.
        teacher: how the labels compare with the teachers' answers; None if none were asked.
    """

    url: str
    planned: int
    shards: int = 0
    samples: int = 0
    crops: int = 0
    images: int = 0
    compared: int = 0
    bytes: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    makers: Makers = field(default_factory=Makers)
    teacher: TeacherCheck | EmbeddingCheck | None = None
    to_mend: str = ""

    @property
    def ok(self) -> bool:
        """True if no problem remains."""
        return not self.problems


def verify(config: VerifyConfig) -> VerifyResult:
    """Check a label set, and mend it if the config says so.

    A script that checks with more than one process must call it under `if __name__ == "__main__":`.

    Args:
        config: the set, and what to check and mend.

    Returns:
        What was checked, what is wrong and what was mended.

    Raises:
        UsageError: the options do not fit together or do not fit the set.
        SlgWdsError: nothing could be checked: there is no set, its plan or slg.json is damaged, or the store fails.
    """
    config.check()
    labels = open_labels(config.labels, allow_incomplete=True, store_options=config.store_options)
    result = VerifyResult(labels.url, labels.num_shards, to_mend=how_to_mend(labels))
    started = time.monotonic()
    if config.images is not None:
        ImageChecks(labels, config.at(config.images))  # refuses at once what cannot be compared
    missing = labels.missing()
    finished = labels.store.size(INFO) is not None
    if finished or not config.allow_incomplete:
        result.problems += [
            Problem(MISSING, "no such shard", labels.shard_name(n), number=n) for n in missing
        ]
    lengths = _check_shards(labels, config, missing, finished, result)
    result.problems += _info_problems(labels, lengths, finished)
    result.unknown = _unknown(labels)
    if config.fix or config.delete_damaged or config.delete_left_out:
        unwanted = result.left_out if config.delete_left_out else {}
        result.problems, result.fixed = fix(labels, result.problems, config.delete_damaged, unwanted)
    if config.arch is not None:
        _ask_teachers(config, labels, lengths.keys() - set(labels.missing()), result)
    result.problems.sort(key=lambda problem: problem.number)
    result.seconds = time.monotonic() - started
    return result


def _ask_teachers(config: VerifyConfig, labels: LabelSet, whole: Set[int], result: VerifyResult) -> None:
    """Compare labels of whole shards with the teachers' answers, and add what is found to the result.

    Raises:
        SlgWdsError: the teachers cannot be asked, and nothing else is wrong. Else that is one problem more: whoever
            asks for much is also told what was found without the teachers.
    """
    from slg_wds.verification.answers.teacher import compare

    try:
        if not whole:
            raise IncompleteSetError(
                "no shard is there and whole, so there is nothing to compare", url=labels.url
            )
        result.teacher = compare(config, labels, whole)
    except SlgWdsError as error:
        if not result.problems:
            raise
        what = f"{error.message}; {error.hint}" if error.hint else error.message
        result.problems.append(Problem(TEACHER, f"not asked: {what}", error.shard, error.key))
    else:
        result.problems += [Problem(TEACHER, text) for text in result.teacher.problems]


def _check_shards(
    labels: LabelSet, config: VerifyConfig, missing: Sequence[int], finished: bool, result: VerifyResult
) -> dict[int, int]:
    """Check the shards that exist, and add what is found to the result.

    Returns:
        The number of samples of each whole shard, by the shard's number.
    """
    absent = set(missing)
    numbers = tuple(number for number in range(labels.num_shards) if number not in absent)
    pixels = config.max_pixels if config.decode_images else 0
    images = None if config.images is None else config.at(config.images)
    task = VerifyTask(config.at(labels.url), labels.digest, numbers, finished, pixels, images)
    lengths: dict[int, int] = {}

    def add(report: ShardReport) -> None:
        result.problems += report.problems
        for name in ("crops", "images", "compared", "bytes"):
            setattr(result, name, getattr(result, name) + getattr(report, name))
        result.shards += 1
        if report.made is not None:
            result.makers.add(report.made)
        if report.left_out:
            result.left_out[labels.shard_name(report.number)] = report.left_out
        if report.samples >= 0:
            lengths[report.number] = report.samples
            result.samples += report.samples

    if numbers:
        with VerifyProgress(len(numbers), add) as progress:
            run_processes(task, _processes(labels, config, numbers), progress.checked)
    return lengths


def _processes(labels: LabelSet, config: VerifyConfig, numbers: Sequence[int]) -> int:
    """Return how many processes check these shards: one if it is done before others would have started."""
    identity = labels.identity
    images = int(labels.plan.shard_sizes[list(numbers)].sum())
    width = sum(one["dim"] for one in identity.embeddings or [])
    width = width or (identity.num_classes if identity.label_type == "full" else CROP_NUMBERS)
    opened = config.images is not None or (identity.embed_images is not None and config.decode_images)
    small = images * labels.num_crops * width <= SMALL_NUMBERS and (images <= SMALL_IMAGES or not opened)
    return min(config.processes or (1 if small else cores()), len(numbers))


def _info_problems(labels: LabelSet, lengths: dict[int, int], finished: bool) -> list[Problem]:
    """Return what is wrong with _info.json, judged by the samples of the whole shards."""
    whole = len(lengths) == labels.num_shards
    if not finished:
        return [Problem(INFO_FILE, "every shard exists, but this file is missing", INFO)] if whole else []
    try:
        found = decode_info(labels.store.read(INFO, MAX_INFO_BYTES))
    except NotFoundError:
        return []
    except FormatError as error:
        return [Problem(INFO_FILE, f"damaged: {error.message}", INFO)]
    files = [labels.shard_name(number) for number in range(labels.num_shards)]
    if found.filenames != files or found.name != labels.split:
        return [Problem(INFO_FILE, "it does not name the planned shards in their order", INFO)]
    wrong = [number for number, length in lengths.items() if found.shard_lengths[number] != length]
    if wrong:
        stored = found.shard_lengths[wrong[0]]
        what = f"it says {counted(stored, 'sample')} of {files[wrong[0]]}, which has {lengths[wrong[0]]}"
        return [Problem(INFO_FILE, what, INFO)]
    wanted = Info(labels.split, files, [lengths.get(n, found.shard_lengths[n]) for n in range(len(files))])
    return [] if found == wanted else [Problem(INFO_FILE, "its numbers do not add up", INFO)]


def _unknown(labels: LabelSet) -> list[str]:
    """Return the names of objects at the set's URL that belong to no label set; none if the store cannot list."""
    names = labels.plan.shard_names
    known = {
        PLAN,
        DESCRIPTION,
        INFO,
        *(f"{name}.tar" for name in names),
        *(f"{INDEX}/{name}" for name in names),
    }
    try:
        return [entry.name for entry in labels.store.list() if entry.name not in known]
    except UnsupportedStoreError:
        return []


def main(config: VerifyConfig) -> int:
    """Run the command: print what is wrong and a summary. Returns the exit code, 1 if anything is wrong."""
    result = verify(config)
    if config.json:
        tell_json(as_dict(result))
    else:
        if result.problems:
            _print_table(result.problems)
        tell(*summary(result))
    return 0 if result.ok else 1


def as_dict(result: VerifyResult) -> dict[str, Any]:
    """Return the result for JSON: `ok`, and the fields of VerifyResult; problems without their numbers."""
    others = ("problems", "makers", "teacher")
    fields = {name: value for name, value in vars(result).items() if name not in others}
    fields["makers"] = result.makers.as_dict()
    problems = [
        {name: value for name, value in asdict(p).items() if name != "number"} for p in result.problems
    ]
    teacher = None if result.teacher is None else asdict(result.teacher)
    return {"version": 1, "ok": result.ok, **fields, "problems": problems, "teacher": teacher}


def _print_table(problems: Sequence[Problem]) -> None:
    rows = [(one.shard or "", one.key or "", one.kind, one.what) for one in problems[:LISTED]]
    tell_table("what is wrong", ("shard", "key", "kind", "what"), rows)
    if len(problems) > LISTED:
        tell(f"... and {len(problems) - LISTED} more: see --json")


def summary(result: VerifyResult) -> list[str]:
    """Return the result as lines of text."""
    # With teachers most of the time is theirs, so no rate is shown.
    rate = 0.0 if result.teacher else result.bytes / 1e6 / max(result.seconds, 1e-9)
    lines = [
        f"label set {result.url}: "
        + ("all is well" if result.ok else counted(len(result.problems), "problem")),
        f"  checked {result.shards:,} of {counted(result.planned, 'shard')}, {counted(result.samples, 'image')}, "
        + counted(result.crops, "crop")
        + (f", {counted(result.images, 'embedded image')} decoded" if result.images else "")
        + (f", {counted(result.compared, 'image')} compared with those labelled" if result.compared else "")
        + f"; {result.bytes / 1e6:,.2f} MB in {duration(result.seconds)}"
        + (f" ({rate:,.0f} MB/s)" if rate >= 1 else ""),
    ]
    lines += _about_makers(result.makers.as_dict())
    if result.teacher is not None:
        lines.append(f"  {result.teacher}")
    if result.left_out:
        images = counted(sum(result.left_out.values()), "image")
        lines.append(
            f"  left out when the set was made: {images}, in {counted(len(result.left_out), 'shard')}"
        )
        if not any(done.startswith("removed") for done in result.fixed):
            lines.append(f"  to label them after all: {result.to_mend}")
    lines += [f"  {done}" for done in result.fixed]
    if result.unknown:
        some = ", ".join(result.unknown[:5])
        lines.append(f"  not part of the set: {counted(len(result.unknown), 'object')}: {some}")
    if any(done.startswith("removed") for done in result.fixed):
        lines.append("  run the command that made the set again to redo what was removed")
    return lines


def _about_makers(makers: dict[str, Any]) -> list[str]:
    """Say whether the shards were made alike. It is no problem if not: the same set may be made on several machines."""
    examined, differing = makers["examined_shards"], makers["differing"]
    if examined and not differing:
        return [f"  {MADE_BY}: the same in {counted(examined, 'shard')}"]
    return [
        f"  note: {name} differs between shards ({shards_by_value(counts)}); {consequence(name)}"
        for name, counts in differing.items()
    ]
