"""Sets of embeddings: what `generate --output embedding` stores, and what every command makes of such a set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.cli import main
from slg_wds.demo.teacher import lite0
from slg_wds.errors import IdentityMismatchError, LabelSetError, RuleError, UsageError
from slg_wds.format.records.embeddings.cosines import cosines
from slg_wds.format.records.embeddings.plain import Embedding
from slg_wds.images.pixels import decode
from slg_wds.teachers import TeacherSpec, load_teacher
from slg_wds.transforms.crops import cut
from slg_wds.transforms.normalisation import Normalisation
from support.format.resealing import of_records, rewritten
from support.models.names import TINY
from support.paths import MODELS

FEATURES = f"{MODELS / 'towers.py'}:lite0_features"
SHARES = f"{MODELS / 'towers.py'}:shares"


def config(images: Path, target: Path, arch: str = TINY, **more: Any) -> slg_wds.GenerateConfig:
    given = {"teacher_source": "private", "num_crops": 6, "num_seg": 16, "samples_per_shard": 4}
    given |= {"threads_per_forward": 1, "workers": 1, "output": "embedding", **more}
    return slg_wds.GenerateConfig(data=str(images), save_path=str(target), arch=arch, **given)


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("embedded") / "set"
    slg_wds.generate(config(small_images, target, f"{TINY},{SHARES}"))
    return target


def test_int8_features_of_lite0_are_the_teachers_own(photographs, tmp_path):
    (tmp_path / "list").write_text(
        "\n".join(p.name for p in sorted((photographs / "train").rglob("*.jpg"))[::9])
    )
    more = {"list_file": str(tmp_path / "list"), "num_crops": 10}
    slg_wds.generate(config(photographs, tmp_path / "set", FEATURES, **more))
    model = lite0().eval()
    normalised = Normalisation(model.pretrained_cfg["mean"], model.pretrained_cfg["std"], torch.device("cpu"))
    found = []
    for record in slg_wds.open_labels(str(tmp_path / "set")):
        pixels = decode((photographs / "train" / record.path).read_bytes())
        crops = torch.empty((10, 3, 224, 224), dtype=torch.uint8)
        cut(pixels, record.crops, record.flips, crops, "bicubic")
        with torch.inference_mode():
            maps = model.forward_features(normalised(crops))
        one = record.embeddings["towers.py:lite0_features"]
        assert one.dim == 1280 and one.values == "int8"
        found.append(cosines(one.vectors, maps.mean((2, 3)).numpy()))
    assert len(found) == 4 and np.concatenate(found).min() > 0.9995


def test_several_teachers_give_several_embeddings(embedded, small_images):
    labels = slg_wds.open_labels(str(embedded))
    assert [one["name"] for one in labels.identity.embeddings] == ["tiny_teacher.py:tiny", "towers.py:shares"]
    assert labels.description.requires == ["embeddings", "trailer"] and labels.num_classes == 0
    teacher = load_teacher(TeacherSpec("private", SHARES))
    for record in labels:
        assert {name: one.dim for name, one in record.embeddings.items()} == {
            "tiny_teacher.py:tiny": 20, "towers.py:shares": 48
        }  # fmt: skip
        crops = torch.empty((6, 3, 32, 32), dtype=torch.uint8)
        cut(
            decode((small_images / "train" / record.path).read_bytes()),
            record.crops,
            record.flips,
            crops,
            "bilinear",
        )
        exact = teacher.logits(crops).numpy()
        assert (
            np.abs(record.embeddings["towers.py:shares"].vectors - exact).max() <= exact.max() / 254 * 1.001
        )


def test_labels_and_embeddings_have_the_same_crops(embedded, small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "set", output="labels"))
    slg_wds.generate(
        config(
            small_images, tmp_path / "two", output="labels", reference_path=str(embedded), num_crops=6, seed=0
        )
    )
    for other in ("set", "two"):
        for a, b in zip(
            slg_wds.open_labels(str(embedded)), slg_wds.open_labels(str(tmp_path / other)), strict=True
        ):
            assert np.array_equal(a.crops, b.crops) and np.array_equal(a.flips, b.flips)


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_normalised_embeddings_have_unit_length(small_images, tmp_path, values):
    slg_wds.generate(config(small_images, tmp_path / "set", normalize=True, values=values))
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert labels.identity.normalize
    for record in labels:
        assert np.linalg.norm(record.embeddings["tiny_teacher.py:tiny"].vectors, axis=1) == pytest.approx(
            1, abs=1e-3
        )


def test_a_run_resumes_and_refuses_other_options(embedded, small_images):
    before = {path: path.read_bytes() for path in embedded.rglob("*.tar")}
    slg_wds.generate(config(small_images, embedded, f"{TINY},{SHARES}"))
    assert {path: path.read_bytes() for path in embedded.rglob("*.tar")} == before
    for change in ({"normalize": True}, {"values": "float16"}, {"output": "labels"}):
        with pytest.raises((IdentityMismatchError, slg_wds.errors.SlgWdsError)):
            slg_wds.generate(config(small_images, embedded, f"{TINY},{SHARES}", **change))


def test_extending_a_set_gives_the_crops_of_one_run(small_images, tmp_path):
    slg_wds.generate(config(small_images, tmp_path / "all", num_crops=9))
    slg_wds.generate(config(small_images, tmp_path / "old", num_crops=4))
    slg_wds.generate(config(small_images, tmp_path / "new", num_crops=9, extend=str(tmp_path / "old")))
    whole, new = (slg_wds.open_labels(str(tmp_path / name)) for name in ("all", "new"))
    for a, b in zip(whole, new, strict=True):
        one, other = (record.embeddings["tiny_teacher.py:tiny"] for record in (a, b))
        assert len(other) == 5 and np.abs(one[4:].vectors - other.vectors).max() < 1e-4


@pytest.mark.parametrize(
    "more",
    [
        {"output": "labels", "normalize": True},
        {"output": "labels", "values": "int8"},
        {"values": "log8"},
        {"label_type": "full"},
        {"temp": 2.0},
        {"tail_classes": 3},
        {"weights": (1.0,)},
        {"class_subset": "auto"},
        {"num_crops": 1_000_000},
        {"output": "embeddings"},
    ],
)
def test_options_that_contradict_each_other(small_images, tmp_path, more):
    with pytest.raises(UsageError):
        slg_wds.generate(config(small_images, tmp_path / "set", **more))
    assert not (tmp_path / "set").exists()


def test_what_needs_labels_refuses_embeddings_with_one_line(embedded, small_images, tmp_path, capsys):
    commands = [
        ["ensemble", str(embedded), "--save-path", str(tmp_path / "a"), "--label-type", "hard"],
        ["export", str(embedded), str(tmp_path / "b")],
    ]
    for command in commands:
        assert main(command) != 0
        said = capsys.readouterr().err
        assert "embeddings" in said and "Traceback" not in said, (command, said)
    with pytest.raises(LabelSetError, match="holds embeddings, and labels are needed"):
        slg_wds.generate(
            config(small_images, tmp_path / "d", output="labels", extend=str(embedded), num_crops=9)
        )
    with pytest.raises(RuleError, match="embeddings, not labels"):
        slg_wds.open_labels(str(embedded))[0].distribution()


def test_verify_and_inspect(embedded, small_images, capsys):
    asked = ["-a", f"{TINY},{SHARES}", "--teacher", str(small_images), "--teacher_source", "private"]
    assert main(["verify", str(embedded), "--processes", "1", *asked]) == 0
    assert "the embeddings are the teachers': 48 crops asked again, the cosine" in capsys.readouterr().out
    assert main(["inspect", str(embedded)]) == 0
    shown = capsys.readouterr().out
    assert (
        "tiny_teacher.py:tiny: 20 numbers as int8, towers.py:shares: 48 numbers as int8" in shown
        and "embedding_1" in shown
    )
    record = slg_wds.open_labels(str(embedded))[0]
    assert main(["inspect", str(embedded), "--key", record.key]) == 0
    assert "between two of its crops" in capsys.readouterr().out
    assert main(["inspect", str(embedded), "--key", record.key, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["image"]
    vectors = record.embeddings["towers.py:shares"].vectors
    pairs = [cosines(vectors[i], vectors[j]) for i in range(6) for j in range(6) if i != j]
    assert found["similarity_of_crops"]["towers.py:shares"] == pytest.approx(float(np.mean(pairs)))


def test_verify_finds_embeddings_of_another_teacher(small_images, tmp_path, capsys):
    """Every byte is valid; only running the teachers shows the difference."""
    slg_wds.generate(config(small_images, tmp_path / "set"))

    def turned(record):
        ((name, one),) = record.embeddings.items()
        return dataclasses.replace(record, embeddings={name: Embedding.of(one.vectors[:, ::-1], "int8")})

    labels = rewritten(tmp_path / "set", of_records(turned))
    asked = ["-a", TINY, "--teacher", str(small_images), "--teacher_source", "private", "--processes", "1"]
    assert main(["verify", str(labels), *asked]) == 1
    assert "the embeddings are NOT the teachers'" in capsys.readouterr().out
