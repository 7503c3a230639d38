"""URLs: their scheme, their last part, and brace patterns."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from slg_wds.errors import UsageError
from slg_wds.store.base import check_name

REMOTE_SCHEMES = ("s3", "gs", "az", "http", "https")
MAX_EXPANDED = 1_000_000
MAX_EXPANDED_BYTES = 1 << 30  # of all names that a pattern gives
MAX_SHOWN = 200  # characters of a pattern in a message
MAX_RANGE = 42  # characters of a range: two numbers of 20 digits

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_TYPO = re.compile(r"(s3|gs|az|https?|file|pipe)(:|//)", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def scheme_of(url: str) -> str:
    """Return a URL's scheme in lower case; "file" for a plain path. Raises UsageError for an unknown scheme."""
    if not url:
        raise UsageError("an empty path or URL")
    match = _SCHEME.match(url)
    if match is None:
        if _TYPO.match(url):
            raise UsageError(
                f"{url!r} is neither a URL nor a path", hint="write SCHEME://..., or ./ before a path"
            )
        return "file"
    scheme = match[1].lower()
    if scheme not in (*REMOTE_SCHEMES, "file"):
        raise UsageError(
            f"no store for {scheme}:// URLs", url=url, hint=f"known: {', '.join(REMOTE_SCHEMES)}, paths"
        )
    return scheme


def path_of(url: str) -> Path:
    """Return the absolute path of a plain path (`~` is expanded) or file:// URL (percent codes are decoded).

    Raises:
        UsageError: a file:// URL of another host or without a path.
    """
    if url.lower().startswith("file://"):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UsageError("a file URL is file:///absolute/path", url=url)
        return Path(unquote(parts.path))
    return Path(os.path.abspath(os.path.expanduser(url)))  # noqa: PTH100, PTH111 (no resolve: links stay as named)


def join(url: str, name: str) -> str:
    """Return the URL of the object `name` in the store at `url`, percent-encoded for http(s) and file.

    Raises:
        InvalidNameError: as `check_name`.
    """
    return join_unchecked(url, check_name(name))


def join_unchecked(url: str, name: str) -> str:
    """Do the same as `join`, but do not check the name: it is known to be valid, or the URL is only for a message."""
    return f"{url if url.endswith('/') else url + '/'}{quote(name) if _is_encoded(url) else name}"


def split_url(url: str) -> tuple[str, str]:
    """Split the URL of a file into (URL of the store, name in it): the inverse of `join`.

    Raises:
        UsageError: a URL that does not end in the name of a file.
    """
    start = match.end() if (match := _SCHEME.match(url)) else 0
    parent, slash, name = url[start:].rpartition("/")
    if not name or (start and not slash):
        raise UsageError("a URL that ends in the name of a file was expected", url=url)
    if start:
        return url[:start] + (parent or "/"), unquote(name) if _is_encoded(url) else name
    return (parent or "/") if slash else ".", name


def _is_encoded(url: str) -> bool:
    return url.lower().startswith(("http://", "https://", "file://"))


def expand_braces(url: str) -> list[str]:
    """Expand the brace patterns of a URL: ranges `{000..012}` and choices `{a,b}`.

    The numbers of a range are padded with zeros to one width if either of its ends is. With several patterns, the last
    one varies fastest, as in a shell. A URL without patterns is returned alone.

    Raises:
        UsageError: braces that are nested or do not pair, or that give too many URLs.
    """
    pieces: list[list[str]] = []
    shown = url[:MAX_SHOWN]
    end, count, longest = 0, 1, len(_BRACES.sub("", url))
    for match in _BRACES.finditer(url):
        choices = _choices(match[1], shown)
        count *= len(choices)
        longest += max(map(len, choices))
        if count > MAX_EXPANDED or count * longest > MAX_EXPANDED_BYTES:
            raise UsageError(f"a pattern for {count} files or more, over {MAX_EXPANDED}", url=shown)
        pieces += [[url[end : match.start()]], choices]
        end = match.end()
    pieces.append([url[end:]])
    if any(brace in piece for piece in itertools.chain(*pieces) for brace in "{}"):
        raise UsageError("braces that are nested or do not pair", url=shown)
    return ["".join(parts) for parts in itertools.product(*pieces)]


def _choices(inner: str, url: str) -> list[str]:
    if (match := _RANGE.fullmatch(inner)) and len(inner) <= MAX_RANGE:
        first, last = int(match[1]), int(match[2])
        if last < first:
            raise UsageError(f"a range that runs backwards: {{{inner[:MAX_SHOWN]}}}", url=url)
        if last - first >= MAX_EXPANDED:
            raise UsageError(f"a range of over {MAX_EXPANDED} files: {{{inner[:MAX_SHOWN]}}}", url=url)
        ends = (match[1], match[2])
        padded = any(len(end) > 1 and end[0] == "0" for end in ends)  # a lone 0 is not padded
        width = max(map(len, ends)) if padded else 0
        return [f"{number:0{width}d}" for number in range(first, last + 1)]
    if "," not in inner:
        raise UsageError(f"{{{inner[:MAX_SHOWN]}}} is neither a range {{0..9}} nor a choice {{a,b}}", url=url)
    return inner.split(",")
