"""verify: comparison with the teacher, JSON output, and what it must never remove."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.config.shared import RecheckOptions
from slg_wds.errors import UsageError
from slg_wds.format.records.record import Record
from slg_wds.verification.answers.asking import Question, load_named_teachers
from support.format.resealing import of_records, rewritten
from support.models.names import TINY
from support.sets import trust_sets
from support.sets.trust_sets import copy_of

OTHER = TINY.replace(":tiny", ":other")


@pytest.fixture(scope="module")
def faithful(small_images, tmp_path_factory) -> Path:
    return trust_sets.make(small_images, tmp_path_factory.mktemp("faithful") / "set")


@pytest.fixture(scope="module")
def embedded(small_images, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("with images") / "set"
    return trust_sets.make(small_images, folder, embed_images="original")


def even(record: Record) -> Record:
    share = record.value.sum(axis=1, keepdims=True) / record.k
    return dataclasses.replace(record, value=np.repeat(share, record.k, axis=1))


def sharper(record: Record) -> Record:
    """As with another temperature; classes and their order stay."""
    value = record.value**1.3
    return dataclasses.replace(
        record, value=value * (record.value.sum(1) / value.sum(1))[:, None] * np.float32(0.999)
    )


def other_classes(record: Record) -> Record:
    return dataclasses.replace(record, index=(record.index + 1) % record.num_classes)


def other_crops(record: Record) -> Record:
    return dataclasses.replace(record, crops=record.crops[::-1], flips=record.flips[::-1])


def asked(images: Path | None, arch: str = TINY) -> list[str]:
    data = [] if images is None else ["--teacher", str(images)]
    return [*data, "-a", arch, "--teacher_source", "private", "--processes", "1"]


def test_the_teachers_own_labels(faithful, embedded, small_images, capsys):
    assert main(["verify", str(faithful), *asked(small_images)]) == 0
    assert "the labels are the teachers': 96 crops asked again" in capsys.readouterr().out  # all
    assert main(["verify", str(embedded), *asked(None), "--check-crops", "16"]) == 0
    assert "16 crops asked again" in capsys.readouterr().out
    assert main(["verify", str(faithful), *asked(None), "--images", str(small_images)]) == 0
    assert "the labels are the teachers': 96 crops asked again" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"keep_extensions": True, "split": "held"}, {"split": "held"}])
def test_images_are_found_whatever_they_are_called(small_images, tmp_path, capsys, options):
    """Keys with extensions; a folder of another name: the plan says where each image lies."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "held").symlink_to(small_images)
    labels = str(trust_sets.make(tmp_path / "data", tmp_path / "set", **options))
    assert main(["verify", labels, *asked(tmp_path / "data"), "--check-crops", "8"]) == 0
    assert "the labels are the teachers'" in capsys.readouterr().out


