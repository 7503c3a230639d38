"""Labels over the prototypes of a bank: what `generate --output prototypes` stores, and what commands make of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import slg_wds
from slg_wds.banks import Bank, encode_bank
from slg_wds.cli import main
from slg_wds.errors import IdentityMismatchError, SlgWdsError, TeacherOutputError, UsageError
from slg_wds.images.pixels import decode
from slg_wds.teachers import TeacherSpec, load_teacher
from slg_wds.transforms.crops import cut
from support.models.banks import layer, unit_bank, written
from support.models.names import TINY
from support.paths import MODELS

K, DIM = 40, 20  # TINY gives 20 numbers
ZERO, NOISY = (f"{MODELS / 'towers.py'}:{name}" for name in ("zero", "noisy"))


@pytest.fixture(scope="module")
def bank(tmp_path_factory) -> str:
    return written(unit_bank(K, DIM, temperature=0.2), tmp_path_factory.mktemp("bank") / "bank.safetensors")


def config(images: Path, target: Path, bank: str, **more: Any) -> slg_wds.GenerateConfig:
    given = {"teacher_source": "private", "num_crops": 6, "num_seg": 16, "samples_per_shard": 4, "arch": TINY}
    given |= {"threads_per_forward": 1, "workers": 1, "output": "prototypes", "bank": bank, **more}
    return slg_wds.GenerateConfig(data=str(images), save_path=str(target), **given)


def exact(images: Path, record: slg_wds.Record, bank: Bank, temperature: float) -> np.ndarray:
    """softmax((W z / |z| + b) / T) of the teacher's own answers, in float64."""
    crops = torch.empty((record.num_crops, 3, 32, 32), dtype=torch.uint8)
    cut(decode((images / "train" / record.path).read_bytes()), record.crops, record.flips, crops, "bilinear")
    z = load_teacher(TeacherSpec("private", TINY)).logits(crops).double()
    z = z / z.norm(dim=1, keepdim=True)
    scores = z @ torch.from_numpy(bank.prototypes.weight).double().T + torch.from_numpy(bank.prototypes.bias)
    return (scores / temperature).softmax(1).numpy()


@pytest.mark.parametrize(
    ("label_type", "more"),
    [
        ("full", {"values": "float32"}),
        ("shared_tail_k5", {"bank_temp": 0.05, "values": "float32"}),
        ("lowrank", {"max_kl": 0.01, "num_crops": 24}),
        ("hard", {}),
    ],
)
def test_labels_are_the_softmax_over_the_prototypes(small_images, tmp_path, bank, label_type, more):
    slg_wds.generate(config(small_images, tmp_path / "set", bank, label_type=label_type, **more))
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    made = unit_bank(K, DIM)
    assert labels.num_classes == K and not labels.targets_are_classes
    assert labels.temperature == more.get("bank_temp", 0.2)
    for record in labels:
        wanted = exact(small_images, record, made, labels.temperature)
        assert record.target is not None
        if label_type == "hard":
            assert np.array_equal(record.index[:, 0], wanted.argmax(1))
        elif label_type == "lowrank":
            kl = (wanted * np.log(wanted / record.distribution())).sum(1).mean()
            assert kl < 0.01 and record.low_rank.kl.against == "teacher"
        elif label_type == "full":
            assert np.abs(record.value - wanted).max() < 1e-5
        else:
            order = np.argsort(-wanted, axis=1)[:, :5]
            assert np.array_equal(record.index, order) and record.tail is not None
            assert np.abs(record.value - np.take_along_axis(wanted, order, 1)).max() < 1e-5


def test_the_identity_names_the_bank_and_a_run_resumes_with_it_alone(small_images, tmp_path, bank):
    target = tmp_path / "set"
    slg_wds.generate(config(small_images, target, bank))
    identity = slg_wds.open_labels(str(target)).identity
    data = Path(bank).read_bytes()
    assert identity.bank_sha256 == slg_wds.open_labels(str(target)).identity["bank_sha256"]
    before = {path: path.read_bytes() for path in target.rglob("*.tar")}
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(data)
    slg_wds.generate(config(small_images, target, str(copy)))
    assert {path: path.read_bytes() for path in target.rglob("*.tar")} == before
    other = written(unit_bank(K, DIM, seed=3, temperature=0.2), tmp_path / "other.safetensors")
    for change, named in (
        ({"bank": other}, "bank_sha256"), ({"bank_temp": 0.3}, "temperature: 0.2 != 0.3"),
        ({"output": "labels", "bank": None}, "targets"),
    ):  # fmt: skip
        with pytest.raises(IdentityMismatchError, match=named):
            slg_wds.generate(config(small_images, target, **{"bank": bank, **change}))


def test_sets_of_other_banks_are_not_averaged(small_images, tmp_path, bank):
    other = written(unit_bank(K, DIM, seed=3, temperature=0.2), tmp_path / "other.safetensors")
    for name, one, values in (("a", bank, "float32"), ("b", bank, "float16"), ("c", other, "float32")):
        slg_wds.generate(config(small_images, tmp_path / name, one, label_type="full", values=values))

    def merged(*names: str) -> slg_wds.LabelSet:
        sets = tuple(str(tmp_path / name) for name in names)
        target = str(tmp_path / "-".join(names))
        slg_wds.ensemble(slg_wds.EnsembleConfig(sets=sets, save_path=target, processes=1))
        return slg_wds.open_labels(target)

    with pytest.raises(IdentityMismatchError, match="bank_sha256"):
        merged("a", "c")
    both, one = merged("a", "b"), slg_wds.open_labels(str(tmp_path / "a"))
    assert both.identity.bank_sha256 == one.identity.bank_sha256 and not both.targets_are_classes
    for a, b in zip(both, one, strict=True):
        assert np.abs(a.value - b.value).max() < 1e-3


