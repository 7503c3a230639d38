"""The parts of the page: numbers at a glance, figures with how to read them, tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from slg_wds.report import figures
from slg_wds.report.comparing import DENSE_CROPS, FLOOR, Comparison, Pair
from slg_wds.report.gallery import cut
from slg_wds.report.measures import SHOWN
from slg_wds.report.recipe import number, percent
from slg_wds.report.statistics import Statistics

MOST_CLASSES = 1000  # rows of the table of classes
CONFUSIONS, APART = 8, 8
Parts = list[dict[str, Any]]


class Names:
    """Names of classes, cut to what a page can show; those asked for go into the page."""

    def __init__(self, names: Sequence[str] | None) -> None:
        self._names, self.given = names, names is not None

    def __getitem__(self, number: int) -> str:
        return f"class {number}" if self._names is None else cut(self._names[number])

    def short(self, number: int) -> str:
        """The first of the words for a class."""
        return self[number].split(",")[0]


def first_word(names: Names, statistics: Statistics) -> str:
    """A class that the search finds something for."""
    return names.short(statistics.rows[0].answer)


def tiles(statistics: Statistics, full: bool) -> Parts:
    """The numbers at a glance: name, what, value, how to read it."""
    found = [
        _tile(
            "crops",
            "Crops counted",
            number(statistics.crops),
            f"of {number(statistics.images)} images, "
            f"{percent(statistics.flips / max(statistics.crops, 1), 0)} flipped",
        )
    ]
    if statistics.has_values:
        found.append(
            _tile(
                "confidence",
                "Mean confidence",
                percent(statistics.mean("confidence")),
                "probability of the most probable class",
            )
        )
    if statistics.agreement is not None:
        of_images = f"{number(statistics.disagreeing)} of {number(statistics.images_with_target)} images"
        share = f"{of_images} are taken for another class"
        found.append(_tile("agreement", "Agreement with targets", percent(statistics.agreement), share))
    if statistics.has_values:
        entropy = statistics.mean("entropy")
        tail = f"outside the {SHOWN} most probable" if full else "outside the stored classes of a crop"
        found += [
            _tile(
                "entropy",
                "Mean entropy",
                f"{entropy:.2f} nats",
                f"as spread as {math.exp(entropy):,.1f} equally likely classes",
            ),
            _tile("tail", "Mean tail mass", percent(statistics.mean("tail")), f"probability {tail}"),
        ]
    area = percent(statistics.mean("area"), 0)
    return [*found, _tile("area", "Mean area of a crop", area, "of its image")]


def _tile(name: str, what: str, value: str, how: str) -> dict[str, str]:
    return {"name": name, "what": what, "value": value, "how": how}


def _figure(name: str, title: str, svg: str, caption: str) -> dict[str, Any]:
    # Drawn here from numbers alone; the only markup of the page that is not a template's.
    return {"name": name, "title": title, "svg": Markup(svg), "caption": caption}


def confidence_figures(statistics: Statistics, full: bool) -> Parts:
    """Distributions of confidence, entropy and tail mass."""
    split = statistics.agreement is not None
    mean, entropy, tail = (statistics.mean(name) for name in ("confidence", "entropy", "tail"))
    top = statistics.entropy_top
    what = f"Outside the {SHOWN} most probable classes" if full else "Outside the stored classes"
    return [
        _figure(
            "confidence",
            "Confidence",
            figures.histogram(
                "confidence",
                f"Histogram of confidence, mean {percent(mean)}",
                statistics.confidence,
                "probability of the most probable class",
                1.0,
                split,
            ),
            f"Mean {percent(mean)}. A pile at the right means a sure teacher, whose labels say little "
            f"more than their top "
            "class; crops at the left show parts that could be many things.",
        ),
        _figure(
            "entropy",
            "Entropy",
            figures.histogram(
                "entropy",
                f"Histogram of entropy, mean {entropy:.2f} nats",
                statistics.entropy,
                "entropy of the label (nats)",
                top,
                split,
            ),
            f"Mean {entropy:.2f} nats. 0 is a hard label, {math.log(2):.2f} two equally likely classes, "
            f"{top:.2f} all "
            "classes alike.",
        ),
        _figure(
            "tail",
            "Tail mass",
            figures.tail_histogram(
                "tail", f"Histogram of tail mass, mean {percent(tail)}", statistics.tail, split
            ),
            f"{what} lies {percent(tail)} on average: what the labels tell only as a whole. Much at the "
            f"right: a larger "
            "k, or a shared tail, would keep more of the teacher.",
        ),
    ]


def class_figures(statistics: Statistics) -> Parts:
    """Reliability, and the classes as dots."""
    if not statistics.has_values:
        return []
    found = [
        _figure(
            "reliability",
            "Does confidence mean agreement?",
            figures.reliability(
                "reliability", "Agreement with the target by confidence of the teacher", statistics
            ),
            "Crops by confidence, in steps of ten percent; a larger dot holds more crops. On the dashed "
            "line a teacher that "
            "is 70% sure agrees with 70% of the targets. Below it: surer than the targets bear out, "
            "often because a crop "
            "shows something else, or a target is wrong.",
        )
    ]
    if np.count_nonzero(statistics.classes.crops) > 1:
        found.append(
            _figure(
                "classes",
                "Confidence of each class",
                figures.classes("classes", "Confidence and agreement of each class", statistics),
                "A dot for each class. Low at the right are classes that the teacher surely takes for "
                "something else: "
                "look there for classes that mean the same, and for mislabelled images.",
            )
        )
    return found


def crop_figures(statistics: Statistics) -> Parts:
    """Coverage, where confidence comes from, area against confidence."""
    covered = statistics.covered / max(statistics.crops, 1)
    top = max(float(covered.max()), 1e-9)
    found = [
        _figure(
            "coverage",
            "Where crops lie",
            figures.heat("coverage", "Share of crops that show each part of the image", covered, 0.0, top),
            f"Share of crops that show each part of the image; from {percent(float(covered.min()), 0)} "
            f"in the least shown "
            f"corner to {percent(top, 0)}. Random resized crops favour the middle.",
        )
    ]
    if not statistics.has_values:
        return found
    sure = statistics.sure / np.maximum(statistics.covered, 1e-9)
    low, high = float(sure.min()), float(sure.max())
    found.append(
        _figure(
            "sure",
            "Where confidence lies",
            figures.heat("sure", "Mean confidence of crops that show each part", sure, low, high),
            f"Mean confidence of the crops that show each part, {percent(low)} to {percent(high)}: strongest "
            f"where what the "
            "teacher knows the images by tends to be.",
        )
    )
    found.append(
        _figure(
            "area",
            "Area and confidence",
            figures.density(
                "area",
                "Confidence by area of the crop",
                statistics.by_area,
                ("part of the image", "confidence"),
                "mean",
            ),
            "How many crops have which area and confidence: the stronger the colour, the more. The line is "
            "the mean; the steeper it is, the more a small crop leaves to guess.",
        )
    )
    return found


def confusions(statistics: Statistics, names: Names) -> Parts:
    """The pairs of target and answer with the most crops."""
    found = statistics.confusions.most_common(CONFUSIONS)
    most = found[0][1] if found else 1
    return [
        {"name": names.short(a), "other": names.short(b), "value": number(n), "share": round(n / most, 4)}
        for (a, b), n in found
    ]


def class_table(statistics: Statistics) -> tuple[Parts, list[list[Any]], int]:
    """The table of classes: its columns, rows beginning with the class, and how many classes there are "
    "in all."""
    of = statistics.classes
    if statistics.agreement is None:
        there = np.flatnonzero(of.said)
        order = there[np.argsort(-of.said[there], kind="stable")][:MOST_CLASSES]
        columns = [_column("name", "Class"), _column("count", "Crops taken for it")]
        return columns, [[int(c), int(of.said[c])] for c in order], len(there)
    there = np.flatnonzero(of.crops)
    agree = of.agree[there] / of.crops[there]
    order = there[np.argsort(agree, kind="stable")][:MOST_CLASSES]
    worst: dict[int, int] = {}
    for (target, other), _ in reversed(statistics.confusions.most_common()):
        worst[target] = other
    columns = [_column("name", "Class"), _column("count", "Images"), _column("count", "Crops")]
    columns += [_column("share", "Agreement")]
    columns += [_column("share", "Confidence")] if statistics.has_values else []
    columns += [_column("other", "Most often taken for")]
    rows = []
    for c in map(int, order):
        row = [c, int(of.images[c]), int(of.crops[c]), round(float(of.agree[c] / of.crops[c]), 4)]
        row += [round(float(of.confidence[c] / of.crops[c]), 4)] if statistics.has_values else []
        rows.append([*row, worst.get(c)])
    return columns, rows, len(there)


