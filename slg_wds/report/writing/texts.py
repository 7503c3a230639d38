"""The paragraphs of the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slg_wds.console import counted
from slg_wds.labelset.labelset import LabelSet
from slg_wds.report.measuring.comparison import DENSE_CROPS, FLOOR, Comparison
from slg_wds.report.measuring.statistics import Statistics
from slg_wds.report.reading.sets import ReportedSets, ReportSample
from slg_wds.report.writing.numbers import number
from slg_wds.report.writing.recipe import teacher_names
from slg_wds.report.writing.tables import MOST_CLASSES, coded_from

OTHERS_MIXED_IN = " Other images are mixed into the views: a crop that shows more of another one differs too."


def lede(sets: Sequence[LabelSet], images: int) -> str:
    """Return what the report is about, in a sentence or two.

    Args:
        sets: the sets.
        images: how many of the first one were read.
    """
    labels = sets[0]
    teachers = list(dict.fromkeys(name for each in sets for name in teacher_names(each)))
    of = (
        " and ".join(teachers)
        if 0 < len(teachers) <= 3
        else f"{len(teachers)} teachers"
        if teachers
        else "a teacher"
    )
    what = "crop" if labels.holds_embeddings else "label"
    looked = f" Every {what} is counted here." if images >= labels.plan.num_samples else ""
    return (
        f"What {of} saw in {counted(labels.num_crops, 'crop')} of each of "
        f"{counted(labels.plan.num_samples, 'image')}.{looked}"
    )


def notes(sets: ReportedSets, sample: ReportSample) -> list[str]:
    """Return what a reader must know before the numbers: what was sampled, and what is missing."""
    labels, found = sets.first, []
    if sample.images < labels.plan.num_samples:
        found.append(
            f"A sample: {number(sample.images)} of {counted(labels.plan.num_samples, 'image')}, in "
            f"{number(len(sample.shards))} of {counted(labels.num_shards, 'shard')} drawn at random, the same ones "
            "each time. --samples sets how many."
        )
    if sample.present < labels.num_shards:
        found.append(
            f"The set is not complete: {number(sample.present)} of {counted(labels.num_shards, 'shard')} are there."
        )
    if sets.skipped:
        found.append(
            f"{counted(sets.skipped, 'image')} of the sample had been left out when the labels were made."
        )
    return found


def gallery_intro(statistics: Statistics, sets: int) -> str:
    """Return what the gallery shows, in which order, and how to read a card."""
    kinds = ["images taken for another class than their target"] if statistics.disagreeing else []
    kinds += ["those on which the teachers differ"] if sets > 1 else []
    kinds += ["the least sure", "the surest"] if statistics.has_values else []
    order = ", then ".join([*kinds, "some at random"])
    return (
        f"{order[0].upper()}{order[1:]}. Up to eight crops of each are drawn, the least sure first. Point at one, or "
        "go through them with the arrow keys, to see what the teacher makes of it."
    )


def texts(
    statistics: Statistics, comparison: Comparison | None, classes: int, rule: str, mixed: bool
) -> dict[str, str]:
    """Return the paragraphs that open the sections, and the captions of tables.

    Args:
        statistics: of the first set.
        comparison: of several sets; None for one.
        classes: how many classes the table could list.
        rule: the label type of the first set, by which distributions are recovered.
        mixed: whether other images are mixed into the views of the first set.
    """
    targets = statistics.agreement is not None
    means = "Agreement and confidence are means over crops. " if targets else ""
    first = "that agree least" if targets else "that most crops are taken for"
    listed = (
        f" Of {classes:,} classes, the {MOST_CLASSES:,} {first} are listed." if classes > MOST_CLASSES else ""
    )
    compared = "" if comparison is None else f"{counted(comparison.images, 'image')} that all the sets have."
    return {
        "confidence": f"Every crop counts once. Labels are read as {rule}, as the loader gives them to a student.",
        "low_rank": f"What each record states: how far its low-rank labels are from {coded_from(statistics)}, measured "
        f"when they were coded.{_cost_of_mixing(statistics) if mixed else ''}",
        "classes": "Targets are the images' hard labels, given by their class folders. Where the teacher and the "
        "target differ, the crop may show something else, the teacher may err, or the target may be wrong. The first "
        f"images of the gallery show which.{OTHERS_MIXED_IN if mixed else ''}",
        "no_targets": "The images have no targets among the classes of the labels, so there is nothing to agree with. "
        "The table lists what the teacher takes the crops for.",
        "class_table": f"{means}Choose a heading to sort, or a class to see its images.{listed}",
        "crops": "A student is trained on exactly these boxes. All images are drawn on one frame, as if they had one "
        "shape.",
        "teachers": f"The same crops through other teachers: {compared}",
        "divergence": f"Mean over crops of KL(row ‖ column) in nats, on up to {DENSE_CROPS} crops of each image. "
        f"Probabilities below 1 in {number(1 / FLOOR)} count as that.",
        "apart": "Mean divergence of the crops of each class, in nats. The gallery's filter “Teachers differ” shows "
        "the images.",
    }


def _cost_of_mixing(statistics: Statistics) -> str:
    """Return what mixing does to the bytes of low-rank labels; "" if there are none."""
    shapes = [shape for image in statistics.coded for shape in image.shapes]
    if not shapes:
        return ""
    size = sum(image.bytes for image in statistics.coded) / sum(shape.crops for shape in shapes)
    kept, rank = (
        float(np.mean(part)) for part in zip(*((one.kept, one.rank) for one in shapes), strict=True)
    )
    return (
        " Other images are mixed into the views. Low-rank labels pay for that: partners show classes of their own, and "
        f"others in each crop. Here {kept:.0f} classes are kept of each block, with {rank:.1f} coefficients and "
        f"{size:.1f} bytes a crop. Without mixing, labels of as many crops are a fraction of that."
    )
