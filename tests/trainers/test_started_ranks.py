"""Ranks that Lightning and torch.multiprocessing.spawn start: each has its share of the epoch and of the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from slg_wds.concurrency.cores import cores
from support.jobs.ranks import spawned
from support.paths import ROOT
from support.sets.replayed import Made, make

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory) -> Made:
    return Made(make(photographs, tmp_path_factory.mktemp("ranks") / "set", embed_images="original"), None)


def by_lightning(made: Made, folder: Path, where: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    words = [str(ROOT / "tests/support/jobs/lightning_rank.py"), made.labels, str(folder), where]
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True, text=True, timeout=180, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


def by_spawn(made: Made, folder: Path) -> None:
    torch.multiprocessing.spawn(spawned, (made.labels, str(folder)), nprocs=2)


def check_shares(made: Made, folder: Path) -> None:
    """Assert that two ranks have together what one alone has, each its half of every batch and of the machine."""
    alone = made.loader(threads=None)
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    whole = [list(zip(batch.key, batch.crop.tolist(), strict=True)) for batch in alone]
    assert [one["rank"] for one in ranks] == [[0, 2], [1, 2]]
    halves = zip(*(one["seen"] for one in ranks), strict=True)
    assert [[tuple(place) for place in first + second] for first, second in halves] == whole
    for one in ranks:
        assert one["threads"] == max(1, cores() // 2) and one["caches"] == 2


def test_spawned_ranks(made, tmp_path):
    by_spawn(made, tmp_path)
    check_shares(made, tmp_path)


def test_ranks_of_lightnings_own_launcher(made, tmp_path):
    done = by_lightning(made, tmp_path, "hook")
    assert done.returncode == 0, done.stderr
    check_shares(made, tmp_path)


def test_a_loader_made_before_lightning_starts_its_ranks_is_refused(made, tmp_path):
    done = by_lightning(made, tmp_path, "script")
    assert done.returncode != 0 and not list(tmp_path.iterdir())
    assert "make the loader in train_dataloader() of the LightningModule" in done.stderr
