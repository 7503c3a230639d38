"""Looking up one image of a set by position or key, and the repr of sets, results and batches."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import slg_wds
from slg_wds import errors
from slg_wds.format.records.encoding import encode_record
from slg_wds.labelset.key_index import KeyNumbers
from slg_wds.labelset.labelset import LabelSet
from support.servers.website import web_server
from support.sets import trust_sets


@pytest.fixture(scope="module")
def result(photographs, tmp_path_factory) -> slg_wds.generation.command.GenerateResult:
    folder = tmp_path_factory.mktemp("lookup")
    images = trust_sets.small_photographs(photographs, folder / "images")
    broken = images / "train" / next((images / "train").iterdir()).name / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff")
    config = slg_wds.GenerateConfig(
        data=str(images), save_path=str(folder / "set"), teacher_source="private", arch=trust_sets.TINY,
        num_crops=6, num_seg=8, samples_per_shard=4, on_error="skip",
    )  # fmt: skip
    return slg_wds.generate(config)


@pytest.fixture
def labels(result) -> LabelSet:
    return slg_wds.open_labels(result.labels.url)


def test_every_image_by_its_place_and_key(labels):
    records = {record.key: record for record in labels}
    assert len(records) == len(labels) - 1
    for number, key in enumerate(labels.plan.keys):
        if key not in records:
            continue
        for found in (labels[number], labels[number - len(labels)], labels[np.int64(number)], labels[key]):
            assert encode_record(found) == encode_record(records[key]) and found.rule == labels.label_type


def test_keys_are_those_of_the_records(labels, monkeypatch):
    wanted = [record.key for record in labels]
    monkeypatch.setattr(LabelSet, "shard", None)
    assert labels.keys() == wanted
    assert [key for key in labels.plan.keys if key in labels] == wanted != list(labels.plan.keys)
    assert not any(other in labels for other in ("nobody", "", 0, None))


def test_one_image_reads_no_shard(labels, monkeypatch):
    monkeypatch.setattr(LabelSet, "shard", None)
    left_out = next(i for i, key in enumerate(labels.plan.keys) if "broken" in key)
    assert labels[(left_out + 1) % len(labels)].num_crops == 6


def test_images_that_are_not_there(labels):
    with pytest.raises(IndexError, match=rf"image 9 of the 9 images of .*{Path(labels.url).name}"):
        labels[9]
    with pytest.raises(IndexError, match="image -10 of the 9"):
        labels[-10]
    with pytest.raises(KeyError, match=r"no image of .* has the key 'nobody'; keys are such as 'n"):
        labels["nobody"]
    for wrong in (1.5, slice(2, 5), None):
        with pytest.raises(TypeError, match="by its key or by its number, one at a time"):
            labels[wrong]
    key = next(key for key in labels.plan.keys if "broken" in key)
    with pytest.raises(errors.LabelSetError, match=r"it was left out: .*key .*broken"):
        labels[key]


def test_an_image_whose_shard_is_not_there_yet(labels, tmp_path):
    copy = trust_sets.copy_of(Path(labels.url), tmp_path / "set")
    (copy / labels.shard_name(0)).unlink()
    (copy / "_info.json").unlink()
    unfinished = slg_wds.open_labels(str(copy), allow_incomplete=True)
    with pytest.raises(errors.LabelSetError, match=r"not there yet.*train-000000"):
        unfinished[0]
    there = [record.key for record in unfinished]
    assert unfinished.keys() == there == [key for key in labels.plan.keys if key in unfinished]
    assert labels.plan.keys[0] not in unfinished
    with pytest.raises(errors.IncompleteSetError):
        dataclasses.replace(unfinished, allow_incomplete=False).keys()
    assert unfinished[8 if "broken" not in labels.plan.keys[8] else 7].num_crops == 6


def test_keys_of_an_unfinished_set_on_a_web_server_which_lists_nothing(labels, tmp_path):
    copy = trust_sets.copy_of(Path(labels.url), tmp_path / "set")
    (copy / labels.shard_name(1)).unlink()
    (copy / "_info.json").unlink()
    there = slg_wds.open_labels(str(copy), allow_incomplete=True).keys()
    with web_server(tmp_path) as server:
        unfinished = slg_wds.open_labels(f"{server.url}/set", allow_incomplete=True)
        assert unfinished.keys() == there and 0 < len(there) < len(labels.keys())


def test_keys_are_found_in_another_process_too():
    keys = pickle.dumps(KeyNumbers([f"image {n}" for n in range(100)]))
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).find('image 42'))"
    for seed in ("1", "2"):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, input=keys, capture_output=True, env={"PYTHONHASHSEED": seed})
        assert done.stdout.strip() == b"42", done.stderr


def test_what_things_look_like(result, labels, tmp_path):
    images = Path(labels.url).parent / "images"
    with pytest.warns(UserWarning, match=f"left out of the labels {labels.url}: 1 of 9 images") as warned:
        loader = slg_wds.SoftLabelLoader(labels.url, str(images), global_batch_size=4, threads=1)
    assert warned[0].filename == __file__
    batch = next(iter(loader))
    long = slg_wds.open_labels(str(trust_sets.copy_of(Path(labels.url), tmp_path / ("long" * 50))))
    for one in (result, labels, batch, long):
        assert len(repr(one)) <= 300 and "\n" not in repr(one), repr(one)
    assert "'" + labels.url[:48] in repr(labels) and "9 images, 3 shards, 6 crops an image" in repr(labels)
    assert "48 crops and 3 shards made in" in repr(result) and "1 left out, 0 given up)" in repr(result)
    shown = f"SoftLabelLoader({labels.url!r}, 8 images, 8 batches of 4 crops, rank 0 of 1, epoch 0)"
    assert repr(loader) == shown
    views = (loader.to("cpu"), loader.pairs(), loader.to("cpu").pairs(), batch.labels)
    starts = (
        "DeviceLoader(Soft",
        "PairLoader(Soft",
        "PairLoader(DeviceLoader(Soft",
        "SoftLabels(4 distributions over ",
    )
    for one, start in zip(views, starts, strict=True):
        assert repr(one).startswith(start) and len(repr(one)) <= 300, repr(one)
    assert repr(batch) == "Batch(4 crops: images uint8 [4, 3, 32, 32], labels [4, 5], on cpu)"
