"""Prototypes of embeddings: centres that are found again, an even use, and bytes that are the same each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.banks import DenseLayer, read_bank
from slg_wds.banks.head import BankHead
from slg_wds.cli import main
from slg_wds.config import PrototypesConfig
from slg_wds.errors import MissingDependencyError, SlgWdsError, UsageError
from slg_wds.prototypes import clusters
from slg_wds.prototypes.command import make_bank
from slg_wds.prototypes.sampling import sample
from support.models.names import TINY
from support.paths import MODELS

NAME = "tiny_teacher.py:tiny"
ZERO, SHARES = (f"{MODELS / 'towers.py'}:{name}" for name in ("zero", "shares"))


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> str:
    target = str(tmp_path_factory.mktemp("embedded") / "set")
    generated(small_images, target)
    return target


def generated(images: Path, target: str, arch: str = TINY, **more: Any) -> None:
    given = {"teacher_source": "private", "num_crops": 30, "num_seg": 16, "samples_per_shard": 3}
    given |= {"threads_per_forward": 1, "workers": 1, "output": "embedding", **more}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(images), save_path=target, arch=arch, **given))


def blobs(count: int, each: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions on the sphere, and vectors of random lengths around each."""
    chance = np.random.default_rng(0)
    middles = np.linalg.qr(chance.normal(size=(dim, dim)))[0][:count]
    rows = np.repeat(middles, each, axis=0) + chance.normal(0, 0.05, (count * each, dim))
    return middles, (rows * chance.uniform(0.1, 9, (len(rows), 1))).astype(np.float32)


def test_centres_are_the_directions_of_clusters():
    middles, rows = blobs(6, 300, 16)
    found = clusters.centres(clusters.unit_vectors(rows), 6, 0)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-6)
    assert (found @ middles.T).max(axis=0).min() > 0.999


def test_vectors_of_zeros_make_no_prototype():
    rows = np.array([[0, 0], [3, 4], [0, -2]], np.float32)
    assert np.allclose(clusters.unit_vectors(rows), [[0.6, 0.8], [0, -1]])
    with pytest.raises(UsageError, match="2 crops that are not zeros cannot make 3 prototypes"):
        clusters.centres(clusters.unit_vectors(rows), 3, 0)


def test_the_bias_is_sinkhorns():
    """Rows and columns of the matrix are scaled in turn, as the papers write it; its rows are what the bank gives."""
    chance = np.random.default_rng(4)
    unit = clusters.unit_vectors(chance.normal(0.6, 1, (200, 8)).astype(np.float32))
    prototypes = clusters.unit_vectors(chance.normal(0.3, 1, (12, 8)).astype(np.float32))
    Q = np.exp(unit.astype(np.float64) @ prototypes.T / 0.1)
    Q /= Q.sum(1, keepdims=True)
    for _ in range(clusters.ITERATIONS):
        Q /= Q.sum(0, keepdims=True)
        Q /= Q.sum(1, keepdims=True)
    layer = DenseLayer(prototypes, clusters.even_bias(unit, prototypes, 0.1))
    scores = (unit @ prototypes.T + layer.bias) / 0.1
    rows = np.exp(scores - scores.max(1, keepdims=True))
    assert np.abs(rows / rows.sum(1, keepdims=True) - Q).max() < 1e-5
    assert np.allclose(clusters.mean_use(unit, layer, 0.1), Q.mean(0), atol=1e-6)
    plain = clusters.mean_use(unit, DenseLayer(prototypes), 0.1)
    assert clusters.effective_number(plain) < 11 < 11.99 < clusters.effective_number(Q.mean(0)) <= 12


def test_blocks_of_scores_change_nothing(monkeypatch):
    chance = np.random.default_rng(4)
    unit = clusters.unit_vectors(chance.normal(size=(50, 4)).astype(np.float32))
    whole = clusters.mean_use(unit, DenseLayer(unit[:7]), 0.1)
    monkeypatch.setattr(clusters, "ROWS", 30)
    assert np.allclose(clusters.mean_use(unit, DenseLayer(unit[:7]), 0.1), whole, rtol=1e-12)


def test_extreme_temperatures_and_widths_give_finite_biases():
    for dim, temperature in ((1, 0.1), (2, 1e-4), (8192, 0.05)):
        unit = clusters.unit_vectors(np.random.default_rng(0).normal(size=(40, dim)).astype(np.float32))
        found = clusters.even_bias(unit, unit[:6], temperature)
        assert np.isfinite(found).all() and abs(found.mean()) < 1e-5


@pytest.mark.parametrize("count", [1, 7, 100, 240, 1000])
def test_a_sample_is_of_stored_embeddings_without_repetition(embedded, count):
    labels = slg_wds.open_labels(embedded)
    stored = np.concatenate([record.embeddings[NAME].vectors for record in labels])
    found = sample(labels, NAME, count, seed=1)
    assert len(found) == min(count, len(stored))
    places = [np.flatnonzero((stored == row).all(axis=1)) for row in found]
    assert all(len(place) for place in places) and len(np.unique(found, axis=0)) >= 0.98 * len(found)
    assert np.array_equal(sample(labels, NAME, count, seed=1), found)
    if count in (7, 100):
        assert not np.array_equal(sample(labels, NAME, count, seed=2), found)


def test_few_crops_come_from_many_images(embedded):
    labels = slg_wds.open_labels(embedded)
    of_image = {row.tobytes(): record.key for record in labels for row in record.embeddings[NAME].vectors}
    assert len({of_image[row.tobytes()] for row in sample(labels, NAME, 64, 0)}) == len(labels) == 8


