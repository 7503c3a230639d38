"""Shards that are removed, made again or from another set, while index, _info.json or workers still have older ones."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.config import VerifyConfig
from slg_wds.engines import commands, committing
from slg_wds.labelset import publishing
from slg_wds.labelset.labelset import LabelSet
from slg_wds.labelset.objects import INFO
from slg_wds.store.local import LocalStore
from slg_wds.verification.verify import verify
from support.models.names import TINY
from support.programs import tool
from support.sets import trust_sets

JOBS = tool("fault_jobs")


@pytest.fixture(scope="module")
def small(photographs, tmp_path_factory):
    return trust_sets.small_photographs(photographs, tmp_path_factory.mktemp("small") / "few", 8)


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """Four shards of two images."""
    return trust_sets.make(small, tmp_path_factory.mktemp("whole") / "set", samples_per_shard=2)


@pytest.fixture(scope="module")
def other(small, tmp_path_factory):
    """The same images, other crops."""
    folder = tmp_path_factory.mktemp("other") / "set"
    return trust_sets.make(small, folder, samples_per_shard=2, seed=1)


def again(images, target, **options):
    return trust_sets.make(images, target, samples_per_shard=2, **options)


def command(images, target) -> list[str]:
    more = "--num_crops 12 --num_seg 16 --label_type shared_tail_k5 --samples-per-shard 2 --threads-per-forward 1"
    source = ["-a", TINY, "--teacher_source", "private"]
    return ["generate", str(images), *source, "--save-path", str(target), *more.split()]


def same(target: Path, whole: Path) -> bool:
    """Byte for byte, but for the date in slg.json."""
    found, wanted = (
        {n: d for n, d in trust_sets.objects_of(f).items() if n != "slg.json"} for f in (target, whole)
    )
    return found == wanted


def test_a_shard_removed_and_made_with_a_mended_image(small, whole, tmp_path):
    images = trust_sets.copy_of(small, tmp_path / "images")
    torn = sorted(images.rglob("*.jpg"))[3]
    content = torn.read_bytes()
    torn.write_bytes(content[:300])
    target = again(images, tmp_path / "set", on_error="skip")
    labels = slg_wds.open_labels(str(target))
    (number,) = [n for n in range(4) if labels.shard(n).header.left_out]
    torn.write_bytes(content)
    (target / labels.shard_name(number)).unlink()
    again(images, target)
    assert same(target, whole)
    assert len(trust_sets.walked(trust_sets.loader_of(target, images, global_batch_size=12))) == 8


def test_info_of_other_counts_is_written_again(small, whole, tmp_path):
    target = trust_sets.copy_of(whole, tmp_path / "set")
    (target / INFO).write_text((target / INFO).read_text().replace('"num_samples": 8', '"num_samples": 7'))
    again(small, target)
    assert same(target, whole)


@pytest.mark.parametrize("change", ["another set's", "of another shard", "damaged"])
def test_a_wrong_index_part_is_written_again(small, whole, other, tmp_path, change):
    target = trust_sets.copy_of(whole, tmp_path / "set")
    part = target / "index" / "train-000002"
    made = {
        "another set's": (other / "index" / "train-000002").read_bytes(),
        "of another shard": (whole / "index" / "train-000001").read_bytes(),
        "damaged": part.read_bytes()[:-9],
    }
    part.write_bytes(made[change])
    again(small, target)
    assert same(target, whole)


def test_info_is_withdrawn_while_a_shard_is_missing(small, whole, tmp_path, monkeypatch):
    target = trust_sets.copy_of(whole, tmp_path / "set")
    (target / "train-000001.tar").unlink()
    seen, commit = [], committing.commit_shard
    monkeypatch.setattr(
        committing, "commit_shard", lambda *call: (seen.append((target / INFO).exists()), commit(*call))[1]
    )
    again(small, target)
    assert seen == [False] and same(target, whole)


@pytest.mark.parametrize("begun", [True, False], ids=["begun anew", "removed"])
def test_a_worker_of_a_removed_set_writes_nothing(small, other, tmp_path, monkeypatch, begun):
    """The set is replaced while a worker labels its second shard."""
    target, encode, count = tmp_path / "set", LabelSet.encode_shard, [0]

    def replaced(labels, *arguments):
        count[0] += 1
        if count[0] == 2:
            shutil.rmtree(target)
            if begun:
                target.mkdir()
                for name in ("plan", "slg.json"):
                    shutil.copy(other / name, target / name)
        return encode(labels, *arguments)

    monkeypatch.setattr(LabelSet, "encode_shard", replaced)
    wanted = "another label set is in this place" if begun else "has been removed"
    with pytest.raises(errors.LabelSetError, match=wanted):
        again(small, target)
    assert not list(tmp_path.rglob("set/*.tar"))
    monkeypatch.undo()
    if begun:
        assert same(again(small, target, seed=1), other)


def test_a_process_that_wakes_in_another_set_writes_nothing(small, tmp_path):
    """A real process, stopped while the set is removed and made again with another seed."""
    target, more = tmp_path / "set", ["--num_crops", "1500", "-j", "1"]
    old = JOBS.Run([sys.executable, "-m", "slg_wds", *command(small, target), *more])
    try:
        assert old.wait_for_shards(1)
        old.process.send_signal(signal.SIGSTOP)
        shutil.rmtree(target)
        whole = again(small, tmp_path / "whole", seed=1, num_crops=1500)
        again(small, target, seed=1, num_crops=1500)
        (target / "train-000003.tar").unlink()  # a place for the old one's shards
        (target / "train-000002.tar").unlink()
        old.process.send_signal(signal.SIGCONT)
        assert old.end() == 1, old.text
    finally:
        old.kill()
    again(small, target, seed=1, num_crops=1500)
    assert same(target, whole)


def test_shards_of_another_set_never_make_a_set_complete(small, whole, other, tmp_path, capsys):
    target = trust_sets.copy_of(whole, tmp_path / "set")
    (target / INFO).unlink()
    for name in ("train-000001.tar", "index/train-000001"):
        shutil.copy(other / name, target / name)
    assert main(command(small, target)) == 1
    assert re.search(r"train-000001.*verify --delete-damaged", capsys.readouterr().err)
    assert not (target / INFO).exists()
    assert main(["verify", str(target), "--delete-damaged", "--processes", "1"]) == 1
    assert main(command(small, target)) == 0 and same(target, whole)


def test_verify_removes_a_shard_beside_a_run(small, whole, tmp_path, monkeypatch, capsys):
    target, finish = trust_sets.copy_of(whole, tmp_path / "set"), commands.finish

    def beside(labels, rank):
        shard = target / "train-000002.tar"
        shard.write_bytes(shard.read_bytes()[:-1])
        verify(VerifyConfig(labels=str(target), fix=True, delete_damaged=True, processes=1))
        return finish(labels, rank)

    with monkeypatch.context() as patch:
        patch.setattr(commands, "finish", beside)
        assert main(command(small, target)) == 3
    said = capsys.readouterr()
    assert (
        "not complete" in said.out and "1 shard missing at the end of this run: train-000002.tar" in said.err
    )
    assert main(command(small, target)) == 0 and same(target, whole)


def test_verify_removes_a_shard_that_a_run_has_just_counted(whole, tmp_path, monkeypatch):
    target, encode = trust_sets.copy_of(whole, tmp_path / "set"), publishing.encode_info
    labels = slg_wds.open_labels(str(target))
    (target / INFO).unlink()

    def beside(info):
        (target / "index" / "train-000002").unlink()
        (target / "train-000002.tar").unlink()
        return encode(info)

    monkeypatch.setattr(publishing, "encode_info", beside)
    assert publishing.finish_set(labels) is False
    assert not (target / INFO).exists()


def test_a_run_counts_a_shard_that_verify_is_removing(whole, tmp_path, monkeypatch):
    target, delete = trust_sets.copy_of(whole, tmp_path / "set"), LocalStore.delete
    labels = slg_wds.open_labels(str(target))
    shard = target / "train-000002.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1  # as long as before, so that only verify sees it
    shard.write_bytes(content)
    counted = []

    def beside(store, name):
        if name == "index/train-000002":
            counted.append(publishing.finish_set(labels))
        delete(store, name)

    monkeypatch.setattr(LocalStore, "delete", beside)
    verify(VerifyConfig(labels=str(target), fix=True, delete_damaged=True, processes=1))
    assert counted == [True]
    assert not shard.exists() and not (target / INFO).exists()


@pytest.mark.parametrize("what", ["a link that leads nowhere", "a folder", "what is no file"])
@pytest.mark.parametrize("name", ["train-000002.tar", "index/train-000002", INFO])
def test_something_else_has_the_name_of_an_object(small, whole, tmp_path, capsys, what, name):
    target = trust_sets.copy_of(whole, tmp_path / "set")
    for made in {name, INFO}:
        (target / made).unlink()
    path = target / name
    {
        "a link that leads nowhere": lambda: path.symlink_to("nowhere"),
        "a folder": path.mkdir,
        "what is no file": lambda: os.mkfifo(path),
    }[what]()
    assert main(command(small, target)) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{what} has the name of an object" in said and str(path) in said
    path.rmdir() if what == "a folder" else path.unlink()
    assert main(command(small, target)) == 0 and same(target, whole)


def test_the_loader_refuses_an_index_of_another_size(small, tmp_path):
    """As older versions left it: the shard has an image more than index and _info.json say."""
    whole = again(small, tmp_path / "whole", num_crops=400)  # more than the 10 KiB that any tar has
    images = trust_sets.copy_of(small, tmp_path / "images")
    plan = slg_wds.open_labels(str(whole)).plan
    torn = images / "train" / plan.paths[7]  # the last of its shard, so that the other's place is the same
    torn.write_bytes(torn.read_bytes()[:300])
    target = again(images, tmp_path / "set", on_error="skip", num_crops=400)
    shutil.copy(whole / "train-000003.tar", target / "train-000003.tar")
    with pytest.warns(UserWarning, match="left out"):
        loader = trust_sets.loader_of(target, small, global_batch_size=12)
    with pytest.raises(
        errors.ChecksumError, match=r"its \d+ bytes are not the \d+ of its index.*verify --fix"
    ):
        trust_sets.walked(loader)
