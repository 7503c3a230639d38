"""Label files: what is read, what is refused, and which boxes FKD's reader cuts."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import LabelFileError
from slg_wds.interop.fkd import cut_boxes, exact_coords, read_label_file, relative
from support.oracles import fkd_original as original

COORDS = np.array([[0.0, 0.25, 0.5, 0.5], [0.125, 0.0, 0.75, 1.0]], np.float32)
FLIPS = np.array([True, False])
LABELS = np.array([[[3, 1], [0.5, 0.25]], [[7, 2], [0.75, 0.125]]], np.float32)


def saved(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    """A file of torch.save whose pickle is another."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved([COORDS, FLIPS, LABELS]))) as old,
        zipfile.ZipFile(stream, "w") as new,
    ):
        for entry in old.infolist():
            new.writestr(
                entry.filename, pickled if entry.filename.endswith("data.pkl") else old.read(entry.filename)
            )
    return stream.getvalue()


@pytest.mark.parametrize("labels", [LABELS, LABELS.astype(np.float16), np.array([5, 6]), LABELS[:, :, 0]])
def test_every_kind_of_array_is_read_as_it_was(labels):
    before = torch.serialization.get_safe_globals()
    read = read_label_file(saved([COORDS, FLIPS, labels]))
    for found, wrote in zip((read.coords, read.flips, read.labels), (COORDS, FLIPS, labels), strict=True):
        assert (
            found.dtype == wrote.dtype and found.tobytes() == wrote.tobytes() and found.shape == wrote.shape
        )
    assert set(torch.serialization.get_safe_globals()) == set(before)


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_pickles_of_numpy_1_and_2(module):
    pickled = pickle.dumps([COORDS, FLIPS, LABELS], protocol=2)
    assert b"cnumpy._core.multiarray\n" in pickled or b"cnumpy.core.multiarray\n" in pickled
    for name in ("numpy._core.multiarray", "numpy.core.multiarray"):
        pickled = pickled.replace(f"c{name}\n".encode(), f"c{module}\n".encode())
    assert np.array_equal(read_label_file(with_pickle(pickled)).labels, LABELS)


def test_labels_that_end_before_the_crops_do():
    read = read_label_file(saved([COORDS, FLIPS, LABELS[:1]]))
    assert len(read.coords) == len(read.flips) == read.num_crops == 1


class Harmful:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "function, arguments",
    [(os.mkdir, ("OWNED",)), (eval, ("__import__('os').mkdir('OWNED')",)), (np.fromfile, ("x",))],
)
def test_a_pickle_of_anything_else_is_refused_and_not_executed(tmp_path, monkeypatch, function, arguments):
    monkeypatch.chdir(tmp_path)
    harm = Harmful(function, *arguments)
    for value in ([COORDS, FLIPS, harm], harm):
        for data in (saved(value), with_pickle(pickle.dumps(value, protocol=2))):
            with pytest.raises(LabelFileError, match="cannot be read safely") as raised:
                read_label_file(data)
            assert "weights_only" not in str(raised.value)
            assert any(word in str(raised.value) for word in ("mkdir", "eval", "fromfile"))
    assert not (tmp_path / "OWNED").exists()


def test_an_array_of_objects_or_of_a_subclass_is_refused():
    with pytest.raises(LabelFileError):
        read_label_file(saved([COORDS, FLIPS, np.array([{}, {}], object)]))
    with pytest.raises(LabelFileError):
        read_label_file(saved([COORDS, FLIPS, np.ma.array([1, 2])]))


def test_a_huge_array_takes_no_memory():
    pickled = pickle.dumps([COORDS, FLIPS, LABELS], protocol=2)
    begin = b"K\x00\x85"  # the shape (0,) of an array that is to be filled
    assert begin in pickled
    huge = pickled.replace(begin, b"J\xff\xff\xff\x7f\x85", 1)
    with pytest.raises(LabelFileError):
        read_label_file(with_pickle(huge))


@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.99])
def test_truncated_files(part):
    data = saved([COORDS, FLIPS, LABELS])
    with pytest.raises(LabelFileError, match="no whole file"):
        read_label_file(data[: int(len(data) * part)])


