"""Sets here, of which the tests of the cache put copies on S3."""

from __future__ import annotations

import pytest

from support.sets.replay_sets import three_places


@pytest.fixture(scope="package")
def local(photographs, tmp_path_factory):
    return three_places(photographs, tmp_path_factory.mktemp("sets"))
