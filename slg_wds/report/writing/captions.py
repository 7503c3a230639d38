"""The figures of the page with their captions: what is seen, and how to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from slg_wds.labels import LabelType
from slg_wds.labels.low_rank.encoding import WORST
from slg_wds.report.drawing import dots, histograms, maps
from slg_wds.report.measuring.comparison import Comparison
from slg_wds.report.measuring.measures import SHOWN
from slg_wds.report.measuring.statistics import Statistics
from slg_wds.report.writing.numbers import percent

Figures = list[dict[str, Any]]

# What labels keep of the probability that their tail histogram shows.
_KEPT_OF_TAILS = {
    "full": "These labels keep all of it.",
    "marginal_renorm": "These labels keep none of it: the stored classes are scaled to sum to 1. With many crops at "
    "the right, they are surer than the teacher.",
    "shared_tail": "The labels keep its sum for each crop, and how it is spread over classes once for the image. "
    "With many crops at the right, a larger k would keep more of the teacher.",
}
_ONLY_THE_SUM = "The labels keep only its sum. With many crops at the right, "


def _kept_of_tail(label: LabelType, stores_tail: bool) -> str:
    if label.kind in _KEPT_OF_TAILS:
        return _KEPT_OF_TAILS[label.kind]
    if stores_tail:
        return f"{_ONLY_THE_SUM}the rule shared_tail_k{label.k or 1} keeps more of the teacher; the set stores a tail."
    return f"{_ONLY_THE_SUM}a larger k or a shared tail would keep more of the teacher."


def confidence_figures(statistics: Statistics, label: LabelType, stores_tail: bool) -> Figures:
    """Draw histograms of confidence, entropy and tail mass.

    Args:
        statistics: of the first set.
        label: the type of its labels.
        stores_tail: whether it stores shared tails.
    """
    return [_confidence(statistics), _entropy(statistics), _tail(statistics, label, stores_tail)]


def class_figures(statistics: Statistics) -> Figures:
    """Draw agreement by confidence, and a dot for each class; nothing if no probabilities are stored."""
    if not statistics.has_values:
        return []
    several = np.count_nonzero(statistics.classes.crops) > 1
    return [_reliability(statistics), *([_classes(statistics)] if several else [])]


def low_rank_figures(statistics: Statistics, max_kl: float | None) -> Figures:
    """Return how far low-rank labels are from what they were coded from, image by image; nothing for other labels.

    Args:
        statistics: of the first set.
        max_kl: the largest mean divergence of an image that the set allows, in nats; None for other labels.
    """
    if not statistics.coded or max_kl is None:
        return []
    return [_mean_kl(statistics, max_kl), _worst_kl(statistics, max_kl)]


def crop_figures(statistics: Statistics) -> Figures:
    """Return where crops lie, where confidence lies, and confidence by the area of a crop."""
    values = statistics.has_values
    return [_coverage(statistics), *([_sure(statistics), _area(statistics)] if values else [])]


def teacher_figures(comparison: Comparison, names: Sequence[str], sure: bool) -> Figures:
    """Draw the confidence of two teachers against each other, and the divergence of their labels.

    Args:
        comparison: of the sets.
        names: a name for each set.
        sure: True if the first set stores probabilities.
    """
    return [*([_both(comparison, names)] if sure else []), _divergence(comparison)]


def _figure(name: str, title: str, svg: str, caption: str) -> dict[str, Any]:
    # The SVG is drawn from numbers alone. It is the only markup of the page that no template holds.
    return {"name": name, "title": title, "svg": Markup(svg), "caption": caption}


def _confidence(statistics: Statistics) -> dict[str, Any]:
    mean, split = percent(statistics.mean("confidence")), statistics.agreement is not None
    title, label = f"Histogram of confidence, mean {mean}", "probability of the most probable class"
    return _figure(
        "confidence",
        "Confidence",
        histograms.histogram("confidence", title, statistics.confidence, label, 1.0, split),
        f"Mean {mean}. Crops at the right: the teacher is sure, and its labels say little more than their top class. "
        "Crops at the left could show many things.",
    )


def _entropy(statistics: Statistics) -> dict[str, Any]:
    mean, top, split = statistics.mean("entropy"), statistics.entropy_top, statistics.agreement is not None
    title, label = f"Histogram of entropy, mean {mean:.2f} nats", "entropy of the label (nats)"
    return _figure(
        "entropy",
        "Entropy",
        histograms.histogram("entropy", title, statistics.entropy, label, top, split),
        f"Mean {mean:.2f} nats. A hard label has 0, two equally likely classes have {math.log(2):.2f}, all "
        f"classes equally likely have {top:.2f}.",
    )


def _tail(statistics: Statistics, label: LabelType, stores_tail: bool) -> dict[str, Any]:
    mean, split = percent(statistics.mean("tail")), statistics.agreement is not None
    where = (
        f"outside the {SHOWN} most probable classes" if label.kind == "full" else "outside the stored classes"
    )
    title = f"Histogram of tail mass, mean {mean}"
    return _figure(
        "tail",
        "Tail mass",
        histograms.tail_histogram("tail", title, statistics.tail, f"probability {where}", split),
        f"On average {mean} of the probability lies {where}. {_kept_of_tail(label, stores_tail)}",
    )


def _reliability(statistics: Statistics) -> dict[str, Any]:
    title = "Agreement with the target by confidence of the teacher"
    return _figure(
        "reliability",
        "Does confidence mean agreement?",
        dots.reliability("reliability", title, statistics),
        "Crops by confidence, in steps of ten percent; a larger dot holds more crops. On the dashed line, a teacher "
        "that is 70% sure agrees with 70% of the targets. Below it, the teacher is surer than the targets justify, "
        "often because a crop shows something else or a target is wrong.",
    )


def _classes(statistics: Statistics) -> dict[str, Any]:
    return _figure(
        "classes",
        "Confidence of each class",
        dots.classes("classes", "Confidence and agreement of each class", statistics),
        "A dot for each class. Classes low at the right are confidently taken for something else by the teacher: look "
        "there for classes that mean the same, and for mislabelled images.",
    )


def _mean_kl(statistics: Statistics, max_kl: float) -> dict[str, Any]:
    each = np.array([image.mean for image in statistics.coded])
    mean, title = f"{each.mean():.4f} nats", "Histogram of the mean divergence of each image's labels"
    return _figure(
        "mean-kl",
        "Divergence of each image",
        histograms.image_histogram("mean-kl", title, each, "mean KL divergence of an image (nats)"),
        f"Mean {mean}, from {each.min():.4f} to {each.max():.4f}. The set allows {max_kl:g}: a larger --max-kl "
        "takes fewer bytes.",
    )


def _worst_kl(statistics: Statistics, max_kl: float) -> dict[str, Any]:
    each = np.array([image.worst for image in statistics.coded])
    title = "Histogram of the divergence of each image's worst crop"
    return _figure(
        "worst-kl",
        "The worst crop of each image",
        histograms.image_histogram("worst-kl", title, each, "KL divergence of its worst crop (nats)"),
        f"Mean {each.mean():.3f} nats, at most {each.max():.3f}. No crop may be over {WORST:g} times what the set "
        f"allows an image, {WORST * max_kl:g}.",
    )


def _coverage(statistics: Statistics) -> dict[str, Any]:
    covered = statistics.covered / max(statistics.crops, 1)
    low, high = float(covered.min()), max(float(covered.max()), 1e-9)
    return _figure(
        "coverage",
        "Where crops lie",
        maps.heat("coverage", "Share of crops that show each part of the image", covered, 0.0, high),
        f"Share of crops that show each part of the image, from {percent(low, 0)} to {percent(high, 0)}. "
        "Random resized crops favour the middle.",
    )


def _sure(statistics: Statistics) -> dict[str, Any]:
    shown = statistics.covered > 0
    sure = np.divide(statistics.sure, statistics.covered, out=np.full(shown.shape, np.nan), where=shown)
    low, high = float(np.nanmin(sure)), float(np.nanmax(sure))
    blank = "" if shown.all() else " Parts that no crop shows are blank."
    return _figure(
        "sure",
        "Where confidence lies",
        maps.heat("sure", "Mean confidence of crops that show each part", sure, low, high),
        f"Mean confidence of the crops that show each part, from {percent(low)} to {percent(high)}. It is "
        f"highest where the object usually is.{blank}",
    )


def _area(statistics: Statistics) -> dict[str, Any]:
    labels = ("part of the image", "confidence")
    return _figure(
        "area",
        "Area and confidence",
        maps.density("area", "Confidence by area of the crop", statistics.by_area, labels, "mean"),
        "How many crops have which area and confidence: a stronger colour means more. The line is the "
        "mean. The steeper it is, the less the teacher knows from a small crop.",
    )


def _both(comparison: Comparison, names: Sequence[str]) -> dict[str, Any]:
    pair = min(comparison.pairs, key=lambda pair: pair.agreement)
    labels = ("confidence of the first", "of the second")  # their names stand in the caption alone
    which = " (the pair that agrees least)" if len(comparison.pairs) > 1 else ""
    return _figure(
        "both",
        "Confidence of both",
        maps.density("both", "Confidence of two teachers", pair.both, labels, "equal"),
        f"First: {names[pair.a]}; second: {names[pair.b]}{which}. A stronger colour means more crops. Off the dashed "
        "line, one teacher is surer than the other.",
    )


def _divergence(comparison: Comparison) -> dict[str, Any]:
    title = "Histogram of the divergence of two teachers"
    return _figure(
        "divergence",
        "Divergence",
        histograms.divergences("divergence", title, comparison.pairs),
        "The mean of both Kullback–Leibler divergences of a crop's labels. At the left, the teachers say "
        "the same. Right of 1 they hardly share a class, and the mean of both says more than either.",
    )
