"""Softened hard labels for crops of low confidence, against dense rows computed from whole records."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.errors import UsageError
from slg_wds.labels import LabelAdaptation, SoftCrossEntropy, from_topk
from slg_wds.labels.adaptation import adapted
from support.models.names import TINY
from support.sets.replay_sets import Made, make, write_class_map


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapted")
    class_map = write_class_map(photographs, folder / "classes")
    plain = {
        "even": {"label_type": "marginal_smoothing_k3"},
        "tail": {"label_type": "shared_tail_k3", "tail_classes": 6},
        "renorm": {"label_type": "marginal_renorm_k3"},
        "full": {"label_type": "full"},
        "hard": {"label_type": "hard"},
        "other": {"label_type": "full", "arch": TINY.replace(":tiny", ":other")},
    }
    return {
        name: Made(make(photographs, folder / name, class_map=class_map, **options), str(photographs))
        for name, options in plain.items()
    }


def restated(urls, weights, below, smoothing, share):
    """(key, crop) -> the row as the formula has it, float64 [C]; and which of them are adapted."""
    rows, sure, targets = {}, {}, {}
    for url, weight in zip(urls, weights, strict=True):
        labels = slg_wds.open_labels(url)
        for record in labels:
            dense = record.distribution(None, labels.label_type).astype(np.float64)
            for crop, row in enumerate(dense):
                place = record.key, crop
                rows[place] = rows.get(place, 0.0) + weight * row
                sure[place] = sure.get(place, 0.0) + weight * float(record.value[crop].max())
                targets[place] = record.target
    low = {place for place, p in sure.items() if p < below}
    for place in low:
        hard = np.full(len(rows[place]), smoothing / len(rows[place]))
        hard[targets[place]] += 1.0 - smoothing
        rows[place] = (1.0 - share) * rows[place] + share * hard
    return rows, low


@pytest.mark.parametrize("kind", ["even", "tail", "renorm", "full"])
@pytest.mark.parametrize("numbers", [(0.4,), (0.5, 0.0), (0.35, 0.2, 0.6)])
def test_labels_are_those_of_the_formula(sets, kind, numbers):
    below, smoothing, share = (*numbers, *(None, 0.1, 1.0)[len(numbers) :])
    rows, low = restated([sets[kind].labels], [1.0], below, smoothing, share)
    assert 20 < len(low) < len(rows) - 20
    check(sets[kind].loader(label_adaptation=numbers, last="pad", global_batch_size=40), rows)


def check(loader, rows):
    for batch in loader:
        dense = batch.labels.dense()
        for i in torch.nonzero(batch.mask)[:, 0].tolist():
            row = torch.from_numpy(rows[batch.key[i], int(batch.crop[i])]).float()
            torch.testing.assert_close(dense[i], row, atol=2e-6, rtol=0)
        logits = torch.randn(dense.shape, generator=torch.manual_seed(0))
        expected = -(dense * logits.log_softmax(1)).sum(1)[batch.mask].mean()
        torch.testing.assert_close(SoftCrossEntropy()(logits, batch.labels), expected, atol=1e-5, rtol=0)


def test_of_several_sets_the_mean_confidence_and_the_mean_label_count(sets):
    made = sets["full"]
    rows, low = restated([made.labels, sets["other"].labels], [0.25, 0.75], 0.7, 0.1, 1.0)
    assert 20 < len(low) < len(rows) - 20
    loader = slg_wds.SoftLabelLoader(
        [made.labels, sets["other"].labels], made.images, weights=[1, 3], threads=2,
        global_batch_size=24, label_adaptation=LabelAdaptation(0.7),
    )  # fmt: skip
    check(loader, rows)


def test_a_crop_at_the_bound_keeps_its_label():
    labels = from_topk(
        torch.tensor([[1], [1]]), torch.tensor([[0.4], [0.4]]), 5, rule="marginal_smoothing_k1"
    )
    confidence = torch.tensor([0.4, 0.39], dtype=torch.float64)
    found = adapted(labels, torch.tensor([3, 3]), confidence, LabelAdaptation(0.4, smoothing=0.0))
    torch.testing.assert_close(
        found.dense(), torch.tensor([[0.15, 0.4, 0.15, 0.15, 0.15], [0, 0, 0, 1.0, 0]])
    )


def test_what_is_stored_and_the_order_stay_as_they_are_and_a_filter_goes_beside(sets):
    made = sets["tail"]
    chosen = {"crop_filter": ("confidence", 0.2, 0.6), "global_batch_size": 8}
    pairs = zip(made.loader(label_adaptation=(0.4,), **chosen), made.loader(**chosen), strict=True)
    changed = 0
    for mine, plain in pairs:
        assert mine.key == plain.key and torch.equal(mine.crop, plain.crop)
        assert torch.equal(mine.index, plain.index) and torch.equal(mine.value, plain.value)
        sure = plain.value[:, 0] >= 0.4
        same = torch.isclose(mine.labels.dense(), plain.labels.dense(), atol=1e-6).all(1)
        assert same[sure].all()
        changed += int((~same).sum())
    assert changed


def test_what_cannot_be_adapted_is_refused(sets, photographs, tmp_path):
    made = sets["tail"]
    for numbers, message in (
        ((1.5,), r"below 1\.5"),
        ((0.3, -0.1), r"smoothing -0\.1"),
        ((0.3, 0.1, float("nan")), "share nan"),
        ((), r"label adaptation \(\)"),
    ):
        with pytest.raises(UsageError, match=message):
            made.loader(label_adaptation=numbers)
    with pytest.raises(
        UsageError, match=r"label adaptation needs prob.* only the top class is stored"
    ) as caught:
        sets["hard"].loader(label_adaptation=(0.3,))
    assert caught.value.url == sets["hard"].labels
    for measure in ("confidence", "tail"):  # stored hard labels read as a probability of 1
        with pytest.raises(
            UsageError, match=rf"{measure} needs prob.* only the top class is stored"
        ) as caught:
            sets["hard"].loader(crop_filter=(measure, 0.0, 1.0))
        assert caught.value.url == sets["hard"].labels
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in sorted((photographs / "train").rglob("*.jpg"))[:6]:
        (flat / path.name).write_bytes(path.read_bytes())
    without = Made(make(flat, tmp_path / "set"), str(flat))
    with pytest.raises(UsageError, match="needs the images' classes, and 6 of 6 have no class"):
        without.loader(label_adaptation=(0.3,), global_batch_size=2, crops_per_image=1)
