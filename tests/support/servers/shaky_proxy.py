"""A proxy on loopback before a real S3 server: it counts bytes and requests, and fails where a test says so."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from urllib.parse import unquote, urlsplit

from support.servers.listening import Handler, listening
from support.servers.s3 import S3Server

# What may happen to an answer: "" nothing; "503", "404" that status; "short" half of the body, then the end of the
# connection; "reset" half of it, then a reset; "stall" half of it, then nothing more; "trickle" a byte now and then;
# "late" all of it, after `late` seconds; "hush" no answer at all; "refused" a reset before the server hears of it;
# "lost" a reset in place of the answer, after the server has done what it was asked; "torn" half of the request's
# body reaches the server, then `torn` is called and the connection is reset.
Fault = Callable[["Request"], str]


@dataclass(frozen=True)
class Request:
    """One request: number from 0, method, the object's path within the server, its Range header."""

    number: int
    method: str
    path: str
    range: str


@dataclass
class Shaky:
    """The proxy while it runs.

    bytes: of the bodies sent, by path. asked: the requests in order. failed: the number of each kind of fault.
    """

    upstream: str
    fault: Fault = lambda _: ""
    late: float = 0.3
    torn: Callable[[], object] = lambda: None
    server: S3Server = field(default_factory=lambda: S3Server(""))
    bytes: Counter[str] = field(default_factory=Counter)
    asked: list[Request] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def options(self, **more: str) -> dict[str, str]:
        """Options of `open_store` through the proxy, with short timeouts."""
        return {**self.server.options(), "retry_timeout": "10", "read_timeout": "1", **more}

    def forget(self) -> None:
        """Reset all counts."""
        with self.lock:
            self.bytes.clear()
            self.asked.clear()
            self.failed.clear()


def at_random(seed: int, **chances: float) -> Fault:
    """Choose random faults for GETs of shards, at most two for the same bytes: at_random(0, reset=0.1)."""
    chance, lock, made = random.Random(seed), threading.Lock(), Counter[tuple[str, str]]()

    def fault(request: Request) -> str:
        if request.method != "GET" or not request.path.endswith(".tar"):
            return ""
        with lock:
            drawn = chance.random()
            for name, share in chances.items():
                drawn -= share
                if drawn < 0 and made[request.path, request.range] < 2:
                    made[request.path, request.range] += 1
                    return {"status": "503"}.get(name, name)
        return ""

    return fault


@contextlib.contextmanager
def shaky(server: S3Server, fault: Fault = lambda _: "") -> Iterator[Shaky]:
    """Run a proxy before a server; end it, and every stalled request, with the block."""
    proxy = Shaky(urlsplit(server.endpoint).netloc, fault)

    class Proxy(Handler):
        def answer(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path)
            with proxy.lock:
                request = Request(len(proxy.asked), self.command, path, self.headers.get("Range", ""))
                proxy.asked.append(request)
            what = proxy.fault(request)
            if what:
                with proxy.lock:
                    proxy.failed[what] += 1
            _serve(self, proxy, body, path, what)

    with listening(Proxy) as port:
        proxy.server = replace(server, endpoint=f"http://127.0.0.1:{port}")
        try:
            yield proxy
        finally:
            proxy.ended.set()


def _serve(
    handler: http.server.BaseHTTPRequestHandler, proxy: Shaky, body: bytes, path: str, what: str
) -> None:
    if what == "hush":
        proxy.ended.wait()
        handler.close_connection = True
        return
    if what in ("refused", "lost", "torn"):
        if what == "lost":
            _upstream(handler, proxy, body)
        if what == "torn":
            with contextlib.closing(_asked(handler, proxy, body[: len(body) // 2])):
                proxy.torn()
        _reset(handler)
        return
    if what == "late":
        proxy.ended.wait(proxy.late)
    status, headers, data = (503, [], b"<Error><Code>SlowDown</Code></Error>")
    if what.isdigit() and what != "503":
        status, data = int(what), b""
    elif what != "503":
        status, headers, data = _upstream(handler, proxy, body)
    handler.send_response_only(status)
    for name, value in headers:
        handler.send_header(name, value)
    if not any(name.lower() == "content-length" for name, _ in headers):
        handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    if handler.command != "HEAD":
        _send(handler, proxy, data, path, what)


def _upstream(
    handler: http.server.BaseHTTPRequestHandler, proxy: Shaky, body: bytes
) -> tuple[int, list[tuple[str, str]], bytes]:
    with contextlib.closing(_asked(handler, proxy, body)) as upstream:
        response = upstream.getresponse()
        data = response.read()
        dropped = ("transfer-encoding", "connection")
        headers = [(name, value) for name, value in response.getheaders() if name.lower() not in dropped]
        return response.status, headers, data


def _asked(
    handler: http.server.BaseHTTPRequestHandler, proxy: Shaky, body: bytes
) -> http.client.HTTPConnection:
    """Forward a request with this body, or with a part of it."""
    upstream = http.client.HTTPConnection(proxy.upstream)
    # Byte by byte as it came: the signature is of the host and path that the client named.
    upstream.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
    for name, value in handler.headers.items():
        upstream.putheader(name, value)
    upstream.endheaders(body or None)
    return upstream


def _send(
    handler: http.server.BaseHTTPRequestHandler, proxy: Shaky, data: bytes, path: str, what: str
) -> None:
    part = data if what in ("", "late") or what.isdigit() else data[: len(data) // 2]
    if what == "trickle":
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])
            if proxy.ended.wait(0.2):
                break
    else:
        handler.wfile.write(part)
    with proxy.lock:
        proxy.bytes[path] += len(part)
    if what == "stall":
        proxy.ended.wait()
    if what == "reset":
        _reset(handler)
    if what in ("short", "stall", "reset", "trickle"):
        handler.close_connection = True
        if what != "reset":
            handler.connection.shutdown(socket.SHUT_RDWR)


def _reset(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.shutdown(socket.SHUT_RD)
    handler.connection.close()
