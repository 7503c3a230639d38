"""Progress of an evaluation: a bar on a terminal, otherwise a line every ten seconds."""

from __future__ import annotations

import time

from slg_wds.console import counted, note
from slg_wds.engines.live import LiveDisplay

PAUSE = 10.0  # seconds between lines


class ImageProgress(LiveDisplay):
    """Shows on stderr how many images have gone through the teachers.

    Args:
        images: in all.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images, self.done = images, 0
        self._started = self._noted = time.monotonic()
        self.open(images, 0, "images")

    def add(self, images: int) -> None:
        """Count images that are done."""
        self.done += images
        rate = f"{self.done / max(time.monotonic() - self._started, 1e-9):,.0f} images/s"
        if not self.show(self.done, rate) and time.monotonic() - self._noted > PAUSE:
            self._noted = time.monotonic()
            note(f"{self.done:,}/{counted(self.images, 'image')}, {rate}")
