"""obstore's clients: their options, how long they wait, and the check that none is used after a fork."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

from slg_wds.errors import InvalidNameError, StoreError, UsageError
from slg_wds.store.base import check_name
from slg_wds.store.credentials import provider_of
from slg_wds.store.faults import translated_settings
from slg_wds.store.urls import scheme_of

Client = Any  # obstore's stores have no common base class that can be named without importing obstore


@dataclass(frozen=True)
class Deadlines:
    """How long one client waits, in seconds.

    Attributes:
        request: for one request, from connecting to the last byte.
        stall: for the next byte of an answer.
        patience: from the first attempt to the start of the last one.
        retries: the number of attempts after the first.
    """

    request: float
    stall: float
    patience: float
    retries: int


CONNECT = 5.0  # seconds for a connection to be made
# First contact fails early: a wrong endpoint or missing credentials are reported within 20 s.
CONTACT = Deadlines(request=10, stall=10, patience=10, retries=2)
READING = Deadlines(request=3600, stall=30, patience=180, retries=1000)  # 180 s are over before that
# Each wait is drawn between init_backoff and base times the last wait. With the library's default base, 2, waits hardly
# grow: 20 attempts took 4 s, less than a server needs to restart.
BACKOFF = {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=15), "base": 3}
_SLOWEST_UPLOAD = 1 << 20  # bytes per second

_CLIENT_KEYS = frozenset(
    (
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    )
)
_RETRY_KEYS = frozenset(("max_retries", "retry_timeout"))
_ENVIRONMENT = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*s?")


def writing(size: int) -> Deadlines:
    """Return the deadlines for a put of `size` bytes: 30 s plus the time of an upload at 1 MiB/s, rounded up.

    The wait for the answer begins with the upload, so a stall looks the same as a slow connection. Every deadline needs
    a client of its own. To keep them few, times are rounded up to 60, 120, 240, ... seconds.
    """
    needed = 30 + size / _SLOWEST_UPLOAD
    seconds = 60.0 * 2 ** max(0, math.ceil(math.log2(needed / 60)))
    return Deadlines(request=seconds, stall=seconds, patience=READING.patience, retries=READING.retries)


@dataclass(frozen=True, repr=False)
class RemoteSettings:
    """A remote URL and its options, grouped by the argument of obstore that takes them. Its repr hides them all.

    Attributes:
        scheme: s3, gs, az, http or https.
        address: the URL in obstore's form.
        config: options of the store itself.
        client: options of the HTTP client.
        retry: options of retries.
    """

    scheme: str
    address: str
    config: dict[str, str]
    client: dict[str, Any]
    retry: dict[str, float]


def settings_of(url: str, options: Mapping[str, str]) -> RemoteSettings:
    """Group the options of a URL, without contacting anything. Raises UsageError for an invalid URL or option."""
    scheme = scheme_of(url)
    given = {key.lower(): value for key, value in options.items()}
    client: dict[str, Any] = {key: given.pop(key) for key in _CLIENT_KEYS & given.keys()}
    retry = {key: _seconds(key, given.pop(key)) for key in _RETRY_KEYS & given.keys()}
    for key in _CLIENT_KEYS - client.keys() if scheme in _ENVIRONMENT else ():
        # A client that is given any option takes none from the environment, so they are passed on here.
        if value := os.environ.get(_ENVIRONMENT[scheme] + key.upper()):
            client[key] = value
    if _plain_http(scheme, given):
        client.setdefault("allow_http", True)
    client.setdefault("connect_timeout", f"{CONNECT}s")
    for key in ("connect_timeout", "timeout", "read_timeout"):
        if key in client and _SECONDS.fullmatch(str(client[key])):
            client[key] = timedelta(seconds=_seconds(key, str(client[key])))
    settings = RemoteSettings(scheme, _address(scheme, url), given, client, retry)
    make_client(settings, READING)
    return settings


def make_client(settings: RemoteSettings, deadlines: Deadlines) -> Client:
    """Return a new store of obstore. Raises UsageError for settings that it refuses."""
    from obstore import store

    options: Any = {
        "timeout": timedelta(seconds=deadlines.request),
        "read_timeout": timedelta(seconds=deadlines.stall),
        **settings.client,
    }
    retry: Any = {
        "max_retries": int(settings.retry.get("max_retries", deadlines.retries)),
        "retry_timeout": timedelta(seconds=patience(settings, deadlines)),
        "backoff": BACKOFF,
    }
    with translated_settings(settings.address):
        if settings.scheme in ("http", "https"):
            if settings.config:
                raise ValueError(f"unknown options for HTTP: {', '.join(sorted(settings.config))}")
            return store.HTTPStore.from_url(settings.address, client_options=options, retry_config=retry)
        kind: Any = {"s3": store.S3Store, "gs": store.GCSStore, "az": store.AzureStore}[settings.scheme]
        return kind.from_url(
            settings.address,
            config=settings.config,
            client_options=options,
            retry_config=retry,
            credential_provider=provider_of(settings.scheme, settings.config),
        )


def patience(settings: RemoteSettings, deadlines: Deadlines) -> float:
    """Return for how many seconds after the first attempt new ones begin: the option retry_timeout, or the default."""
    return settings.retry.get("retry_timeout", deadlines.patience)


_used_by: int | None = None


def refuse_fork(url: str) -> None:
    """Remember that this process uses obstore. Raises StoreError in a forked child of a process that used it.

    obstore's threads do not exist in such a child, and even a new client would wait for them for ever.
    """
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    elif _used_by != os.getpid():
        raise StoreError(
            "object storage was used before this process was forked, and cannot be used in it",
            url=url,
            hint="start processes with 'spawn'",
        )


def _address(scheme: str, url: str) -> str:
    """Return the URL for obstore. In bucket URLs every character of the prefix stands for itself, so it is quoted."""
    host, _, path = url.partition("://")[2].partition("/")
    if scheme in ("http", "https"):
        parts = urlsplit(url)
        if not parts.hostname or parts.query or parts.fragment:
            raise UsageError("a URL of a host and a path, without ? or #, was expected", url=url)
        return url
    path = path.strip("/")
    try:
        if not host or (path and not check_name(path)):
            raise UsageError(f"a URL like {scheme}://bucket/prefix was expected", url=url)
    except InvalidNameError as error:
        raise UsageError(error.message, url=url) from error
    return f"{scheme}://{host}/{quote(path)}"


def _plain_http(scheme: str, options: Mapping[str, str]) -> bool:
    """Return whether an endpoint begins with http://, which obstore accepts only with the option allow_http."""
    if scheme == "http":
        return True
    given = [
        value
        for key, value in options.items()
        if "metadata" not in key and ("endpoint" in key or key.endswith("base_url"))
    ]
    if not given and scheme == "s3":
        given = [os.environ.get(f"AWS_{key}", "") for key in ("ENDPOINT_URL_S3", "ENDPOINT_URL", "ENDPOINT")]
    return any(value.startswith("http://") for value in given)


def _seconds(key: str, value: str) -> float:
    match = _SECONDS.fullmatch(value)
    if match is None:
        raise UsageError(f"store option {key}={value!r}: a number (of seconds) was expected")
    return float(match[1])
