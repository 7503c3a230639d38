"""Mask what must never be shown or stored: passwords in URLs, queries of signed URLs, keys in store options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
MASK = "***"

# Names of secret options of object stores, as obstore and the providers' environment variables spell them.
_NAME = (
    r"(?:(?:aws|google|azure|azure_storage|x-amz|x-goog)[_-])?"
    r"(?:secret_access_key|access_key_id|session_token|security[_-]token|token|access_key|account_key|master_key"
    r"|storage_key|sas_key|sas_token|client_secret|bearer_token|authorization_token|authorization|service_account_key"
    r"|sse_customer_key_base64|password|credential|signature|sig)"
)
_IS_NAME = re.compile(_NAME, re.IGNORECASE)
# name=value or "name": value; a value that is a JSON object extends to its last brace.
_NAMED = re.compile(
    rf"""(?<![A-Za-z0-9_])({_NAME}(?:=['"]?|['"]\s*[:,=]\s*b?['"]))(?!\*\*\*)(\{{.*\}}|[^\s'"]+)""",
    re.IGNORECASE,
)
# User and password before the host: everything up to the last @. A password may contain a slash, but a number and a
# slash after the colon are a port and a path.
_USER = re.compile(r"(?<=://)(?:[^/?#\s]*|[^/?#\s:@]*:(?!\d+(?:/|\s|$))\S*)@")
# The query of a web address. In other URLs ? may be part of a name, unless a = follows it.
_QUERY = re.compile(
    r"(https?://[^\s?#'\"]*[?#]|[a-z][a-z0-9+.-]*://[^\s?#'\"]*\?(?=[^\s'\"]*=))(?!\*\*\*)[^\s'\"]+",
    re.IGNORECASE,
)


def masked(value: T) -> T:
    """Return the value with every secret that can be recognised by its form replaced by `***`.

    Strings are searched, also those in mappings, lists and tuples. Everything else is returned as it is. Masking twice
    is the same as masking once.
    """
    return _masked(value)  # type: ignore[no-any-return]


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return _masked_text(value)
    if isinstance(value, Mapping):
        return {key: _masked_field(key, one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_masked(one) for one in value)
    return value


def _masked_field(name: object, value: Any) -> Any:
    secret = isinstance(name, str) and isinstance(value, (str, bytes)) and value and _IS_NAME.fullmatch(name)
    return MASK if secret else _masked(value)


def _masked_text(text: str) -> str:
    if "://" in text:
        text = _USER.sub(f"{MASK}@", text)
        text = _QUERY.sub(rf"\1{MASK}", text)
    return _NAMED.sub(rf"\1{MASK}", text) if "=" in text or ":" in text else text