@pytest.mark.parametrize("change", [even, sharper, other_classes, other_crops])
def test_labels_of_nobody(faithful, small_images, tmp_path, capsys, change):
    """Every byte is valid; only running the teachers shows the difference."""
    labels = rewritten(copy_of(faithful, tmp_path / "set"), of_records(change))
    assert main(["verify", str(labels), "--processes", "1"]) == 0
    capsys.readouterr()
    assert main(["verify", str(labels), *asked(small_images), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert {problem["kind"] for problem in found["problems"]} == {"teacher"}
    assert found["teacher"]["crops"] == 96 and found["teacher"]["problems"]
    assert found["teacher"]["mean"] > 0.002


def test_the_whole_shards_of_a_damaged_set_are_compared_and_the_damage_is_told(
    faithful, small_images, tmp_path, capsys
):
    labels = copy_of(faithful, tmp_path / "set")
    (tar, *_) = sorted(labels.glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:4000])  # its first records can be read all the same
    assert main(["verify", str(labels), *asked(small_images), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["shard"]) for one in found["problems"]] == [("damaged", tar.name)]
    assert found["teacher"]["crops"] == 4 * trust_sets.CROPS and not found["teacher"]["problems"]
    assert main(["verify", str(labels), *asked(small_images, OTHER)]) == 1
    out = capsys.readouterr().out
    assert "truncated: " in out and "not asked: -a does not name the teachers of the labels" in out


def test_a_set_without_a_shard_has_nothing_to_compare(faithful, small_images, tmp_path, capsys):
    labels = copy_of(faithful, tmp_path / "set")
    for path in [*labels.glob("*.tar"), labels / "_info.json"]:
        path.unlink()
    assert main(["verify", str(labels), *asked(small_images), "--allow-incomplete"]) == 3
    assert "no shard is there and whole, so there is nothing to compare" in capsys.readouterr().err


def test_what_is_not_known_is_not_said(small_images, tmp_path, capsys):
    """Hard labels have no probabilities to differ; low-rank ones of other labels state nothing of the teachers."""
    hard = trust_sets.make(small_images, tmp_path / "hard", label_type="hard")
    assert main(["verify", str(hard), *asked(small_images)]) == 0
    said = "the labels are the teachers': 96 crops asked again, and the most probable class is the same for 100.0%"
    assert said in capsys.readouterr().out
    full = trust_sets.make(small_images, tmp_path / "full", label_type="full")
    coded = {"sets": (str(full),), "save_path": str(tmp_path / "coded"), "label_type": "lowrank"}
    slg_wds.ensemble(slg_wds.EnsembleConfig(**coded, processes=1))
    labels = rewritten(tmp_path / "coded", of_records(other_crops))
    assert main(["verify", str(labels), *asked(small_images)]) == 0
    out = capsys.readouterr().out
    assert "the labels are the teachers'" not in out
    assert "do not say how far from the teachers' they may be: 96 crops asked again, mean KL 0." in out


def test_low_rank_labels_are_held_to_what_they_state(small_images, tmp_path, capsys):
    labels = trust_sets.make(small_images, tmp_path / "set", label_type="lowrank", max_kl=0.2)
    assert main(["verify", str(labels), *asked(small_images)]) == 0
    assert "the labels are the teachers': 96 crops asked again, mean KL 0.1" in capsys.readouterr().out

    def better(record: Record) -> Record:
        stated = dataclasses.replace(record.low_rank.kl, mean=0.001, worst=0.002)
        return dataclasses.replace(record, low_rank=dataclasses.replace(record.low_rank, kl=stated))

    assert main(["verify", str(rewritten(labels, of_records(better))), *asked(small_images)]) == 1
    out = capsys.readouterr().out
    assert "the labels are NOT the teachers'" in out
    assert out.count("nats from the teachers, and its record says at most 0.0020") == 3  # of eight images


def test_rewriting_alone_changes_nothing(faithful, tmp_path):
    labels = rewritten(copy_of(faithful, tmp_path / "set"), of_records(lambda record: record))
    assert trust_sets.objects_of(labels) == trust_sets.objects_of(faithful)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["-a", TINY, "--teacher_source", "private"], 2, "-a needs --images IMAGES"),
        (["--teacher", "x"], 2, "-a must name the teachers"),
        (["--processes", "-1"], 2, "is below 0"),
        (["--store-option", "nonsense"], 2, "not key=value"),
        (
            ["--teacher", "IMAGES", "-a", OTHER, "--teacher_source", "private"],
            2,
            "does not name the teachers",
        ),
        (["--teacher", "EMPTY", "-a", TINY, "--teacher_source", "private"], 1, "nothing in it"),
    ],
)
def test_questions_that_cannot_be_asked(faithful, small_images, tmp_path, capsys, more, code, said):
    (tmp_path / "empty").mkdir()
    places = {"IMAGES": str(small_images), "EMPTY": str(tmp_path / "empty")}
    more = [places.get(argument, argument) for argument in more]
    assert main(["verify", str(faithful), *more]) == code
    out, err = capsys.readouterr()
    assert out == "" and said in err.splitlines()[-1]


@pytest.mark.parametrize("size", [None, (50, 40)])
def test_other_images_than_those_labelled(faithful, small_images, tmp_path, capsys, size):
    """Neither of another size nor, mirrored, of the same."""
    from PIL import Image, ImageOps

    images = copy_of(small_images, tmp_path / "images")
    for path in images.rglob("*.jpg"):
        with Image.open(path) as image:
            ImageOps.mirror(image.resize(size or image.size)).save(path)
    assert main(["verify", str(faithful), *asked(images)]) == 1
    assert ".jpg is not the image that was labelled: its bytes" in capsys.readouterr().err


