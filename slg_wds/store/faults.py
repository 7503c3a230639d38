"""The one place where obstore's errors are turned into ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from slg_wds.errors import (
    NotFoundError,
    OutOfRangeError,
    PermissionDeniedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnsupportedStoreError,
    UsageError,
)
from slg_wds.masking import masked
from slg_wds.store.credentials import no_credentials_hint

# Most failures of obstore differ only in their text: the status, and the XML body if there is one.
_STATUS = re.compile(r"non-2xx status code: (\d{3}[\w ]*)")
_CODE = re.compile(r"<Code>([^<]*)</Code>|\(code: (\w+)\)")
_SERVER_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_MAX_MESSAGE = 300  # characters of a server's message that are shown
_STORE_NAME = re.compile(r"^(Generic [\w ]+ error: )+")
# Where clients look for credentials last: the metadata services of EC2, ECS, GCE and Azure.
_CREDENTIALS = re.compile(
    r"169\.254\.169\.254|169\.254\.170\.|/latest/(api/token|meta-data)|computeMetadata|/metadata/identity"
    r"|[Tt]oken request|redential"
)


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn obstore's errors in the block into ours about `url`, all but AlreadyExistsError."""
    from obstore import exceptions

    try:
        yield
    except exceptions.AlreadyExistsError:
        raise
    except (exceptions.BaseError, OSError, ValueError) as error:
        raise _store_error(error, url) from _without_secrets(error)


@contextlib.contextmanager
def translated_body(url: str) -> Iterator[None]:
    """Turn errors while a body is read into StoreUnavailableError, since another attempt may succeed."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.BaseError, OSError, ValueError) as error:
        reason = _reason(str(error))
        raise StoreUnavailableError(f"the body broke off: {reason}", url=url) from _without_secrets(error)


@contextlib.contextmanager
def translated_settings(url: str) -> Iterator[None]:
    """Turn obstore's refusal of an option or URL into UsageError."""
    from obstore import exceptions

    try:
        yield
    except (exceptions.BaseError, ValueError, TypeError) as error:
        reason = _reason(str(error))
        hint = no_credentials_hint(url) if "must be specified" in reason else None
        raise UsageError(f"the store cannot be opened: {reason}", url=url, hint=hint) from _without_secrets(
            error
        )


def _store_error(error: Exception, url: str) -> StoreError:
    text = str(error)
    status, code = _answer(text)
    if _CREDENTIALS.search(text.partition("\n")[0]):
        return PermissionDeniedError(
            f"no credentials: {_reason(text)}", url=url, hint=no_credentials_hint(url)
        )
    if isinstance(error, FileNotFoundError) or status == 404:
        bucket = code in ("NoSuchBucket", "ContainerNotFound")
        return NotFoundError("no such bucket" if bucket else "no such object", url=url)
    if status in (401, 403) or code == "AccessDenied" or type(error).__name__ in _DENIED:
        return PermissionDeniedError(f"refused by the store: {_reason(text)}", url=url)
    if status == 416:
        return OutOfRangeError("the object ends before the bytes asked for", url=url)
    if status == 507:
        return StoreFullError(f"nothing more fits here: {_reason(text)}", url=url)
    if "non-partial response" in text or "Range request not supported" in text:
        return UnsupportedStoreError("this server does not serve ranges of bytes", url=url)
    if status in (405, 501) or type(error).__name__ in _UNSUPPORTED:
        return UnsupportedStoreError(f"the store does not know this operation: {_reason(text)}", url=url)
    if status is None and "redirect" in text:
        return StoreError(
            "the store redirects to another address", url=url, hint="check store options region and endpoint"
        )
    if status is None or status >= 500 or status in (408, 429):
        return StoreUnavailableError(f"no good answer in time: {_reason(text)}", url=url)
    return StoreError(f"refused by the store: {_reason(text)}", url=url)


def _without_secrets(error: Exception) -> Exception:
    """Return an error without secrets, as the cause of ours, which tracebacks show."""
    text = str(error)
    return error if masked(text) == text else type(error)(masked(text))


_DENIED = ("PermissionDeniedError", "UnauthenticatedError")
_UNSUPPORTED = ("NotSupportedError", "NotImplementedError")


def answered(error: BaseException | None) -> bool:
    """Return whether the cause of one of our errors is an answer of the store, whatever it says.

    A credential service's reply does not count: without credentials, retries of later requests would all fail.
    """
    if _CREDENTIALS.search(str(error).partition("\n")[0]):
        return False
    return isinstance(error, FileNotFoundError) or _answer(str(error))[0] is not None


def _answer(text: str) -> tuple[int | None, str | None]:
    status, code = _STATUS.search(text), _CODE.search(text)
    return int(status[1][:3]) if status else None, (code[1] or code[2]) if code else None


def _reason(text: str) -> str:
    """Return the store's own message if it sent one, else the first line of obstore's, without secrets."""
    _, code = _answer(text)
    if code and (message := _SERVER_MESSAGE.search(text)):
        return f"{code}: {message[1]}"[:_MAX_MESSAGE]
    if status := _STATUS.search(text):
        return f"HTTP status {status[1]}"
    return masked(_STORE_NAME.sub("", text.partition("\n")[0]).strip())
