"""The hints of commands that are given a place with something else in it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from support.models.names import TINY
from support.paths import TOOLS


def test_a_folder_of_label_files_names_import(label_files, images, tmp_path, capsys):
    folder = label_files()
    (folder / "README.txt").touch()
    for place in (folder, folder / "dataset" / "train"):
        assert main(["inspect", str(place)]) == 1
        assert "label files of FKD: slg-wds import FOLDER" in capsys.readouterr().err
    command = [
        str(TOOLS / "train_student.py"),
        "-a",
        "resnet18",
        "--softlabel_path",
        str(folder),
        str(images),
    ]
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 1 and "slg-wds import FOLDER" in done.stderr and "Traceback" not in done.stderr


def test_other_folders_do_not(images, tmp_path, capsys):
    (tmp_path / "a.tar").write_bytes(bytes(1024))
    for place in (images, tmp_path, tmp_path / "nothing"):
        assert main(["inspect", str(place)]) == 1
        said = capsys.readouterr().err
        assert "check the path" in said and "import" not in said


@pytest.mark.timeout(30)
def test_a_pipe_among_the_files_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "a.tar")
    assert main(["inspect", str(tmp_path)]) == 1
    assert "check the path" in capsys.readouterr().err


def test_more_crops_than_the_set_has_name_extend(images, tmp_path):
    def generate(**options: object) -> None:
        given = {"arch": TINY, "teacher_source": "private", "num_crops": 4, **options}
        slg_wds.generate(slg_wds.GenerateConfig(data=str(images), save_path=str(tmp_path / "set"), **given))

    generate()
    with pytest.raises(errors.IdentityMismatchError, match=r"num_crops: 4 != 8 .*--extend .*/set") as raised:
        generate(num_crops=8)
    assert "another --save-path" in str(raised.value)
    for other in ({"num_crops": 2}, {"num_crops": 8, "seed": 1}, {"temp": 2.0}):
        with pytest.raises(errors.IdentityMismatchError) as raised:
            generate(**other)
        assert "--extend" not in str(raised.value)
