"""Sets of one crop, one image and no image work with every command."""

from __future__ import annotations

import json

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.strings import StringColumn
from slg_wds.labelset.creating import create_labels
from slg_wds.labelset.publishing import finish_set
from slg_wds.store import Location
from support.sets import trust_sets


@pytest.mark.parametrize("count", [1, 3])
def test_one_crop_of_each_image(photographs, tmp_path, capsys, count):
    images = trust_sets.small_photographs(photographs, tmp_path / "images", count)
    labels = trust_sets.make(images, tmp_path / "set", num_crops=1)
    assert main(["verify", str(labels), "--processes", "1"]) == 0
    capsys.readouterr()
    assert main(["inspect", str(labels), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"]["labelled"] == count and found["sampled"]["crops"] == count
    assert main(["export", str(labels), str(tmp_path / "fkd")]) == 0
    assert len(list((tmp_path / "fkd").rglob("*.tar"))) == count
    records = {record.key: record for record in slg_wds.open_labels(str(labels))}
    loader = trust_sets.loader_of(labels, images, crops_per_image=1, global_batch_size=1)
    batches = list(loader)
    assert sorted(key for batch in batches for key in batch.key) == sorted(records)
    for batch in batches:
        (key,) = batch.key
        assert np.array_equal(batch.index.numpy(), records[key].index)
        assert np.allclose(batch.labels.dense().numpy(), records[key].distribution(), atol=1e-6)
    report = tmp_path / "report.html"
    assert main(["report", str(labels), "-o", str(report), "--images", str(images)]) == 0
    assert report.stat().st_size > 10_000


def test_a_set_of_no_images(small_images, tmp_path, capsys):
    like = slg_wds.open_labels(str(trust_sets.make(small_images, tmp_path / "like", num_crops=1)))
    none = Plan([], np.zeros(0, np.int64), StringColumn.of([]), StringColumn.of([]), np.zeros(0, np.int32))
    labels = create_labels(Location(str(tmp_path / "set")), none, like.identity, {}, None)
    assert finish_set(labels)
    assert list(slg_wds.open_labels(labels.url)) == []
    assert main(["verify", labels.url]) == 0
    capsys.readouterr()
    assert main(["inspect", labels.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"]["planned"] == 0
    for command in (
        ["inspect", labels.url, "--key", "a"],
        ["report", labels.url, "-o", str(tmp_path / "r.html")],
    ):
        assert main(command) in (1, 2, 3)
        err = capsys.readouterr().err
        assert "Traceback" not in err and err.count("\n") == 1
    assert not (tmp_path / "r.html").exists()
    with pytest.raises(slg_wds.SlgWdsError):
        trust_sets.loader_of(tmp_path / "set", small_images)
