"""Image shards from other tools: labelled, read by the loader, and verified with the teacher."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

import slg_wds
from slg_wds.cli import main
from support.models.names import TINY
from support.sets.replay_sets import Made, make, truth


def pack(photographs: Path, root: Path) -> Path:
    """12 photographs in two tars of one name, keys from 0 in each, one sample more without an image."""
    paths = sorted((photographs / "train").rglob("*.jpg"))[::3]
    for folder, part in (("a", paths[:6]), ("b", paths[6:])):
        (root / folder).mkdir(parents=True)
        with tarfile.open(root / folder / "part.tar", "w") as tar:
            for number, path in enumerate(part):
                add(tar, f"{number:04d}.input.jpg", path.read_bytes())
                add(tar, f"{number:04d}.json", json.dumps({"meta": {"label": path.parent.name}}).encode())
            add(tar, "9999.json", b"{}")
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def of_others(photographs, tmp_path_factory) -> Made:
    root = pack(photographs, tmp_path_factory.mktemp("of-others") / "data")
    classes = sorted(path.name for path in (photographs / "train").iterdir())
    class_map = root.parent / "map"
    class_map.write_text("".join(f"{name} {at + 3}\n" for at, name in enumerate(classes)))
    labels = make(
        root, root.parent / "labels", prefix_keys=True, image_field="input.jpg", target_field="json:meta.label",
        class_map=str(class_map), on_error="skip",
    )  # fmt: skip
    return Made(labels, str(root))


def test_every_sample_is_labelled_or_listed(of_others, photographs):
    labels = slg_wds.open_labels(of_others.labels)
    assert labels.plan.shard_names == ["a-part", "b-part"]
    records = list(labels)
    assert [record.key for record in records] == [
        f"{folder}/part/{n:04d}%2Einput" for folder in "ab" for n in range(6)
    ]
    classes = sorted(path.name for path in (photographs / "train").iterdir())
    paths = sorted((photographs / "train").rglob("*.jpg"))[::3]
    assert [record.target for record in records] == [classes.index(path.parent.name) + 3 for path in paths]


@pytest.mark.parametrize("images", ["{root}", "{root}/{{a,b}}/part.tar"])
def test_the_loader_finds_the_tars_again(of_others, images):
    expected = truth(of_others.labels, of_others.images)
    with pytest.warns(UserWarning, match=r"left out of the labels .*: 2 of 14 images"):
        loader = of_others.loader(images=images.format(root=of_others.images))
    seen = 0
    for batch in loader:
        for key, crop, image in zip(batch.key, batch.crop.tolist(), batch.images, strict=True):
            assert image.equal(expected[key, crop][0])
            seen += 1
    assert seen == 24


def test_left_out_samples_are_reported_and_a_teacher_can_be_asked_again(of_others, capsys):
    labels = slg_wds.open_labels(of_others.labels)
    assert [labels.index(number).left_out for number in range(2)] == [["a/part/9999"], ["b/part/9999"]]
    arguments = [
        "--teacher",
        of_others.images,
        "-a",
        TINY,
        "--teacher_source",
        "private",
        "--check-crops",
        "32",
    ]
    assert main(["verify", of_others.labels, "--processes", "1", *arguments]) == 0
    assert "the labels are the teachers'" in capsys.readouterr().out
