"""Merged sets: their content, resuming, several processes, bad input."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.engines.reports.run_stats import RunObserver, RunStarted
from slg_wds.ensembling.merge import LabelFormat
from slg_wds.ensembling.work import MergeTask
from slg_wds.labels import parse_label_type
from slg_wds.store import Location
from support.programs import tool
from support.sets.made_sets import label_set

KILL = tool("kill_test")
KEYS = [f"class/image{n:02d}" for n in range(10)]


def merge(target, *sets, **options):
    defaults = {"processes": 1}
    return slg_wds.ensemble(
        slg_wds.EnsembleConfig(sets=tuple(map(str, sets)), save_path=str(target), **{**defaults, **options})
    )


@pytest.fixture
def two(tmp_path):
    """Two sets of the same crops, in other orders and shards; the second lives in six shards."""
    label_set(tmp_path / "a", 1)
    label_set(tmp_path / "b", 2, keys=KEYS[3:] + KEYS[:3][::-1], shard=2)
    return tmp_path / "a", tmp_path / "b"


def test_records_are_matched_by_key_and_the_order_is_the_firsts(two, tmp_path):
    result = merge(tmp_path / "m", *two, weights=(1.0, 3.0))
    assert result.complete and result.stats.crops == 240
    merged = slg_wds.open_labels(str(tmp_path / "m"))
    a, b = (slg_wds.open_labels(str(url)) for url in two)
    of_b = {record.key: record for record in b}
    assert [record.key for record in merged] == KEYS
    for record, mine in zip(merged, a, strict=True):
        assert np.array_equal(record.crops, mine.crops) and record.target == 1 and record.path == mine.path
        mean = 0.25 * mine.distribution().astype(np.float64) + 0.75 * of_b[record.key].distribution()
        top = np.sort(mean, axis=1)[:, ::-1][:, :5]
        assert np.abs(record.value - top).max() < 1e-6
    parents = merged.identity["parents"]
    assert [(p["digest"], p["weight"]) for p in parents] == [(a.digest, 0.25), (b.digest, 0.75)]
    assert [teacher["weight"] for teacher in merged.identity["teachers"]] == [0.25, 0.75]


def test_merged_records_keep_the_checksums_of_the_images(tmp_path):
    known = {key: {"image_crc32": n, "source_crc32": 100 + n} for n, key in enumerate(KEYS)}
    for teacher in (1, 2):
        label_set(tmp_path / str(teacher), teacher, change=known, checksums=True)
    merge(tmp_path / "m", tmp_path / "1", tmp_path / "2")
    for n, record in enumerate(slg_wds.open_labels(str(tmp_path / "m"))):
        assert (record.image_crc32, record.source_crc32) == (n, 100 + n)


def test_a_worker_that_finds_another_set_than_the_run_began_with_makes_nothing(two, tmp_path):
    merge(tmp_path / "m", *two)
    labels, parents = (
        slg_wds.open_labels(str(tmp_path / "m")),
        [slg_wds.open_labels(str(one)) for one in two],
    )
    task = MergeTask(
        sets=tuple(Location(str(one)) for one in two),
        weights=None,
        location=Location(labels.url),
        label_format=LabelFormat(parse_label_type("shared_tail_k5"), "float32", 64, labels.num_classes),
        rule=None,
        provenance={},
        digests=(*(one.digest for one in parents), labels.digest),
        start=RunStarted.of(labels, [], labels.num_crops),
    )
    assert task(0, 1, RunObserver()).shards == 0  # all are there
    for at in range(3):
        digests = [*task.digests[:at], "0" * 64, *task.digests[at + 1 :]]
        with pytest.raises(errors.LabelSetError, match="replaced by another since the start"):
            replace(task, digests=tuple(digests))(0, 1, RunObserver())


def test_the_bound_holds_for_the_known_teachers(tmp_path):
    """Total variation to the exact mean, which full sets hold, is at most what the summary says."""
    for teacher in (1, 2):
        label_set(tmp_path / f"s{teacher}", teacher)
        label_set(tmp_path / f"f{teacher}", teacher, label_type="full")
    merge(tmp_path / "exact", tmp_path / "f1", tmp_path / "f2")
    for label_type in ("shared_tail_k5", "marginal_renorm_k2", "shared_tail_k9", "full"):
        result = merge(tmp_path / label_type, tmp_path / "s1", tmp_path / "s2", label_type=label_type)
        pairs = zip(
            *(slg_wds.open_labels(str(tmp_path / name)) for name in (label_type, "exact")), strict=True
        )
        distance = [np.abs(m.distribution() - exact.value).sum(axis=1).mean() / 2 for m, exact in pairs]
        assert 0 < np.mean(distance) <= result.bound < 1


def test_the_bound_is_what_no_label_says(tmp_path):
    """The part that the sets do not store of the result's classes; teachers could put it all elsewhere, no more."""
    for teacher in (1, 2):
        label_set(tmp_path / f"s{teacher}", teacher)
    result = merge(
        tmp_path / "m", tmp_path / "s1", tmp_path / "s2", weights=(1, 3), label_type="shared_tail_k4"
    )
    known = []
    for merged, *parents in zip(
        *(slg_wds.open_labels(str(tmp_path / name)) for name in ("m", "s1", "s2")), strict=True
    ):
        for weight, parent in zip((0.25, 0.75), parents, strict=True):
            for chosen, index, value in zip(merged.index, parent.index, parent.value, strict=True):
                stored = dict(zip(index.tolist(), value.tolist(), strict=True))
                known.append(weight * sum(stored.get(c, 0.0) for c in chosen.tolist()))
    assert result.bound == pytest.approx(1 - 2 * np.mean(known), abs=1e-9)
    with pytest.warns(UserWarning, match="given twice"):
        twice = merge(tmp_path / "twice", tmp_path / "s1", tmp_path / "s1")
    alone = merge(tmp_path / "alone", tmp_path / "s1")
    assert twice.bound == pytest.approx(
        alone.bound, abs=1e-7
    )  # nothing is lost by the mean of a set with itself


