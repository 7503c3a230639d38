"""The process of one part: it imports what the part needs, waits for its turn, runs it, and ends.

usage: child.py MODULE:FUNCTION FILE DEVICE QUICK FOLDER < its seconds, in one line
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import signal
import sys
from contextlib import suppress
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2]
# In place of this folder. The package of this checkout is tried, installed or not.
sys.path[:1] = [str(TOOLS), str(TOOLS / "bench"), str(TOOLS.parent)]

from gpu_parts.supervision.findings import Findings  # noqa: E402


def main() -> int:
    with suppress(OSError, AttributeError):
        # PR_SET_PDEATHSIG: end with the process that started this one.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # where is it, when it hangs?
    runs, file, device, quick, folder = sys.argv[1:]
    module, _, function = runs.partition(":")
    run = getattr(importlib.import_module(module), function)
    line = sys.stdin.readline()
    if not line:
        return 0
    findings = Findings(Path(file), device, quick == "True", Path(folder), float(line))
    try:
        run(findings)
    except Exception as error:
        findings.note_error("the part", error)
        raise
    findings.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
