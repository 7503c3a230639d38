"""A web server on loopback that serves files as they are, and lists none."""

from __future__ import annotations

import contextlib
import http.server
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from support.servers.scripted import Script, reply, serving


@contextlib.contextmanager
def web_server(
    root: Path, ranges: bool = True, certificate: tuple[Path, Path] | None = None
) -> Iterator[Script]:
    """Serve the files below root, with or without byte ranges; over TLS with a (certificate, key)."""

    def answer(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        path = root / unquote(handler.path).lstrip("/")
        if not path.is_file():
            reply(handler, 404)
            return
        data = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range", ""))
        if not asked or not ranges:
            reply(handler, 200, data)
        elif int(asked[1]) >= len(data):
            reply(handler, 416, Content_Range=f"bytes */{len(data)}")
        else:
            start, end = int(asked[1]), min(int(asked[2]), len(data) - 1)
            reply(handler, 206, data[start : end + 1], Content_Range=f"bytes {start}-{end}/{len(data)}")

    with serving(answer, certificate, first_contact=False) as script:
        yield script


def own_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed certificate of 127.0.0.1 and its key."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    command = [program, *options.split(), *more, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
