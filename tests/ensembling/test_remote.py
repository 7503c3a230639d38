"""Merging, extending, import and export in object storage give the same as with local folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import slg_wds
from slg_wds.store import open_store
from support.models.names import TINY
from support.paths import MODELS
from support.programs import tool

KILL = tool("kill_test")
OTHER = f"{MODELS / 'other_teacher.py'}:tiny_other"


@pytest.fixture
def bucket(s3_server, s3_url, tmp_path):
    """Uploads a folder and returns its URL, downloads a URL to a folder, and has the options for commands."""

    class Bucket:
        options = s3_server.options()

        def url(self, name):
            return f"{s3_url}/{name}"

        def put(self, folder):
            store = open_store(self.url(folder.name), s3_server.options())
            for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
                store.create(path.relative_to(folder).as_posix(), path.read_bytes())
            return self.url(folder.name)

        def get(self, url):
            store, target = open_store(url, s3_server.options()), tmp_path / "copies" / url.rpartition("/")[2]
            for entry in store.list():
                (target / entry.name).parent.mkdir(parents=True, exist_ok=True)
                (target / entry.name).write_bytes(store.read(entry.name))
            return target

    return Bucket()


def label(data, target, crops, **options):
    defaults = {"teacher_source": "private", "arch": TINY, "num_seg": 16, "samples_per_shard": 5}
    defaults |= {"threads_per_forward": 1, "num_crops": crops}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(data), save_path=str(target), **{**defaults, **options}))
    return str(target)


def test_a_remote_reference_of_other_shards_input_size_and_root(photographs, bucket, tmp_path):
    """Boxes and flips are those of its first crops; then the two merge, from there to there, as they do here."""
    reference = bucket.put(Path(label(photographs, tmp_path / "reference", 16)))
    moved = tmp_path / "elsewhere" / "train"
    shutil.copytree(photographs / "train", moved)
    options = {"reference_path": reference, "store_options": bucket.options, "input_size": 48}
    other = label(moved, bucket.url("other"), 9, arch=OTHER, samples_per_shard=7, **options)
    same = label(moved, tmp_path / "same", 16, arch=OTHER, samples_per_shard=7, **options)
    first = {record.key: record for record in slg_wds.open_labels(str(tmp_path / "reference"))}
    found = list(slg_wds.open_labels(str(bucket.get(other))))
    assert len(found) == len(first) == 36
    for record in found:
        assert np.array_equal(record.crops, first[record.key].crops[:9])
        assert np.array_equal(record.flips, first[record.key].flips[:9])
    sets = (str(tmp_path / "reference"), same)
    merge = {"samples_per_shard": 4, "values": "log8", "processes": 1}
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=sets, save_path=str(tmp_path / "here"), **merge))
    there = (reference, bucket.put(Path(same)))
    slg_wds.ensemble(
        slg_wds.EnsembleConfig(
            sets=there, save_path=bucket.url("there"), store_options=bucket.options, **merge
        )
    )
    assert KILL.contents(bucket.get(bucket.url("there"))) == KILL.contents(tmp_path / "here")


def test_a_remote_set_is_extended(photographs, bucket, tmp_path):
    old = label(photographs, tmp_path / "old", 10, extendable=True)
    options = {"extendable": True, "store_options": bucket.options}
    new = label(photographs, bucket.url("new"), 20, extend=bucket.put(Path(old)), **options)
    local = label(photographs, tmp_path / "local", 20, extend=old, extendable=True)
    assert KILL.contents(bucket.get(new)) == KILL.contents(Path(local))


def test_label_files_are_imported_from_there_and_back(photographs, bucket, tmp_path):
    """Images, label files and the set in object storage: the bytes of a local import, and of a local export."""
    labels = label(photographs, tmp_path / "labels", 8, label_type="marginal_smoothing_k3", values="float32")
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=labels, fkd_dir=str(tmp_path / "files")))
    (tmp_path / "files" / "train").rename(tmp_path / "files" / "inner")
    shutil.copytree(photographs, tmp_path / "images")
    options = {"num_classes": slg_wds.open_labels(labels).num_classes, "samples_per_shard": 9, "processes": 1}
    here = {"fkd_dir": str(tmp_path / "files"), "images": str(tmp_path / "images")}
    slg_wds.import_fkd(slg_wds.ImportConfig(save_path=str(tmp_path / "set"), **here, **options))
    there = {"fkd_dir": bucket.put(tmp_path / "files"), "images": bucket.put(tmp_path / "images")}
    slg_wds.import_fkd(
        slg_wds.ImportConfig(save_path=bucket.url("set"), store_options=bucket.options, **there, **options)
    )
    assert KILL.contents(bucket.get(bucket.url("set"))) == KILL.contents(tmp_path / "set")
    back = slg_wds.ExportConfig(
        labels=bucket.url("set"), fkd_dir=str(tmp_path / "back"), store_options=bucket.options
    )
    assert slg_wds.export_fkd(back).files == 36
    for file in (path for path in (tmp_path / "back").rglob("*") if path.is_file()):
        inside = file.relative_to(tmp_path / "back" / "train")
        assert file.read_bytes() == (tmp_path / "files" / "inner" / inside).read_bytes()
