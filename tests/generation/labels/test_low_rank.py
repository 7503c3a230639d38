"""`generate --label-type lowrank`: labels within the error asked for, the same bytes however they are made."""

from __future__ import annotations

import json

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.concurrency.threads import one_blas_thread
from slg_wds.errors import IdentityMismatchError, RecordError
from slg_wds.labels.low_rank import encode
from support.programs import tool
from support.sets.low_rank_sets import divergence
from support.sets.replay_sets import tiny_run

KILL = tool("kill_test")


def config(data, target, **options):
    return tiny_run(data, target, **{"label_type": "lowrank", "num_crops": 30, **options})


@pytest.fixture(scope="module")
def undisturbed(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("lowrank") / "set"
    assert slg_wds.generate(config(photographs, target)).complete
    return target


@pytest.fixture(scope="module")
def exact(photographs, tmp_path_factory):
    """The teacher's own distributions of the same crops, float64 [M, C] by key."""
    target = tmp_path_factory.mktemp("exact") / "set"
    slg_wds.generate(config(photographs, target, label_type="full", values="float32"))
    return {record.key: record.value.astype(float) for record in slg_wds.open_labels(str(target))}


def test_labels_are_within_the_error_that_each_record_states(undisturbed, exact):
    labels = slg_wds.open_labels(str(undisturbed))
    assert labels.label_type == "lowrank" and "lowrank" in labels.description.requires
    assert (labels.identity.max_kl, labels.identity.k, labels.identity.coding) == (0.1, None, None)
    for record in labels:
        each = divergence(exact[record.key], record.distribution())
        assert each.mean() <= 0.1 and each.max() <= 0.5
        kl = record.low_rank.kl
        assert np.allclose((each.mean(), each.max()), (kl.mean, kl.worst), rtol=1e-3, atol=1e-6)
        assert kl.against == "teacher" and record.index.shape == (30, 0)


@pytest.mark.parametrize(
    "options", [{"workers": 1}, {"workers": 5}, {"batch_size": 1}, {"devices": "cpu:2"}], ids=str
)
def test_bytes_do_not_depend_on_threads_read_ahead_or_processes(photographs, undisturbed, tmp_path, options):
    slg_wds.generate(config(photographs, tmp_path / "set", **options))
    assert KILL.contents(tmp_path / "set") == KILL.contents(undisturbed)


def test_a_resumed_set_has_the_same_bytes(photographs, undisturbed, tmp_path):
    target = tmp_path / "set"
    slg_wds.generate(config(photographs, target))
    for name in sorted(target.glob("*.tar"))[1::2]:
        name.unlink()
    (target / "_info.json").unlink()
    slg_wds.generate(config(photographs, target))
    assert KILL.contents(target) == KILL.contents(undisturbed)


def test_records_are_those_of_the_coder_alone(undisturbed, exact):
    record = next(iter(slg_wds.open_labels(str(undisturbed))))
    with one_blas_thread():
        alone = encode(exact[record.key].astype(np.float32), 0.1)
    assert np.array_equal(alone.coefficients, record.low_rank.coefficients)
    assert np.array_equal(alone.blocks[0].basis, record.low_rank.blocks[0].basis)


def test_the_error_is_part_of_the_identity(photographs, undisturbed):
    with pytest.raises(IdentityMismatchError, match=r"max_kl: 0\.1 != 0\.05"):
        slg_wds.generate(config(photographs, undisturbed, max_kl=0.05))
    assert slg_wds.generate(config(photographs, undisturbed, max_kl=0.1)).complete


def test_other_sets_have_no_new_field(photographs, tmp_path):
    slg_wds.generate(config(photographs, tmp_path / "set", label_type="hard", num_crops=2))
    stored = json.loads((tmp_path / "set" / "slg.json").read_text())
    assert "max_kl" not in stored["identity"] and stored["requires"] == ["trailer"]


def test_an_error_out_of_reach_names_the_image(photographs, tmp_path):
    with pytest.raises(RecordError, match="no low-rank labels of a crop") as caught:
        slg_wds.generate(config(photographs, tmp_path / "set", max_kl=1e-13, num_crops=1, devices="cpu"))
    assert caught.value.key
    assert not list((tmp_path / "set").glob("*.tar"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--max-kl", "0"], "--max-kl 0 is not a number above 0"),
        (["--max-kl", "nan"], "--max-kl nan is not a number above 0"),
        (["--max-kl", "-0.1"], "--max-kl -0.1 is not a number above 0"),
        (["--max-kl", "inf"], "--max-kl inf is not a number above 0"),
        (["--values", "log8"], "--values is not for --label-type lowrank"),
        (["--tail-classes", "64"], "--tail-classes is not for --label-type lowrank"),
        (["--extendable"], "--extendable is not for --label-type lowrank"),
        (["--use_fp16"], "--use-fp16 is not for --label-type lowrank"),
        (["--label-type", "full", "--max-kl", "0.1"], "--max-kl is for --label-type lowrank, not full"),
        (["--label-type", "lowrank_k5"], "lowrank"),
    ],
)
def test_contradictions_are_one_line(tmp_path, capsys, monkeypatch, options, named):
    monkeypatch.chdir(tmp_path)
    command = ["generate", "images", "-a", "resnet18", "--save-path", "set", "--label-type", "lowrank"]
    assert main([*command, *options]) != 0
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and named in lines[0], lines
    assert not list(tmp_path.iterdir())
