"""Names that point outside their folder: nothing outside is written or read."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

import slg_wds
from slg_wds.cli import main
from slg_wds.format.canonical import pretty_json, seal
from slg_wds.format.manifest.plan import Plan
from slg_wds.format.manifest.plan_codec import encode_plan
from slg_wds.format.manifest.strings import StringColumn
from support.format.resealing import of_records, rewritten
from support.models.names import TINY
from support.sets import trust_sets
from support.sets.trust_sets import copy_of

SECRET = (250, 7, 99)
OUTSIDE = ["../secret.jpg", "../../secret.jpg", "n0/../../secret.jpg", "ROOT/secret.jpg", "./../secret.jpg"]


@pytest.fixture(scope="module")
def labels(small_images, tmp_path_factory) -> Path:
    return trust_sets.make(small_images, tmp_path_factory.mktemp("inside") / "set")


@pytest.fixture
def home(tmp_path, small_images, labels) -> Path:
    """A folder with a secret in it, and beside that the images and a set that may be written to."""
    copy_of(small_images, tmp_path / "images")
    copy_of(labels, tmp_path / "set")
    Image.new("RGB", (72, 72), SECRET).save(tmp_path / "secret.jpg")
    shutil.copy(tmp_path / "secret.jpg", tmp_path / "images" / "secret.jpg")  # what ../ of train would reach
    return tmp_path


def everything(home: Path) -> dict[str, bytes]:
    return trust_sets.objects_of(home)


def refused(home: Path, arguments: list[str], capsys, *allowed: str) -> str:
    """The command fails, in one line, and makes and changes nothing but what is `allowed`."""
    before = everything(home)
    assert main(arguments) in (1, 2)
    err = capsys.readouterr().err
    assert "Traceback" not in err
    after = everything(home)
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert all(name.startswith(allowed) for name in changed), changed
    return err


def commands(home: Path) -> dict[str, list[str]]:
    labels, images = str(home / "set"), str(home / "images")
    generate = ["generate", images, "-a", TINY, "--teacher_source", "private", "--num_crops", "12"]
    return {
        "export": ["export", labels, str(home / "new")],
        "report": ["report", labels, "-o", str(home / "new.html"), "--images", images],
        "ensemble": ["ensemble", labels, "--save-path", str(home / "new"), "--processes", "1"],
        "generate": [*generate, "--reference_path", labels, "--save_path", str(home / "new")],
        "inspect": ["inspect", labels],
        "verify": ["verify", labels, "--processes", "1", "--fix", "--delete-damaged"],
    }


def with_names(home: Path, paths: list[str] | None = None, shards: list[str] | None = None) -> None:
    """The set with other names in its plan, all checksums right."""
    opened = slg_wds.open_labels(str(home / "set"))
    plan = opened.plan
    names = paths and [*paths, *list(plan.paths)[len(paths) :]]
    new = dataclasses.replace(
        plan,
        paths=StringColumn.of(names) if names else plan.paths,
        keys=StringColumn.of([name.replace(".", "_") for name in names]) if names else plan.keys,
        shard_names=shards or plan.shard_names,
    )
    with pytest.MonkeyPatch.context() as patch:  # our own writer refuses such names
        patch.setattr(Plan, "check", lambda self: None)
        data = encode_plan(new)
    (home / "set" / "plan").write_bytes(data)
    edit_description(home, plan_sha256=hashlib.sha256(data).hexdigest())


def edit_description(home: Path, **changes: object) -> None:
    path = home / "set" / "slg.json"
    fields = {name: value for name, value in json.loads(path.read_bytes()).items() if name != "crc32"}
    path.write_bytes(pretty_json(seal({**fields, **changes})))


@pytest.mark.parametrize("command", ["export", "report", "ensemble", "generate", "inspect", "verify"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_of_a_plan(home, capsys, command, name):
    with_names(home, [name.replace("ROOT", str(home))])
    assert "is not a path below" in refused(home, commands(home)[command], capsys)


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "..", "a/b", "{0..9}"])
def test_names_of_shards(home, capsys, name):
    with_names(home, shards=[name, "train-000001"])
    for command in ("export", "verify", "inspect"):
        assert "names of shards" in refused(home, commands(home)[command], capsys)


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_of_records(home, capsys, name):
    """The plan is as it should be; each record says that its image lies elsewhere."""
    path = name.replace("ROOT", str(home))
    rewritten(home / "set", of_records(lambda record: dataclasses.replace(record, path=path)))
    refused(home, commands(home)["export"], capsys)
    assert main(commands(home)["verify"][:4]) == 1
    assert "path" in capsys.readouterr().out
    report = home / "new.html"
    main(commands(home)["report"])
    assert not report.exists() or not shows_secret(report)  # made of the planned images, or not at all


def shows_secret(report: Path) -> bool:
    """Whether any picture in the page has the secret's colour in its middle."""
    found = re.findall(r"data:image/webp;base64,([A-Za-z0-9+/=]+)", report.read_text())
    assert found
    images = [Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB") for data in found]
    middles = [image.getpixel((image.width // 2, image.height // 2)) for image in images]
    return any(max(abs(a - b) for a, b in zip(middle, SECRET, strict=True)) < 24 for middle in middles)


def test_the_secret_would_be_seen(home):
    """The check itself works: it finds the secret in the page of a set that has it as an image."""
    images = home / "own" / "train" / "n02123045"
    images.mkdir(parents=True)
    shutil.copy(home / "secret.jpg", images / "a.jpg")
    trust_sets.make(home / "own", home / "ownset")
    page = home / "own.html"
    assert main(["report", str(home / "ownset"), "-o", str(page), "--images", str(home / "own")]) == 0
    assert shows_secret(page)


@pytest.mark.parametrize("root", ["/data/..", "..", "/data/../train", "/x/.evil/../train"])
def test_the_folder_that_a_set_names_for_export(home, capsys, root):
    path = home / "set" / "slg.json"
    edit_description(home, provenance={**json.loads(path.read_bytes())["provenance"], "image_root": root})
    err = refused(home, [*commands(home)["export"], "--layout", "mealv2"], capsys)
    assert "--dataset" in err or "outside" in err or "first dot" in err


@pytest.mark.parametrize("dataset", ["..", "../x", "/tmp/x", ""])
def test_the_folder_that_a_command_names_for_export(home, capsys, dataset):
    refused(home, [*commands(home)["export"], "--layout", "mealv2", "--dataset", dataset], capsys)


@pytest.mark.parametrize("name", [*OUTSIDE, "../evil.jpg", "/evil.jpg", "a/../../evil.jpg"])
def test_members_of_image_shards(home, capsys, name):
    tar = home / "images-0.tar"
    with tarfile.open(tar, "w") as archive:
        info = tarfile.TarInfo(name.replace("ROOT", str(home)))
        data = (home / "secret.jpg").read_bytes()
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    new = ["--save_path", str(home / "new"), "--num_crops", "4"]
    refused(home, ["generate", str(tar), "-a", TINY, "--teacher_source", "private", *new], capsys)


def test_label_files_that_are_links_out(home, capsys):
    """A folder of label files from somebody: a link in it leads to a file that is none."""
    (home / "secret.tar").write_bytes(b"secret")
    for image in (home / "images" / "train").rglob("*.jpg"):
        file = home / "fkd" / image.relative_to(home / "images").with_suffix(".tar")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.symlink_to(home / "secret.tar")
    arguments = ["import", str(home / "fkd"), "--images", str(home / "images"), "--processes", "1"]
    err = refused(home, [*arguments, "--save-path", str(home / "new")], capsys, "new/plan", "new/slg.json")
    assert "no whole file of torch.save" in err


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_names_of_a_list(home, capsys, name):
    (home / "list").write_text(f"{name}.jpg\n")
    new = ["--save_path", str(home / "new"), "--num_crops", "4", "--list", str(home / "list")]
    arguments = ["generate", str(home / "images"), "-a", TINY, "--teacher_source", "private", *new]
    assert "evil.jpg" in refused(home, arguments, capsys)
