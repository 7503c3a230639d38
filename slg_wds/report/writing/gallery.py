"""The gallery: chooses the images to show, and describes their crops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.format.records.record import Record
from slg_wds.report.measuring.measures import measure
from slg_wds.report.measuring.statistics import ImageSummary
from slg_wds.report.reading.sets import ImageRecords, ReportedSets
from slg_wds.report.writing.names import cut
from slg_wds.transforms.replaying import words_of

EACH = 24  # images of each kind
CROPS = 8  # crops of an image


@dataclass(frozen=True)
class GalleryImage:
    """An image of the gallery, and why it is there: some of KINDS."""

    row: ImageSummary
    kinds: list[str]


KINDS = {
    "disagree": "Teacher against target",
    "teachers": "Teachers differ",
    "hardest": "Least sure",
    "easiest": "Most sure",
    "random": "At random",
}


def choose(
    rows: Sequence[ImageSummary], differing: Mapping[int, float], sure: bool = True
) -> list[GalleryImage]:
    """Choose the images to show: at most EACH of every kind, and each image once.

    Disagreements with the target come first, the surest of them before all others.

    Args:
        rows: the sampled images.
        differing: mean divergence in nats of the teachers on an image, by its number.
        sure: True if the labels store probabilities.
    """
    drawn = np.random.default_rng(0).permutation(len(rows))[:EACH]
    by_confidence = sorted(rows, key=lambda row: row.confidence)
    ranked = {
        "disagree": sorted(
            (row for row in rows if row.disagrees), key=lambda row: (row.agreement, -row.confidence)
        ),
        "teachers": sorted(
            (row for row in rows if differing.get(row.number)), key=lambda row: -differing[row.number]
        ),
        "hardest": by_confidence if sure else [],
        "easiest": by_confidence[::-1] if sure else [],
        "random": [rows[at] for at in drawn],
    }
    chosen: dict[int, GalleryImage] = {}
    for kind, found in ranked.items():
        for row in found[:EACH]:
            chosen.setdefault(row.number, GalleryImage(row, [])).kinds.append(kind)
    return list(chosen.values())


def describe(sets: ReportedSets, choices: Sequence[GalleryImage]) -> tuple[list[dict[str, Any]], set[int]]:
    """Describe each image for the page, as plain values for JSON.

    Returns:
        The descriptions, and the numbers of all classes that they name.
    """
    classes: set[int] = set()
    images = []
    for choice in choices:
        found = sets.read_one(choice.row.number)
        images.append(_image(choice, found, sets))
        classes |= {choice.row.answer, *([] if choice.row.target is None else [choice.row.target])}
        classes |= {
            c for crop in images[-1]["crops"] for teacher in crop["t"] if teacher for c in teacher["c"]
        }
    return images, classes


def _image(choice: GalleryImage, found: ImageRecords, sets: ReportedSets) -> dict[str, Any]:
    row, first = choice.row, found.records[0]
    assert first is not None
    measures = [
        None if r is None else measure(r, rule) for r, rule in zip(found.records, sets.rules, strict=True)
    ]
    surest = measures[0]
    assert surest is not None
    # A few crops from the least sure to the surest, evenly spaced, show what all are like.
    order = np.argsort(surest.confidence, kind="stable")
    count = min(CROPS, len(order), *(r.num_crops for r in found.records if r is not None))
    shared = min(r.num_crops for r in found.records if r is not None)
    order = order[order < shared]
    at = order[np.linspace(0, len(order) - 1, count).round().astype(int)]
    return {
        "key": cut(row.key),
        "kinds": choice.kinds,
        "target": row.target,
        "answer": row.answer,
        "agreement": None if row.agreement is None else round(row.agreement, 4),
        "confidence": round(row.confidence, 4),
        "entropy": round(row.entropy, 3),
        "size": [first.size[1], first.size[0]],
        "of": first.num_crops,
        "crops": [
            _crop(first, measures, int(n), lambda number: cut(sets.first.plan.keys[number])) for n in at
        ],
    }


def _crop(first: Record, measures: Sequence[Any], n: int, key_of: Callable[[int], str]) -> dict[str, Any]:
    top, left, height, width = (int(v) for v in first.crops[n])
    teachers = [
        m
        and {
            "c": [int(c) for c in m.index[n]],
            "p": [round(float(p), 4) for p in m.value[n]] if m.has_values else None,
        }
        for m in measures
    ]
    done = {} if first.views is None else {"w": words_of(first.views, n, key_of)}
    return {"n": n, "b": [left, top, width, height], "f": int(first.flips[n]), "t": teachers, **done}
