"""Each record has the checksum of its image file."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

import slg_wds
from slg_wds.cli import main
from slg_wds.format.canonical import pretty_json, seal
from slg_wds.format.shards.names import OLD_TRAILER
from slg_wds.format.shards.shard import Sample, encode_shard
from slg_wds.inspection.inspect import inspect
from slg_wds.labelset.publishing import finish_set
from support.models.names import TINY


def config(data, target, **options):
    defaults = {
        "teacher_source": "private", "arch": TINY, "num_crops": 6, "num_seg": 16, "samples_per_shard": 8,
        "threads_per_forward": 1,
    }  # fmt: skip
    return slg_wds.GenerateConfig(data=str(data), save_path=str(target), **{**defaults, **options})


def files(labels: slg_wds.LabelSet, data: Path) -> dict[str, bytes]:
    """The source file of each image, by key, read without the package."""
    return {
        key: (data / path).read_bytes() for key, path in zip(labels.plan.keys, labels.plan.paths, strict=True)
    }


@pytest.fixture(scope="module")
def plain(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("checked") / "set"
    slg_wds.generate(config(photographs, target))
    return target


def test_it_is_that_of_the_file_in_a_folder(photographs, plain):
    labels = slg_wds.open_labels(str(plain))
    source = files(labels, photographs / "train")
    assert {record.key: record.image_crc32 for record in labels} == {
        key: zlib.crc32(data) for key, data in source.items()
    }
    assert all(record.source_crc32 is None for record in labels)


def test_it_is_that_of_the_member_of_an_image_shard(photographs, tmp_path):
    images = {f"{path.parent.name}_{path.stem}": path for path in (photographs / "train").rglob("*.jpg")}
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        for name, path in sorted(images.items()):
            tar.add(path, f"{name}.jpg")
    slg_wds.generate(config(tmp_path / "images.tar", tmp_path / "set"))
    found = {record.key: record.image_crc32 for record in slg_wds.open_labels(str(tmp_path / "set"))}
    assert found == {key: zlib.crc32(path.read_bytes()) for key, path in images.items()}


def test_a_smaller_copy_has_its_own_and_that_of_its_source(photographs, tmp_path):
    slg_wds.generate(config(photographs, tmp_path / "set", embed_images="max-side=450"))
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    source = files(labels, photographs / "train")
    smaller = 0
    for number in range(labels.num_shards):
        for sample in labels.shard(number):
            record, original = sample.record, source[sample.record.key]
            assert record.image_crc32 == zlib.crc32(sample.image)
            if max(Image.open(io.BytesIO(original)).size) > 450:
                smaller += 1
                assert record.source_crc32 == zlib.crc32(original) != record.image_crc32
            else:
                assert record.source_crc32 is None and record.image_crc32 == zlib.crc32(original)
    assert smaller > 0


def test_inspect_says_whether_a_set_has_them(plain, tmp_path, capsys):
    assert inspect(str(plain))["image_checksums"] is True
    assert main(["inspect", str(plain)]) == 0
    assert "image checksums" in capsys.readouterr().out
    old = in_old_form(plain, tmp_path / "old")
    assert inspect(str(old))["image_checksums"] is False
    assert main(["inspect", str(old)]) == 0
    assert "none: replayed images cannot be checked" in " ".join(capsys.readouterr().out.split())


def in_old_form(labels: Path, target: Path, shards: bool = True) -> Path:
    """The set as it was made before there were checksums of images, or only begun."""
    opened = slg_wds.open_labels(str(labels))
    target.mkdir()
    (target / "plan").write_bytes((labels / "plan").read_bytes())
    fields = json.loads((labels / "slg.json").read_bytes())
    del fields["crc32"], fields["image_checksums"]
    (target / "slg.json").write_bytes(pretty_json(seal({**fields, "requires": []})))
    if shards:
        for name, data in old_shards(opened).items():
            (target / name).write_bytes(data)
        finish_set(slg_wds.open_labels(str(target)))
    return target


def old_shards(labels: slg_wds.LabelSet) -> dict[str, bytes]:
    """What the shards of a set were before there were checksums of images and the present trailer."""
    found = {}
    for number in range(labels.num_shards):
        shard = labels.shard(number)
        without = [
            Sample(dataclasses.replace(shard.record(i), image_crc32=None, source_crc32=None))
            for i in range(len(shard))
        ]
        found[labels.shard_name(number)] = encode_shard(without, shard.header, OLD_TRAILER)
    return found


def test_a_set_that_was_begun_without_them_is_finished_without_them(photographs, plain, tmp_path):
    begun = in_old_form(plain, tmp_path / "begun", shards=False)
    assert slg_wds.generate(config(photographs, begun)).complete
    expected = old_shards(slg_wds.open_labels(str(plain)))
    assert {path.name: path.read_bytes() for path in begun.glob("*.tar")} == expected
    assert main(["verify", str(begun), "--processes", "1"]) == 0


@pytest.mark.filterwarnings("ignore:.*given twice")  # but for its form it is the same set
def test_a_set_of_another_form_is_merged_in_its_own(photographs, plain, tmp_path):
    old = in_old_form(plain, tmp_path / "old")
    for name, sets in {"without": (old, plain), "with": (plain, old)}.items():
        parents, target = tuple(map(str, sets)), str(tmp_path / name)
        slg_wds.ensemble(slg_wds.EnsembleConfig(sets=parents, save_path=target, processes=1))
    without, having = (slg_wds.open_labels(str(tmp_path / name)) for name in ("without", "with"))
    assert (without.description.image_checksums, having.description.image_checksums) == (False, True)
    assert {record.image_crc32 for record in without} == {None}
    crc32s = {record.key: record.image_crc32 for record in slg_wds.open_labels(str(plain))}
    assert {record.key: record.image_crc32 for record in having} == crc32s
    assert without.description.requires == having.description.requires == ["trailer"]
