"""What commands print about sets, whose names and texts may be anybody's."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 160  # of what is not a terminal


def printable(text: str) -> str:
    """Text without what would move a terminal's cursor, colour it or hide something."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def wide_console() -> Console:
    """A console on stdout: as wide as the terminal, and where there is none, wide enough for tables."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
