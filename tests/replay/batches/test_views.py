"""Views: students see the teacher's own pixels, whatever was done to them, and every command knows views."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.replay.stages import CollateCrops, cut_crops, decode_record_stage
from slg_wds.store import open_store
from support.models.names import TINY
from support.models.witness_teacher import hashed, witnessed
from support.programs import tool
from support.sets.replay_sets import Made, make
from support.sets.witnessed_pixels import MEAN, STD, check_pixels, labelled

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)

RAND = {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.25}
POLICIES = {
    "timm": RAND,
    "torchvision": {"aa": "ra-n2-m9"},
    "trivial": {"aa": "trivialaugment", "reprob": 0.25},
    "three": {"aa": "3a", "color_jitter": 0.3},
    "erased": {"reprob": 1.0},
}
CONTENTS = tool("kill_test").contents


def check(made: Made, crops: int = 8, **options) -> None:
    check_pixels(made, crops, 36, **options)


@pytest.fixture(scope="module")
def viewed(photographs, tmp_path_factory):
    return labelled(photographs, tmp_path_factory.mktemp("viewed") / "set", **RAND)


@pytest.mark.parametrize("policy", POLICIES)
def test_replayed_views_are_the_teachers_own_pixels(photographs, viewed, tmp_path, policy):
    done = POLICIES[policy]
    check(Made(viewed if done is RAND else labelled(photographs, tmp_path / "set", **done), None), threads=3)


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_ten_thousand_views_are_the_teachers_own_pixels(photographs, tmp_path, policy):
    check(
        Made(labelled(photographs, tmp_path / "set", num_crops=280, **POLICIES[policy]), None), 280, threads=2
    )


def test_views_from_object_storage(viewed, s3_server, s3_url, tmp_path):
    source, store = open_store(viewed), open_store(s3_url, s3_server.options())
    for entry in source.list():
        store.create(entry.name, source.read(entry.name))
    check(Made(s3_url, None), cache_dir=str(tmp_path / "cache"), store_options=s3_server.options())


def test_crops_stay_the_same_and_only_used_options_are_identity(photographs, viewed, tmp_path):
    plain = labelled(photographs, tmp_path / "set")
    for one, other in zip(slg_wds.open_labels(plain), slg_wds.open_labels(viewed), strict=True):
        assert np.array_equal(one.crops, other.crops) and np.array_equal(one.flips, other.flips)
        assert one.views is None and other.views is not None
    without, described = (slg_wds.open_labels(url).description for url in (plain, viewed))
    assert "views" not in without.identity and without.requires == ["trailer"]
    assert described.identity.pop("views") == {**RAND, "fill": 0x7C7468, "erase_fill": 0x7C7468}
    assert described.identity == without.identity and described.requires == ["views", "trailer"]


def test_a_set_of_other_views_is_not_joined(photographs, viewed):
    with pytest.raises(errors.IdentityMismatchError, match=r"views.reprob: 0.25 != 0.5"):
        labelled(photographs, viewed, **{**RAND, "reprob": 0.5})


def test_bytes_do_not_depend_on_threads_or_who_writes(photographs, viewed, tmp_path):
    labelled(photographs, tmp_path / "set", workers=1, batch_size=3, **RAND)
    assert CONTENTS(tmp_path / "set") == CONTENTS(Path(viewed))


def test_a_stock_pipeline_serves_views(viewed):
    opened = slg_wds.open_labels(viewed)
    tars = [f"{viewed}/{opened.shard_name(number)}" for number in range(opened.num_shards)]
    data = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False)
    data = data.map(decode_record_stage(3, labels=opened)).map(cut_crops(97, "bilinear"))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    batch = CollateCrops()(list(data))
    images = batch.images.float().div(255).sub(mean).div(std)
    assert len(images) == 3 * 36
    for image, row in zip(images, batch.value.numpy(), strict=True):
        assert (hashed(image) == witnessed(row)).all()


def test_another_teacher_labels_the_same_views(photographs, viewed, tmp_path):
    """--reference-path takes views and all, and the loader averages the two sets."""
    again = labelled(photographs, tmp_path / "set", reference_path=viewed, num_crops=5)
    assert slg_wds.open_labels(again).description.requires == ["views", "trailer"]
    check(Made(again, None), 5)
    options = {"label_type": "marginal_smoothing_k5", "values": "float16"}
    first = make(photographs, tmp_path / "first", embed_images="original", **options, **RAND)
    other = make(photographs, tmp_path / "other", reference_path=first, **options)
    loader = slg_wds.SoftLabelLoader([first, other], global_batch_size=12)
    assert len(next(iter(loader))) == 12


@pytest.mark.parametrize("option", [{"aa": "3a"}, {"color_jitter": 0.4}, {"reprob": 0.1}])
def test_views_are_not_drawn_beside_a_reference(photographs, viewed, tmp_path, option):
    with pytest.raises(errors.UsageError, match=r"^--[a-z-]+ draws views, and --reference-path takes crops"):
        labelled(photographs, tmp_path / "set", reference_path=viewed, **option)


def test_an_extended_set_is_that_of_one_run(photographs, viewed, tmp_path):
    """The joined labels, views included, are what one run gives; the loader reads both sets as one."""
    few = labelled(photographs, tmp_path / "few", num_crops=5, **RAND)
    more = labelled(photographs, tmp_path / "more", extend=few, **RAND)
    assert slg_wds.open_labels(more).description.requires == ["extends", "views", "trailer"]
    check(Made([few, more], None))
    config = slg_wds.EnsembleConfig(sets=(few, more), save_path=str(tmp_path / "joined"))
    slg_wds.ensemble(config)
    check(Made(str(tmp_path / "joined"), None))
    with pytest.raises(errors.IdentityMismatchError, match=r"views: \{.*\} != absent"):
        labelled(photographs, tmp_path / "plain", extend=few)


def test_equal_boxes_with_different_views_are_not_averaged(photographs, tmp_path):
    options = {"num_crops": 4, "samples_per_shard": 36}
    plain = make(photographs, tmp_path / "plain", embed_images="original", **options)
    sets = [
        make(photographs, tmp_path / str(n), aa=aa, **options)
        for n, aa in enumerate(("3a", "trivialaugment"))
    ]
    with pytest.raises(errors.ReplayError, match="its crops have other views"):
        slg_wds.SoftLabelLoader([plain, sets[0]], global_batch_size=12)
    for pair, message in (
        ((plain, sets[0]), "the second only boxes and flips"),
        (sets, "views: the operations"),
    ):
        config = slg_wds.EnsembleConfig(sets=tuple(pair), save_path=str(tmp_path / f"of{len(message)}"))
        with pytest.raises(errors.IdentityMismatchError, match=message):
            slg_wds.ensemble(config)


def test_merged_sets_keep_their_views(photographs, tmp_path):
    options = {"num_crops": 4, "samples_per_shard": 36, **RAND}
    first = make(photographs, tmp_path / "first", embed_images="original", **options)
    second = make(photographs, tmp_path / "second", reference_path=first, num_crops=4, samples_per_shard=36)
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=(first, second), save_path=str(tmp_path / "merged")))
    merged = slg_wds.open_labels(str(tmp_path / "merged"))
    assert merged.has_views
    for one, other in zip(merged, slg_wds.open_labels(first), strict=True):
        assert (one.views.operations == other.views.operations).all() and one.views.operations.any()


def test_the_teacher_is_asked_with_the_views_own_pixels(photographs, tmp_path, capsys):
    labels = make(
        photographs, tmp_path / "set", embed_images="original", label_type="full", values="float32", **RAND
    )
    asked = [labels, "-a", TINY, "--teacher-source", "private", "--check-crops", "60"]
    assert main(["verify", *asked]) == 0
    out = capsys.readouterr().out
    assert "the labels are the teachers'" in out and "differ by 0.00000 on average and 0.0000 at most" in out


def test_fkds_files_cannot_hold_views(viewed, tmp_path, capsys):
    assert main(["export", viewed, str(tmp_path / "fkd")]) == 2
    error = capsys.readouterr().err
    assert "FKD's label files hold boxes and flips, and cannot hold the views of this set" in error
    assert not (tmp_path / "fkd").exists()


def test_inspect_says_what_is_done_to_each_crop(viewed, capsys):
    record = next(one for one in slg_wds.open_labels(viewed) if one.views.erased[0].any())
    assert main(["inspect", viewed, "--key", record.key, "--json"]) == 0
    crops = json.loads(capsys.readouterr().out)["image"]["crops"]
    assert re.fullmatch(r"erased \d+% x \d+% at \d+%, \d+%", crops[0]["views"][-1])
    assert main(["inspect", viewed]) == 0
    out = capsys.readouterr().out
    assert "rand-m9-mstd0.5-inc1" in out


def test_old_readers_refuse_views(viewed):
    """A reader that does not know views would return the crops' plain pixels."""
    description = slg_wds.open_labels(viewed).description
    assert "views" in json.loads(open_store(viewed).read("slg.json"))["requires"]
    assert dataclasses.replace(description).requires[0] == "views"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aa", "randaugment"], "--aa 'randaugment' is not a known policy"),
        (["--aa", "rand-m12"], "m is a whole number from 0 to 10, not 12"),
        (["--reprob", "1.5"], "--reprob 1.5 is not a probability"),
        (["--color-jitter", "-0.1"], "--color-jitter -0.1 is not within 0 to 1"),
    ],
)
def test_wrong_options_are_one_clear_line(photographs, tmp_path, capsys, options, message):
    command = ["generate", str(photographs), "-a", TINY, "--teacher-source", "private"]
    assert main([*command, "--save-path", str(tmp_path / "set"), *options]) != 0
    error = capsys.readouterr().err.strip()
    assert message in error and "Traceback" not in error and len(error.splitlines()) == 1
    assert not (tmp_path / "set").exists()
