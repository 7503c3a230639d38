"""Labels of real photographs by a real teacher, against FKD's own definition computed independently."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as pillow

import slg_wds
from slg_wds.demo.teacher import lite0

CROPS = 40
LITE0_ONCE = "support.models.remembering_teacher:remembering"  # one pass for all four sets


@pytest.fixture(scope="module")
def labelled(photographs, tmp_path_factory):
    """Label sets of 6 photographs by efficientnet-lite0: float32 full, and float16 and log8 shared tail."""
    folder = tmp_path_factory.mktemp("labelled")
    chosen = sorted((photographs / "train").rglob("*.jpg"))[::6]
    (folder / "list").write_text("\n".join(str(p.relative_to(photographs / "train")) for p in chosen))
    sets = {}
    for name, options in {
        "full": {"label_type": "full", "values": "float32"},
        "float16": {"label_type": "shared_tail_k5"},
        "log8": {"label_type": "shared_tail_k5", "values": "log8"},
        "float32": {"label_type": "marginal_smoothing_k5", "values": "float32"},
    }.items():
        config = slg_wds.GenerateConfig(
            data=str(photographs),
            arch=LITE0_ONCE,
            teacher_source="private",
            save_path=str(folder / name),
            num_crops=CROPS,
            list_file=str(folder / "list"),
            seed=11,
            **options,
        )
        slg_wds.generate(config)
        sets[name] = {record.key: record for record in slg_wds.open_labels(str(folder / name))}
    return sets


@pytest.fixture(scope="module")
def oracle(labelled, photographs):
    """float64 [M, 1000] by key: Pillow crop and bicubic resize, hflip, ToTensor, Normalize, softmax."""
    model = lite0().eval()
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    rows = {}
    for key, record in labelled["full"].items():
        image = Image.open(photographs / "train" / record.path).convert("RGB")
        inputs = []
        for (top, left, height, width), flip in zip(record.crops.tolist(), record.flips, strict=True):
            crop = pillow.resized_crop(
                image, top, left, height, width, [224, 224], pillow.InterpolationMode.BICUBIC
            )
            crop = pillow.hflip(crop) if flip else crop
            inputs.append(pillow.normalize(pillow.to_tensor(crop), mean, std))
        with torch.inference_mode():
            rows[key] = model(torch.stack(inputs)).double().softmax(1).numpy()
    return rows


def test_labels_agree_with_fkds_definition(labelled, oracle):
    agree, errors = [], []
    for key, record in labelled["float16"].items():
        expected = oracle[key]
        agree.append(record.index[:, 0] == expected.argmax(1))
        errors.append(np.abs(record.value - np.take_along_axis(expected, record.index, 1)))
    agree, errors = np.concatenate(agree), np.concatenate(errors)
    assert agree.mean() >= 0.98
    assert np.quantile(errors.max(1), 0.99) <= 0.02
    assert errors.max() <= 0.06


def test_crop_boxes_and_flips_vary(labelled):
    record = next(iter(labelled["full"].values()))
    assert len(np.unique(record.crops, axis=0)) == CROPS
    assert 0 < record.flips.sum() < CROPS


def test_the_same_crops_and_top_k_whatever_the_coding(labelled):
    for key, full in labelled["full"].items():
        order = np.argsort(-full.value, axis=1, kind="stable")[:, :5]
        for name in ("float16", "log8", "float32"):
            record = labelled[name][key]
            assert np.array_equal(record.crops, full.crops) and np.array_equal(record.flips, full.flips)
            assert np.array_equal(record.index, order)
            assert record.target == full.target and record.size == full.size


@pytest.mark.parametrize(
    ("coding", "relative", "above"), [("float16", 2**-11, 2**-14), ("log8", 0.023, 2**-15.9)]
)
def test_values_are_as_near_as_their_coding_can_be(labelled, coding, relative, above):
    for key, full in labelled["full"].items():
        record = labelled[coding][key]
        exact = np.take_along_axis(full.value, record.index, 1)
        large = exact >= above
        assert (np.abs(record.value - exact)[large] <= relative * exact[large]).all()
        assert (record.value[~large] <= above * 1.03).all()


def test_float32_values_are_exact(labelled):
    for key, full in labelled["full"].items():
        record = labelled["float32"][key]
        assert np.array_equal(record.value, np.take_along_axis(full.value, record.index, 1))


def test_tail_follows_its_formula(labelled):
    for key, full in labelled["full"].items():
        record = labelled["float16"][key]
        outside = full.value.astype(np.float64)
        np.put_along_axis(outside, record.index, 0.0, axis=1)
        v = outside.mean(0)
        m = CROPS // 4
        kept = np.sort(np.lexsort((np.arange(1000), -v))[:m])
        assert record.tail.classes.tolist() == kept.tolist()
        scale = np.float32(v.max())
        codes = np.minimum(254, np.rint(-16 * np.log2(v[kept] / scale)))
        assert np.allclose(record.tail.probs, scale * 2 ** (-codes / 16), rtol=1e-6)
        assert record.tail.rest == pytest.approx((v.sum() - v[kept].sum()) / (1000 - m), rel=1e-6)


def test_shared_tail_halves_the_divergence_of_marginal_smoothing(labelled):
    def divergence(rule):
        total = []
        for key, full in labelled["full"].items():
            p = full.value.astype(np.float64)
            q = labelled["float16"][key].distribution(1000, rule=rule).astype(np.float64)
            total.append((p * (np.log(np.maximum(p, 1e-30)) - np.log(np.maximum(q, 1e-30)))).sum(1))
        return float(np.concatenate(total).mean())

    # 10 tail classes of 40 crops here.
    # tools/experiments/measure_fidelity.py measures the bar of 0.5, which is for 200 crops.
    assert divergence("shared_tail_k5") < 0.75 * divergence("marginal_smoothing_k5")


@pytest.mark.parametrize(
    "rule", ["hard", "smoothing", "marginal_smoothing_k3", "marginal_renorm_k5", "shared_tail_k5", None]
)
def test_every_rule_gives_rows_that_sum_to_one(labelled, rule):
    for name in ("float16", "log8"):
        for record in labelled[name].values():
            rows = record.distribution(1000, rule=rule)
            assert rows.shape == (CROPS, 1000) and rows.dtype == np.float32
            assert np.abs(rows.sum(1, dtype=np.float64) - 1).max() < 1e-6
