"""The page's HTML: the template filled, data for its script, and a security policy."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from slg_wds import __version__
from slg_wds.labels import parse_label_type
from slg_wds.masking import masked
from slg_wds.report.measuring.comparison import Comparison
from slg_wds.report.measuring.statistics import Statistics
from slg_wds.report.reading.images import ImageReader
from slg_wds.report.reading.sets import ReportedSets, ReportSample
from slg_wds.report.writing import captions, gallery, recipe, tables, texts
from slg_wds.report.writing.names import ClassNames, cut
from slg_wds.report.writing.thumbnails import add_thumbnails
from slg_wds.report.writing.view_pictures import add_views

MOST_ROWS = 2000  # sampled images outside the gallery that the search finds


def render(
    sets: ReportedSets,
    sample: ReportSample,
    each: Sequence[Statistics],
    comparison: Comparison | None,
    reader: ImageReader | None,
) -> str:
    """Write the page.

    Args:
        sets: the label sets.
        sample: which images were read.
        each: the statistics of each set.
        comparison: the comparison of several sets; None for one.
        reader: reads the images of the gallery; None to draw boxes on empty frames.

    Returns:
        The HTML.

    Raises:
        ImageError: an image of the gallery cannot be decoded, or is not the one that was labelled.
        StoreError: an image cannot be read.
    """
    statistics = each[0]
    names = ClassNames(sets.class_names())
    choices = gallery.choose(
        statistics.rows, comparison.differing if comparison else {}, statistics.has_values
    )
    return filled(
        "report.html.j2",
        _template("report.js"),
        **_fields(sets, sample, each, comparison, names),
        **_about_gallery(sets, statistics, choices, names, reader is not None),
        data=Markup(embedded(_data(sets, statistics, choices, names, reader))),
    )


def filled(template: str, script: str = "", **fields: Any) -> str:
    """Fill a template of a page, with the style, the security policy and the version that all pages have.

    Args:
        template: its name.
        script: of the page; "" for none.
        fields: its other variables.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_secrets,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = _template("report.css")
    shared = {"version": __version__, "policy": policy(css, script), "css": Markup(css)}
    return environment.get_template(template).render(**shared, script=Markup(script), **fields)


def _without_secrets(value: Any) -> Any:
    """Mask secrets in every text that the template prints, except in the parts of the page itself."""
    return value if isinstance(value, Markup) else masked(value)


def _template(name: str) -> str:
    return (resources.files("slg_wds.report") / "templates" / name).read_text("utf-8")


def policy(css: str, script: str) -> str:
    """The page's Content-Security-Policy: only its own style and script, by their hashes, and its own pictures."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"style-src '{_hash(css)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


def embedded(data: Any) -> str:
    """Encode data as JSON that no HTML parser takes for markup: `<`, `>` and `&` are escaped."""
    text = json.dumps(masked(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _fields(
    sets: ReportedSets,
    sample: ReportSample,
    each: Sequence[Statistics],
    comparison: Comparison | None,
    names: ClassNames,
) -> dict[str, Any]:
    """All variables of the template, except those of the gallery."""
    statistics = each[0]
    full = sets.rules[0] == "full"
    pairs = comparison.pairs if comparison else []
    agreement, divergence = tables.matrices(comparison, len(sets.names)) if comparison else ([], [])
    classes = tables.class_table(statistics)[2]
    return {
        "title": " · ".join(sets.names),
        "url": " and ".join(labels.url for labels in sets.labels),
        "lede": texts.lede(sets.labels, statistics.images),
        "notes": texts.notes(sets, sample),
        "sections": _sections(statistics, bool(pairs)),
        "tiles": tables.tiles(statistics, full),
        "recipes": recipe.recipes(sets.labels, sets.present(), sets.names),
        "has_targets": statistics.agreement is not None,
        "has_values": statistics.has_values,
        "said": bool(classes),
        "texts": texts.texts(statistics, comparison, classes, sets.rules[0], sets.first.has_mixing),
        "figures": _figures(sets, statistics, comparison),
        "confusions": tables.confusions(statistics, names),
        "names": sets.names,
        "pairs": pairs,
        "summary": tables.summary(sets.names, each),
        "agreement": agreement,
        "divergence": divergence,
        "apart": tables.apart(pairs, names) if pairs else [],
    }


def _figures(
    sets: ReportedSets, statistics: Statistics, comparison: Comparison | None
) -> dict[str, captions.Figures]:
    label, sure = parse_label_type(sets.rules[0]), statistics.has_values
    stores_tail = sets.first.identity.tail_classes > 0
    return {
        "confidence": captions.confidence_figures(statistics, label, stores_tail) if sure else [],
        "classes": captions.class_figures(statistics) if statistics.agreement is not None else [],
        "low_rank": captions.low_rank_figures(statistics, sets.first.identity.max_kl),
        "crops": captions.crop_figures(statistics),
        "teachers": captions.teacher_figures(comparison, sets.names, sure) if comparison else [],
    }


def _sections(statistics: Statistics, several: bool) -> list[tuple[str, str]]:
    """(id, name) of each section in the navigation."""
    found = [("glance", "At a glance"), ("recipe", "Recipe"), ("images", "Images")]
    found += [("confidence", "Confidence")] if statistics.has_values else []
    found += [("lowrank", "Closeness")] if statistics.coded else []
    found += [("classes", "Classes"), ("crops", "Crops")]
    return found + ([("teachers", "Teachers")] if several else [])


def _about_gallery(
    sets: ReportedSets,
    statistics: Statistics,
    choices: list[gallery.GalleryImage],
    names: ClassNames,
    has_pictures: bool,
) -> dict[str, Any]:
    counts = {kind: sum(kind in choice.kinds for choice in choices) for kind in gallery.KINDS}
    return {
        "gallery_intro": texts.gallery_intro(statistics, len(sets.names)),
        "gallery_count": len(choices),
        "has_pictures": has_pictures,
        "search_hint": f"{names.short(statistics.rows[0].answer)} …" if names.given else "part of a key",
        "kinds": [(kind, name, counts[kind]) for kind, name in gallery.KINDS.items() if counts[kind]],
    }


def _data(
    sets: ReportedSets,
    statistics: Statistics,
    choices: list[gallery.GalleryImage],
    names: ClassNames,
    reader: ImageReader | None,
) -> dict[str, Any]:
    """The data for the page's script."""
    images, used = gallery.describe(sets, choices)
    if reader is not None:
        add_thumbnails(images, choices, reader)
        add_views(images, choices, sets, reader)
    columns, classes, _ = tables.class_table(statistics)
    shown = {choice.row.number for choice in choices}
    rows = [row for row in statistics.rows if row.number not in shown][:MOST_ROWS]
    asked = used | {c for row in rows for c in (row.target, row.answer)} | {row[0] for row in classes}
    if columns[-1]["kind"] == "other":
        asked |= {row[-1] for row in classes}
    return {
        "sets": sets.names,
        "names": names.of(c for c in asked if c is not None),
        "images": images,
        "rows": [
            [cut(row.key), row.target, row.answer, _round(row.agreement), _round(row.confidence)]
            for row in rows
        ],
        "columns": columns,
        "classes": classes,
        "has_values": statistics.has_values,
    }


def _round(share: float | None) -> float | None:
    return None if share is None else round(share, 4)
