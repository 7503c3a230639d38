"""Label files as the reference of `generate`: another teacher labels the crops that they name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from support.models.names import TINY
from support.oracles import fkd_original as original
from support.programs import tool

KILL = tool("kill_test")


@pytest.mark.parametrize("half", [False, True])
def test_label_files_are_a_reference_for_another_teacher(label_files, images, tmp_path, half):
    labels = label_files(half=half)
    options = {"teacher_source": "private", "arch": TINY, "num_seg": 8, "threads_per_forward": 1}
    options |= {"data": str(images), "reference_path": str(labels)}
    made = slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path / "set"), num_crops=10))
    for record in made.labels:
        coords, flips, _ = original.load(labels / "dataset/train" / record.path.replace(".jpg", ".tar"))
        boxes = [original.readers_box(row, record.size) for row in coords[:10]]
        assert [(left, top, left + w, top + h) for top, left, h, w in record.crops.tolist()] == boxes
        assert np.array_equal(record.flips, flips[:10])
    with pytest.raises(errors.ReferenceSetError, match="12 crops of this image, fewer than the 13 asked for"):
        slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path / "more"), num_crops=13))
    (labels / "dataset/train/n02123045/chelsea_1.tar").unlink()
    with pytest.raises(errors.ReferenceSetError, match="lacks 1 of 5 images: n02123045/chelsea_1"):
        slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path / "less"), num_crops=10))


def test_a_bad_file_of_a_reference_is_mended_before_a_set_is_begun(label_files, images, tmp_path):
    labels = label_files()
    file = labels / "dataset/train/n07920052/coffee_2.tar"
    whole = file.read_bytes()
    options = {"data": str(images), "teacher_source": "private", "arch": TINY, "num_seg": 8, "num_crops": 2}
    options |= {"reference_path": str(labels), "save_path": str(tmp_path / "set"), "threads_per_forward": 1}
    file.write_bytes(whole[:700])
    with pytest.raises(errors.ReferenceSetError, match=r"no whole file.*coffee_2\.tar"):
        slg_wds.generate(slg_wds.GenerateConfig(**options))
    assert not (tmp_path / "set").exists()
    file.write_bytes(whole)
    assert slg_wds.generate(slg_wds.GenerateConfig(**options)).stats.images == 5
    coords, flips, labelled = original.load(file)
    torch.save([coords, ~flips, labelled], file)
    with pytest.raises(errors.IdentityMismatchError, match=r"begun with other label files .*remove that set"):
        slg_wds.generate(slg_wds.GenerateConfig(**options))
    file.write_bytes(whole[:700])  # of an image that a run does not want, so the run does not mind
    wanted = tmp_path / "wanted.txt"
    wanted.write_text("".join(f"{stem}.jpg\n" for stem in ("n02123045/chelsea_0", "n02123045/chelsea_1")))
    options |= {"save_path": str(tmp_path / "some"), "list_file": str(wanted)}
    assert slg_wds.generate(slg_wds.GenerateConfig(**options)).stats.images == 2


def test_a_reference_of_label_files_leaves_out_what_it_has_not(label_files, images, tmp_path, capsys):
    """With --on-error skip: an image without its file, one whose file is torn; and the run can be resumed."""
    labels = label_files()
    (labels / "dataset/train/n02123045/chelsea_1.tar").unlink()
    torn = labels / "dataset/train/n07920052/coffee_2.tar"
    torn.write_bytes(torn.read_bytes()[:700])
    command = ["generate", str(images), "--save-path", str(tmp_path / "set"), "--teacher_source", "private"]
    command += ["-a", TINY, "--num_crops", "10", "--reference_path", str(labels), "--on-error", "skip"]
    command += ["--samples-per-shard", "2", "--threads-per-forward", "1"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "LEFT OUT: 2" in said and "made here: 3 images, 30 crops" in said
    assert (
        "n02123045/chelsea_1.jpg: the reference has no label file of this image, or one that it shares with others"
        in said
    )
    assert "n07920052/coffee_2.jpg: dataset/train/n07920052/coffee_2.tar: it is no whole file" in said
    before = KILL.contents(tmp_path / "set")
    (tmp_path / "set" / "train-000001.tar").unlink()
    (tmp_path / "set" / "_info.json").unlink()
    assert main(command) == 0 and KILL.contents(tmp_path / "set") == before
