"""The tables of the page: numbers at a glance, confusions, classes, and sets beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from slg_wds.console import counted
from slg_wds.inspection.low_rank import low_rank_figures
from slg_wds.report.measuring.comparison import Comparison, TeacherPair
from slg_wds.report.measuring.measures import SHOWN
from slg_wds.report.measuring.statistics import Statistics
from slg_wds.report.writing.names import ClassNames
from slg_wds.report.writing.numbers import number, percent

MOST_CLASSES = 1000  # rows of the table of classes
CONFUSIONS, DIFFERING = 8, 8  # rows of the lists of confusions, and of classes on which teachers differ
TableRows = list[dict[str, Any]]


def tiles(statistics: Statistics, full: bool) -> TableRows:
    """Return the tiles with the main numbers, each with its name, title, value, and how to read it.

    Args:
        statistics: of the first set.
        full: True if its labels store every class.
    """
    flipped = percent(statistics.flips / max(statistics.crops, 1), 0)
    images = f"of {counted(statistics.images, 'image')}, {flipped} flipped"
    found = [_tile("crops", "Crops counted", number(statistics.crops), images)]
    if statistics.has_values:
        mean = percent(statistics.mean("confidence"))
        found.append(_tile("confidence", "Mean confidence", mean, "probability of the most probable class"))
    if statistics.agreement is not None:
        of_images = f"{number(statistics.disagreeing)} of {counted(statistics.images_with_target, 'image')}"
        share = f"{of_images} taken for another class"
        found.append(_tile("agreement", "Agreement with targets", percent(statistics.agreement), share))
    if statistics.has_values:
        entropy, tail = statistics.mean("entropy"), percent(statistics.mean("tail"))
        spread = f"as spread as {math.exp(entropy):,.1f} equally likely classes"
        where = f"outside the {SHOWN} most probable" if full else "outside the stored classes of a crop"
        found.append(_tile("entropy", "Mean entropy", f"{entropy:.2f} nats", spread))
        found.append(_tile("tail", "Mean tail mass", tail, f"probability {where}"))
    area = percent(statistics.mean("area"), 0)
    found.append(_tile("area", "Mean area of a crop", area, "of its image"))
    return [*found, *_low_rank_tiles(statistics)]


def coded_from(statistics: Statistics) -> str:
    """Return what the low-rank labels of the sampled images state their divergence from."""
    against = {image.against for image in statistics.coded}
    both = ["the teacher"] * ("teacher" in against) + ["the labels that they were made of"] * (
        "labels" in against
    )
    return " or ".join(both)


def _low_rank_tiles(statistics: Statistics) -> TableRows:
    """Return how far low-rank labels are from what they were coded from, and their bytes; nothing for other labels."""
    figures = low_rank_figures(statistics.coded)
    if figures is None:
        return []
    far = f"of the labels from {coded_from(statistics)}; the worst crop {figures.worst_kl:.3f}"
    parts = f"an image has {figures.classes:.0f} classes, {figures.rank:.1f} components, {figures.blocks:.1f} blocks"
    return [
        _tile("kl", "Mean KL divergence", f"{figures.kl['mean']:.4f} nats", far),
        _tile("bytes", "Labels' bytes a crop", f"{figures.bytes_per_crop:.2f}", parts),
    ]


def _tile(name: str, what: str, value: str, how: str) -> dict[str, str]:
    return {"name": name, "what": what, "value": value, "how": how}


def confusions(statistics: Statistics, names: ClassNames) -> TableRows:
    """Return the pairs of target and most probable class with the most crops."""
    found = statistics.confusions.most_common(CONFUSIONS)
    most = found[0][1] if found else 1
    return [
        {"name": names.short(a), "other": names.short(b), "value": number(n), "share": round(n / most, 4)}
        for (a, b), n in found
    ]


def class_table(statistics: Statistics) -> tuple[TableRows, list[list[Any]], int]:
    """Return the table of classes.

    Returns:
        Its columns; its rows, which begin with the number of the class; and how many classes it could list.
    """
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
    """Return agreement and divergence of every pair of `count` sets, row against column, as text."""
    agreement = [["–"] * count for _ in range(count)]
    divergence = [["–"] * count for _ in range(count)]
    for pair in comparison.pairs:
        agreement[pair.a][pair.b] = agreement[pair.b][pair.a] = percent(pair.agreement)
        divergence[pair.a][pair.b] = f"{pair.mean_kl():.3f}"
        divergence[pair.b][pair.a] = f"{pair.mean_kl(False):.3f}"
    return agreement, divergence


def summary(names: Sequence[str], each: Sequence[Statistics]) -> list[list[str]]:
    """Return the table of the sets: its head, and a row for each."""
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


def apart(pairs: Sequence[TeacherPair], names: ClassNames) -> TableRows:
    """Return the classes on which the teachers differ most, by the mean divergence of the classes' crops."""
    by_class = np.sum([pair.by_class for pair in pairs], axis=0)
    there = np.flatnonzero(by_class[0])
    mean = by_class[1][there] / by_class[0][there]
    order = np.argsort(-mean, kind="stable")[:DIFFERING]
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
