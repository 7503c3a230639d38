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
MAX_LISTED = 1 << 25  # objects in one listing: twice as many as ImageNet-21k has images, 7 GB of names
_PAGE = 1000  # objects that a store lists at once
_PAUSES = (0.2, 1.0, 5.0)  # seconds between our own attempts, beside obstore's; the last one repeats


class RemoteStore(Store):
    """A prefix in a bucket (s3, gs, az), or a URL of a web server (http, https), which can only be read.

    Clients are created at their first use in a process and are not pickled. Waits are bounded by the deadlines in
    client.py: 20 s for the first contact, then 180 s of retries after a fault (store option retry_timeout). An
    interrupt takes effect when the current request ends.
    """

    def __init__(self, url: str, options: Mapping[str, str]) -> None:
        self.url = url
        self._settings = settings_of(url, options)
        self._clients: dict[Deadlines, Client] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_clients": {}}

    def read(self, name: str, max_bytes: int = MAX_BYTES) -> bytes:
        """See `Store.read`."""

        def whole(total: int, url: str) -> int:
            if total > max_bytes:
                raise too_large(total, max_bytes, url)
            return total

        return self._get(name, {}, whole)

    def read_range(self, name: str, offset: int, size: int) -> bytes:
        """See `Store.read_range`."""
        check_range(offset, size)
        if size == 0:  # HTTP has no empty range
            check_name(name)
            return b""

        def part(total: int, url: str) -> int:
            if offset + size > total:
                raise out_of_range(offset, size, total, url)
            return size

        return self._get(name, {"range": (offset, offset + size)}, part)

    def size(self, name: str) -> int | None:
        """See `Store.size`."""
        check_name(name)
        return self._patiently(lambda: self._size(name))

    def stat(self, name: str) -> Stat | None:
        """See `Store.stat`."""
        check_name(name)
        return self._patiently(lambda: self._stat(name))

    def create(self, name: str, data: Data) -> bool:
        """See `Store.create`. One conditional put, never in parts.

        If the answer to a successful put is lost, the next attempt finds our own object, and this returns False: no
        store tells who created it. All writers create the same object under one name, so that does no harm.
        """
        self._refuse_http("take new objects")
        check_name(name)
        parts = buffers(data)
        return self._patiently(lambda: self._put(name, parts))

    def list(self, prefix: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """See `Store.list`."""
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
        """See `Store.holds`."""
        import obstore

        self._refuse_http("list")
        folder = check_prefix(prefix)

        def attempt() -> bool:
            with translated(self.url_of(folder) if folder else self.url):
                found = obstore.list(self._client(READING), folder or None)
                return any(len(chunk) for chunk in itertools.islice(found, 1))

        return self._patiently(attempt)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        self._refuse_http("delete")
        with contextlib.suppress(NotFoundError):
            check_name(name)
            self._patiently(lambda: self._delete(name))

    def check_writable(self) -> None:
        """See `Store.check_writable`. Puts a small object twice, to check that the second put is refused."""
        self._refuse_http("take new objects")
        try:
            # If the answer to a put is lost, obstore's own next attempt finds the probe: then try with another one.
            if not any(self._patiently(self._check_conditional) for _ in _PAUSES):
                raise UnsupportedStoreError("this store claims that every new object exists already")
        except StoreError as error:
            error.url = self.url  # users do not know the probe's URL
            raise

    def _check_conditional(self) -> bool:
        """Put a probe twice. Return False if the first is refused; raise UnsupportedStoreError if the second is not."""
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
            with contextlib.suppress(StoreError):  # writers may lack the permission to delete
                self._delete(probe, CONTACT)
        return True

    def url_of(self, name: str) -> str:
        """See `Store.url_of`."""
        return join_unchecked(self.url, name)

    def _get(self, name: str, options: Any, expected: Callable[[int, str], int]) -> bytes:
        """Return a body of an exact size, or raise.

        expected: (size of the object, url) -> size of the body; raises if the object is not what was asked for.
        """
        import obstore

        url = self.url_of(name)
        client = self._client(READING)

        def attempt() -> bytes:
            with translated(url):
                result = obstore.get(client, name, options=options)
            size = expected(int(result.meta["size"]), url)
            with translated_body(url):
                # One piece: it ends with the body, or one byte after the expected size.
                data = bytes(next(iter(result.stream(min_chunk_size=size + 1)), b""))
            if len(data) > size:
                raise UnsupportedStoreError(f"the server sends more than the {size} bytes asked for", url=url)
            if len(data) != size:
                raise StoreUnavailableError(f"the server sent {len(data)} bytes instead of {size}", url=url)
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
                # obstore raises this for S3's status 409 too: another put is in progress and may still fail.
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
        """Return this process's client with these deadlines. The first call makes contact, and fails early."""
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
            pass  # any answer proves contact; the next request reports what is wrong
        self._clients[CONTACT] = client

    def _patiently(self, attempt: Callable[[], Result]) -> Result:
        """Retry after faults that obstore does not retry itself: short bodies, puts that were reset or timed out.

        Time during which this process was stopped does not count as waiting.
        """
        self._client(READING)  # makes contact; if that fails, do not retry
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
        """Raise UnsupportedStoreError for a web server. what: the operation, for the message."""
        if self._settings.scheme in ("http", "https"):
            raise UnsupportedStoreError(f"a web server can only be read: it cannot {what}", url=self.url)


def _entries(page: Sequence[Any]) -> list[Entry]:
    """Return the objects of a page of a listing, without temporary ones."""
    return [
        Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())
        for meta in page
        if meta["path"] and not is_temporary(meta["path"])
    ]
