"""Servers whose every answer a test chooses, for faults that a real server does not produce on demand."""

from __future__ import annotations

import contextlib
import http.server
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slg_wds.store import Store, open_store
from support.servers.listening import Handler, listening

KEYS = {"access_key_id": "k", "secret_access_key": "s", "region": "us-east-1"}
QUICK = {"retry_timeout": "3", "max_retries": "2", "timeout": "1"}


@dataclass
class Script:
    """A server that answers request n with `answer(handler, n)` and records its requests."""

    answer: Callable[[http.server.BaseHTTPRequestHandler, int], None]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def store(self) -> Store:
        return open_store("s3://bucket/set", {**KEYS, **QUICK, "endpoint": self.url})


@contextlib.contextmanager
def serving(
    answer: Callable[[http.server.BaseHTTPRequestHandler, int], None],
    certificate: tuple[Path, Path] | None = None,
    first_contact: bool = True,
) -> Iterator[Script]:
    """Run the server, over TLS with a (certificate, key). first_contact: answer 404 for slg.json itself."""
    script = Script(answer)

    class Scripted(Handler):
        def answer(self, body: bytes) -> None:
            if first_contact and self.path.endswith("/slg.json"):
                reply(self, 404)
                return
            script.asked.append(f"{self.command} {self.path}")
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            script.answer(self, len(script.asked))

    with listening(Scripted, certificate) as port:
        script.url = f"http{'s' if certificate else ''}://127.0.0.1:{port}"
        yield script


def reply(
    handler: http.server.BaseHTTPRequestHandler, status: int, body: bytes = b"", **headers: str
) -> None:
    handler.send_response(status)
    defaults = {
        "Content-Length": str(len(body)),
        "ETag": '"1"',
        "Last-Modified": "Mon, 23 Nov 2026 10:00:00 GMT",
    }
    for name, value in {
        **defaults,
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def hang_up(handler: http.server.BaseHTTPRequestHandler, *_: int) -> None:
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)


def cut_short(handler: http.server.BaseHTTPRequestHandler, *_: int) -> None:
    reply(handler, 200, b"01234", Content_Length="10")
    hang_up(handler)
