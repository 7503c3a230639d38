"""Shards read by the real `datasets` library of Hugging Face."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest

import slg_wds
from slg_wds.format.canonical import pretty_json, seal
from support.models.names import TINY

pytest.importorskip("datasets")

# In a process of its own: the library starts threads, and writes to its cache where the environment says.
READ = """
import json, sys
from datasets import Image, load_dataset

for streaming in (False, True):
    files = f"{sys.argv[1]}/*.tar"
    rows = load_dataset("webdataset", data_files=files, split="train", streaming=streaming)
    if "jpg" in rows.column_names:
        rows = rows.cast_column("jpg", Image(decode=False))
    found = [
        {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items() if name != "jpg"}
        | ({"jpg": row["jpg"]["bytes"].hex()} if "jpg" in row else {})
        for row in rows
    ]
    print(json.dumps(found))
"""


def rows_of(folder: Path, cache: Path) -> list[list[dict]]:
    """The rows as the library reads them whole, and streaming."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(folder)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()[-2:]]


def labelled(photographs: Path, target: Path, **options) -> slg_wds.LabelSet:
    defaults = {"num_crops": 6, "num_seg": 16, "threads_per_forward": 1, "samples_per_shard": 12}
    slg_wds.generate(
        slg_wds.GenerateConfig(
            data=str(photographs), save_path=str(target), arch=TINY, teacher_source="private",
            **{**defaults, **options},
        )
    )  # fmt: skip
    return slg_wds.open_labels(str(target))


# The library takes the columns from the first 5 samples it meets.
@pytest.mark.parametrize("samples_per_shard", [pytest.param(12, marks=pytest.mark.slow), 3])
def test_every_row_is_an_image_and_its_labels(photographs, tmp_path, samples_per_shard):
    labels = labelled(
        photographs, tmp_path / "set", embed_images="original", samples_per_shard=samples_per_shard
    )
    for rows in rows_of(tmp_path / "set", tmp_path / "cache"):
        assert [row["__key__"] for row in rows] == list(labels.plan.keys)
        for row, record in zip(rows, labels, strict=True):
            assert bytes.fromhex(row["jpg"]) == (photographs / "train" / record.path).read_bytes()
            assert row["cls"] == record.target
            fields = msgpack.unpackb(bytes.fromhex(row["slg.msgpack"]))
            assert (fields["key"], fields["num_crops"]) == (record.key, 6)


def test_shards_of_labels_alone(photographs, tmp_path):
    labels = labelled(photographs, tmp_path / "set")
    for rows in rows_of(tmp_path / "set", tmp_path / "cache"):
        assert [row["__key__"] for row in rows] == list(labels.plan.keys)
        assert all(msgpack.unpackb(bytes.fromhex(row["slg.msgpack"]))["version"] == 1 for row in rows)


def test_a_set_begun_under_the_old_name_is_finished_under_it(photographs, tmp_path):
    """Its shards stay alike, also where others read them."""
    new = labelled(photographs, tmp_path / "new")
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "plan").write_bytes((tmp_path / "new" / "plan").read_bytes())
    fields = json.loads((tmp_path / "new" / "slg.json").read_bytes())
    del fields["crc32"]
    (begun / "slg.json").write_bytes(pretty_json(seal({**fields, "requires": []})))
    old = labelled(photographs, begun)
    last = [member.name for number in range(3) for member in old.shard(number).members[-1:]]
    assert last == ["__slg__/shard.json"] * 3
    assert [m.name for m in new.shard(0).members[-1:]] == ["__slg__/shard"]
    for mine, theirs in zip(old, new, strict=True):
        assert mine.key == theirs.key and np.array_equal(mine.value, theirs.value)