def test_hard_labels_give_no_bound(tmp_path, capsys):
    for teacher in (1, 2):
        label_set(tmp_path / f"s{teacher}", teacher, label_type="hard", coding="none", tail=0)
    sets = [str(tmp_path / f"s{teacher}") for teacher in (1, 2)]
    arguments = ["ensemble", *sets, "--save-path", str(tmp_path / "m"), "--processes", "1"]
    assert main([*arguments, "--label-type", "shared_tail_k2"]) == 0
    assert "cannot be bounded" in capsys.readouterr().out


def test_a_set_is_not_merged_into_itself(two, tmp_path):
    with pytest.raises(errors.UsageError, match="--save-path is one of the sets"):
        merge(two[0], *two)


@pytest.mark.parametrize("shard", [1, 3, 100])
def test_one_set_alone_is_cut_into_other_shards(tmp_path, shard):
    label_set(tmp_path / "a", 1, image=b"\xff\xd8\xff\xe0 not decoded")
    merge(tmp_path / "m", tmp_path / "a", samples_per_shard=shard)
    merged = slg_wds.open_labels(str(tmp_path / "m"))
    assert merged.num_shards == -(-10 // shard)
    for mine, theirs in zip(merged, slg_wds.open_labels(str(tmp_path / "a")), strict=True):
        assert mine.key == theirs.key
        for name in ("crops", "flips", "index", "value"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
        assert np.array_equal(mine.tail.codes, theirs.tail.codes) and mine.tail.rest == theirs.tail.rest
    assert all(sample.image == b"\xff\xd8\xff\xe0 not decoded" for sample in merged.shard(0))
    merge(tmp_path / "back", tmp_path / "m", samples_per_shard=4)
    back = slg_wds.open_labels(str(tmp_path / "back"))
    assert [len(back.shard(n)) for n in range(3)] == [4, 4, 2]


def test_one_set_alone_takes_fewer_classes_and_another_coding(tmp_path):
    label_set(tmp_path / "a", 1)
    merge(tmp_path / "m", tmp_path / "a", label_type="marginal_smoothing_k3", values="log8", tail_classes=0)
    for record in slg_wds.open_labels(str(tmp_path / "m")):
        assert record.k == 3 and record.coding == "log8" and record.tail is None
    with pytest.raises(errors.UsageError, match="needs 6 classes"):
        merge(tmp_path / "n", tmp_path / "a", label_type="shared_tail_k6")


def test_images_that_a_set_left_out_are_left_out_with_the_reason(two, tmp_path):
    label_set(tmp_path / "c", 3, keys=KEYS[::-1], shard=3, left_out=(KEYS[2], KEYS[9]))
    result = merge(tmp_path / "m", *two, tmp_path / "c")
    assert sorted(result.stats.left_out) == [
        (f"{key}.jpg", "torn (left out of set 3)") for key in (KEYS[2], KEYS[9])
    ]
    assert len(list(slg_wds.open_labels(str(tmp_path / "m")))) == 8


def test_records_read_by_range_are_those_of_whole_shards(two, tmp_path, monkeypatch):
    label_set(tmp_path / "c", 1, shard=7, image=b"\xff\xd8\xff\xe0 not decoded")
    merge(tmp_path / "whole", tmp_path / "c", two[1], samples_per_shard=3)
    monkeypatch.setattr("slg_wds.labelset.keyed.WHOLE_BYTES", 0)
    merge(tmp_path / "ranges", tmp_path / "c", two[1], samples_per_shard=3)
    assert KILL.contents(tmp_path / "ranges") == KILL.contents(tmp_path / "whole")


def test_processes_share_the_work_and_bytes_are_the_same(two, tmp_path):
    merge(tmp_path / "alone", *two, samples_per_shard=1)
    result = merge(tmp_path / "both", *two, samples_per_shard=1, processes=2)
    assert KILL.contents(tmp_path / "both") == KILL.contents(tmp_path / "alone")
    assert result.stats.shards == 10 and result.stats.images == 10


def test_a_second_run_makes_nothing_and_a_lost_shard_comes_back_the_same(two, tmp_path):
    merge(tmp_path / "m", *two)
    before = KILL.contents(tmp_path / "m")
    (tmp_path / "m" / "train-000001.tar").unlink()
    (tmp_path / "m" / "_info.json").unlink()
    assert merge(tmp_path / "m", *two).stats.shards == 1
    assert merge(tmp_path / "m", *two).stats.shards == 0
    assert KILL.contents(tmp_path / "m") == before


def test_killed_and_resumed_it_is_byte_identical(two, tmp_path):
    for teacher, name in ((1, "a2"), (2, "b2")):
        label_set(tmp_path / name, teacher, keys=[f"k{n}" for n in range(80)], shard=20, crops=200)
    sets = [str(tmp_path / "a2"), str(tmp_path / "b2")]
    merge(tmp_path / "alone", *sets, samples_per_shard=1)
    target = tmp_path / "m"
    command = [sys.executable, "-m", "slg_wds", "ensemble", *sets, "--save-path", str(target)]
    command += ["--samples-per-shard", "1", "--processes", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(target.glob("*.tar"))) < 5 and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.5)  # its workers see that it is gone
    left = len(list(target.glob("*.tar")))
    assert 5 <= left < 80
    time.sleep(0.3)
    assert len(list(target.glob("*.tar"))) == left, "workers go on without their parent"
    assert main([*command[3:-1], "1"]) == 0
    assert KILL.contents(target) == KILL.contents(tmp_path / "alone")


def test_an_interrupted_run_ends_its_workers_and_says_how_to_go_on(tmp_path):
    for teacher in (1, 2):
        label_set(tmp_path / str(teacher), teacher, keys=[f"k{n}" for n in range(40)], shard=10, crops=200)
    command = [sys.executable, "-m", "slg_wds", "ensemble", str(tmp_path / "1"), str(tmp_path / "2")]
    command += ["--save-path", str(tmp_path / "m"), "--samples-per-shard", "1", "--processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    while not list(tmp_path.glob("m/*.tar")) and process.poll() is None:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the group
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and b"run the same command to resume" in said
    assert b"Traceback" not in said, said
    assert not list(tmp_path.glob("m/.tmp-*"))


BOX = np.array([[0, 0, 7, 7]] * 24)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"classes": 61}, "num_classes: 60 != 61"),
        ({"crops": 23}, "num_crops: 24 != 23"),
        ({"identity": {"temperature": 2.0}}, "temperature: 1.0 != 2.0"),
        ({"keys": [*KEYS[:9], "class/other"]}, "no image 'class/"),
        ({"keys": KEYS[:9]}, "no image 'class/image09'"),
        ({"change": {KEYS[4]: {"target": 7}}}, "target: 1 != 7"),
        ({"change": {KEYS[4]: {"crops": BOX}}}, "box of crop 0"),
        ({"change": {KEYS[4]: {"size": (301, 300)}}}, "size"),
        ({"change": {KEYS[4]: {"flips": np.ones(24, bool)}}}, "flip of crop"),
    ],
)
def test_the_first_difference_is_named(tmp_path, other, named):
    label_set(tmp_path / "a", 1)
    label_set(tmp_path / "b", 2, **other)
    with pytest.raises(errors.IdentityMismatchError, match=named) as caught:
        merge(tmp_path / "m", tmp_path / "a", tmp_path / "b")
    assert str(tmp_path / "b") in str(caught.value)
    if "change" in other:
        assert caught.value.key == KEYS[4]
    assert not list(tmp_path.glob("m/_info.json"))


def test_an_error_of_a_worker_keeps_its_class_and_fields(tmp_path):
    label_set(tmp_path / "a", 1)
    label_set(tmp_path / "b", 2, change={KEYS[4]: {"crops": BOX}})
    with pytest.raises(errors.IdentityMismatchError) as caught:
        merge(tmp_path / "m", tmp_path / "a", tmp_path / "b", processes=2)
    assert caught.value.key == KEYS[4]


@pytest.mark.parametrize(
    "weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan")), (1.0, float("inf"))]
)
def test_weights_that_cannot_be(two, tmp_path, weights):
    with pytest.raises(errors.UsageError, match="weights"):
        merge(tmp_path / "m", *two, weights=weights)
    assert not (tmp_path / "m").exists()


def test_the_same_set_twice_is_a_warning(two, tmp_path, capsys):
    with pytest.warns(UserWarning, match="given twice"):
        merge(tmp_path / "m", two[0], two[0])
    capsys.readouterr()
    again = ["ensemble", str(two[0]), str(two[0]), "--save-path", str(tmp_path / "n"), "--processes", "1"]
    assert main(again) == 0
    said = capsys.readouterr().err
    assert said.index("given twice") < said.index("train-000000")  # before the work, not after hours of it


def test_an_incomplete_parent_is_refused(tmp_path):
    label_set(tmp_path / "a", 1, complete=False)
    with pytest.raises(errors.IncompleteSetError):
        merge(tmp_path / "m", tmp_path / "a")


def test_a_parent_changed_in_between_is_noticed(two, tmp_path):
    merge(tmp_path / "m", *two)
    (tmp_path / "m" / "train-000002.tar").unlink()
    label_set(tmp_path / "changed", 2, identity={"seed": 5})
    with pytest.raises(errors.IdentityMismatchError, match=r"parents\[1\].digest"):
        merge(tmp_path / "m", two[0], tmp_path / "changed")
    other = tmp_path / "changed" / "train-000001.tar"
    (two[0] / "train-000001.tar").unlink()
    other.rename(two[0] / "train-000001.tar")  # a shard of another set among ours
    (tmp_path / "m" / "train-000001.tar").unlink()
    with pytest.raises(errors.ShardError, match="another shard: its set digest"):
        merge(tmp_path / "m", *two)


def test_a_merged_set_names_a_precision_only_if_all_sets_have_it(tmp_path):
    """It is what the teachers are asked at again, and what inspect shows."""
    for name, precision in (("a", "fp32"), ("b", "bf16"), ("c", "fp32")):
        label_set(tmp_path / name, ord(name), identity={"precision": precision})
    assert merge(tmp_path / "ac", tmp_path / "a", tmp_path / "c").labels.identity["precision"] == "fp32"
    assert merge(tmp_path / "ab", tmp_path / "a", tmp_path / "b").labels.identity["precision"] is None
