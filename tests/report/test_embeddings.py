"""Reports of sets of embeddings: their numbers by plain code, and the page."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.config import ReportConfig
from slg_wds.errors import UsageError
from slg_wds.format.records.embeddings.low_rank import StatedCosine
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.report.command import report
from slg_wds.report.embeddings.document import described
from slg_wds.report.embeddings.measuring import BINS, EmbeddingMeasures, measure_embeddings
from slg_wds.report.reading.sets import ReportedSets
from slg_wds.store import Location
from support.models.names import TINY
from support.paths import MODELS
from support.sets.replay_sets import make


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> str:
    return make(
        small_images, tmp_path_factory.mktemp("sets") / "set", arch=f"{TINY},{MODELS / 'towers.py'}:shares",
        num_crops=6, samples_per_shard=4, output="embedding", embed_images="original",
    )  # fmt: skip


def cosine(a, b) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_numbers_are_those_of_plain_code(embedded):
    sets = ReportedSets([Location(embedded)])
    images, measured = measure_embeddings(sets, sets.sample(2000))
    records = [slg_wds.open_labels(embedded)[one.image.key] for one in images]
    assert [one.name for one in measured] == ["tiny_teacher.py:tiny", "towers.py:shares"] and len(images) == 8
    for one in measured:
        rows = [record.embeddings[one.name].vectors.astype(np.float64) for record in records]
        pairs = [cosine(a, b) for crops in rows for a, b in itertools.combinations(crops, 2)]
        assert one.within == pytest.approx(np.mean(pairs)) and one.counts.sum() == 8 * 15
        assert (one.counts == np.histogram(np.clip(pairs, -1, 1), BINS, (-1, 1))[0]).mean() > 0.9
        means = [np.mean([crop / np.sqrt(crop @ crop) for crop in crops], axis=0) for crops in rows]
        between = {(a, b): cosine(means[a], means[b]) for a, b in itertools.combinations(range(8), 2)}
        assert one.between == pytest.approx(np.mean(list(between.values())), abs=1e-6)
        left = dict(between)
        for pair in one.nearest():
            best = max(left, key=left.get)
            assert tuple(sorted((pair.one, pair.other))) == best and pair.cosine == pytest.approx(
                left[best], abs=1e-5
            )
            left = {key: value for key, value in left.items() if not set(key) & set(best)}
        assert not left
        targets = [image.target for image in images]
        assert all(targets[pair.one] != targets[pair.other] for pair in one.nearest(targets))
        places, shares = one.components()
        centred = np.stack(means) - np.mean(means, axis=0)
        values, axes = np.linalg.eigh(centred.T @ centred)
        expected = centred @ axes[:, [-1, -2]]
        assert np.allclose(np.abs(places), np.abs(expected), atol=1e-4)
        assert shares == pytest.approx(values[[-1, -2]] / values.sum(), abs=1e-5)


def test_one_image_and_one_number_have_a_picture_too():
    measures = EmbeddingMeasures("one", 0)
    measures.add(Embedding.of(np.zeros((1, 1)), "float32"))
    assert (measures.within, measures.between, measures.nearest()) == (1.0, 1.0, [])
    places, shares = measures.components()
    assert places.tolist() == [[0.0, 0.0]] and shares.tolist() == [0.0, 0.0]


def test_the_page_shows_pairs_and_maps(embedded, tmp_path, capsys):
    assert main(["report", embedded, "-o", str(tmp_path / "page.html")]) == 0
    assert "from 8 images of 2 shards" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text()
    assert page.count('<figure id="figure-embedding-') == 4 and page.count('<figure class="pair">') >= 2 * (
        4 + 1
    )
    assert page.count('src="data:image/webp;base64,') == 2 * page.count('<figure class="pair">')
    for text in (
        "Similarity of an image's crops",
        "Map of the images",
        "48 numbers of each crop, stored as int8",
    ):
        assert text.replace("'", "&#39;") in page or text in page
    assert 'fill="#' in page and "data-theme" in page and "<script></script>" not in page
    assert re.search(r"Embeddings</dt><dd><bdi>tiny_teacher.py:tiny: 20 numbers as int8</bdi>", page)
    assert "Classes</dt>" not in page


def test_several_sets_and_no_pictures(embedded, small_images, tmp_path):
    other = make(
        small_images, tmp_path / "other", arch=f"{MODELS / 'towers.py'}:zero", num_crops=6, output="embedding"
    )
    made = report(ReportConfig(labels=(other, embedded), output=str(tmp_path / "page.html")))
    assert made.images == 8 and "towers.py:zero of other" in (tmp_path / "page.html").read_text()
    alone = report(ReportConfig(labels=(other,), output=str(tmp_path / "alone.html")))
    assert alone.bytes < 200_000 and "<img" not in (tmp_path / "alone.html").read_text()
    labels = make(small_images, tmp_path / "labels", num_crops=6)
    with pytest.raises(UsageError, match="holds labels and the other one embeddings"):
        report(ReportConfig(labels=(other, labels), output=str(tmp_path / "mixed.html")))


def test_the_page_says_how_near_low_rank_embeddings_are():
    kind = {"dim": 1280, "values": "lowrank", "min_cosine": 0.99}
    stated = [StatedCosine(0.990, 0.97), StatedCosine(0.994, 0.965)]
    said = "the cosine to the teacher's own is 0.9920 on average, and 0.9650 of the worst crop"
    assert said in described(kind, stated) and "cosine" not in described({**kind, "values": "int8"}, [])