def _column(kind: str, title: str) -> dict[str, str]:
    return {"kind": kind, "title": title}


def matrices(comparison: Comparison, count: int) -> tuple[list[list[str]], list[list[str]]]:
    """Agreement and divergence of every pair, row against column, as text."""
    agreement = [["–"] * count for _ in range(count)]
    divergence = [["–"] * count for _ in range(count)]
    for pair in comparison.pairs:
        agreement[pair.a][pair.b] = agreement[pair.b][pair.a] = percent(pair.agreement)
        divergence[pair.a][pair.b] = f"{pair.mean_kl():.3f}"
        divergence[pair.b][pair.a] = f"{pair.mean_kl(False):.3f}"
    return agreement, divergence


def summary(names: Sequence[str], each: Sequence[Statistics]) -> list[list[str]]:
    """A table of the sets: its heading, and a line for each."""
    targets = all(one.agreement is not None for one in each)
    values = all(one.has_values for one in each)
    head = [
        "Set",
        *(["Agreement"] if targets else []),
        *(["Confidence", "Entropy", "Tail"] if values else []),
    ]
    rows = []
    for name, one in zip(names, each, strict=True):
        row = [name, *([percent(one.agreement or 0.0)] if targets else [])]
        if values:
            row += [percent(one.mean("confidence")), f"{one.mean('entropy'):.2f}", percent(one.mean("tail"))]
        rows.append(row)
    return [head, *rows]


