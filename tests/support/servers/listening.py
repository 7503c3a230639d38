"""What servers on loopback have in common: a handler for all methods, and a thread that listens while a block runs."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives every request, with its body read, to `answer`. Clients may give up at any time; nothing is logged."""

    protocol_version = "HTTP/1.1"

    def answer(self, body: bytes) -> None:
        raise NotImplementedError

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):  # clients that give up
            super().handle_one_request()
            return
        self.close_connection = True

    def _answer(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def listening(handler: type[Handler], certificate: tuple[Path, Path] | None = None) -> Iterator[int]:
    """Serve in a thread, over TLS with a (certificate, key), and give the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
