"""Object storage that fails: a scripted server loses, delays, cuts or refuses answers."""

from __future__ import annotations

import http.server
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from slg_wds import errors
from slg_wds.store import faults, open_store, remote
from support.servers.scripted import cut_short, hang_up, reply, serving


def test_create_is_one_conditional_put() -> None:
    with serving(lambda handler, _: reply(handler, 200)) as script:
        assert script.store().create("x", [bytes(4 << 20), bytes(4 << 20)]) is True
        assert script.asked == ["PUT /bucket/set/x"]
        assert script.headers[0]["if-none-match"] == "*"
        assert script.headers[0]["content-length"] == str(8 << 20)


def test_a_store_without_conditional_puts_is_refused() -> None:
    with serving(lambda handler, _: reply(handler, 200)) as script:
        with pytest.raises(errors.UnsupportedStoreError, match="no conditional puts") as caught:
            script.store().check_writable()
        assert caught.value.url == "s3://bucket/set"
        probes = {re.sub(r"^\w+ ", "", asked) for asked in script.asked if asked.startswith("PUT")}
        assert len(probes) == 1
        assert script.asked[-1].split()[0] in ("DELETE", "POST")  # the probe is removed


def test_a_store_that_does_not_know_conditional_puts_is_refused() -> None:
    with (
        serving(lambda handler, _: reply(handler, 501)) as script,
        pytest.raises(errors.UnsupportedStoreError, match="501"),
    ):
        script.store().check_writable()


@pytest.mark.parametrize("lost", [1, 2])
def test_one_lost_answer_does_not_refuse_a_store(lost: int) -> None:
    """Both answers to the probe are lost: to the first put, which succeeded, and to the second."""
    held: set[str] = set()
    puts: list[str] = []

    def answer(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        if handler.command != "PUT":
            reply(handler, 204)
            return
        status = 412 if handler.path in held else 200
        held.add(handler.path)
        puts.append(handler.path)
        if len(puts) == lost:
            hang_up(handler)
        else:
            reply(handler, status)

    with serving(answer) as script:
        script.store().check_writable()
    assert puts.count(puts[-1]) > 1 and len(set(puts)) <= 2


def test_a_store_that_says_of_all_objects_that_they_exist_is_refused() -> None:
    with (
        serving(lambda handler, _: reply(handler, 412 if handler.command == "PUT" else 200)) as script,
        pytest.raises(errors.UnsupportedStoreError, match="exists already"),
    ):
        script.store().check_writable()


def test_a_missing_bucket_cannot_be_written() -> None:
    body = b"<Error><Code>NoSuchBucket</Code><Message>gone</Message></Error>"
    with serving(lambda handler, _: reply(handler, 404, body)) as script:
        with pytest.raises(errors.NotFoundError, match="no such bucket"):
            script.store().check_writable()
        with pytest.raises(errors.NotFoundError, match="no such bucket"):
            script.store().create("x", b"")


def test_a_lost_answer_to_a_put_is_a_race_lost_to_oneself() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            hang_up(handler)
        else:
            reply(handler, 412 if handler.command == "PUT" else 200)

    with serving(answer) as script:
        assert script.store().create("x", b"1") is False
        assert script.asked == ["PUT /bucket/set/x", "PUT /bucket/set/x", "HEAD /bucket/set/x"]


def test_puts_that_are_reset_again_and_again_are_retried_until_patience_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "_PAUSES", (0.01, 0.02))
    last = 12

    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        if number < last:
            hang_up(handler)
        else:
            reply(handler, 200)

    with serving(answer) as script:
        assert script.store().create("x", b"1") is True
        assert len(script.asked) == last


def test_a_put_that_meets_another_under_way_is_tried_again() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        reply(handler, {1: 409, 2: 404}.get(number, 200))  # the other put then fails

    with serving(answer) as script:
        assert script.store().create("x", b"1") is True
        assert [asked.split()[0] for asked in script.asked] == ["PUT", "HEAD", "PUT"]


