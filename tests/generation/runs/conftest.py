"""A set that one run made from start to end."""

from __future__ import annotations

import pytest

import slg_wds
from support.sets.replay_sets import tiny_run


@pytest.fixture(scope="session")
def undisturbed(photographs, tmp_path_factory):
    """A set of all photographs, 30 crops each. Never written to by a test."""
    target = tmp_path_factory.mktemp("undisturbed") / "set"
    result = slg_wds.generate(tiny_run(photographs, target, num_crops=30))
    assert result.complete and result.stats.images == 36
    return target
