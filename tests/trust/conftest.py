"""The sets that are damaged: each made once, never written to by a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from support.sets import trust_sets


@dataclass(frozen=True)
class Made:
    """A set, and where its images are: None where they are embedded."""

    labels: Path
    images: Path | None


@pytest.fixture(scope="session", params=["plain", "embedded"])
def made(
    request: pytest.FixtureRequest, small_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Made:
    embedded = request.param == "embedded"
    labels = trust_sets.make(
        small_images,
        tmp_path_factory.mktemp("made") / request.param,
        embed_images="original" if embedded else None,
    )
    return Made(labels, None if embedded else small_images)
