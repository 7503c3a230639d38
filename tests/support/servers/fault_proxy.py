"""Which requests the proxy before a store (shaky_proxy) fails: requests of any kind, chosen by a seed."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

from support.servers.shaky_proxy import Fault, Request, Shaky, shaky

__all__ = ["Request", "Shaky", "by_seed", "shaky"]

MOST = 2  # faults of one request and its retries


def by_seed(seed: int, **chances: float) -> Fault:
    """Choose faults for any request, writes and listings too: by_seed(0, status=0.1, lost=0.1, late=0.2).

    A request's fault is drawn from the seed, its method and path, and how often it came before, so that it does not
    depend on the order in which threads and processes ask. `status` is a 503. No request fails more than
    MOST times in a row.
    """
    lock, times, made = threading.Lock(), Counter[tuple[str, str]](), Counter[tuple[str, str]]()

    def fault(request: Request) -> str:
        place = (request.method, request.path)
        with lock:
            number = times[place] = times[place] + 1
            text = f"{seed} {request.method} {request.path} {number}"
            drawn = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32
            for name, share in chances.items():
                drawn -= share
                if drawn < 0 and made[place] < MOST:
                    made[place] += 1
                    return {"status": "503"}.get(name, name)
            made[place] = 0
        return ""

    return fault
