"""The gallery shows crops as the teacher saw them, and says what was done to each."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import slg_wds
from slg_wds.config import ReportConfig
from slg_wds.errors import LabelSetError
from slg_wds.images import decode
from slg_wds.report.command import report
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.replaying import words_of
from support.sets.mixed_sets import mixed_of, mixed_truth
from support.sets.replay_sets import make

pytest.importorskip("jinja2")


def test_the_gallery_shows_views(photographs, tmp_path):
    options = {"num_crops": 5, "aa": "rand-m9-mstd0.5-inc1", "reprob": 0.5, "embed_images": "original"}
    labels = make(photographs, tmp_path / "set", **options)
    page = tmp_path / "page.html"
    report(ReportConfig(labels=(labels,), output=str(page)))
    text = page.read_text()
    assert "then operations of rand-m9-mstd0.5-inc1, erased with probability 0.5" in text
    data = json.loads(
        re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1]
    )
    opened = slg_wds.open_labels(labels)
    pixels = {s.record.key: decode(s.image) for n in range(opened.num_shards) for s in opened.shard(n)}
    told = 0
    for image in data["images"]:
        record = opened[image["key"]]
        for crop in image["crops"]:
            assert crop["w"] == words_of(record.views, crop["n"])
            with Image.open(io.BytesIO(base64.b64decode(crop["v"].partition(",")[2]))) as picture:
                shown = np.asarray(picture.convert("RGB"), float)
            drawn = DrawnCrops.of(record)[crop["n"] : crop["n"] + 1]
            view, plain = (
                seen(pixels[record.key], one, len(shown)) for one in (drawn, replace(drawn, views=None))
            )
            assert np.abs(shown - view).mean() < 25  # WebP loses some
            told += np.abs(view - plain).mean() > 60
            assert np.abs(view - plain).mean() < 60 or np.abs(shown - plain).mean() > 30
    assert told


def test_teachers_that_saw_other_views_are_not_compared(photographs, tmp_path):
    """The boxes are the same, and the pixels are not."""
    seen = make(photographs, tmp_path / "seen", num_crops=4, aa="rand-m9-mstd0.5-inc1")
    plain = make(photographs, tmp_path / "plain", num_crops=4)
    again = make(photographs, tmp_path / "again", num_crops=4, reference_path=seen)
    report(ReportConfig(labels=(seen, again), output=str(tmp_path / "page.html")))
    for labels in ((seen, plain), (plain, again)):
        with pytest.raises(LabelSetError, match="do other things to the crops of the image"):
            report(ReportConfig(labels=labels, output=str(tmp_path / "none.html")))
    source = make(photographs, tmp_path / "source", num_crops=4)
    mixed = mixed_of(source, str(tmp_path / "mixed"))
    other_order = make(photographs, tmp_path / "other order", num_crops=4, reference_path=mixed, seed=1)
    report(ReportConfig(labels=(mixed, other_order), output=str(tmp_path / "mixed.html")))


def test_the_gallery_shows_what_is_mixed_in(photographs, tmp_path):
    source = make(photographs, tmp_path / "set", num_crops=5, embed_images="original", label_type="lowrank")
    labels = mixed_of(source, str(tmp_path / "mixed"))
    page = tmp_path / "page.html"
    report(ReportConfig(labels=(labels,), output=str(page)))
    text = page.read_text()
    assert "Other images are mixed into the views. Low-rank labels pay for that" in text
    found = re.search(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    truths: dict[int, dict] = {}
    opened, told = slg_wds.open_labels(labels), 0
    for image in json.loads(found[1])["images"]:
        views = opened[image["key"]].views
        for crop in image["crops"]:
            n = crop["n"]
            with Image.open(io.BytesIO(base64.b64decode(crop["v"].partition(",")[2]))) as picture:
                shown = np.asarray(picture.convert("RGB"), float)
            side = len(shown)
            if side not in truths:
                truths[side] = mixed_truth(labels, size=side)
            view = truths[side][image["key"], n].pixels.permute(1, 2, 0).numpy()
            assert np.abs(shown - view).mean() < 25  # WebP loses some
            assert crop["w"] == words_of(views, n, opened.plan.keys.__getitem__)
            if views.mixing.partner[n] >= 0:
                told += opened.plan.keys[int(views.mixing.partner[n])] in crop["w"][-1]
    assert told > 20


def seen(pixels, drawn, side):
    """A crop as a network of this input size sees it, float [S, S, 3]."""
    out = torch.empty((1, side, side, 3), dtype=torch.uint8)
    drawn.cut(pixels, out.permute(0, 3, 1, 2), "bilinear")
    return out[0].numpy().astype(float)
