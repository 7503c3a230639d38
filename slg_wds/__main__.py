"""`slg-wds`, and `python -m slg_wds`, which is the same."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130


def run() -> int:
    """Run the command that sys.argv names; return the exit code.

    Ctrl-C ends the process without a word while a command is not yet, or no longer, at work. Python would print where
    it was: among imports, or waiting for threads.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from slg_wds.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
