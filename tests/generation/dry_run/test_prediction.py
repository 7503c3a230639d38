"""What a dry run predicts, against a real run of the same images; its forwards see the crops that are cut."""

from __future__ import annotations

import time

import pytest
import torch

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import IdentityMismatchError, ImageDecodeError, NotALabelSetError
from slg_wds.generation.decoding import Prepared
from slg_wds.teachers import Ensemble
from support.models.names import TINY
from support.sets.trust_sets import copy_of

IMAGES, CROPS, ROWS = 36, 16, 72  # in one shard: exactly the eight forwards that a dry run measures
PIECES, SECONDS = 9, 0.003  # of one forward, and of a piece that is cut slowly


@pytest.fixture
def options(photographs):
    return {
        "data": str(photographs), "arch": TINY, "teacher_source": "private", "label_type": "shared_tail_k5",
        "num_crops": CROPS, "num_seg": ROWS, "samples_per_shard": IMAGES, "threads_per_forward": 1, "workers": 1,
    }  # fmt: skip


def dry(options):
    return slg_wds.generate(slg_wds.GenerateConfig(**options, dry_run=True))


def test_it_labels_the_crops_of_a_real_run_and_counts_the_time_of_cutting(options, tmp_path, monkeypatch):
    seen: list[torch.Tensor] = []
    cut, answers = Prepared.cut, Ensemble.answers

    def slowly(image, *where):
        time.sleep(SECONDS)
        cut(image, *where)

    def watched(ensemble, batches):
        seen.extend(batch.clone() for batch in batches)
        return answers(ensemble, batches)

    monkeypatch.setattr(Ensemble, "answers", watched)
    slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path)))
    real = seen.copy()
    seen.clear()
    monkeypatch.setattr(Prepared, "cut", slowly)
    found = dry(options)
    assert len(seen) == IMAGES * CROPS // ROWS == 8
    assert all(torch.equal(one, other) for one, other in zip(seen, real, strict=True))
    assert found.crops_per_second < 1.05 * ROWS / (PIECES * SECONDS)
    # The end of the shard comes in a ninth batch, which has no crops and is no forward.
    assert "measured over 7 forwards" in found.summary[-1]
    assert found.bytes == (tmp_path / "train-000000.tar").stat().st_size


@pytest.mark.parametrize("embed", [None, "original"])
def test_bytes_of_shards_that_are_larger_than_what_is_measured(options, tmp_path, embed):
    options |= {"samples_per_shard": 20, "num_seg": 16, "embed_images": embed}  # eight images are measured
    slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path)))
    real = sum(path.stat().st_size for path in tmp_path.glob("*.tar"))
    assert dry(options).bytes == pytest.approx(real, rel=0.12)


@pytest.mark.parametrize("listed", [IMAGES, 20])
def test_of_a_set_to_extend_only_what_it_lacks_is_counted(options, tmp_path, photographs, listed):
    """Of images that it has the further crops, of others all."""
    paths = sorted(str(path) for path in (photographs / "train").rglob("*.jpg"))
    (tmp_path / "list").write_text("\n".join(paths[:listed]))
    base = {
        **options,
        "list_file": str(tmp_path / "list"),
        "num_crops": 3,
        "save_path": str(tmp_path / "base"),
    }
    slg_wds.generate(slg_wds.GenerateConfig(**base))
    more = {**options, "num_crops": 5, "extend": str(tmp_path / "base")}
    found = dry(more)
    made = slg_wds.generate(slg_wds.GenerateConfig(**more, save_path=str(tmp_path / "more")))
    assert found.crops == made.stats.crops == listed * 2 + (IMAGES - listed) * 5
    each = "2 crops" if listed == IMAGES else "5 or 2 crops"
    assert f"would label 36 images in 1 shard, {each} each: {found.crops} crops" in found.summary[0]