def test_a_put_that_times_out_is_tried_again() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        if number == 1:
            time.sleep(1.5)
        reply(handler, 200)

    with serving(answer) as script:
        assert script.store().create("x", b"1") is True


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.StoreError),
        (401, errors.PermissionDeniedError),
        (403, errors.PermissionDeniedError),
        (500, errors.StoreUnavailableError),
        (503, errors.StoreUnavailableError),
        (507, errors.StoreFullError),
        (307, errors.StoreError),
    ],
)
def test_statuses_of_a_put(status: int, kind: type[errors.StoreError]) -> None:
    with serving(lambda handler, _: reply(handler, status)) as script:
        start = time.monotonic()
        with pytest.raises(errors.StoreError) as caught:
            script.store().create("x", b"1")
        assert type(caught.value) is kind
        assert caught.value.url == "s3://bucket/set/x"
        assert time.monotonic() - start < 10


def test_a_passing_fault_passes() -> None:
    faults = {1: 500, 2: 503, 3: 200, 4: 429}
    with serving(lambda handler, number: reply(handler, faults.get(number, 200))) as script:
        assert script.store().create("x", b"1") is True
        assert script.store().create("y", b"1") is True
        assert len(script.asked) == 5


def test_a_short_body_is_read_again() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, number: int) -> None:
        if number <= 2:  # obstore asks itself for the rest, which this server does not know how to give
            cut_short(handler)
        else:
            reply(handler, 200, b"0123456789")

    with serving(answer) as script:
        assert script.store().read("x") == b"0123456789"


def test_a_body_that_stays_short_is_an_error() -> None:
    with serving(cut_short) as script:
        start = time.monotonic()
        with pytest.raises(errors.StoreUnavailableError) as caught:
            script.store().read("x")
        assert caught.value.url == "s3://bucket/set/x"
        assert time.monotonic() - start < 10


def test_a_short_range_is_an_error() -> None:
    def answer(handler: http.server.BaseHTTPRequestHandler, _: int) -> None:
        reply(handler, 206, b"23", Content_Range="bytes 2-3/10")

    with serving(answer) as script, pytest.raises(errors.StoreUnavailableError):
        script.store().read_range("x", 2, 3)


def test_signatures_in_urls_are_not_repeated() -> None:
    from slg_wds.store.faults import _reason

    text = "Generic X error: Error performing GET https://h/x?sig=hush&se=1 in 1ms - HTTP error: sending"
    assert _reason(text) == "Error performing GET https://h/x?*** in 1ms - HTTP error: sending"


def test_a_server_that_is_away_for_a_while_is_waited_for() -> None:
    """Longer than 20 attempts with constant waits would take."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    address = server.server_address

    def begin() -> None:
        threading.Thread(target=server.serve_forever, daemon=True).start()

    begin()
    store = open_store(f"http://127.0.0.1:{address[1]}/set")
    assert store.read("a") == b"hello"
    server.shutdown()
    server.server_close()

    def again() -> None:
        nonlocal server
        time.sleep(6)  # the library's own 20 attempts are over in 4
        server = ThreadingHTTPServer(address, Answer)
        begin()

    back = threading.Thread(target=again)
    back.start()
    assert store.size("a") == 5
    back.join()
    server.shutdown()
    server.server_close()


def test_the_answer_of_a_service_for_credentials_is_no_contact_with_the_store() -> None:
    """Otherwise, each later request without credentials would be retried for minutes."""
    with pytest.raises(errors.PermissionDeniedError), faults.translated("gs://bucket"):
        raise OSError(
            "Generic GCS error: Error performing token request: Error performing GET "
            "http://169.254.169.254/computeMetadata/v1 - Server returned non-2xx status code: 403 Forbidden: "
        )
    assert not faults.answered(OSError("token request: Server returned non-2xx status code: 403 Forbidden: "))
    assert faults.answered(OSError("Server returned non-2xx status code: 403 Forbidden: "))
