"""Freed memory is kept: how many pages the kernel had to find for buffers that come and go."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from slg_wds.memory import ENVIRONMENT

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
PAGES = 80 * 10_000  # of 80 buffers of 40 MB, each written to, in pages of 4 KiB
LOOP = """
import resource, sys, threading
import torch
from slg_wds.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def loop():
    for _ in range(20):
        torch.empty(10_000_000).fill_(1.0)
    before = faults()
    for _ in range(80):
        torch.empty(10_000_000).fill_(1.0)
    print(faults() - before)

if "keep" in sys.argv:
    keep_freed_memory()
torch.set_num_threads(1)
if "thread" in sys.argv:
    thread = threading.Thread(target=loop)
    thread.start()
    thread.join()
else:
    loop()
"""


def faults(*arguments: str, **environment: str) -> int:
    command = [sys.executable, "-c", LOOP, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["keep"], {}), (["thread"], ENVIRONMENT), (["keep", "thread"], ENVIRONMENT)],
)
def test_freed_memory_is_used_again(arguments, environment):
    assert faults(*arguments, **environment) < PAGES / 100
