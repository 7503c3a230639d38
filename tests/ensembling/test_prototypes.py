"""`ensemble --bank`: labels of stored embeddings, without the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.banks import Bank, DenseLayer, read_bank
from slg_wds.cli import main
from slg_wds.config import PrototypesConfig, ReportConfig
from slg_wds.ensembling import prototypes
from slg_wds.ensembling.prototypes import PrototypeRule, open_members
from slg_wds.errors import LabelSetError, RecordError, SlgWdsError, UsageError
from slg_wds.prototypes.command import make_bank
from slg_wds.report.command import report
from slg_wds.store import Location
from slg_wds.teachers import Preprocessing
from slg_wds.training.flags import parse
from slg_wds.training.validation import SoftTargets
from support.models.banks import layer, unit_bank, written
from support.models.names import TINY
from support.paths import MODELS

K, DIM, NAME = 40, 20, "tiny_teacher.py:tiny"
SHARES = f"{MODELS / 'towers.py'}:shares"


def generated(images: Path, target: Path, arch: str = TINY, **more: Any) -> slg_wds.LabelSet:
    given = {"teacher_source": "private", "num_crops": 24, "num_seg": 16, "samples_per_shard": 3}
    given |= {"threads_per_forward": 1, "workers": 1, "output": "embedding", **more}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(images), save_path=str(target), arch=arch, **given))
    return slg_wds.open_labels(str(target))


def labelled(sets: Any, target: Path, bank: str, **more: Any) -> slg_wds.LabelSet:
    sets = tuple(str(one) for one in (sets if isinstance(sets, list) else [sets]))
    given = {"save_path": str(target), "processes": 1, "bank": bank, **more}
    slg_wds.ensemble(slg_wds.EnsembleConfig(sets=sets, **given))
    return slg_wds.open_labels(str(target))


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("embedded") / "set"
    generated(small_images, target, values="float32")
    return target


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> str:
    return written(unit_bank(K, DIM, temperature=0.2), tmp_path_factory.mktemp("bank") / "bank.safetensors")


def exact(record: slg_wds.Record, bank: Bank, temperature: float, name: str = NAME) -> np.ndarray:
    z = record.embeddings[name].vectors.astype(np.float64)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    scores = (z @ bank.prototypes.weight.T.astype(np.float64) + bank.prototypes.bias) / temperature
    rows = np.exp(scores - scores.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("label_type", "more"),
    [
        (None, {}),
        ("full", {"values": "float32", "bank_temp": 0.1}),
        ("shared_tail_k3", {"values": "log8", "samples_per_shard": 5}),
        ("lowrank", {"max_kl": 0.02}),
        ("hard", {}),
    ],
)
def test_labels_are_the_softmax_over_the_prototypes(embedded, bank, tmp_path, label_type, more):
    labels = labelled(embedded, tmp_path / "set", bank, label_type=label_type, **more)
    assert labels.label_type == (label_type or "marginal_smoothing_k5") and not labels.targets_are_classes
    assert labels.num_classes == K and labels.temperature == more.get("bank_temp", 0.2)
    made = read_bank(bank)
    for record, stored in zip(labels, slg_wds.open_labels(str(embedded)), strict=True):
        assert record.key == stored.key and record.target == stored.target and record.embeddings is None
        assert np.array_equal(record.crops, stored.crops) and np.array_equal(record.flips, stored.flips)
        wanted = exact(stored, made, labels.temperature)
        order = np.argsort(-wanted, axis=1)
        if label_type == "full":
            assert np.abs(record.value - wanted).max() < 1e-5
        elif label_type == "lowrank":
            kl = (wanted * np.log(wanted / record.distribution())).sum(1)
            assert kl.mean() < 0.02 and record.low_rank.kl.against == "labels"
            assert record.low_rank.kl.mean == pytest.approx(kl.mean(), rel=0.02)
        else:
            assert np.array_equal(record.index, order[:, : record.k])
        if label_type is None:
            assert record.k == 5 and record.coding == "float16" and len(record.tail.classes) == 6
            assert np.abs(record.value - np.take_along_axis(wanted, order[:, :5], 1)).max() < 1e-3
            outside = wanted.copy()
            np.put_along_axis(outside, order[:, :5], 0, axis=1)
            assert (
                record.tail.classes[outside.mean(0)[record.tail.classes].argmax()] == outside.mean(0).argmax()
            )


def test_it_gives_the_labels_that_generate_makes(embedded, small_images, bank, tmp_path):
    """float32 embeddings lose nothing, so only the order of sums may move last digits of what is stored."""
    more = {"label_type": "shared_tail_k5", "values": "float32"}
    mine = labelled(embedded, tmp_path / "mine", bank, **more)
    theirs = generated(small_images, tmp_path / "theirs", output="prototypes", bank=bank, **more)
    for a, b in zip(mine, theirs, strict=True):
        assert np.array_equal(a.index, b.index) and np.abs(a.value - b.value).max() < 1e-6
        assert np.array_equal(a.tail.classes, b.tail.classes)
        assert np.abs(a.distribution() - b.distribution()).max() < 1e-5
    ((parent,), other) = mine.identity.parents, slg_wds.open_labels(str(embedded))
    assert parent["digest"] == other.digest and (parent["embedding"], parent["values"]) == (NAME, "float32")
    assert mine.identity.bank_sha256 == theirs.identity.bank_sha256
    differ = {name for name in mine.identity if mine.identity[name] != theirs.identity.get(name)}
    assert differ == {"parents"} and set(theirs.identity) <= set(mine.identity)


def test_many_prototypes_are_worked_on_in_runs_of_crops(embedded, bank, tmp_path, monkeypatch):
    more = {"label_type": "shared_tail_k5", "values": "float32"}
    whole = labelled(embedded, tmp_path / "whole", bank, **more)
    monkeypatch.setattr(prototypes, "PART_NUMBERS", 7 * K + 3)
    (parent,) = open_members(
        [Location(str(embedded))], None, PrototypeRule(bank, whole.identity.bank_sha256, 0.2)
    )
    record = next(iter(slg_wds.open_labels(str(embedded))))
    assert [part.num_crops for part in parent.parts(record)] == [7, 7, 7, 3]
    parts = labelled(embedded, tmp_path / "parts", bank, **more)
    for a, b in zip(whole, parts, strict=True):
        assert np.array_equal(a.index, b.index) and np.array_equal(a.crops, b.crops)
        assert np.array_equal(a.tail.classes, b.tail.classes)
        assert np.abs(a.distribution() - b.distribution()).max() < 1e-6


def test_the_labels_are_verified_against_the_teacher(embedded, small_images, bank, tmp_path, capsys):
    labelled(embedded, tmp_path / "set", bank, label_type="full", values="float32")
    asked = ["-a", TINY, "--teacher", str(small_images), "--teacher_source", "private", "--bank", bank]
    assert main(["verify", str(tmp_path / "set"), "--processes", "1", *asked]) == 0
    assert "the labels are the teachers'" in capsys.readouterr().out
    command = [
        "ensemble",
        str(embedded),
        "--bank",
        bank,
        "--save-path",
        str(tmp_path / "b"),
        "--processes",
        "1",
    ]
    checked = [
        "--check",
        str(small_images),
        "-a",
        TINY,
        "--teacher-source",
        "private",
        "--label-type",
        "full",
    ]
    assert main([*command, *checked]) == 0
    said = capsys.readouterr().out
    assert "measured on 192 crops against the teachers: KL 0.0000 nats" in said


def test_sets_that_extend_others_are_read_as_one(small_images, bank, tmp_path):
    generated(small_images, tmp_path / "old", num_crops=10)
    generated(small_images, tmp_path / "new", num_crops=24, extend=str(tmp_path / "old"))
    whole = generated(small_images, tmp_path / "all")
    both = labelled([tmp_path / "old", tmp_path / "new"], tmp_path / "labels", bank, label_type="full")
    for record, stored in zip(both, whole, strict=True):
        assert np.abs(record.value - exact(stored, read_bank(bank), 0.2)).max() < 2e-3


def test_of_several_embeddings_one_is_used(small_images, bank, tmp_path):
    generated(small_images, tmp_path / "set", f"{TINY},{SHARES}")
    wide = unit_bank(K, 48, made_from={"embedding": "towers.py:shares"})
    told = written(wide, tmp_path / "told")
    labels = labelled(tmp_path / "set", tmp_path / "a", told, label_type="full")
    assert [teacher["arch"] for teacher in labels.identity.teachers] == ["towers.py:shares"]
    for record, stored in zip(labels, slg_wds.open_labels(str(tmp_path / "set")), strict=True):
        assert np.abs(record.value - exact(stored, wide, 0.1, "towers.py:shares")).max() < 1e-3
    with pytest.raises(UsageError, match=r"holds several embeddings.*--embedding, one of"):
        labelled(tmp_path / "set", tmp_path / "b", bank)
    labels = labelled(tmp_path / "set", tmp_path / "c", bank, embedding=NAME)
    assert [teacher["arch"] for teacher in labels.identity.teachers] == [NAME]


def test_embeddings_of_any_coding_become_labels(small_images, embedded, tmp_path):
    """Low-rank ones too: the bank meets what a reader sees."""
    generated(small_images, tmp_path / "set", min_cosine=0.999)
    made = make_bank(
        PrototypesConfig(source=str(tmp_path / "set"), num_prototypes=9, save_path=str(tmp_path / "bank"))
    )
    labels = labelled(tmp_path / "set", tmp_path / "labels", made.path, label_type="full", values="float32")
    kl = []
    for record, stored, exactly in zip(
        labels, slg_wds.open_labels(str(tmp_path / "set")), slg_wds.open_labels(str(embedded)), strict=True
    ):
        assert np.abs(record.value - exact(stored, made.bank, 0.04)).max() < 1e-4
        live = exact(exactly, made.bank, 0.04)
        kl.append((live * np.log(live / record.value)).sum(1).mean())
    assert 0 < np.mean(kl) < 0.1
    assert labels.identity.parents[0]["min_cosine"] == 0.999


def test_a_run_resumes_and_refuses_another_bank(embedded, bank, tmp_path):
    target = tmp_path / "set"
    labels = labelled(embedded, target, bank)
    before = {path: path.read_bytes() for path in target.rglob("*.tar")}
    (target / labels.shard_name(1)).unlink()
    labelled(embedded, target, bank)
    assert {path: path.read_bytes() for path in target.rglob("*.tar")} == before
    other = written(unit_bank(K, DIM, seed=3, temperature=0.2), tmp_path / "other")
    for change, said in (({"bank": other}, "bank_sha256"), ({"bank_temp": 0.5}, "temperature: 0.2 != 0.5")):
        with pytest.raises(SlgWdsError, match=said):
            labelled(embedded, target, **{"bank": bank, **change})
    rule = PrototypeRule(bank, "0" * 64, 0.1)
    with pytest.raises(LabelSetError, match="the bank has been replaced by another since the start"):
        open_members([Location(str(embedded))], None, rule)


def test_scores_that_overflow_are_told_and_no_shard_is_written(embedded, tmp_path):
    weight = np.full((K, DIM), 3e38, np.float32)
    large = written(Bank(DenseLayer(weight), temperature=0.1), tmp_path / "large")
    with pytest.raises(RecordError, match=r"too large for float32.*higher --bank-temp"):
        labelled(embedded, tmp_path / "set", large)
    assert not list((tmp_path / "set").glob("*.tar"))


def test_what_does_not_fit_is_refused(embedded, small_images, bank, tmp_path):
    normalized = generated(small_images, tmp_path / "unit", normalize=True)
    generated(small_images, tmp_path / "labels", output="labels")
    wide = written(unit_bank(K, 48), tmp_path / "wide")
    foreign = written(unit_bank(K, DIM, made_from={"weights_sha256": "ab" * 32}), tmp_path / "foreign")
    deep = written(
        Bank(layer(K, 5, 0), mlp=(layer(5, DIM, 1),), unit=True, temperature=1.0), tmp_path / "deep"
    )
    plain = written(Bank(layer(K, DIM, 0)), tmp_path / "plain")
    few = written(unit_bank(3, DIM), tmp_path / "few")
    for sets, given, said in (
        (embedded, {"bank": wide}, "takes embeddings of 48 numbers, and tiny_teacher.py:tiny gives 20"),
        (embedded, {"bank": foreign}, "of another teacher"),
        (normalized.url, {"bank": deep}, "of the teacher's own length"),
        (embedded, {"bank": plain}, "names no temperature"),
        (embedded, {"bank": few}, "most that fits is marginal_smoothing_k3"),
        (embedded, {"bank": str(tmp_path / "none")}, "no bank can be read"),
        (embedded, {"bank": bank, "bank_temp": -1.0}, "--bank-temp -1 is not a number above 0"),
        (embedded, {"bank": bank, "embedding": "other"}, "holds no embedding 'other'"),
        (embedded, {"bank": None, "bank_temp": 1.0}, "--bank-temp is for --bank"),
        (embedded, {"bank": None, "embedding": NAME}, "--embedding is for --bank"),
        (tmp_path / "labels", {"bank": bank}, "holds labels, and embeddings are needed"),
        ([embedded, tmp_path / "unit"], {"bank": bank}, "of one set of embeddings, not 2"),
    ):  # fmt: skip
        with pytest.raises(SlgWdsError, match=said):
            labelled(sets, tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()
    ok = labelled(normalized.url, tmp_path / "new", bank)
    assert "normalize" not in ok.identity


def test_labels_of_int8_embeddings_are_the_live_teachers(photographs, tmp_path):
    """The bar: at most 0.01 nats at temperature 0.1, over prototypes made of the same photographs."""
    (tmp_path / "list").write_text(
        "\n".join(p.name for p in sorted((photographs / "train").rglob("*.jpg"))[::9])
    )
    more = {
        "arch": "support.models.remembering_teacher:remembering_features",
        "list_file": str(tmp_path / "list"),
        "num_crops": 24,
    }
    generated(photographs, tmp_path / "set", **more)
    path = str(tmp_path / "bank.safetensors")
    given = {"source": str(tmp_path / "set"), "num_prototypes": 64, "bank_temp": 0.1}
    assert make_bank(PrototypesConfig(**given, save_path=path)).bank.dim == 1280
    stored = labelled(tmp_path / "set", tmp_path / "stored", path, label_type="full", values="float32")
    live = {"output": "prototypes", "bank": path, "label_type": "full", "values": "float32"}
    exact_labels = generated(photographs, tmp_path / "live", **more, **live)
    kl, peak = [], []
    for a, b in zip(exact_labels, stored, strict=True):
        kl.append((a.value.astype(np.float64) * np.log(a.value / b.value)).sum(1))
        peak.append(a.value.max(axis=1))
    assert len(kl) == 4 and 0 <= np.mean(kl) < 1e-3 and np.mean(peak) > 0.2


def test_a_student_trains_on_them(embedded, small_images, bank, tmp_path):
    """The loader serves them as it serves any labels, and their targets are not taken for classes."""
    labelled(embedded, tmp_path / "set", bank)
    loader = slg_wds.SoftLabelLoader(
        str(tmp_path / "set"),
        images=str(small_images / "train"),
        global_batch_size=8,
        crops_per_image=2,
        size=32,
    )
    batch = next(iter(loader))
    loss = slg_wds.SoftCrossEntropy()(torch.zeros(8, K), batch.labels)
    assert float(loss) == pytest.approx(np.log(K), abs=1e-4)


def test_labels_over_other_prototypes_are_not_compared(embedded, bank, tmp_path):
    """As many prototypes of another bank are other classes, whose numbers mean nothing to each other."""
    other = written(unit_bank(K, DIM, seed=7, temperature=0.2), tmp_path / "other.safetensors")
    one, two = labelled(embedded, tmp_path / "one", bank), labelled(embedded, tmp_path / "two", other)
    page = str(tmp_path / "page.html")
    with pytest.raises(UsageError, match=r"its bank_sha256 is '\w+', that of .*; compare sets over the same"):
        report(ReportConfig(labels=(one.url, two.url), output=page))
    flags = parse(())
    with pytest.raises(UsageError, match="its bank_sha256 is"):
        SoftTargets(flags, two.url, [one], K, Preprocessing(32, (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0))
