"""`generate --output embedding --min-cosine`: sets of low-rank embeddings, and what commands make of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import IdentityMismatchError, UsageError
from slg_wds.format.records.decoding import decode_record
from slg_wds.format.records.embeddings.by_name import joined_embeddings
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.low_rank import LowRankEmbedding, StatedCosine
from slg_wds.format.records.encoding import encode_record
from support.format.resealing import of_records, rewritten
from support.models.names import TINY
from support.paths import MODELS

TINY_NAME, SHARES_NAME = "tiny_teacher.py:tiny", "towers.py:shares"
BOTH = f"{TINY},{MODELS / 'towers.py'}:shares"
ZERO = f"{MODELS / 'towers.py'}:zero"


def config(images: Path, target: Path, arch: str = BOTH, **more: Any) -> slg_wds.GenerateConfig:
    given = {"teacher_source": "private", "num_crops": 12, "num_seg": 16, "samples_per_shard": 4}
    given |= {"threads_per_forward": 1, "workers": 1, "output": "embedding", "min_cosine": 0.99, **more}
    return slg_wds.GenerateConfig(data=str(images), save_path=str(target), arch=arch, **given)


@pytest.fixture(scope="module")
def exact(small_images, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exact") / "set"
    slg_wds.generate(config(small_images, target, values="float32", min_cosine=None))
    return target


@pytest.fixture(scope="module")
def coded(small_images, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("coded") / "set"
    slg_wds.generate(config(small_images, target))
    return target


def opened(path: Path) -> list[Any]:
    return list(slg_wds.open_labels(str(path)))


def test_two_teachers_are_coded_apart_and_each_within_the_target(coded, exact):
    labels = slg_wds.open_labels(str(coded))
    assert labels.description.requires == ["embeddings", "lowrank_embeddings", "trailer"]
    assert labels.identity.embeddings == [
        {"name": TINY_NAME, "dim": 20, "values": "lowrank", "min_cosine": 0.99},
        {"name": SHARES_NAME, "dim": 48, "values": "lowrank", "min_cosine": 0.99},
    ]
    for record, own in zip(labels, opened(exact), strict=True):
        assert np.array_equal(record.crops, own.crops)
        for name, one in record.embeddings.items():
            each = cosines(own.embeddings[name].vectors, one.vectors)
            assert isinstance(one, LowRankEmbedding) and each.mean() >= 0.99
            assert one.cosine.mean == pytest.approx(each.mean(), abs=1e-6)
            assert one.cosine.worst == pytest.approx(each.min(), abs=1e-6)


def test_shards_are_the_same_bytes_with_more_workers(coded, small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "set", workers=4, batch_size=3))
    for shard in coded.glob("*.tar"):
        assert (tmp_path / "set" / shard.name).read_bytes() == shard.read_bytes()


def test_a_run_resumes_and_refuses_another_target(coded, small_images):
    before = {path: path.read_bytes() for path in coded.rglob("*.tar")}
    slg_wds.generate(config(small_images, coded))
    assert {path: path.read_bytes() for path in coded.rglob("*.tar")} == before
    for change in ({"min_cosine": 0.98}, {"min_cosine": None}):
        with pytest.raises(IdentityMismatchError):
            slg_wds.generate(config(small_images, coded, **change))


def test_normalised_embeddings_have_unit_length(small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "set", TINY, normalize=True))
    for record in opened(tmp_path / "set"):
        lengths = np.linalg.norm(record.embeddings[TINY_NAME].vectors, axis=1)
        assert lengths == pytest.approx(1, abs=1e-6)


def test_zero_vectors_stay_zero(small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "set", ZERO))
    slg_wds.generate(config(small_images, tmp_path / "own", ZERO, values="float32", min_cosine=None))
    zeros = 0
    for record, own in zip(opened(tmp_path / "set"), opened(tmp_path / "own"), strict=True):
        (found, exact) = (one.embeddings["towers.py:zero"].vectors for one in (record, own))
        assert np.array_equal(found.any(axis=1), exact.any(axis=1))
        assert cosines(found, exact).mean() >= 0.99
        zeros += int((~found.any(axis=1)).sum())
    assert zeros


def test_extending_joins_blocks_and_what_they_state(coded, exact, small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "old", num_crops=5))
    new = {"extend": str(tmp_path / "old")}
    slg_wds.generate(config(small_images, tmp_path / "new", **new))
    parts = [{record.key: record for record in opened(tmp_path / name)} for name in ("old", "new")]
    for own in opened(exact):
        old, more = (part[own.key] for part in parts)
        joined = joined_embeddings([old.embeddings, more.embeddings])
        whole = dataclasses.replace(own, embeddings=joined)
        read = decode_record(encode_record(whole)).embeddings
        for name, one in read.items():
            first, second = (part.embeddings[name] for part in (old, more))
            assert (len(first), len(second), len(one), len(one.blocks)) == (5, 7, 12, 2)
            assert cosines(own.embeddings[name].vectors, one.vectors).mean() >= 0.99
            assert one.cosine.mean == pytest.approx((5 * first.cosine.mean + 7 * second.cosine.mean) / 12)
            assert one.cosine.worst == min(first.cosine.worst, second.cosine.worst)
    sets = [str(tmp_path / "old"), str(tmp_path / "new")]
    loader = slg_wds.SoftLabelLoader(
        sets, images=str(small_images), global_batch_size=24, crops_per_image=12, threads=2
    )
    known = {record.key: record for record in opened(exact)}
    for batch in loader:
        for i, (key, crop) in enumerate(zip(batch.key, batch.crop.tolist(), strict=True)):
            for name, one in batch.embedding.items():
                own = known[key].embeddings[name].vectors[crop]
                assert cosines(own[None], one[i : i + 1].numpy())[0] > 0.9


def test_crops_of_such_a_set_can_be_labelled_by_others(coded, small_images, tmp_path):
    more = {"output": "labels", "min_cosine": None, "reference_path": str(coded)}
    slg_wds.generate(config(small_images, tmp_path / "set", TINY, **more))
    for a, b in zip(opened(coded), opened(tmp_path / "set"), strict=True):
        assert np.array_equal(a.crops, b.crops) and np.array_equal(a.flips, b.flips)


def test_inspect_shows_what_is_stated(coded, capsys):
    assert main(["inspect", str(coded), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["low_rank_embeddings"]
    records = opened(coded)
    for name in (TINY_NAME, SHARES_NAME):
        ones = [record.embeddings[name] for record in records]
        assert found[name]["cosine"]["mean"] == pytest.approx(np.mean([one.cosine.mean for one in ones]))
        assert found[name]["worst_cosine"] == pytest.approx(min(one.cosine.worst for one in ones))
        assert found[name]["rank"] == pytest.approx(np.mean([one.blocks[0].rank for one in ones]))
        assert found[name]["bytes"] > 0
    assert main(["inspect", str(coded)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "mean cosine at least 0.99" in said and "components" in said
    assert main(["inspect", str(coded), "--key", records[0].key]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{records[0].embeddings[SHARES_NAME].cosine.mean:.4f} to the teacher's own" in said


def changed(**changes: Any) -> Any:
    """Change the stated cosine, or the coefficients, of the records of a set of one teacher."""

    def of(record: Any) -> Any:
        ((name, one),) = record.embeddings.items()
        return dataclasses.replace(record, embeddings={name: dataclasses.replace(one, **changes)})

    return of


def test_verify_compares_what_is_stated_with_what_was_asked(small_images, tmp_path, capsys):
    slg_wds.generate(config(small_images, tmp_path / "set", TINY))
    assert main(["verify", str(tmp_path / "set"), "--processes", "1"]) == 0
    for wrong, said in (
        ((0.98, 0.97), "mean cosine is 0.98, below 0.99"),
        ((0.99, 0.95), "least cosine is 0.95, below 0.96"),
    ):
        of_wrong = of_records(changed(cosine=StatedCosine(*wrong)))
        assert main(["verify", str(rewritten(tmp_path / "set", of_wrong)), "--processes", "1"]) == 1
        assert said in " ".join(capsys.readouterr().out.split())


def test_verify_with_the_teacher_finds_crops_that_are_further_off_than_stated(small_images, tmp_path, capsys):
    slg_wds.generate(config(small_images, tmp_path / "set", TINY))
    asked = ["-a", TINY, "--teacher", str(small_images), "--teacher_source", "private", "--processes", "1"]
    assert main(["verify", str(tmp_path / "set"), *asked]) == 0
    assert "the embeddings are the teachers'" in " ".join(capsys.readouterr().out.split())
    wrong = changed(cosine=StatedCosine(0.99999, 0.99999))
    assert main(["verify", str(rewritten(tmp_path / "set", of_records(wrong))), *asked]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "NOT the teachers'" in said and "its record says at least 0.9999" in said


def test_a_dry_run_foretells_such_a_set(small_images, tmp_path, capsys):
    assert main([
        "generate", str(small_images), "-a", TINY, "--teacher_source", "private", "--output", "embedding",
        "--min-cosine", "0.9", "--num_crops", "6", "--dry-run", "--workers", "1",
    ]) == 0  # fmt: skip
    assert "crop" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"min_cosine": 1.0}, "not above 0 and below 1"),
        ({"min_cosine": 0.0}, "not above 0 and below 1"),
        ({"min_cosine": float("nan")}, "not above 0 and below 1"),
        ({"values": "int8"}, "--min-cosine contradicts --values"),
        ({"use_fp16": True}, "--min-cosine contradicts --use-fp16"),
        ({"output": "labels"}, "--min-cosine is for --output embedding"),
    ],
)
def test_options_that_contradict_it(small_images, tmp_path, more, message):
    with pytest.raises(UsageError, match=message):
        slg_wds.generate(config(small_images, tmp_path / "set", TINY, **more))
    assert not (tmp_path / "set").exists()
