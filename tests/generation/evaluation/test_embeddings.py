"""`slg-wds evaluate --output embedding`: figures by plain code, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import NoImagesError, NoTargetsError, UsageError
from slg_wds.images import decode
from slg_wds.teachers import TeacherSpec, eval_transform, load_teacher
from slg_wds.teachers.towers.linear_probe import linear_probe
from support.paths import MODELS

SHARES = f"{MODELS / 'towers.py'}:shares"


@pytest.fixture(scope="module")
def data(photographs, tmp_path_factory) -> Path:
    """24 photographs as train, the 12 others as val, of which one has a grey copy that Pillow wrote."""
    folder = tmp_path_factory.mktemp("data")
    for path in sorted((photographs / "train").glob("*/*.jpg")):
        target = folder / ("val" if path.stem[-1] in "25" else "train") / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    Image.open(path).convert("L").save(target / "grey.png")
    return folder


def config(data: Path, **options) -> slg_wds.EvaluateConfig:
    given = {"arch": SHARES, "teacher_source": "private", "output": "embedding", **options}
    return slg_wds.EvaluateConfig(data=str(data), **given)


def embedded(folder: Path) -> tuple[torch.Tensor, list[str]]:
    teacher = load_teacher(TeacherSpec("private", SHARES), headless=True)
    paths = sorted(folder.rglob("*.*"))
    images = [eval_transform(decode(path.read_bytes()), teacher.preprocessing) for path in paths]
    return torch.cat([teacher.logits(image[None]) for image in images]), [path.parent.name for path in paths]


def test_figures_are_those_of_plain_code(data):
    (score,) = slg_wds.evaluate_embeddings(config(data))
    (rows, classes), (queries, targets) = (embedded(data / split) for split in ("train", "val"))
    assert (score.train, score.val, score.dim, score.name) == (24, 13, 48, "towers.py:shares")
    cosines = F.cosine_similarity(queries[:, None], rows[None], dim=2)
    for k in (10, 20):
        votes = [
            max(set(classes), key=lambda c, row=row, k=k: sum(
                float((row[i] / 0.07).exp()) for i in row.argsort(descending=True)[:k].tolist() if classes[i] == c
            ))
            for row in cosines
        ]  # fmt: skip
        assert score.knn[k] == np.mean([a == b for a, b in zip(votes, targets, strict=True)])
    mean, deviation = rows.mean(0), rows.std(0, correction=0)
    probe = LogisticRegression(C=score.strength, max_iter=1000).fit((rows - mean) / deviation, classes)
    assert score.linear == pytest.approx(probe.score((queries - mean) / deviation, targets))
    assert slg_wds.evaluate_embeddings(config(data)) == [score]


def test_the_command_tells_and_gives_json(data, capsys):
    words = ["evaluate", str(data), "--output", "embedding", "--teacher-source", "private"]
    few = [*words, "--train-images", "15", "--no-linear", "--json"]
    assert main([*few, "-a", f"{SHARES},{MODELS / 'towers.py'}:zero"]) == 0
    one, other = json.loads(capsys.readouterr().out)
    assert one["knn"].keys() == {"20", "10"} and one["train"] == 15 and one["linear"] is None
    assert [one["name"], other["name"]] == ["towers.py:shares", "towers.py:zero"]
    assert main([*words, "-a", SHARES]) == 0
    said = capsys.readouterr().out
    assert (
        "towers.py:shares, 48 numbers, on 13 images of val of" in said and "from 24 images of train:" in said
    )
    assert "k-NN top-1 " in said and " with 20 neighbours, " in said and "linear probe top-1 " in said


def test_the_strength_is_chosen_where_classes_allow_it():
    draw = np.random.default_rng(0)
    classes = np.repeat(np.arange(3), 20)
    rows = draw.normal(size=(60, 4)) + 3 * np.eye(3, 4)[classes]
    assert linear_probe(rows, classes, rows, classes).top1 > 0.9
    alone = np.append(classes, 9)
    assert linear_probe(np.vstack([rows, rows[:1]]), alone, rows, classes).strength == 1.0
    with pytest.raises(NoTargetsError, match="all of one class"):
        linear_probe(rows[:20], classes[:20], rows, classes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_subset": "auto"}, "--class-subset is for --output labels"),
        ({"weights": (1.0,)}, "--weights is for --output labels"),
        ({"output": "labels", "train_images": 5}, "--train-images is for --output embedding"),
        ({"output": "labels", "linear": False}, "--linear is for --output embedding"),
        ({"train_images": 0}, "--train-images 0 is below 1"),
    ],
)
def test_options_that_contradict_are_refused(data, options, message):
    with pytest.raises(UsageError, match=message):
        config(data, **options).check()
    with pytest.raises(UsageError, match=r"call slg_wds\.evaluate_embeddings"):
        slg_wds.evaluate(config(data))


def test_images_to_learn_from_must_be_there(data, tmp_path):
    with pytest.raises(NoImagesError, match="no folder train"):
        slg_wds.evaluate_embeddings(config(data / "val"))
    shutil.copytree(data / "val", tmp_path / "val")
    shutil.copytree(data / "train", tmp_path / "train")
    (tmp_path / "val" / "n02123045").rename(tmp_path / "val" / "n99999999")
    with pytest.raises(NoTargetsError, match="not among the class folders to learn from: n99999999"):
        slg_wds.evaluate_embeddings(config(tmp_path))