def teacher_figures(comparison: Comparison, names: Sequence[str], sure: bool) -> Parts:
    """Confidence of two teachers against each other, and how far crops are apart."""
    pair = min(comparison.pairs, key=lambda pair: pair.agreement)
    found = []
    if sure:
        # The names stand in the caption, never in the drawing.
        found.append(
            _figure(
                "both",
                "Confidence of both",
                figures.density(
                    "both",
                    "Confidence of two teachers",
                    pair.both,
                    ("confidence of the first", "of the second"),
                    "equal",
                ),
                f"First: {names[pair.a]}; second: {names[pair.b]}"
                f"{' (the pair that agrees least)' if len(comparison.pairs) > 1 else ''}. Stronger: more "
                f"crops. Off the dashed "
                "line one is surer than the other.",
            )
        )
    found.append(
        _figure(
            "divergence",
            "Divergence",
            figures.divergences(
                "divergence", "Histogram of the divergence of two teachers", comparison.pairs
            ),
            "The mean of both Kullback–Leibler divergences of a crop's labels. Left: the teachers say "
            "the same; right of 1 "
            "they hardly share a class, and the mean of both says more than either.",
        )
    )
    return found


def apart(pairs: Sequence[Pair], names: Names) -> Parts:
    """The classes on which the teachers differ most, by the mean divergence of their crops."""
    by_class = np.sum([pair.by_class for pair in pairs], axis=0)
    there = np.flatnonzero(by_class[0])
    mean = by_class[1][there] / by_class[0][there]
    order = np.argsort(-mean, kind="stable")[:APART]
    most = max(float(mean.max(initial=0.0)), 1e-9)
    return [
        {
            "name": names.short(int(there[at])),
            "other": None,
            "value": f"{mean[at]:.3f}",
            "share": round(float(mean[at]) / most, 4),
        }
        for at in order
    ]


def texts(statistics: Statistics, comparison: Comparison | None, classes: int, rule: str) -> dict[str, str]:
    """The paragraphs that open the sections."""
    cut_off = (
        f" The {MOST_CLASSES:,} of {classes:,} classes that agree least are listed."
        if classes > MOST_CLASSES
        else ""
    )
    compared = "" if comparison is None else f"{number(comparison.images)} images that all the sets have."
    return {
        "confidence": f"Every crop counts once. Labels are read as {rule}, the way the loader gives them "
        f"to a student.",
        "classes": "Targets are the hard labels of the images, the folders' classes. Where teacher and "
        "target differ, the "
        "crop may show something else, the teacher may err, or the target may be wrong: the gallery's "
        "first images tell.",
        "no_targets": "The images have no targets that number the classes of the labels, so there is "
        "nothing to agree "
        "with. Listed is what the teacher takes the crops for.",
        "class_table": "Agreement and confidence are means over crops. Choose a heading to sort, a class "
        "to see its "
        f"images.{cut_off}",
        "crops": "A student is trained on these very boxes. All images are drawn on one frame, as if "
        "they had one shape.",
        "teachers": f"The same crops through other teachers: {compared}",
        "divergence": f"Mean over crops of KL(row ‖ column) in nats, on up to {DENSE_CROPS} crops of "
        f"each image; "
        f"probabilities below 1 in {number(1 / FLOOR)} count as that.",
        "apart": "Mean divergence of the crops of each class, in nats. The filter “Teachers differ” of "
        "the gallery shows "
        "the images.",
    }
