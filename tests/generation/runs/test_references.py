"""--reference-path: the crops of one set, labelled by another teacher."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import slg_wds
from slg_wds import errors
from support.sets.replay_sets import tiny_run

config = partial(tiny_run, num_crops=30)


def test_reference_gives_its_crops_to_another_teacher(photographs, undisturbed, tmp_path):
    options = {"reference_path": str(undisturbed), "num_crops": 12, "seed": 99, "samples_per_shard": 7}
    slg_wds.generate(config(photographs, tmp_path / "set", input_size=40, **options))
    ours = {record.key: record for record in slg_wds.open_labels(str(tmp_path / "set"))}
    for record in slg_wds.open_labels(str(undisturbed)):
        assert np.array_equal(ours[record.key].crops, record.crops[:12])
        assert np.array_equal(ours[record.key].flips, record.flips[:12])


def test_options_that_a_reference_overrides_are_named(photographs, undisturbed, tmp_path, capsys):
    options = {"reference_path": str(undisturbed), "num_crops": 12, "max_scale_crops": 0.9, "flip_prob": 0.0}
    slg_wds.generate(config(photographs, tmp_path / "set", **options))
    named = "not used, since the reference gives the crops: --max-scale-crops, --flip-prob"
    assert named in capsys.readouterr().err.splitlines()


def test_reference_with_too_few_crops_or_images_is_refused(photographs, undisturbed, tmp_path):
    with pytest.raises(errors.ReferenceSetError, match="30 crops an image, fewer than the 31 asked for"):
        slg_wds.generate(config(photographs, tmp_path / "a", reference_path=str(undisturbed), num_crops=31))
    few = tmp_path / "few.txt"
    few.write_text("n02123045/chelsea_0.jpg\nn07920052/coffee_1.jpg\n")
    slg_wds.generate(config(photographs, tmp_path / "few", list_file=str(few)))
    with pytest.raises(errors.ReferenceSetError, match="lacks 34 of 36 images"):
        slg_wds.generate(config(photographs, tmp_path / "b", reference_path=str(tmp_path / "few")))
    result = slg_wds.generate(
        config(photographs, tmp_path / "c", reference_path=str(tmp_path / "few"), on_error="skip")
    )
    assert result.stats.images == 2 and len(result.stats.left_out) == 34
    assert {record.key for record in slg_wds.open_labels(str(tmp_path / "c"))} == {
        "n02123045/chelsea_0",
        "n07920052/coffee_1",
    }
