"""The page of sets of embeddings."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from slg_wds.console import counted
from slg_wds.format.records.embeddings.low_rank import StatedCosine
from slg_wds.report.embeddings.figures import figures
from slg_wds.report.embeddings.measuring import EmbeddingMeasures, Pair, SampledImage
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.reading.sets import ReportedSets, ReportSample
from slg_wds.report.writing import recipe, texts
from slg_wds.report.writing.names import cut
from slg_wds.report.writing.numbers import number
from slg_wds.report.writing.template import filled
from slg_wds.report.writing.thumbnails import thumbnail

SIDES = (160, 112, 80)  # longer side of pictures in pixels; the first that fits the budget is taken
BUDGET = 2_000_000  # bytes of all pictures, before base64 adds a third
BYTES = 0.25  # of a pixel, about


def render_embeddings(
    sets: ReportedSets,
    sample: ReportSample,
    images: Sequence[SampledImage],
    measures: Sequence[EmbeddingMeasures],
    reader: ImageReader | None,
) -> str:
    """Write the page of sets of embeddings.

    Args:
        sets: the sets.
        sample: which images were read.
        images: those that all sets have.
        measures: of each embedding.
        reader: reads the pictures of pairs; None to show their keys alone.

    Raises:
        ImageError: a picture cannot be decoded, or is not the one that was labelled.
        StoreError: a picture cannot be read.
    """
    targets = [image.target for image in images]
    found = [_embedding(place, one, sets, targets) for place, one in enumerate(measures)]
    pictures = Pictures(images, reader, sum(len(rows) for one in found for _, _, rows in one["lists"]))
    for one in found:
        one["pairs"] = [
            {"title": title, "caption": caption, "rows": [pictures.pair(pair) for pair in rows]}
            for title, caption, rows in one.pop("lists")
        ]
    return filled(
        "embeddings.html.j2",
        title=" · ".join(sets.names),
        url=" and ".join(labels.url for labels in sets.labels),
        lede=texts.lede(sets.labels, len(images)),
        notes=texts.notes(sets, sample),
        sections=[("glance", "At a glance"), ("recipe", "Recipe"), *((one["id"], one["title"]) for one in found)],
        tiles=_tiles(images, measures),
        recipes=recipe.recipes(sets.labels, sets.present(), sets.names),
        embeddings=found,
        has_pictures=reader is not None,
    )  # fmt: skip


def _embedding(
    place: int, measures: EmbeddingMeasures, sets: ReportedSets, targets: list[int | None]
) -> dict[str, Any]:
    name, labels = f"embedding-{place}", sets.labels[measures.place]
    (kind,) = [one for one in labels.identity.embeddings or [] if one["name"] == measures.name]
    of = f" of {sets.names[measures.place]}" if len(sets.labels) > 1 else ""
    lists = [("Images most alike", "Cosine of the means of both images' crops. Pairs near 1 may be one image twice.",
              measures.nearest())]  # fmt: skip
    if len(set(targets) - {None}) > 1:
        caption = "The same, of images in different class folders: what the teacher takes for alike."
        lists.append(("Images of different classes most alike", caption, measures.nearest(targets)))
    return {
        "id": name,
        "title": cut(f"{measures.name}{of}"),
        "intro": described(kind, measures.stated),
        "figures": figures(name, measures, targets),
        "lists": lists,
    }


def described(kind: dict[str, Any], stated: Sequence[StatedCosine]) -> str:
    """Describe in one sentence how an embedding is stored.

    Args:
        kind: its entry in the identity of the set.
        stated: the cosines that the records of the sampled images state, if it is low-rank; else empty.
    """
    text = f"{number(kind['dim'])} numbers of each crop, stored as {kind['values']}"
    if stated:
        mean, worst = sum(one.mean for one in stated) / len(stated), min(one.worst for one in stated)
        text += (
            f"; the cosine to the teacher's own is {mean:.4f} on average, and {worst:.4f} of the worst crop"
        )
    return f"{text}."


def _tiles(images: Sequence[SampledImage], measures: Sequence[EmbeddingMeasures]) -> list[dict[str, str]]:
    several = len(measures) > 1
    found = [
        {
            "name": "crops",
            "what": "Crops counted",
            "value": number(measures[0].crops),
            "how": f"of {counted(len(images), 'image')}",
        }
    ]
    for one in measures:
        of = f" of {cut(one.name)}" if several else ""
        how = f"between two crops of an image{of}; between two images {one.between:.3f}"
        found.append({"name": "within", "what": "Mean cosine", "value": f"{one.within:.3f}", "how": how})
    return found


class Pictures:
    """Small pictures of sampled images, each made once.

    Args:
        images: the sampled images.
        reader: where they are read; None for no pictures.
        pairs: how many pairs will be asked for, by which their size is chosen.
    """

    def __init__(self, images: Sequence[SampledImage], reader: ImageReader | None, pairs: int) -> None:
        self._images, self._reader = images, reader
        self._side = next((side for side in SIDES if 2 * pairs * side * side * BYTES < BUDGET), SIDES[-1])
        self._made: dict[int, str] = {}

    def pair(self, pair: Pair) -> dict[str, Any]:
        """Describe a pair for the template."""
        both = [
            {"key": cut(self._images[at].image.key), "src": self._source(at)} for at in (pair.one, pair.other)
        ]
        return {"cosine": f"{pair.cosine:.3f}", "images": both}

    def _source(self, at: int) -> str:
        if self._reader is None:
            return ""
        if at not in self._made:
            one = self._images[at]
            data = thumbnail(self._reader.read(one.number, one.image.key), one.image, self._side)
            self._made[at] = f"data:image/webp;base64,{base64.b64encode(data).decode('ascii')}"
        return self._made[at]
