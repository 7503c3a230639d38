"""The gallery: which images are shown, their thumbnails, and what is told of their crops."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slg_wds.format.records.record import Record
from slg_wds.images import LabelledImage
from slg_wds.images.header import MAX_PIXELS, allow_pixels, check_pixels, open_pillow, pillow_size
from slg_wds.report.measures import measure
from slg_wds.report.reading import Pictures, Read, ReportedSets
from slg_wds.report.statistics import Row

EACH = 24  # images of each kind
CROPS = 8  # crops of an image
SIDES = (400, 320, 240, 160)  # of thumbnails, tried until all fit
BUDGET = 2_600_000  # bytes of all thumbnails, before base64 adds a third
KEY_LENGTH = 200


@dataclass(frozen=True)
class Choice:
    """An image of the gallery and why it is there: some of KINDS."""

    row: Row
    kinds: list[str]


KINDS = {
    "disagree": "Teacher against target",
    "teachers": "Teachers differ",
    "hardest": "Least sure",
    "easiest": "Most sure",
    "random": "At random",
}


def choose(rows: Sequence[Row], differing: Mapping[int, float], sure: bool = True) -> list[Choice]:
    """The images to show, at most EACH of every kind, each once: disagreements first, the surest of them before all.

    differing: how far the teachers are apart on an image, by its number. sure: whether the labels have confidences.
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
    chosen: dict[int, Choice] = {}
    for kind, found in ranked.items():
        for row in found[:EACH]:
            chosen.setdefault(row.number, Choice(row, [])).kinds.append(kind)
    return list(chosen.values())


def describe(sets: ReportedSets, choices: Sequence[Choice]) -> tuple[list[dict[str, Any]], set[int]]:
    """What the page tells of each image, as JSON, and the classes that are named there."""
    classes: set[int] = set()
    images = []
    for choice in choices:
        read = sets.again(choice.row.number)
        images.append(_image(choice, read, [labels.label_type for labels in sets.labels]))
        classes |= {choice.row.answer, *([] if choice.row.target is None else [choice.row.target])}
        classes |= {
            c for crop in images[-1]["crops"] for teacher in crop["t"] if teacher for c in teacher["c"]
        }
    return images, classes


def _image(choice: Choice, read: Read, rules: Sequence[str]) -> dict[str, Any]:
    row, first = choice.row, read.records[0]
    assert first is not None
    measures = [None if r is None else measure(r, rule) for r, rule in zip(read.records, rules, strict=True)]
    surest = measures[0]
    assert surest is not None
    # From the least sure to the surest, evenly between: a few tell what all are like.
    order = np.argsort(surest.confidence, kind="stable")
    count = min(CROPS, len(order), *(r.num_crops for r in read.records if r is not None))
    shared = min(r.num_crops for r in read.records if r is not None)
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
        "crops": [_crop(first, measures, int(n)) for n in at],
    }


def _crop(first: Record, measures: Sequence[Any], n: int) -> dict[str, Any]:
    top, left, height, width = (int(v) for v in first.crops[n])
    teachers = [
        m
        and {
            "c": [int(c) for c in m.index[n]],
            "p": [round(float(p), 4) for p in m.value[n]] if m.has_values else None,
        }
        for m in measures
    ]
    return {"n": n, "b": [left, top, width, height], "f": int(first.flips[n]), "t": teachers}


def cut(text: str) -> str:
    """A key or name short enough to show, its end kept: there file names differ."""
    return text if len(text) <= KEY_LENGTH else f"{text[: KEY_LENGTH // 4]}…{text[-KEY_LENGTH * 3 // 4 :]}"


def add_thumbnails(images: Sequence[dict[str, Any]], choices: Sequence[Choice], pictures: Pictures) -> None:
    """Put a small copy of each image into its description as a data URI, all of them within BUDGET.

    Raises ImageError for one that cannot be decoded or is not the one that was labelled, StoreError.
    """
    if not images:
        return
    side = next((s for s in SIDES if len(images) * s * s * 0.16 < BUDGET), SIDES[-1])
    for image, choice in zip(images, choices, strict=True):
        data = thumbnail(pictures.read(choice.row.number, choice.row.key), choice.row.image, side)
        image["src"] = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
    total = sum(len(image["src"]) for image in images)
    if total > BUDGET * 4 / 3:  # pictures of noise: the least size of all
        for image, choice in zip(images, choices, strict=True):
            again = pictures.read(choice.row.number, choice.row.key)
            data = thumbnail(again, choice.row.image, SIDES[-1], 30)
            image["src"] = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"


def thumbnail(data: bytes, labelled: LabelledImage, side: int, quality: int = 74) -> bytes:
    """A WebP of an image whose longer side is `side` pixels; nothing of the file but its pixels is kept.

    Raises ImageChangedError for another image than the labelled one, ImageDecodeError, ImageTooLargeError.
    """
    from PIL import Image

    from slg_wds.errors import ImageDecodeError

    key = labelled.key
    labelled.check(data)
    allow_pixels(MAX_PIXELS)
    with open_pillow(data, key) as image:
        check_pixels(pillow_size(image), MAX_PIXELS, key)
        labelled.check_size(pillow_size(image))
        try:
            image.draft("RGB", (side, side))
            small = image.convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # plugins let nearly any exception through on bad bytes
            raise ImageDecodeError(f"cannot be decoded: {error or type(error).__name__}", key=key) from error
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        small.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()
