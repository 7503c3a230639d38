"""inspect: its output agrees with complete and incomplete sets, local and remote; it imports little."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from support.servers.scripted import QUICK
from support.servers.website import own_certificate, web_server
from support.sets import reported_sets, trust_sets

SHARDS, IMAGES = 3, 14


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inspected") / "set"
    reported_sets.label_set(folder, embedded=False)
    return folder


def told(capsys, *arguments: str) -> dict[str, Any]:
    assert main(["inspect", *arguments, "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


def shown(capsys, *arguments: str) -> str:
    assert main(["inspect", *arguments]) == 0
    return re.sub(r"\s+", " ", capsys.readouterr().out)


def test_json_agrees_with_the_set(labels, capsys):
    found, opened = told(capsys, str(labels)), slg_wds.open_labels(str(labels))
    records = list(opened)
    tars = list(labels.glob("*.tar"))
    assert (found["digest"], found["state"]) == (opened.digest, "complete")
    assert found["identity"] == opened.identity and found["provenance"] == opened.description.provenance
    assert found["images"]["planned"] == found["images"]["labelled"] == len(records) == IMAGES
    assert found["images"]["with_target"] == IMAGES and found["images"]["left_out"] == 0
    assert found["shards"]["planned"] == found["shards"]["present"] == len(tars) == SHARDS
    assert found["shards"]["bytes"] == sum(path.stat().st_size for path in tars)
    assert found["sampled"] == {"shards": SHARDS, "records": IMAGES, "crops": IMAGES * reported_sets.CROPS}
    together = found["bytes_per_crop"].pop("together")
    assert together == pytest.approx(sum(found["bytes_per_crop"].values()))
    # All records were looked at, so the columns and the tar's own bytes are all bytes that there are.
    assert together * IMAGES * reported_sets.CROPS == pytest.approx(found["shards"]["bytes"])
    assert found["notes"] == []


def test_the_tail_is_told_as_it_is_kept(labels, capsys):
    """Few crops and few classes keep fewer classes than the set may."""
    opened = slg_wds.open_labels(str(labels))
    kept = max(len(record.tail.classes) for record in opened)
    assert 1 < kept < opened.identity.tail_classes
    assert f"shared tail of up to {kept} classes" in shown(capsys, str(labels))


def test_embedded_images_are_told_apart(tmp_path, capsys):
    opened = reported_sets.label_set(tmp_path / "set", images=4)
    sizes = told(capsys, opened.url)["bytes_per_crop"]
    pictures = sum(len(sample.image) for sample in opened.shard(0))
    assert sizes["images"] == pytest.approx(pictures / (4 * reported_sets.CROPS))
    assert sizes["together"] < sum(sizes.values()) - sizes["images"]
    assert "embedded images original" in shown(capsys, opened.url)  # which says nothing of a quality


def test_hard_labels_have_no_probabilities(tmp_path, capsys):
    labels = reported_sets.label_set(tmp_path / "hard", label_type="hard", images=3)
    record = labels[0]
    (crop,) = told(capsys, labels.url, "--key", record.key, "--crops", "1")["image"]["crops"]
    assert crop["outside"] is None
    assert [(one["class"], one["probability"]) for one in crop["classes"]] == [(record.index[0, 0], None)]
    text = shown(capsys, labels.url, "--key", record.key, "--crops", "1")
    assert f" thing {record.index[0, 0]}" in text and "most probable class" in text
    assert "1.000" not in text and "tail mass" not in text


def test_one_image(labels, capsys):
    key = "folder/picture_07"
    record = next(record for record in slg_wds.open_labels(str(labels)) if record.key == key)
    found = told(capsys, str(labels), "--key", key, "--crops", "3")["image"]
    assert (found["key"], found["path"], found["number"]) == (key, f"{key}.jpg", 7)
    assert (found["shard"], found["num_crops"]) == ("train-000001.tar", reported_sets.CROPS)
    assert (found["height"], found["width"]) == record.size
    assert (found["target"], found["target_name"]) == (7, "thing 7, also called 7")
    assert len(found["crops"]) == 3
    for number, crop in enumerate(found["crops"]):
        assert crop["box"] == record.crops[number].tolist() and crop["flip"] == record.flips[number]
        assert [one["class"] for one in crop["classes"]] == record.index[number].tolist()
        assert [one["probability"] for one in crop["classes"]] == record.value[number].tolist()
        assert [one["name"] for one in crop["classes"]] == [
            f"thing {n}, also called {n}" for n in record.index[number].tolist()
        ]
        assert crop["outside"] == pytest.approx(1 - record.value[number].sum(), abs=1e-6)
    order = np.argsort(-record.tail.probs, kind="stable")[:5]
    assert [one["class"] for one in found["tail"]] == record.tail.classes[order].tolist()
    text = shown(capsys, str(labels), "--key", f"{key}.jpg", "--crops", "1")  # by its path
    top, left, height, width = record.crops[0].tolist()
    assert "top, left, height, width" in text and f" {top}, {left}, {height}, {width}" in text
    assert "tail mass" in text
    first = record.index[0, 0]
    assert (
        f"{record.value[0, 0]:.3f} thing {first}, also called {first};" in text
    )  # a folder's name has its comma
    assert "the first 1 of 16 crops" in text


def test_a_number_of_crops_without_a_key_is_refused(labels, capsys):
    assert main(["inspect", str(labels), "--crops", "3"]) == 2
    assert "--crops is for --key" in capsys.readouterr().err


def test_imagenet_ids_become_words(tmp_path, capsys):
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    wanted = [100, 281, 999, *range(9)]
    names = [info.index_to_label_name(number) for number in wanted]
    assert names[1] == "n02123045"
    reported_sets.label_set(tmp_path / "set", names=names, embedded=False)
    found = told(capsys, str(tmp_path / "set"), "--key", "folder/picture_01")["image"]
    assert found["target_name"] == info.index_to_description(281)
    for crop in found["crops"]:
        for one in crop["classes"]:
            assert one["name"] == info.index_to_description(wanted[one["class"]])
    assert "tabby" in shown(capsys, str(tmp_path / "set"), "--key", "folder/picture_01")


def test_classes_that_nothing_names(tmp_path, capsys):
    reported_sets.label_set(tmp_path / "set", targets=False, embedded=False)
    found = told(capsys, str(tmp_path / "set"), "--key", "folder/picture_01")["image"]
    assert (found["target"], found["target_name"]) == (None, None)
    assert found["crops"][0]["classes"][0]["name"] is None
    assert re.search(r"0\.\d+ class \d+", shown(capsys, str(tmp_path / "set"), "--key", "folder/picture_01"))


def test_shards_of_different_devices_and_software_are_told(photographs, tmp_path, capsys, monkeypatch):
    images = trust_sets.small_photographs(photographs, tmp_path / "images")
    made = trust_sets.make(images, tmp_path / "set", samples_per_shard=2)
    capsys.readouterr()
    found = told(capsys, str(made))
    shards = found["shards"]["planned"]
    assert found["makers"] == {"examined_shards": shards, "differing": {}} and shards > 2
    text = shown(capsys, str(made))
    assert "DIFFERENT" not in text
    assert f"device, software, settings the same in {shards} of {shards} shards looked at " in text
    assert main(["verify", str(made), "--processes", "1"]) == 0
    assert f"device, software, settings: the same in {shards} shards" in capsys.readouterr().out
    device = found["provenance"]["device"]
    for path in (made / "train-000001.tar", made / "index" / "train-000001", made / "_info.json"):
        path.unlink()
    versions = {**found["provenance"]["software"], "torch": "1.0"}
    monkeypatch.setattr("slg_wds.teachers.Ensemble.device_name", "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr("slg_wds.generation.description.versions", lambda names: versions)
    trust_sets.make(images, tmp_path / "set", samples_per_shard=2, num_seg=8)
    capsys.readouterr()
    differing = told(capsys, str(made))["makers"]["differing"]
    assert differing == {
        "device": {device: shards - 1, "NVIDIA H100 80GB HBM3": 1},
        "num_seg": {"16": shards - 1, "8": 1},
        "torch": {found["provenance"]["software"]["torch"]: shards - 1, "1.0": 1},
    }
    text = shown(capsys, str(made))
    assert f"DIFFERENT device {device}: {shards - 1}, NVIDIA H100 80GB HBM3: 1 of {shards} examined" in text
    monkeypatch.setattr("slg_wds.inspection.makers.SHARDS", 2)  # the first and the last, made alike
    text = shown(capsys, str(made))
    assert "DIFFERENT" not in text
    assert f"the same in 2 of {shards} shards looked at; slg-wds verify looks at all" in text
    assert main(["verify", str(made), "--processes", "1"]) == 0
    said = capsys.readouterr().out.splitlines()
    notes = [line for line in said if line.startswith("  note: ")]
    assert len(notes) == 3 and "all is well" in said[0]
    assert (
        f"  note: num_seg differs between shards (16: {shards - 1}, 8: 1); the last bits of their labels may too"
        in notes
    )
    assert main(["verify", str(made), "--processes", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["makers"] == {"examined_shards": shards, "differing": differing} and found["problems"] == []


@pytest.fixture(scope="module")
def unfinished(photographs, tmp_path_factory) -> Path:
    """Four shards of two, the last one not there; of one image nothing could be read."""
    folder = tmp_path_factory.mktemp("unfinished")
    images = trust_sets.small_photographs(photographs, folder / "images")
    torn = sorted(images.rglob("*.jpg"))[3]
    torn.write_bytes(torn.read_bytes()[:300])
    labels = trust_sets.make(images, folder / "set", samples_per_shard=2, on_error="skip")
    shard = next(
        n for n in range(4) if len(slg_wds.open_labels(str(labels)).shard(n)) == 2
    )  # one without the torn image goes
    (labels / f"train-{shard:06d}.tar").unlink()
    (labels / "index" / f"train-{shard:06d}").unlink()
    (labels / "_info.json").unlink()
    for turn, path in enumerate(sorted(labels.glob("*.tar"))):
        os.utime(path, (1.7e9 + 90 * turn,) * 2)
    return labels


def test_an_unfinished_set(unfinished, capsys):
    found = told(capsys, str(unfinished))
    (gone,) = {f"train-{n:06d}" for n in range(4)} - {path.stem for path in unfinished.glob("*.tar")}
    assert found["state"] == "unfinished"
    assert [found["shards"][name] for name in ("planned", "present", "missing")] == [4, 3, 1]
    assert found["shards"]["missing_names"] == [gone]
    assert [found["images"][name] for name in ("planned", "labelled", "left_out")] == [8, 5, 1]
    (reason,) = found["images"]["left_out_reasons"]
    assert reason["path"].endswith(".jpg") and reason["reason"]
    pace = found["progress"]
    assert pace["first_commit"] == "2023-11-14T22:13:20+00:00"
    assert pace["last_commit"] == "2023-11-14T22:16:20+00:00"
    assert pace["shards_per_hour"] == pytest.approx(40)  # two more in three minutes
    assert pace["images_per_second"] == pytest.approx(2 / 90)
    assert pace["crops_per_second"] == pytest.approx(2 * trust_sets.CROPS / 90)
    assert pace["seconds_left"] == pytest.approx(90) and pace["idle"] is True
    text = shown(capsys, str(unfinished))
    assert "unfinished: 3 of 4 shards (75.0%), 1 missing" in text and gone in text
    assert "40.0 shards/h" in text and "nobody seems to be at work" in text and reason["path"] in text


def test_what_cannot_be_read_is_noted_once(labels, tmp_path, capsys):
    set_ = tmp_path / "set"
    shutil.copytree(labels, set_)
    (set_ / "index" / "train-000000").unlink()
    shard = set_ / "train-000001.tar"
    shard.write_bytes(bytes(shard.stat().st_size))
    lost, damaged = told(capsys, str(set_))["notes"]
    assert lost == "index/train-000000 is missing: run slg-wds verify --fix"
    assert damaged.startswith("train-000001.tar: ")


def test_what_has_no_labels_yet(unfinished, capsys):
    labels = slg_wds.open_labels(str(unfinished), allow_incomplete=True)
    (number,) = labels.missing()
    key = labels.plan.shard(number).keys[0]
    assert main(["inspect", str(unfinished), "--key", key]) == 1
    assert f"not there yet (key {key}, shard train-{number:06d}.tar" in capsys.readouterr().err
    left_out = told(capsys, str(unfinished))["images"]["left_out_reasons"][0]
    assert main(["inspect", str(unfinished), "--key", left_out["key"]]) == 1
    assert f"it was left out: {left_out['reason']}" in capsys.readouterr().err


@pytest.mark.parametrize("tls", [True, False])
def test_on_a_web_server(labels, unfinished, tmp_path, capsys, tls):
    certificate = own_certificate(tmp_path) if tls else None
    options = [f"{name}={value}" for name, value in QUICK.items()]
    if certificate:
        options.append(f"root_certificate={certificate[0].read_text()}")
    for folder in (labels, unfinished):
        with web_server(folder.parent, certificate=certificate) as script:
            assert script.url.startswith("https:" if tls else "http:")
            url = f"{script.url}/set"
            found, here = (
                told(capsys, url, "--store-option", *options),
                told(capsys, str(folder)),
            )
            asked = script.asked
            key = slg_wds.open_labels(str(folder), allow_incomplete=True).shard(1).samples[0].key
            image = told(capsys, url, "--key", key, "--store-option", *options)["image"]
        for name in ("digest", "state", "identity", "images", "bytes_per_crop", "sampled", "notes"):
            if not (name == "images" and folder is unfinished):
                assert found[name] == here[name], name
        assert found["images"]["left_out"] == here["images"]["left_out"]
        assert found["shards"]["present"] == here["shards"]["present"]
        assert found["progress"] is None
        assert image == told(capsys, str(folder), "--key", key)["image"]
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")} | {"_info.json"}
        names |= {f"train-{n:06d}.tar" for n in range(4)}
        for request in asked:  # nothing is written, nothing listed
            method, path = request.split()
            assert method in ("GET", "HEAD") and path.removeprefix("/set/") in names, request


def test_urls_that_cannot_be(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name in ("plan", "slg.json"):
        (tmp_path / f"only {name}").mkdir()
        (tmp_path / f"only {name}" / name).write_text("x")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = f"https://127.0.0.1:{listener.getsockname()[1]}/set"
        for url, code, said in [
            ("", 2, "SET is empty; a variable of the shell may not be set"),
            ("pipe:cat /etc/passwd", 2, "neither a URL nor a path"),
            ("s3:/bucket/set", 2, "neither a URL nor a path"),
            ("s3//bucket/set", 2, "neither a URL nor a path"),
            ("ftp://host/set", 2, "no store for ftp://"),
            ("s3://", 2, ""),
            (str(tmp_path / "nothing"), 1, "no label set here: no such folder"),
            (str(tmp_path / "empty"), 1, "no label set here: the folder has no files plan and slg.json"),
            (str(tmp_path / "file"), 1, "no label set here: it is a file, not a folder"),
            (str(tmp_path / "only plan"), 1, "no label set here: slg.json: no such file"),
            (str(tmp_path / "only slg.json"), 1, "no label set here: plan: no such file"),
            (closed, 1, "no good answer in time"),
        ]:
            options = ["--store-option", *(f"{n}={v}" for n, v in QUICK.items())] if url == closed else []
            assert main(["inspect", url, *options]) == code, url
            out, err = capsys.readouterr()
            assert out == "" and said in err and len(err.splitlines()) == 1, err
    with web_server(tmp_path) as script:
        assert main(["inspect", f"{script.url}/empty"]) == 1
        assert "no label set here" in capsys.readouterr().err


@pytest.mark.parametrize("more", [[], ["--json"], ["--key", "folder/picture_03"]])
def test_neither_torch_nor_webdataset_is_imported(labels, more):
    code = (
        "import sys\nfrom slg_wds.cli import main\nassert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'torchvision', 'timm', 'webdataset', 'ray', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code, "inspect", str(labels), *more]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout, done.stderr
