"""The one place where text goes out to people: stdout, stderr, tables.

Names, messages and paths may be anybody's. Here what would move a terminal's cursor, colour it, hide something or forge
a line is escaped, and secrets are masked; nobody else in the package prints.
"""

from __future__ import annotations

import io
import json
import sys
import traceback
import warnings
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from slg_wds.masking import masked

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDTH = 160  # of what is not a terminal


def prepare() -> None:
    """Let stdout take every text: what its encoding lacks is written as an escape. Tracebacks go out through here."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is from the start
    sys.excepthook = _note_crash


def tell(*lines: str) -> None:
    """Print lines on stdout, where results go."""
    for line in lines:
        print(shown(line), flush=True)


def note(*lines: str) -> None:
    """Print lines on stderr, where progress and errors go."""
    for line in lines:
        print(shown(line), file=sys.stderr, flush=True)


def warn(text: str, level: int = 1) -> None:
    """Give a UserWarning of that line. level: how many callers up the line of code is that it names."""
    warnings.warn(shown(text), UserWarning, stacklevel=level + 2)


def tell_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON on stdout."""
    text = json.dumps(masked(value), indent=indent, ensure_ascii=False)
    for char in set(text):
        if char != "\n" and not char.isprintable():
            text = text.replace(char, json.dumps(char)[1:-1])
    print(text)


def tell_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], sides: int = 2) -> None:
    """Print a table on stdout. Without names of columns it has `sides` of them and no head."""
    from rich import box
    from rich.table import Table

    table = Table(title=as_text(title), title_justify="left", box=box.SIMPLE, show_header=bool(columns))
    for name in columns or [""] * sides:
        table.add_column(as_text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(as_text, row))
    wide_console().print(table)


def wide_console() -> Console:
    """A console on stdout: as wide as the terminal, and where there is none, wide enough for tables."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def as_text(value: object) -> Text:
    """A value for a console of rich: plain text, never its markup."""
    from rich.text import Text

    return Text(shown(str(value)))


def shown(text: str) -> str:
    """One line of text as it may be shown: secrets masked, whatever cannot be printed escaped."""
    text = masked(text)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 shard`, `1,282 shards`, and with `plural` given, `2 boxes`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 12 min, 3.4 h, 2.1 days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size * 1.5:
            return f"{seconds / size:.1f} {unit}" if unit != "min" else f"{seconds / size:.0f} min"
    return f"{seconds:.0f} s"


def note_traceback(error: BaseException) -> None:
    """Print an error with its traceback on stderr."""
    note(*"".join(traceback.format_exception(error)).splitlines())


def _note_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    note_traceback(error)