def test_of_a_set_that_was_begun_only_what_is_missing_is_counted(options, tmp_path):
    """By the code of the run that finishes it. What is there is neither labelled again nor touched."""
    options |= {"samples_per_shard": 10, "save_path": str(tmp_path)}  # shards of 10, 10, 10 and 6 images
    slg_wds.generate(slg_wds.GenerateConfig(**options))
    removed = [tmp_path / "train-000000.tar", tmp_path / "train-000003.tar"]
    size = sum(path.stat().st_size for path in removed)
    for path in removed:
        path.unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    found = dry(options)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    made = slg_wds.generate(slg_wds.GenerateConfig(**options)).stats
    assert (found.images, found.shards, found.crops) == (made.images, made.shards, made.crops) == (16, 2, 256)
    assert found.bytes == pytest.approx(size, rel=0.1)
    assert "16 images in 2 shards (2 of 4 are there), 16 crops each: 256 crops" in found.summary[0]
    nothing = dry(options)
    assert (nothing.images, nothing.shards, nothing.crops, nothing.bytes, nothing.seconds) == (0, 0, 0, 0, 0)
    assert nothing.summary == ["nothing is left to label: 4 of 4 shards are there"]


def test_what_is_measured_is_of_a_missing_shard(options, small_images, tmp_path):
    """An image of a shard that is there may have been removed since."""
    data = copy_of(small_images, tmp_path / "data")
    options |= {"data": str(data), "samples_per_shard": 3, "save_path": str(tmp_path / "set")}
    labels = slg_wds.generate(slg_wds.GenerateConfig(**options)).labels
    (tmp_path / "set/train-000001.tar").unlink()
    (data / "train" / labels.plan.paths[0]).unlink()
    assert dry(options).images == 3


def test_a_set_that_a_run_would_refuse_is_refused(options, tmp_path):
    options |= {"save_path": str(tmp_path)}
    slg_wds.generate(slg_wds.GenerateConfig(**options))
    with pytest.raises(IdentityMismatchError, match=f"num_crops: {CROPS} != 2"):
        dry({**options, "num_crops": 2})
    (tmp_path / "plan").unlink()
    (tmp_path / "slg.json").unlink()
    with pytest.raises(NotALabelSetError, match="something other than a label set"):
        dry(options)


def test_images_that_a_run_would_leave_out_are_named(options, small_images, tmp_path):
    data = copy_of(small_images, tmp_path / "data")
    bad = sorted(data.rglob("*.jpg"))[3]
    bad.write_bytes(b"no image")
    found = dry({**options, "data": str(data), "on_error": "skip"})
    title, name = found.summary[-2:]
    assert title.strip() == f"LEFT OUT among the {found.images} images that were measured: 1"
    assert f"{bad.parent.name}/{bad.name}: not an image" in name


def test_few_crops_give_the_bytes_of_the_run_and_no_time(options, tmp_path):
    options["num_crops"] = 1
    slg_wds.generate(slg_wds.GenerateConfig(**options, save_path=str(tmp_path)))
    real = (tmp_path / "train-000000.tar").stat().st_size
    found = dry(options)
    assert (found.bytes, found.seconds, found.crops_per_second) == (real, 0, 0)
    assert f"{real / IMAGES:.2f} bytes/crop measured on 36 images" in found.summary[-2]
    assert "too few crops to measure how long it takes" in found.summary[-1]


def test_an_error_in_cutting_ends_it(options, monkeypatch):
    cut = Prepared.cut

    def failing(image, crops, *where):
        if crops.start:
            raise ImageDecodeError("these crops cannot be cut")
        cut(image, crops, *where)

    monkeypatch.setattr(Prepared, "cut", failing)
    with pytest.raises(ImageDecodeError, match="these crops cannot be cut"):
        dry(options)


def test_dry_run_says_what_would_be_done_and_writes_nothing(photographs, tmp_path, capsys):
    options = [
        "--dry-run",
        "--num_crops",
        "200",
        "--samples-per-shard",
        "10",
        "--save-path",
        str(tmp_path / "set"),
    ]
    assert main(["generate", str(photographs), "-a", TINY, "--teacher_source", "private", *options]) == 0
    out = capsys.readouterr().out
    assert "36 images in 4 shards" in out and "7,200 crops" in out and "bytes/crop" in out
    assert not (tmp_path / "set").exists()
