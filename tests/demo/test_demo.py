"""`slg-wds demo`: its last lines train a student on its photographs; without the extra it says what to install."""

from __future__ import annotations

import re
import shlex
import sysconfig
from pathlib import Path

import pytest
import torch

from slg_wds import open_labels
from slg_wds.cli import main
from slg_wds.demo import command, photographs


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The demo's output and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "a folder"
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr(command, "tell", lambda *some: lines.extend(some))
        assert main(["demo", str(folder), "--num_crops", "2"]) == 0
    return lines, folder


def test_it_labels_views_to_train_on_and_others_to_test_on(said):
    lines, folder = said
    assert lines[0].startswith("36 views of 6 photographs") and "12 other views" in lines[0]
    train, held_out = (open_labels(str(folder / name)) for name in ("labels", "labels-val"))
    assert (len(train), len(held_out)) == (36, 12) and train.num_classes == 1000
    assert all(record.num_crops == 2 for record in train)
    folders = [
        sorted(path.name for path in (folder / "photographs" / split).iterdir()) for split in ("train", "val")
    ]
    assert folders[0] == folders[1] and len(folders[0]) == 6


def test_it_shows_what_the_teacher_saw(said, capsys):
    from slg_wds.demo.show import show_labels

    show_labels(str(said[1] / "labels"))
    out = capsys.readouterr().out
    assert len(re.findall(r"\.jpg, \d+ x \d+ pixels", out)) == 4 and re.search(r"cat \d+%", out)
    assert out.count(".tar") == 3


def test_the_next_commands_train_a_student(said, capsys):
    """As printed, but for two walks and one epoch of one crop in place of thirty."""
    lines, folder = said
    text = "\n".join(lines[lines.index("Next:") :]).replace("\\\n", " ")
    inspect, train, generate = (
        shlex.split(line)[1:] for line in text.splitlines() if re.match(r" +\S*slg-wds ", line)
    )
    assert main(inspect) == 0 and generate[0] == "generate"
    train = [{"180": "13", "6": "2", "64": "32"}.get(word, word) for word in train]
    capsys.readouterr()
    assert main([*train, "-j", "1"]) == 0
    out = capsys.readouterr().out
    assert "agreement" in out and "on 12 held-out images" in out and "top-1" in out
    steps = int(re.search(r"trained (\d+) steps", out)[1])
    checkpoint = torch.load(folder / "student" / "checkpoint.pth.tar", weights_only=True)
    assert checkpoint["progress"]["step"] == steps > 2


def test_the_next_commands_start_this_very_program(tmp_path, monkeypatch):
    """By its name where the shell would find it, also through a link, else by its path."""
    ours = Path(sysconfig.get_path("scripts")) / "slg-wds"
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "slg-wds").symlink_to(ours)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "slg-wds").write_text("#!/bin/sh\n")
    (tmp_path / "other" / "slg-wds").chmod(0o755)
    found = {}
    for place in (ours.parent, tmp_path / "linked", tmp_path / "other", tmp_path):
        monkeypatch.setenv("PATH", str(place))
        found[place.name] = command.this_program()
    assert list(found.values()) == ["slg-wds", "slg-wds", shlex.quote(str(ours)), shlex.quote(str(ours))]


def test_a_second_run_resumes_and_a_torch_for_gpus_without_one_is_no_matter(said, capsys, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    shards = {path: path.stat().st_mtime_ns for path in (said[1] / "labels").glob("*.tar")}
    assert main(["demo", str(said[1]), "--num_crops", "2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("on cpu ")]
    assert not [line for line in lines if "warning" in line]


def test_without_the_extra_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "NEEDED", ("a_module_that_is_not_there",))
    assert main(["demo", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "pip install 'slg-wds[demo]'" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_where_its_folder_should_be_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_bytes(b"")
    assert main(["demo", str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert "a file lies where a folder is needed" in said and said.count("\n") == 1


def test_photographs_that_are_there_are_left_as_they_are(tmp_path):
    paths = photographs.write_photographs(tmp_path, (None,))
    paths[0].write_bytes(b"labelled")
    assert photographs.write_photographs(tmp_path, (None,)) == paths and paths[0].read_bytes() == b"labelled"


def test_the_clone_starts_the_same_command():
    script = Path(__file__).resolve().parents[2] / "tools" / "demo"
    assert script.read_text().splitlines()[-1].startswith('exec "$environment/bin/slg-wds" demo ')
