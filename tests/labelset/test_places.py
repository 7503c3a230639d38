"""The folder of a label set is its own: no command writes anything else there."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.labelset.creating import create_labels
from slg_wds.store import Location
from support.models.names import TINY
from support.sets.made_sets import label_set
from support.sets.replay_sets import make

GENERATE = ["generate", "IMAGES", "-a", TINY, "--teacher_source", "private", "--num_crops", "2"]
COMMANDS = {
    "generate": [*GENERATE, "--save-path", "PLACE"],
    "generate --dry-run": [*GENERATE, "--dry-run", "--save-path", "PLACE"],
    "ensemble": ["ensemble", "OTHER", "--save-path", "PLACE"],
    "import": ["import", "FILES", "--images", "IMAGES", "--save-path", "PLACE"],
    "export": ["export", "OTHER", "PLACE"],
    "report": ["report", "OTHER", "-o", "PLACE"],
    "prototypes": ["prototypes", "EMBEDDINGS", "-k", "2", "--save-path", "PLACE"],
    "train": ["train", "-a", "test_resnet", "--softlabel_path", "OTHER", "--save_checkpoint_path", "PLACE", "IMAGES"],
    "demo": ["demo", "PLACE", "--num_crops", "1"],
}  # fmt: skip


@pytest.fixture(scope="module")
def given(photographs: Path, tmp_path_factory) -> dict[str, str]:
    """What the commands are given: images, label sets, label files."""
    root = tmp_path_factory.mktemp("given")
    labels = make(photographs, root / "labels", num_crops=2)
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=labels, fkd_dir=root / "files"))
    embeddings = make(photographs, root / "embeddings", num_crops=2, output="embedding")
    return {
        "IMAGES": str(photographs),
        "OTHER": labels,
        "FILES": str(root / "files"),
        "EMBEDDINGS": embeddings,
    }


@pytest.mark.parametrize(
    ("command", "inside"),
    [
        *itertools.product(COMMANDS, ("more", "index/more", "../link/more")),
        *itertools.product(("report", "prototypes"), ("plan", "slg.json")),  # those that write a file
    ],
)
def test_no_command_writes_into_a_label_set(given, tmp_path, capsys, command, inside):
    label_set(tmp_path / "set", 1)
    (tmp_path / "link").symlink_to(tmp_path / "set")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    words = {**given, "PLACE": str(tmp_path / "set" / inside)}
    assert main([words.get(word, word) for word in COMMANDS[command]]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("slg-wds")]
    assert f"it lies in the folder of the label set {tmp_path / 'set'}," in line
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_a_set_that_was_begun_in_another_one_is_finished(tmp_path):
    outer, inner = label_set(tmp_path / "outer", 2), label_set(tmp_path / "inner", 1, complete=False)
    place = shutil.move(inner.url, f"{outer.url}/inner")
    joined = create_labels(
        Location(place), inner.plan, inner.description.identity, {}, inner.description.class_names
    )
    assert joined.digest == inner.digest
