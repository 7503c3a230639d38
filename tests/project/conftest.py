"""The world of the README, for all tests of it."""

from __future__ import annotations

import pytest

from support.readme.world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory, s3_server) -> World:
    return make_world(tmp_path_factory.mktemp("readme"), s3_server)
