"""Loaders whose processes make the batches, and nobody else."""

from __future__ import annotations

import pytest

from slg_wds.replay.assembly.workers import Workers


@pytest.fixture
def only_processes(monkeypatch):
    """Wait for a loader's processes, and let none of its batches be made by its own threads from now on."""

    def refuse(*_):
        raise AssertionError("a batch was to be made by the loader's own threads")

    def prepared(loader):
        loader.wait_for_processes()
        monkeypatch.setattr(Workers, "put", refuse)
        return loader

    return prepared