def test_json(faithful, tmp_path, capsys):
    assert main(["verify", str(faithful), "--processes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    tars = list(faithful.glob("*.tar"))
    assert found["ok"] is True and found["problems"] == found["fixed"] == found["unknown"] == []
    assert (found["shards"], found["planned"], found["samples"]) == (2, 2, 8)
    assert (found["crops"], found["images"]) == (8 * trust_sets.CROPS, 0)
    assert found["bytes"] == sum(path.stat().st_size for path in tars)
    labels = copy_of(faithful, tmp_path / "set")
    (labels / "train-000001.tar").write_bytes(b"x")
    (labels / "stray").write_bytes(b"x")
    assert main(["verify", str(labels), "--processes", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (problem,) = found["problems"]
    assert (problem["kind"], problem["shard"], problem["key"]) == ("damaged", "train-000001.tar", None)
    assert problem["what"].startswith("truncated: ") and found["unknown"] == ["stray"] and not found["ok"]


def test_an_embedded_image_that_does_not_decode(embedded, tmp_path, capsys):
    torn = iter([True])
    names = []

    def change(name: str, content: bytes) -> bytes:
        if name.endswith(".jpg") and next(torn, False):
            names.append(name.removesuffix(".jpg"))
            return content[: len(content) // 2]
        return content

    labels = rewritten(copy_of(embedded, tmp_path / "set"), change)
    assert main(["verify", str(labels), "--processes", "1", "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["kind"], problem["shard"]) == ("damaged", "train-000000.tar")
    assert problem["key"] == names[0] and problem["what"].startswith("its image: cannot be decoded: ")
    assert main(["verify", str(labels), "--processes", "1", "--no-decode-images"]) == 0


def test_an_embedded_image_of_another_size(embedded, tmp_path, capsys):
    import io

    from PIL import Image

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith(".jpg"):
            return content
        out = io.BytesIO()
        Image.open(io.BytesIO(content)).resize((33, 44)).save(out, "JPEG")
        return out.getvalue()

    labels = rewritten(copy_of(embedded, tmp_path / "set"), change)
    assert main(["verify", str(labels), "--processes", "1", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert len(found["problems"]) == 8
    assert all("its image is of 44 x 33" in problem["what"] for problem in found["problems"])


def test_nothing_is_removed_where_slg_json_is_another_sets(faithful, small_images, tmp_path, capsys):
    other = trust_sets.make(small_images, tmp_path / "other", label_type="shared_tail_k3")
    labels = copy_of(faithful, tmp_path / "set")
    (labels / "slg.json").write_bytes((other / "slg.json").read_bytes())
    before = trust_sets.objects_of(labels)
    assert main(["verify", str(labels), "--fix", "--delete-damaged", "--processes", "1"]) == 1
    assert "nothing was removed" in capsys.readouterr().err
    assert trust_sets.objects_of(labels) == before


def test_what_is_well_is_left_as_it_is(faithful, tmp_path):
    labels = copy_of(faithful, tmp_path / "set")
    times = {path: path.stat().st_mtime_ns for path in labels.rglob("*")}
    assert main(["verify", str(labels), "--fix", "--delete-damaged", "--processes", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in labels.rglob("*")} == times


def test_a_set_cannot_have_its_checker_make_pixels_without_end(faithful):
    """slg.json says how the teachers saw their pixels, and is believed up to a size."""
    labels = slg_wds.open_labels(str(faithful))
    (teacher,) = labels.identity["teachers"]
    identity = {**labels.identity, "teachers": [{**teacher, "input_size": 2049}]}
    forged = dataclasses.replace(
        labels, description=dataclasses.replace(labels.description, identity=identity)
    )
    question = Question(RecheckOptions(arch=TINY, teacher_source="private"), None)
    assert load_named_teachers(question, labels).inputs == [(32, "bilinear")]
    with pytest.raises(UsageError, match="over 2048 pixels a side"):
        load_named_teachers(question, forged)


FAILING = """import torch
from torch import nn
class Model(nn.Module):
    pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    def __init__(self):
        super().__init__()
        self.head, self.calls = nn.Linear(48, 7, bias=False), 0
        nn.init.eye_(self.head.weight)
    def forward(self, x):
        self.calls += 1
        logits = self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
        return logits * float("nan") if self.calls > LAST else logits
def factory():
    return Model()
"""


def test_an_answer_that_is_no_number_is_no_agreement(small_images, tmp_path, capsys):
    """The same weights, and code that fails after a few forwards, as a broken device may."""
    file, labels = tmp_path / "mine.py", tmp_path / "set"
    file.write_text(FAILING.replace("LAST", "10**9"))
    options = {"arch": f"{file}:factory", "teacher_source": "private", "num_crops": 4, "label_type": "full"}
    slg_wds.generate(slg_wds.GenerateConfig(data=str(small_images), save_path=str(labels), **options))
    file.write_text(FAILING.replace("LAST", "10"))
    ask = ["--teacher", str(small_images), "-a", f"{file}:factory", "--teacher-source", "private"]
    capsys.readouterr()
    assert main(["verify", str(labels), *ask]) == 1
    out, err = capsys.readouterr()
    assert "gave NaN or infinity for a crop (key " in err and "the labels are" not in out
