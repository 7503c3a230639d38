"""The error of each coding, in total variation, stays below its documented bound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import RecordError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.encoding import encode_record
from slg_wds.format.records.record import Record
from support.format.records import make_record
from support.models.names import TINY

BOUND = 0.02
MANY = TINY.replace(":tiny", ":many")


def softmax(logits: NDArray[np.float64], temperature: float) -> NDArray[np.float32]:
    scaled = np.exp((logits - logits.max(axis=1, keepdims=True)) / temperature)
    return (scaled / scaled.sum(axis=1, keepdims=True)).astype(np.float32)


def full(value: NDArray[np.float32], coding: str) -> Record:
    crops, classes = value.shape
    record = make_record(crops=crops, k=1, classes=classes, tail=0)
    index = np.broadcast_to(np.arange(classes), value.shape)
    return replace(record, full=True, coding=coding, index=index, value=value, tail=None, num_classes=classes)


def moved(record: Record) -> NDArray[np.float64]:
    """The total variation between each crop's probabilities and those read back, which readers normalise."""
    exact = record.value.astype(np.float64)
    read = decode_record(encode_record(record)).value.astype(np.float64)
    rows = [row / row.sum(axis=1, keepdims=True) for row in (exact, read)]
    return np.abs(rows[0] - rows[1]).sum(axis=1) / 2


def by_log8(value: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows as log8 gives them back, divided by their sums: FORMAT.md's definition once more."""
    x = -16 * np.log2(value.astype(np.float64))
    read = np.where(x > 270, 0, 2 ** (-np.minimum(np.rint(x), 254) / 16))
    return read / read.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("classes", "temperature"), [(21_841, 2), (100_000, 1), (100_000, 4)])
def test_log8_of_very_many_classes_is_refused_with_the_figure(classes: int, temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 2.5, (2, classes))
    logits[:, :5] += 12
    record = full(softmax(logits, temperature), "log8")
    worst = np.abs(by_log8(record.value) - record.value).sum(axis=1).max() / 2
    with pytest.raises(RecordError) as caught:
        encode_record(record)
    assert f"with values log8, {worst:.1%} of a crop's probability" in str(caught.value)
    assert str(caught.value).endswith("choose --values float16")
    assert moved(replace(record, coding="float16")).max() < 0.001


@settings(max_examples=60, deadline=None)
@given(st.integers(900, 30_000), st.floats(0.5, 20), st.floats(0, 6), st.sampled_from(["log8", "float16"]))
def test_what_is_accepted_is_within_the_bound(
    classes: int, temperature: float, spread: float, coding: str
) -> None:
    logits = np.random.default_rng(classes).normal(0, spread, (2, classes))
    record = full(softmax(logits, temperature), coding)
    try:
        assert moved(record).max() <= BOUND
    except RecordError as error:
        assert coding == "log8" and "would come to lie on other classes" in str(error)


@pytest.mark.parametrize("small", [2 ** (-270 / 16) * 0.999, 2 ** (-270 / 16) * 1.001])
def test_a_thousand_classes_are_always_within_the_bound(small: float) -> None:
    """The worst case: all small values at the border; of the others, half are rounded up and half down."""
    value = np.full((1, 1000), small, np.float32)
    value[0, :16] = 2.0 ** (-np.tile([125, 127], 8) / 32 * 1.0001)
    value[0, :16] *= (1 - value[0, 16:].sum()) / value[0, :16].sum()
    assert moved(full(value, "log8")).max() <= BOUND


def test_many_small_values_of_a_top_k_are_measured_too() -> None:
    value = np.sort(softmax(np.random.default_rng(1).normal(0, 2.5, (2, 100_000)), 4))[:, ::-1][:, :50_000]
    record = make_record(crops=2, k=1, classes=100_000, tail=0)
    index = np.broadcast_to(np.arange(50_000), value.shape)
    with pytest.raises(RecordError, match=r"log8, 1\d\.\d% of a crop's probability"):
        encode_record(
            replace(record, coding="log8", index=index, value=np.ascontiguousarray(value), tail=None)
        )


def test_generate_and_ensemble_refuse_before_a_shard_is_written(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def generate(target: str, *options: str) -> int:
        more = [
            "--teacher_source",
            "private",
            "-a",
            MANY,
            "--num_crops",
            "2",
            "--num_seg",
            "8",
            "--temp",
            "50",
        ]
        paths = [str(photographs), "--save-path", str(tmp_path / target), "--threads-per-forward", "1"]
        return main(["generate", *paths, "--label_type", "full", *more, *options])

    assert generate("log8", "--values", "log8") == 1
    said = capsys.readouterr().err
    assert "choose --values float16" in said and "Traceback" not in said
    assert not list((tmp_path / "log8").glob("*.tar"))
    assert generate("exact") == 0
    smaller = ["--values", "log8", "--save-path", str(tmp_path / "smaller"), "--processes", "1"]
    assert main(["ensemble", str(tmp_path / "exact"), *smaller]) == 1
    assert "choose --values float16" in capsys.readouterr().err
    assert not list((tmp_path / "smaller").glob("*.tar"))
    assert len(list(slg_wds.open_labels(str(tmp_path / "exact")))) == 36
