"""A process that was stopped for longer than the store's timeout does not blame the store."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.servers.scripted import KEYS, hang_up, reply, serving

ASKS = (
    "import sys, json\nfrom slg_wds.store import open_store\n"
    "store = open_store('s3://bucket/set', json.loads(sys.argv[1]))\n"
    "print(eval(sys.argv[2]))"
)
LISTING = (
    b'<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>'
    b"<Contents><Key>set/a</Key><LastModified>2026-11-23T10:00:00.000Z</LastModified><ETag>&quot;1&quot;</ETag>"
    b"<Size>3</Size></Contents></ListBucketResult>"
)
PATIENCE = 2  # seconds
CALLS = {
    "store.read('a')": "b'abc'",
    "store.size('a')": "3",
    "store.create('a', b'abc')": "True",
    "[entry.name for entry in store.list()]": "['a']",
}


def asked_while_stopped(call: str) -> tuple[str, str]:
    """Run a call in a process that is stopped after its first request; return its stdout and stderr."""
    asked, stopped = threading.Event(), threading.Event()

    def answer(handler, number):
        if number == 1:  # is not answered before the process is stopped, and lost while it is
            asked.set()
            stopped.wait(30)
            hang_up(handler)
        elif "list-type" in handler.path:
            reply(handler, 200, LISTING)
        else:
            reply(handler, 200, b"" if handler.command == "PUT" else b"abc")

    with serving(answer) as script:
        options = {**KEYS, "endpoint": script.url, "retry_timeout": str(PATIENCE), "max_retries": "3"}
        command = [sys.executable, "-c", ASKS, json.dumps(options), call]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGSTOP)
            stopped.set()
            time.sleep(PATIENCE + 3)
            process.send_signal(signal.SIGCONT)
            return process.communicate(timeout=60)


@pytest.fixture(scope="module")
def said() -> dict[str, tuple[str, str]]:
    """By call; all are made at once, since each only waits."""
    with ThreadPoolExecutor(len(CALLS)) as pool:
        return dict(zip(CALLS, pool.map(asked_while_stopped, CALLS), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_a_stopped_process_does_not_blame_the_store(said, call):
    out, wrong = said[call]
    assert out.strip() == CALLS[call], wrong
