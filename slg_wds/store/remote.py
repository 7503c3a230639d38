"""Object storage and web servers, through obstore."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from slg_wds.errors import (
    NotFoundError,
    ObjectTooLargeError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
    UnsupportedStoreError,
)
from slg_wds.store.base import (
    MAX_BYTES,
    TEMPORARY_PREFIX,
    Data,
    Entry,
    Stat,
    Store,
    buffers,
    check_name,
    check_prefix,
    check_range,
    is_temporary,
    out_of_range,
    too_large,
)
from slg_wds.store.client import (
    CONTACT,
    READING,
    Client,
    Deadlines,
    make_client,
    patience,
    refuse_fork,
    settings_of,
    writing,
)
from slg_wds.store.faults import answered, translated, translated_body
from slg_wds.store.stops import seconds_stopped
from slg_wds.store.urls import join_unchecked

Result = TypeVar("Result")
MAX_LISTED = 1 << 25  # objects of one listing: 7 GB of names, and twice the images of ImageNet-21k
_PAGE = 1000  # as many as a store gives at a time
_PAUSES = (0.2, 1.0, 5.0)  # seconds between attempts of our own, beside obstore's; the last again and again


class RemoteStore(Store):
    """A prefix in a bucket (s3, gs, az), or below a web server's URL (http, https), which can only be read.

    Clients are made on first use in a process; a pickled store carries none. Waiting is bounded by `client`'s
    deadlines: first contact by 20 s, after that a fault is retried for 180 s (store option retry_timeout). An
    interrupt takes effect when the request under way ends.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.url = url
        self._settings = settings_of(url, options)
        self._clients: dict[Deadlines, Client] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_clients": {}}

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        def whole(total: int, url: str) -> int:
            if total > max_bytes:
                raise too_large(total, max_bytes, url)
            return total

        return self._get(name, {}, whole)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        check_range(offset, size)
        if size == 0:  # cannot be said in HTTP
            check_name(name)
            return b""

        def part(total: int, url: str) -> int:
            if offset + size > total:
                raise out_of_range(offset, size, total, url)
            return size

        return self._get(name, {"range": (offset, offset + size)}, part)

    def size(self, name: str) -> int | None:
        check_name(name)
        return self._patiently(lambda: self._size(name))

    def stat(self, name: str) -> Stat | None:
        check_name(name)
        return self._patiently(lambda: self._stat(name))

    def create(self, name: str, data: Data) -> bool:
        """See Store. One conditional put, never in parts.

        When the answer to a put that succeeded is lost, the next try finds our own object and returns False:
        no store tells whose it is. What is published under one name is the same whoever makes it, so nothing
        but the credit is lost.
        """
        self._refuse_http("take new objects")
        check_name(name)
        parts = buffers(data)
        return self._patiently(lambda: self._put(name, parts))

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        import obstore

        self._refuse_http("list")
        folder = check_prefix(prefix)
        url = self.url_of(folder) if folder else self.url

        def attempt() -> list[Entry]:
            client, entries = self._client(READING), list[Entry]()
            with translated(url):
                if not deep:
                    return _entries(obstore.list_with_delimiter(client, folder or None)["objects"])
                for page in obstore.list(client, folder or None, chunk_size=_PAGE):
                    entries += _entries(page)
                    if len(entries) > MAX_LISTED:
                        raise ObjectTooLargeError(f"a listing of over {MAX_LISTED} objects", url=url)
            return entries

        return iter(sorted(self._patiently(attempt), key=lambda entry: entry.name))

    def holds(self, prefix: str = "") -> bool:
        import obstore

        self._refuse_http("list")
        folder = check_prefix(prefix)

        def attempt() -> bool:
            with translated(self.url_of(folder) if folder else self.url):
                found = obstore.list(self._client(READING), folder or None)
                return any(len(chunk) for chunk in itertools.islice(found, 1))

        return self._patiently(attempt)

    def delete(self, name: str) -> None:
        self._refuse_http("delete")
        with contextlib.suppress(NotFoundError):
            check_name(name)
            self._patiently(lambda: self._delete(name))

    def check_writable(self) -> None:
        """See Store; makes and removes one small object, to see that a second put of its name is refused."""
        self._refuse_http("take new objects")
        try:
            # Where the answer to a put is lost, obstore's own next try finds the probe: then once more with another.
            if not any(self._patiently(self._check_conditional) for _ in _PAUSES):
                raise UnsupportedStoreError("this store says of every new object that it exists already")
        except StoreError as error:
            error.url = self.url  # not that of the probe, of which nobody knows
            raise

    def _check_conditional(self) -> bool:
        """Put a probe twice; False where the first is refused. Raises UnsupportedStoreError where the second is not."""
        probe = f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(8)}"
        try:
            if not self._put(probe, [memoryview(b"probe")]):
                return False
            if self._put(probe, [memoryview(b"again")]):
                raise UnsupportedStoreError(
                    "this store has no conditional puts, which atomic commits need: it replaced an object",
                    hint="use a store that honours If-None-Match, or a folder",
                )
        finally:
            with contextlib.suppress(StoreError):  # a writer need not be allowed to delete
                self._delete(probe, CONTACT)
        return True

    def url_of(self, name: str) -> str:
        return join_unchecked(self.url, name)

    def _get(self, name: str, options: Any, expected: Callable[[int, str], int]) -> bytes:
        """Return a body of exactly the bytes that `expected(bytes of the object, url)` says, or raise."""
        import obstore

        url = self.url_of(name)
        client = self._client(READING)

        def attempt() -> bytes:
            with translated(url):
                result = obstore.get(client, name, options=options)
            size = expected(int(result.meta["size"]), url)
            with translated_body(url):
                # One piece, which ends with the body or as soon as the body shows to be too long.
                data = bytes(next(iter(result.stream(min_chunk_size=size + 1)), b""))
            if len(data) > size:
                raise UnsupportedStoreError(f"the server sends more than the {size} bytes asked for", url=url)
            if len(data) != size:
                raise StoreUnavailableError(f"a body of {len(data)} bytes where {size} were due", url=url)
            return data

        return self._patiently(attempt)

    def _put(self, name: str, parts: Sequence[memoryview]) -> bool:
        import obstore

        url = self.url_of(name)
        client = self._client(writing(sum(part.nbytes for part in parts)))
        body = parts[0] if len(parts) == 1 else parts
        with translated(url):
            try:
                obstore.put(client, name, body, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                # obstore says so of S3's 409 too, by which another put is under way and may yet fail.
                if self._size(name) is None:
                    raise StoreUnavailableError("another put of this name is under way", url=url) from None
                return False
        return True

    def _size(self, name: str) -> int | None:
        found = self._stat(name)
        return None if found is None else found.size

    def _stat(self, name: str) -> Stat | None:
        import obstore

        try:
            with translated(self.url_of(name)):
                meta = obstore.head(self._client(READING), name)
        except NotFoundError:
            return None
        return Stat(int(meta["size"]), str(meta.get("e_tag") or meta["last_modified"].isoformat()))

    def _delete(self, name: str, deadlines: Deadlines = READING) -> None:
        import obstore

        with translated(self.url_of(name)):
            obstore.delete(self._client(deadlines), name)

    def _client(self, deadlines: Deadlines) -> Client:
        """Return this process's client that waits so long; the first also makes contact, or raises early."""
        refuse_fork(self.url)
        if not self._clients:
            self._make_contact()
        if deadlines not in self._clients:
            self._clients[deadlines] = make_client(self._settings, deadlines)
        return self._clients[deadlines]

    def _make_contact(self) -> None:
        import obstore

        client, stopped = make_client(self._settings, CONTACT), seconds_stopped()
        try:
            with translated(self.url):
                obstore.head(client, "slg.json")
        except (StoreUnavailableError, PermissionDeniedError) as error:
            if not answered(error.__cause__):
                if seconds_stopped() == stopped:
                    raise
                self._make_contact()
        except StoreError:
            pass  # any answer will do; what is asked for next says what is wrong with it
        self._clients[CONTACT] = client

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        """Attempt again after faults that obstore does not retry itself: short bodies, puts reset or timed out.

        Time for which this process was stopped is none that a store let it wait.
        """
        self._client(READING)  # makes contact, whose failure is not to be waited for
        end = time.monotonic() + patience(self._settings, READING) - seconds_stopped()
        pauses = itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))
        while True:
            try:
                return attempt()
            except StoreUnavailableError:
                pause = next(pauses)
                if time.monotonic() + pause > end + seconds_stopped():
                    raise
            time.sleep(pause)

    def _refuse_http(self, what: str) -> None:
        if self._settings.scheme in ("http", "https"):
            raise UnsupportedStoreError(f"a web server can only be read: it cannot {what}", url=self.url)


def _entries(page: Sequence[Any]) -> list[Entry]:
    """Those objects of a page of a listing that are none of our temporaries."""
    return [
        Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())
        for meta in page
        if meta["path"] and not is_temporary(meta["path"])
    ]
