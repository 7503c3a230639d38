"""The program of a loader's process whose disk is slow, and which waits for its threads less than that."""

from __future__ import annotations

import time

from slg_wds.replay.assembly import workers
from slg_wds.replay.processes import program
from slg_wds.replay.sources.images import EmbeddedImages

DELAY = 0.4  # seconds of each read


def main(pipe: int, opening: int) -> None:
    """Run the program."""
    workers.JOIN_SECONDS = 0.05
    read = EmbeddedImages.read

    def slowly(*args):
        time.sleep(DELAY)
        return read(*args)

    EmbeddedImages.read = slowly
    program.main(pipe, opening)
