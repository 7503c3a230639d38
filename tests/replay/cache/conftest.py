"""Sets here, of which the tests of the cache put copies on S3."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def local(places):
    return places
