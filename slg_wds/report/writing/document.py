"""The page of sets of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from slg_wds.labels import parse_label_type
from slg_wds.report.measuring.comparison import Comparison
from slg_wds.report.measuring.statistics import ImageSummary, Statistics
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.reading.sets import ReportedSets, ReportSample
from slg_wds.report.writing import captions, gallery, recipe, tables, texts
from slg_wds.report.writing.names import ClassNames, cut
from slg_wds.report.writing.template import embedded, filled
from slg_wds.report.writing.thumbnails import add_thumbnails
from slg_wds.report.writing.view_pictures import add_views

MOST_ROWS = 2000  # sampled images outside the gallery that the search finds


@dataclass(frozen=True)
class LabelsPage:
    """What the page of sets of labels is made from.

    Attributes:
        sets: the label sets.
        sample: which images were read.
        each: the statistics of each set.
        comparison: the comparison of several sets; None for one.
        reader: reads the images of the gallery; None to draw boxes on empty frames.
    """

    sets: ReportedSets
    sample: ReportSample
    each: Sequence[Statistics]
    comparison: Comparison | None
    reader: ImageReader | None

    def render(self) -> str:
        """Return the HTML.

        Raises:
            ImageError: an image of the gallery cannot be decoded, or is not the one that was labelled.
            StoreError: an image cannot be read.
        """
        return filled(
            "report.html.j2",
            "report.js",
            **self._fields(),
            **self._about_gallery(),
            data=Markup(embedded(self._data())),
        )

    @property
    def _first(self) -> Statistics:
        """The statistics of the first set, which most of the page is about."""
        return self.each[0]

    @cached_property
    def _names(self) -> ClassNames:
        return ClassNames(self.sets.class_names())

    @cached_property
    def _choices(self) -> list[gallery.GalleryImage]:
        differing = self.comparison.differing if self.comparison else {}
        return gallery.choose(self._first.rows, differing, self._first.has_values)

    @cached_property
    def _class_table(self) -> tuple[tables.TableRows, list[list[Any]], int]:
        return tables.class_table(self._first)

    def _fields(self) -> dict[str, Any]:
        """Return all variables of the template, except those of the gallery."""
        sets, first, comparison = self.sets, self._first, self.comparison
        pairs = comparison.pairs if comparison else []
        agreement, divergence = tables.matrices(comparison, len(sets.names)) if comparison else ([], [])
        classes = self._class_table[2]
        return {
            "title": " · ".join(sets.names),
            "url": " and ".join(labels.url for labels in sets.labels),
            "lede": texts.lede(sets.labels, first.images),
            "notes": texts.notes(sets, self.sample),
            "sections": self._sections(),
            "tiles": tables.tiles(first, sets.rules[0] == "full"),
            "recipes": recipe.recipes(sets.labels, sets.present(), sets.names),
            "has_targets": first.agreement is not None,
            "has_values": first.has_values,
            "said": bool(classes),
            "texts": texts.texts(first, comparison, classes, sets.rules[0], sets.first.has_mixing),
            "figures": self._figures(),
            "confusions": tables.confusions(first, self._names),
            "names": sets.names,
            "pairs": pairs,
            "summary": tables.summary(sets.names, self.each),
            "agreement": agreement,
            "divergence": divergence,
            "apart": tables.apart(pairs, self._names) if pairs else [],
        }

    def _figures(self) -> dict[str, captions.Figures]:
        sets, first, comparison = self.sets, self._first, self.comparison
        label, sure = parse_label_type(sets.rules[0]), first.has_values
        stores_tail = sets.first.identity.tail_classes > 0
        return {
            "confidence": captions.confidence_figures(first, label, stores_tail) if sure else [],
            "classes": captions.class_figures(first) if first.agreement is not None else [],
            "low_rank": captions.low_rank_figures(first, sets.first.identity.max_kl),
            "crops": captions.crop_figures(first),
            "teachers": captions.teacher_figures(comparison, sets.names, sure) if comparison else [],
        }

    def _sections(self) -> list[tuple[str, str]]:
        """Return (id, name) of each section in the navigation."""
        found = [("glance", "At a glance"), ("recipe", "Recipe"), ("images", "Images")]
        found += [("confidence", "Confidence")] if self._first.has_values else []
        found += [("lowrank", "Closeness")] if self._first.coded else []
        found += [("classes", "Classes"), ("crops", "Crops")]
        return found + ([("teachers", "Teachers")] if self.comparison and self.comparison.pairs else [])

    def _about_gallery(self) -> dict[str, Any]:
        first, names = self._first, self._names
        counts = {kind: sum(kind in choice.kinds for choice in self._choices) for kind in gallery.KINDS}
        return {
            "gallery_intro": texts.gallery_intro(first, len(self.sets.names)),
            "gallery_count": len(self._choices),
            "has_pictures": self.reader is not None,
            "search_hint": f"{names.short(first.rows[0].answer)} …" if names.given else "part of a key",
            "kinds": [(kind, name, counts[kind]) for kind, name in gallery.KINDS.items() if counts[kind]],
        }

    def _data(self) -> dict[str, Any]:
        """Return the data for the page's script."""
        images, named = gallery.describe(self.sets, self._choices)
        if self.reader is not None:
            add_thumbnails(images, self._choices, self.reader)
            add_views(images, self._choices, self.sets, self.reader)
        columns, classes, _ = self._class_table
        rows = self._searched()
        asked = named | {number for row in rows for number in (row.target, row.answer)}
        asked |= {row[0] for row in classes}
        if columns[-1]["kind"] == "other":
            asked |= {row[-1] for row in classes}
        return {
            "sets": self.sets.names,
            "names": self._names.of(number for number in asked if number is not None),
            "images": images,
            "rows": [
                [cut(row.key), row.target, row.answer, _round(row.agreement), _round(row.confidence)]
                for row in rows
            ],
            "columns": columns,
            "classes": classes,
            "has_values": self._first.has_values,
        }

    def _searched(self) -> list[ImageSummary]:
        """Return the images outside the gallery that the search finds."""
        shown = {choice.row.number for choice in self._choices}
        return [row for row in self._first.rows if row.number not in shown][:MOST_ROWS]


def _round(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
