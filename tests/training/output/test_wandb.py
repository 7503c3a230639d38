"""W&B gets the rows of summary.csv, from a training that is resumed in one run. It is real, and sends nothing."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slg_wds.training.command import main
from support.training import PLAIN, common, rows_of, train

BLOCK = 32 << 10
WHOLE, LAST = 1, 4  # kinds of pieces after which a record is whole


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads its variables once
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield
    wandb.teardown()


def records_of(path: Path) -> Iterator[Any]:
    """The records of a run's file, which W&B writes as LevelDB writes its log: pieces that cross no block."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def runs_of(folder: Path) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Of each run that was written: its id, its settings, and its rows."""
    import wandb

    wandb.teardown()  # its service writes on after a run has ended, until it ends itself
    found = []
    for path in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        records = list(records_of(path))
        [run] = [one.run for one in records if one.WhichOneof("record_type") == "run"]
        rows = [one.history for one in records if one.WhichOneof("record_type") == "history"]
        found.append(
            (
                run.run_id,
                {one.key: json.loads(one.value_json) for one in run.config.update},
                [{".".join(one.nested_key): json.loads(one.value_json) for one in row.item} for row in rows],
            )
        )
    return found


def test_a_resumed_training_is_one_run(labels, photographs, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    for epochs in ("5", "6"):
        time.sleep(1)  # folders of runs are named by the second
        train(tmp_path, labels, photographs, "-a", PLAIN, "--num_crops", "1", "-b", "18", "--resume", "auto",
              "--store-option", "secret_access_key=hunter2", "--log", "wandb", "--epochs", epochs)  # fmt: skip
    (name, settings, first), (again, _, second) = runs_of(tmp_path)
    assert name == again and len(name) == 8
    assert settings["epochs"] == 5 and settings["arch"] == PLAIN
    for path in (tmp_path / "wandb").rglob("*.wandb"):
        assert b"hunter2" not in path.read_bytes()
    logged, rows = first + second, rows_of(tmp_path)
    assert (len(first), len(second)) == (5, 1) and [row["_step"] for row in logged] == [2, 4, 6, 8, 10, 12]
    for theirs, ours in zip(logged, rows, strict=True):
        assert {key: float(value) for key, value in ours.items()} == pytest.approx(
            {key: theirs[key] for key in ours}, rel=1e-5
        )


def test_without_an_account_the_run_ends_before_the_first_step(
    labels, photographs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    words = [*common(labels), "-a", PLAIN, "--log", "wandb", "--save_checkpoint_path", str(tmp_path)]
    assert main([*words, str(photographs)], "train") == 1
    out, errors = capsys.readouterr()
    assert errors.startswith("train: W&B cannot begin: No API key configured.") and " loss " not in out
    assert errors.rstrip().endswith("run `wandb login`, or set WANDB_MODE=offline")
