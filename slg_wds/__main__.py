"""`slg-wds`, and `python -m slg_wds`, which is the same."""

from __future__ import annotations

import os
import signal
import sys


def run() -> int:
    """Run the command that sys.argv names; return the exit code.

    Ctrl-C ends the process without a word while a command is not yet, or no longer, at work. Python would print where
    it was: among imports, or waiting for threads.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from slg_wds import cli, interrupts

    interrupts.own_process()
    code = cli.main()
    _leave_failed_device(code)
    return code


def _leave_failed_device(code: int) -> None:
    """End the process at once if a device failed in it: Python's own exit may hang in the driver, or abort."""
    from slg_wds.concurrency.devices import any_failed

    if any_failed():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(run())
