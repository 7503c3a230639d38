"""Servers that send more than was requested: how much is read is bounded."""

from __future__ import annotations

import http.server
import time

import pytest

from slg_wds import errors
from slg_wds.store import expand_braces, open_store
from support.servers.scripted import reply, serving

PIECE = bytes(1 << 20)
OFFERED = 256  # pieces of an answer, which the client should not take
TAKEN = 48  # pieces at most: what was asked for, and the sockets' buffers


class Gushing:
    """Answers every GET with `OFFERED` MiB, whatever was asked, and counts what the client takes."""

    def __init__(self) -> None:
        self.pieces = 0

    def __call__(self, handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        asked = handler.headers.get("Range", "")
        handler.send_response(206 if asked else 200)
        if asked:
            start, end = asked.removeprefix("bytes=").split("-")
            handler.send_header("Content-Range", f"bytes {start}-{end}/{1 << 40}")
        handler.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        handler.send_header("Content-Length", str(OFFERED * len(PIECE)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        try:
            for _ in range(OFFERED):
                handler.wfile.write(PIECE)
                self.pieces += 1
        except OSError:  # the client has hung up
            handler.close_connection = True


def test_a_range_answered_with_more_is_refused_before_it_is_taken() -> None:
    gushing = Gushing()
    with serving(gushing, first_contact=False) as script:
        store = open_store(script.url, {"retry_timeout": "2"})
        with pytest.raises(errors.UnsupportedStoreError, match="more than the 1000 bytes asked for"):
            store.read_range("a.tar", 5000, 1000)
    assert gushing.pieces < TAKEN


def test_a_body_of_the_right_length_is_taken_whole() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        reply(handler, 206, PIECE[:1000], Content_Range="bytes 5000-5999/1099511627776")

    with serving(answer, first_contact=False) as script:
        assert open_store(script.url).read_range("a.tar", 5000, 1000) == PIECE[:1000]


def test_a_listing_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slg_wds.store.remote.MAX_LISTED", 5000)
    pages = 100

    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        names = (f"set/{number:06d}-{n:03d}" for n in range(1000))
        objects = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>x</ETag><Size>1</Size></Contents>"
            for name in names
        )
        more = f"<NextContinuationToken>{number}</NextContinuationToken>" if number < pages else ""
        text = (
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name>'
            f"<IsTruncated>{str(bool(more)).lower()}</IsTruncated>{more}{objects}</ListBucketResult>"
        )
        reply(handler, 200, text.encode())

    with serving(answer) as script:
        with pytest.raises(errors.ObjectTooLargeError, match="a listing of over 5000 objects"):
            list(script.store().list())
        assert len(script.asked) < 20


@pytest.mark.parametrize(
    "pattern",
    [
        "{0..999999}" * 2,
        "{0..999999}" * 500,
        "{" + "0" * 5000 + "..9}",
        "{0.." + "9" * 5000 + "}",
        "x" * 100_000 + "{0..99999}",
    ],
    ids=["twice", "often", "wide", "digits", "long"],
)
def test_patterns_that_unfold_to_too_much(pattern: str) -> None:
    start = time.process_time()
    with pytest.raises(errors.UsageError) as caught:
        expand_braces(pattern)
    assert time.process_time() - start < 5 and len(str(caught.value)) < 1000


def test_long_lists_of_choices_are_no_such_patterns() -> None:
    names = [f"shard-{n}" for n in range(20_000)]
    assert expand_braces(f"/data/{{{','.join(names)}}}.tar") == [f"/data/{name}.tar" for name in names]