def test_the_command_makes_the_same_bytes_whatever_the_threads(embedded, tmp_path):
    made = make_bank(PrototypesConfig(source=embedded, num_prototypes=12, save_path=str(tmp_path / "a")))
    command = [sys.executable, "-m", "slg_wds", "prototypes", embedded, "-k", "12"]
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(
        [*command, "--save-path", str(tmp_path / "b")],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert (tmp_path / "b").read_bytes() == (tmp_path / "a").read_bytes()
    assert "a bank of 12 prototypes, for embeddings of 20 numbers" in done.stdout
    assert "of 240 crops; at temperature 0.04 they use as many prototypes as" in done.stdout
    assert f"next: slg-wds ensemble {embedded} --bank {tmp_path / 'b'}" in done.stdout
    bank, labels = read_bank(str(tmp_path / "a")), slg_wds.open_labels(embedded)
    assert bank.unit and bank.temperature == 0.04 and bank.sha256 == made.bank.sha256
    assert bank.made_from == {
        "set": labels.digest, "embedding": NAME, "weights_sha256": labels.identity.teachers[0]["weights_sha256"]
    }  # fmt: skip
    stored = np.concatenate([record.embeddings[NAME].vectors for record in labels])
    use = BankHead(bank, 0.04).probabilities(torch.from_numpy(stored)).mean(0).numpy()
    assert use.min() > 0.8 / 12 and use.max() < 1.2 / 12
    assert made.in_use[1] > made.in_use[0] and made.in_use[1] > 11.9


def test_a_set_of_several_embeddings_needs_a_name(small_images, tmp_path):
    generated(small_images, str(tmp_path / "set"), f"{TINY},{SHARES}")
    given = {"source": str(tmp_path / "set"), "num_prototypes": 4}
    for name, said in ((None, "holds several embeddings"), ("other", "holds no embedding 'other'")):
        with pytest.raises(UsageError, match=f"{said}.*one of: {NAME}, towers.py:shares"):
            make_bank(PrototypesConfig(**given, save_path=str(tmp_path / "bank"), embedding=name))
    made = make_bank(
        PrototypesConfig(
            **given, save_path=str(tmp_path / "bank"), embedding="towers.py:shares", bank_temp=0.05
        )
    )
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert made.bank.dim == 48 and made.bank.temperature == 0.05
    assert made.bank.made_from["weights_sha256"] == labels.identity.teachers[1]["weights_sha256"]


def test_crops_without_an_embedding_are_left_out(small_images, tmp_path):
    generated(small_images, str(tmp_path / "set"), ZERO)
    made = make_bank(
        PrototypesConfig(source=str(tmp_path / "set"), num_prototypes=4, save_path=str(tmp_path / "bank"))
    )
    assert 0 < made.crops < 200 and np.isfinite(made.bank.prototypes.weight).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["SET"], "-k is missing; say how many prototypes to make, such as -k 32"),
        (["none"], "there is no label set here"),
        (["SET", "-k", "1"], "--num-prototypes 1 is below 2"),
        (["SET", "-k", "4", "--bank-temp", "0"], "--bank-temp 0 is not a number above 0"),
        (["SET", "-k", "500"], "240 crops that are not zeros cannot make 500 prototypes"),
        (
            ["SET", "-k", "40", "--samples", "30"],
            "30 crops that are not zeros cannot make 40 prototypes",
        ),
        (["SET", "-k", "4", "--save-path", "no/folder/bank"], "no such folder to write to"),
        (["SET", "-k", "4", "--seed", "-1"], "--seed -1"),
        (["x.pth", "-k", "4"], "--num-prototypes is for a set of embeddings"),
        (["x.pth"], "no weights file at x.pth"),
        (["none", "-k", "4"], "there is no label set here"),
    ],
)
def test_what_cannot_be_made_is_one_line(embedded, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    arguments = [embedded if one == "SET" else one for one in arguments]
    if "--save-path" not in arguments:
        arguments += ["--save-path", "bank"]
    assert main(["prototypes", *arguments]) in (1, 2)
    lines = capsys.readouterr().err.splitlines()
    assert said in lines[-1] and "Traceback" not in "".join(lines)
    assert not list(tmp_path.iterdir())


def test_a_bank_is_not_replaced(embedded, tmp_path):
    (tmp_path / "bank").write_text("mine")
    with pytest.raises(UsageError, match="labels may depend on it"):
        make_bank(PrototypesConfig(source=embedded, num_prototypes=4, save_path=str(tmp_path / "bank")))
    assert (tmp_path / "bank").read_text() == "mine"


def test_sets_of_labels_and_sets_that_extend_others_are_refused(
    embedded, small_images, tmp_path, monkeypatch
):
    generated(small_images, str(tmp_path / "labels"), output="labels")
    generated(small_images, str(tmp_path / "more"), num_crops=33, extend=embedded)
    for name, said in (("labels", "holds labels, and embeddings are needed"), ("more", "join both first")):
        with pytest.raises(SlgWdsError, match=said):
            make_bank(
                PrototypesConfig(
                    source=str(tmp_path / name), num_prototypes=4, save_path=str(tmp_path / "bank")
                )
            )
    monkeypatch.setattr(clusters, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="slg-wds\\[embeddings\\]"):
        make_bank(PrototypesConfig(source=embedded, num_prototypes=4, save_path=str(tmp_path / "bank")))