def test_a_zip_bomb_is_refused(monkeypatch):
    monkeypatch.setattr("slg_wds.interop.fkd.files.MAX_CONTENT_BYTES", 1 << 20)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        member.write(bytes((1 << 20) + 1))
    with pytest.raises(LabelFileError, match="over the limit"):
        read_label_file(stream.getvalue())


BAD = {
    "two arrays": [COORDS, FLIPS],
    "a dict": {"coords": COORDS},
    "flips of others": [COORDS, FLIPS[:1], LABELS],
    "coords [M, 3]": [COORDS[:, :3], FLIPS, LABELS],
    "more labels than crops": [COORDS[:1], FLIPS[:1], LABELS],
    "no labels": [COORDS, FLIPS, LABELS[:0]],
    "NaN coords": [COORDS * np.float32("nan"), FLIPS, LABELS],
    "coords above 1": [COORDS * 2, FLIPS, LABELS],
    "coords below 0": [COORDS - 1, FLIPS, LABELS],
    "whole coords": [COORDS.astype(np.int64), FLIPS, LABELS],
    "flips of 2": [COORDS, np.array([2, 0]), LABELS],
    "complex labels": [COORDS, FLIPS, LABELS.astype(np.complex64)],
    "text": [COORDS, FLIPS, "labels"],
}


@pytest.mark.parametrize("value", BAD.values(), ids=BAD)
def test_what_is_no_label_file(value):
    with pytest.raises(LabelFileError):
        read_label_file(saved(value))


@st.composite
def boxes_in_images(draw):
    height, width = draw(st.integers(1, 6000)), draw(st.integers(1, 6000))
    rows = []
    for _ in range(draw(st.integers(1, 20))):
        h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
        rows.append((draw(st.integers(0, height - h)), draw(st.integers(0, width - w)), h, w))
    return (height, width), np.array(rows, np.int64)


@settings(max_examples=200, deadline=None)
@given(boxes_in_images())
def test_float32_coordinates_give_the_very_box(case):
    size, boxes = case
    coords = np.stack(
        [
            torch.FloatTensor((t / size[0], left / size[1], h / size[0], w / size[1])).numpy()
            for t, left, h, w in boxes.tolist()
        ]
    )
    assert np.array_equal(relative(boxes, size), coords)
    cut = cut_boxes(coords, size)
    assert np.array_equal(cut.boxes, boxes) and not cut.inexact.any() and not cut.clamped.any()
    again, exact = exact_coords(boxes, size, half=False)
    assert again.tobytes() == coords.tobytes() and exact.all()


@settings(max_examples=200, deadline=None)
@given(boxes_in_images())
def test_float16_coordinates_give_the_box_that_the_reader_cuts(case):
    size, boxes = case
    coords = np.float16(relative(boxes, size))
    seen = np.array([original.readers_box(row, size) for row in coords])  # left, top, right, bottom
    inside = np.clip(seen, 0, [size[1], size[0]] * 2)
    expected = np.stack(
        [inside[:, 1], inside[:, 0], inside[:, 3] - inside[:, 1], inside[:, 2] - inside[:, 0]], axis=1
    )
    if (expected[:, 2:] < 1).any():
        with pytest.raises(LabelFileError, match="no pixel"):
            cut_boxes(coords, size)
        return
    cut = cut_boxes(coords, size)
    assert np.array_equal(cut.boxes, expected)
    assert np.array_equal(cut.clamped, (inside != seen).any(axis=1))
    assert np.array_equal(cut.boxes[~cut.inexact], boxes[~cut.inexact])  # said to be exact, and is
    again, exact = exact_coords(cut.boxes, size, half=True)
    there = np.array([original.readers_box(row, size) for row in again])
    assert np.array_equal((there == inside).all(axis=1), exact)
    assert exact[~cut.inexact].all()


def test_float32_coordinates_of_another_size_are_noticed():
    boxes = np.array([[3, 5, 101, 77]])
    assert cut_boxes(relative(boxes, (400, 300)), (200, 150)).inexact.all()
