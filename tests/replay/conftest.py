"""Sets of the photographs, and a check that no thread is left."""

from __future__ import annotations

import threading

import pytest

from support.sets.replay_sets import three_places


@pytest.fixture(scope="session")
def places(photographs, tmp_path_factory):
    """Labels of the photographs, which are embedded, in their folder, or in tars. Never written to by a test."""
    return three_places(photographs, tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="session")
def embedded(places):
    """The set that embeds its images."""
    return places["embedded"]


@pytest.fixture
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert [thread for thread in threading.enumerate() if thread not in before and "slg" in thread.name] == []