def test_more_crops_are_those_of_one_run(small_images, tmp_path, bank):
    slg_wds.generate(config(small_images, tmp_path / "all", bank, num_crops=9))
    slg_wds.generate(config(small_images, tmp_path / "old", bank, num_crops=4))
    slg_wds.generate(config(small_images, tmp_path / "new", bank, num_crops=9, extend=str(tmp_path / "old")))
    for a, b in zip(*(slg_wds.open_labels(str(tmp_path / name)) for name in ("all", "new")), strict=True):
        assert np.array_equal(a.index[4:], b.index) and np.abs(a.value[4:] - b.value).max() < 1e-3


def test_verify_and_inspect(small_images, tmp_path, bank, capsys):
    slg_wds.generate(config(small_images, tmp_path / "set", bank))
    asked = ["verify", str(tmp_path / "set"), "--processes", "1", "-a", TINY, "--teacher", str(small_images)]
    asked += ["--teacher_source", "private"]
    assert main([*asked, "--bank", bank]) == 0
    assert "the labels are the teachers'" in capsys.readouterr().out
    other = written(unit_bank(K, DIM, seed=3), tmp_path / "other.safetensors")
    for wrong, said in (
        ([], "the labels are over prototypes, so their teacher can be asked only with their bank"),
        (["--bank", other], "is not the bank of"),
    ):
        assert main([*asked, *wrong]) == 2
        assert said in capsys.readouterr().err
    assert main(["inspect", str(tmp_path / "set")]) == 0
    assert "40 prototypes, SHA-256" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "set"), "--json"]) == 0
    identity = json.loads(capsys.readouterr().out)["identity"]
    assert identity["temperature"] == 0.2 and len(identity["bank_sha256"]) == 64
    key = slg_wds.open_labels(str(tmp_path / "set"))[0].key
    assert main(["inspect", str(tmp_path / "set"), "--key", key]) == 0


def test_crops_without_an_embedding_get_the_softmax_of_the_bias(small_images, tmp_path):
    made = unit_bank(8, 48)
    more = {"arch": ZERO, "label_type": "full", "values": "float32"}
    slg_wds.generate(config(small_images, tmp_path / "set", written(made, tmp_path / "bank"), **more))
    usual = torch.from_numpy(made.prototypes.bias / np.float32(0.1)).softmax(0).numpy()
    rows = np.concatenate([record.value for record in slg_wds.open_labels(str(tmp_path / "set"))])
    dark = np.abs(rows - usual).max(axis=1) < 1e-6
    assert 0 < dark.sum() < len(dark)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"bank": None}, "needs --bank FILE"),
        ({"output": "labels"}, "--bank is for --output prototypes"),
        ({"output": "embedding", "bank": None, "bank_temp": 1.0}, "--bank-temp is for"),
        ({"bank_temp": 0.0}, "--bank-temp 0 is not a number above 0"),
        ({"temp": 2.0}, "--temp is for labels over a teacher's classes.*--bank-temp"),
        ({"class_subset": "auto"}, "--class-subset is for labels over"),
        ({"weights": (1.0,)}, "--weights is for"),
        ({"evaluate": True}, "--evaluate is for"),
        ({"normalize": True}, "--normalize is for --output embedding"),
        ({"values": "int8"}, "int8 is for --output embedding"),
        ({"arch": f"{TINY},{TINY}"}, "takes one teacher, not 2"),
        ({"arch": ZERO}, "takes embeddings of 20 numbers, and .*zero gives 48"),
        ({"label_type": "marginal_smoothing_k50"}, "there are 40"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other(small_images, tmp_path, bank, more, said):
    with pytest.raises(UsageError, match=said):
        slg_wds.generate(config(small_images, tmp_path / "set", **{"bank": bank, **more}))
    assert not (tmp_path / "set").exists()


def test_banks_and_teachers_that_cannot_be_used(small_images, tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(encode_bank(unit_bank(K, DIM))[:-4])
    foreign = written(unit_bank(K, DIM, made_from={"weights_sha256": "ab" * 32}), tmp_path / "foreign")
    untold = written(Bank(layer(K, DIM, 0)), tmp_path / "untold")
    for path, said in (
        (broken, "is not a bank"), (foreign, "of another teacher"), (untold, "names no temperature"),
        (tmp_path / "none", "no bank can be read"),
    ):  # fmt: skip
        with pytest.raises(SlgWdsError, match=said):
            slg_wds.generate(config(small_images, tmp_path / "set", str(path)))
    wide = written(unit_bank(K, 48), tmp_path / "wide")
    with pytest.raises(TeacherOutputError, match="random numbers"):
        slg_wds.generate(config(small_images, tmp_path / "set", wide, arch=NOISY))
    assert not (tmp_path / "set").exists()
