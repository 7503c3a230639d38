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
from slg_wds.images import decode
from slg_wds.report.command import report
from slg_wds.transforms.drawn import DrawnCrops
from slg_wds.transforms.replaying import words_of
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


def seen(pixels, drawn, side):
    """A crop as a network of this input size sees it, float [S, S, 3]."""
    out = torch.empty((1, side, side, 3), dtype=torch.uint8)
    drawn.cut(pixels, out.permute(0, 3, 1, 2), "bilinear")
    return out[0].numpy().astype(float)
