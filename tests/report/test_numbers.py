"""The numbers of a report against independent computations; sampling; bad input."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

import slg_wds
from slg_wds.config import ReportConfig
from slg_wds.errors import (
    ImageError,
    IncompleteSetError,
    LabelSetError,
    NoImagesError,
    NotALabelSetError,
    UsageError,
)
from slg_wds.format.manifest.description import encode_description
from slg_wds.format.records.decoding import unpack_record
from slg_wds.inspection.inspect import inspect
from slg_wds.labels import parse_label_type
from slg_wds.labelset.class_names import brief_names, class_names, imagenet_ids
from slg_wds.report.command import measure_sets, report
from slg_wds.report.measuring.comparison import FLOOR
from slg_wds.report.measuring.measures import measure
from slg_wds.report.measuring.statistics import Statistics
from slg_wds.report.reading.sets import ReportedSets, short_names
from slg_wds.report.writing.captions import confidence_figures, crop_figures
from slg_wds.report.writing.numbers import percent
from slg_wds.report.writing.template import embedded
from slg_wds.store import Location
from support.sets.low_rank_sets import low_rank_of
from support.sets.reported_sets import CLASSES, CROPS, SHARD, K, label_set, probabilities

RULES = ["hard", "smoothing", "marginal_smoothing_k5", "marginal_renorm_k5", "shared_tail_k5", "full"]


def made(tmp_path: Path, *urls, **options) -> str:
    target = tmp_path / "report.html"
    report(ReportConfig(labels=tuple(map(str, urls)), output=str(target), **options))
    return target.read_text("utf-8")


def told(page: str, name: str) -> str:
    found = re.search(rf'data-name="{name}">([^<]*)<', page)
    assert found, name
    return html.unescape(found[1])


def data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def entropies(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    return -(rows * np.log(np.maximum(rows, 1e-300))).sum(axis=1)


@pytest.mark.parametrize("rule", RULES)
def test_entropy_is_that_of_the_dense_distributions(tmp_path, rule):
    labels = label_set(tmp_path / "set", label_type=rule)
    for record in labels:
        found = measure(record, rule)
        assert np.allclose(found.entropy, entropies(record.distribution(None, rule)), atol=3e-6)
        dense = record.distribution(None, rule)
        assert (found.top == dense.argmax(axis=1)).all()


def test_the_numbers_at_a_glance(tmp_path):
    labels = label_set(tmp_path / "set", images=20)
    page = made(tmp_path, labels.url)
    rows = np.concatenate([probabilities(1, n) for n in range(20)])
    targets = np.repeat([n % CLASSES for n in range(20)], CROPS)
    top = np.sort(rows, axis=1)[:, ::-1]
    dense = np.concatenate([record.distribution(None, "shared_tail_k5") for record in labels])
    assert told(page, "crops") == "320"
    assert told(page, "confidence") == f"{100 * top[:, 0].mean():.1f}%"
    assert told(page, "tail") == f"{100 * (1 - top[:, :K].sum(axis=1)).mean():.1f}%"
    assert told(page, "agreement") == f"{100 * (rows.argmax(axis=1) == targets).mean():.1f}%"
    assert told(page, "entropy") == f"{entropies(dense).mean():.2f} nats"


@pytest.mark.parametrize("blocks", [1, 3])
def test_low_rank_labels_say_how_close_they_are(tmp_path, blocks):
    full = label_set(tmp_path / "full", images=9, label_type="full")
    labels = slg_wds.open_labels(low_rank_of(full.url, str(tmp_path / "set"), blocks=blocks))
    page = made(tmp_path, labels.url)
    stated = [record.low_rank.kl for record in labels]
    raw = [unpack_record(labels.record_bytes(n // SHARD, n % SHARD)) for n in range(9)]
    sizes = [
        len(fields["columns"]["low_rank"]) + sum(map(len, fields["columns"]["block_of"])) for fields in raw
    ]
    tables = [record.low_rank for record in labels]
    kept = [len(one.blocks[at].classes) for one in tables for at in one.block_of]
    rank = [one.blocks[at].rank for one in tables for at in one.block_of]
    assert told(page, "kl") == f"{np.mean([kl.mean for kl in stated]):.4f} nats"
    assert told(page, "bytes") == f"{sum(sizes) / (9 * CROPS):.2f}"
    parts = f"an image has {np.mean(kept):.0f} classes, {np.mean(rank):.1f} components, {blocks:.1f} blocks"
    assert parts in page and f"the worst crop {max(kl.worst for kl in stated):.3f}" in page
    assert page.count("<figure") == made(tmp_path, full.url).count("<figure") + 2
    assert 'id="figure-mean-kl"' in page and 'id="figure-worst-kl"' in page
    inspected = inspect(labels.url)["low_rank"]
    assert inspected["kl"]["mean"] == pytest.approx(np.mean([kl.mean for kl in stated]))
    assert inspected["bytes_per_crop"] == sum(sizes) / (9 * CROPS)


def test_classes_and_confusions(tmp_path):
    labels = label_set(tmp_path / "set", images=24)
    found = data(made(tmp_path, labels.url))
    said = {n: probabilities(1, n).argmax(axis=1) for n in range(24)}
    for number, images, crops, agreement, confidence, other in found["classes"]:
        mine = np.concatenate([said[n] for n in range(24) if n % CLASSES == number])
        assert (images, crops) == (2, 2 * CROPS)
        assert agreement == pytest.approx((mine == number).mean(), abs=1e-4)
        sure = np.concatenate([probabilities(1, n).max(axis=1) for n in range(24) if n % CLASSES == number])
        assert confidence == pytest.approx(sure.mean(), abs=1e-4)
        counts = np.bincount(mine[mine != number], minlength=CLASSES)
        assert other is None if not counts.any() else counts[other] == counts.max()


def test_coverage_counts_each_cell_of_each_crop(tmp_path):
    labels = label_set(tmp_path / "set", images=3)
    statistics = Statistics(CLASSES, True)
    wanted = np.zeros_like(statistics.covered)
    for number, record in enumerate(labels):
        statistics.add(number, record, measure(record, "shared_tail_k5"))
        fine = np.zeros(
            (len(wanted) * record.size[0], len(wanted) * record.size[1])
        )  # each pixel in cells' parts
        for top, left, height, width in record.crops * len(wanted):
            fine[top : top + height, left : left + width] += 1
        shape = (len(wanted), record.size[0], len(wanted), record.size[1])
        wanted += fine.reshape(shape).mean(axis=(1, 3))
    assert np.allclose(statistics.covered, wanted)


def test_parts_that_no_crop_shows_have_no_confidence(tmp_path):
    statistics, box = Statistics(CLASSES, True), np.array([[0, 0, 60, 50]])
    for number, record in enumerate(label_set(tmp_path / "set", images=2)):
        one = dataclasses.replace(
            record,
            size=(120, 100),
            crops=box,
            **{name: getattr(record, name)[:1] for name in ("flips", "index", "value")},
        )
        statistics.add(number, one, measure(one, "shared_tail_k5"))
    (figure,) = (one for one in crop_figures(statistics) if one["name"] == "sure")
    mean = percent(statistics.mean("confidence"))
    assert f"from {mean} to {mean}." in figure["caption"] and "no crop shows are blank" in figure["caption"]
    cells = figure["svg"].partition("QuadMesh_1")[2].partition("</g>")[0]
    assert cells.count('class="fill-accent"') == statistics.covered.size // 4


def test_disagreements_come_first_and_every_image_is_found(tmp_path):
    labels = label_set(tmp_path / "set", images=40)
    found = data(made(tmp_path, labels.url))
    kinds = ["disagree" in image["kinds"] for image in found["images"]]
    assert any(kinds) and kinds == sorted(kinds, reverse=True)
    keys = {image["key"] for image in found["images"]} | {row[0] for row in found["rows"]}
    assert keys == set(labels.plan.keys)
    for image in found["images"]:
        confidences = [crop["t"][0]["p"][0] for crop in image["crops"]]
        assert confidences == sorted(confidences) and image["src"].startswith("data:image/webp;base64,")


def test_teacher_against_teacher(tmp_path):
    sets = [label_set(tmp_path / f"set{t}", t, images=9, embedded=t == 2) for t in (1, 2)]
    page = made(tmp_path, *(labels.url for labels in sets))
    a, b = (np.concatenate([probabilities(t, n) for n in range(9)]) for t in (1, 2))
    agreement = (a.argmax(axis=1) == b.argmax(axis=1)).mean()
    at = np.unique(np.linspace(0, CROPS - 1, 12).round().astype(int))
    p, q = (
        np.maximum(np.concatenate([r.distribution()[at].astype(float) for r in labels]), FLOOR)
        for labels in sets
    )
    assert f'<td class="n">{100 * agreement:.1f}%</td>' in page
    assert f'<td class="n">{(p * np.log(p / q)).sum(axis=1).mean():.3f}</td>' in page
    assert f'<td class="n">{(q * np.log(q / p)).sum(axis=1).mean():.3f}</td>' in page
    first = data(page)["images"][0]
    assert len(first["crops"][0]["t"]) == 2 and "src" in first  # the pictures are in the second set


def test_targets_that_number_folders_agree_with_nobody(tmp_path):
    """Whichever of several sets has them."""
    known, folders = label_set(tmp_path / "known"), label_set(tmp_path / "folders")
    described = dataclasses.replace(folders.description, targets_are_classes=False)
    (tmp_path / "folders" / "slg.json").unlink()
    folders.store.create("slg.json", encode_description(described))
    for urls in ((known.url, folders.url), (folders.url, known.url)):
        sets = ReportedSets([Location(url) for url in urls])
        each, _ = measure_sets(sets, sets.sample(100))
        assert [one.agreement is not None for one in each] == [url == known.url for url in urls]


def test_a_link_to_nowhere_is_not_written_through(tmp_path):
    labels = label_set(tmp_path / "set", images=3)
    page, target = tmp_path / "page.html", tmp_path / "none" / "page.html"
    page.symlink_to(target)
    with pytest.raises(UsageError, match=f"is a link to {target}, whose folder does not exist"):
        report(ReportConfig(labels=(labels.url,), output=str(page)))
    target.parent.mkdir()
    report(ReportConfig(labels=(labels.url,), output=str(page)))
    assert page.is_symlink() and target.read_text().startswith("<!doctype html>")


def test_a_sample_is_a_sample_and_says_so(tmp_path):
    labels = label_set(tmp_path / "set", images=60, shards=9)
    page = made(tmp_path, labels.url, samples=10)
    assert "A sample: 10 of 60 images" in page and "9 of 10 shards are there" in page
    assert told(page, "crops") == str(10 * CROPS)
    chosen = ReportedSets([Location(labels.url)]).sample(10)
    assert chosen.images == 10 and chosen.shards == ReportedSets([Location(labels.url)]).sample(10).shards


@pytest.mark.parametrize("label_type", RULES)
def test_every_label_type_has_a_page(tmp_path, label_type):
    page = made(tmp_path, label_set(tmp_path / "set", label_type=label_type, embedded=False).url)
    assert ('id="confidence"' in page) == (label_type != "hard")
    assert "boxes are drawn on empty frames" in page and "src" not in data(page)["images"][0]


def test_without_targets(tmp_path):
    page = made(tmp_path, label_set(tmp_path / "set", targets=False).url)
    assert "nothing to agree with" in re.sub(r"\s+", " ", page) and 'data-name="agreement"' not in page


def test_the_page_is_the_same_each_time(tmp_path):
    labels = label_set(tmp_path / "set")
    assert made(tmp_path, labels.url) == made(tmp_path, labels.url)


def test_external_images_are_found_and_checked(tmp_path):
    labels = label_set(tmp_path / "set", embedded=False)
    inside = label_set(tmp_path / "inside")
    for number in range(inside.num_shards):
        for sample in inside.shard(number):
            path = tmp_path / "images" / sample.record.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.image)
    assert "data:image/webp" in made(tmp_path, labels.url, images=str(tmp_path / "images"))
    with pytest.raises(NoImagesError):
        made(tmp_path, labels.url, images=str(tmp_path))
    other = next((tmp_path / "images" / "folder").iterdir())
    for path in (tmp_path / "images" / "folder").iterdir():
        path.write_bytes(other.read_bytes())
    with pytest.raises(ImageError, match="not those that were labelled"):
        made(tmp_path, labels.url, images=str(tmp_path / "images"))


def test_bad_input_leaves_nothing_behind(tmp_path):
    labels = label_set(tmp_path / "set")
    other = label_set(tmp_path / "other", keys=[f"else_{n}" for n in range(8)])
    (tmp_path / "out").mkdir()
    url, target = labels.url, str(tmp_path / "out" / "report.html")
    empty = label_set(tmp_path / "begun", shards=0).url
    for urls, kind in (
        ([tmp_path], NotALabelSetError),
        ([empty], IncompleteSetError),
        ([url, other.url], LabelSetError),
    ):
        with pytest.raises(kind):
            report(ReportConfig(labels=tuple(map(str, urls)), output=target))
    for options in (
        {"samples": 0},
        {"output": str(tmp_path)},
        {"output": str(tmp_path / "no" / "r.html")},
        {"labels": ()},
    ):
        with pytest.raises(UsageError):
            report(ReportConfig(**{"labels": (url,), "output": target, **options}))
    assert list((tmp_path / "out").iterdir()) == []


def test_json_in_the_page_holds_no_markup():
    text = {"a": "</script><!--&\u2028"}
    assert not set(embedded(text)) & set("<>&\u2028") and json.loads(embedded(text)) == text


def test_names_of_classes(tmp_path):
    ids = imagenet_ids()
    assert ids is not None and len(ids) == 1000
    labels = label_set(tmp_path / "set", names=["n02123045", "", *map(str, range(10))])
    assert class_names(labels)[:3] == ["tabby, tabby cat", "class 1", "0"]
    assert brief_names(class_names(labels))[:3] == ["tabby", "class 1", "0"]
    assert short_names(["/a/x/set", "/a/y/set"]) == ["x/set", "y/set"]


def test_a_short_name_is_of_one_class_and_a_folder_keeps_its_comma(tmp_path):
    folders = ["1,2-xylene", "1,3-xylene"]
    crane, other_crane, maillot, other_maillot = "n02012849", "n03126707", "n03710637", "n03710721"
    names = [*folders, crane, other_crane, maillot, other_maillot, *map(str, range(6))]
    labels = label_set(tmp_path / "set", names=names)
    assert brief_names(class_names(labels))[:6] == [
        *folders, "crane (class 2)", "crane (class 3)", "maillot", "maillot, tank suit"
    ]  # fmt: skip
    shown = data(made(tmp_path, labels.url))["names"]
    assert shown["3"] == ["crane (class 3)", "crane"] and shown["0"] == ["1,2-xylene"] * 2


@pytest.mark.parametrize(
    ("label_type", "axis", "kept"),
    [
        ("full", "probability outside the 5 most probable classes", "These labels keep all of it."),
        ("marginal_renorm_k5", "probability outside the stored classes", "These labels keep none of it"),
        ("marginal_smoothing_k5", "probability outside the stored classes", "The labels keep only its sum."),
    ],
)
def test_the_figure_of_tails_says_which_probability_it_shows(tmp_path, label_type, axis, kept):
    sets = ReportedSets([Location(label_set(tmp_path / "set", label_type=label_type).url)])
    (statistics,), _ = measure_sets(sets, sets.sample(100))
    figure = confidence_figures(statistics, parse_label_type(label_type), stores_tail=False)[2]
    assert kept in figure["caption"] and f">{axis}<" in figure["svg"]
    stored = confidence_figures(statistics, parse_label_type(label_type), stores_tail=True)[2]["caption"]
    assert ("the rule shared_tail_k5 keeps more of the teacher" in stored) == ("only its sum" in kept)
