"""Everything that the package prints, on stdout and stderr; counts, durations and tables.

File names, messages and paths may come from anybody. This module masks secrets, and escapes what would move a
terminal's cursor, colour it, hide text or forge a line. No other module prints.
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

WIDTH = 160  # columns of a table that goes to a file or pipe


def prepare() -> None:
    """Make stdout escape characters that its encoding lacks; print tracebacks of crashes through this module."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is from the start
    sys.excepthook = _note_crash


def tell(*lines: str) -> None:
    """Print lines on stdout, which is for results."""
    for line in lines:
        print(shown(line), flush=True)


def note(*lines: str) -> None:
    """Print lines on stderr, which is for progress and errors."""
    for line in lines:
        print(shown(line), file=sys.stderr, flush=True)


def warn(text: str, level: int = 1) -> None:
    """Issue a UserWarning.

    Args:
        text: one line.
        level: which line of code the warning names. Let f call `warn`: 1 names the line that called f, 2 the line that
            called f's caller, and so on.
    """
    warnings.warn(shown(text), UserWarning, stacklevel=level + 2)


def tell_json(value: Any, indent: int | None = 2) -> None:
    """Print a value as JSON on stdout, with secrets masked and unprintable characters escaped.

    Args:
        value: what json.dumps takes.
        indent: spaces of each level; None for one line.
    """
    text = json.dumps(masked(value), indent=indent, ensure_ascii=False)
    for char in set(text):
        if char != "\n" and not char.isprintable():
            text = text.replace(char, json.dumps(char)[1:-1])
    print(text)


def tell_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], sides: int = 2) -> None:
    """Print a table on stdout.

    Args:
        title: line above the table.
        columns: names of the columns; if empty, the table has no head.
        rows: cells of each row.
        sides: number of columns of a table without a head.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=as_text(title), title_justify="left", box=box.SIMPLE, show_header=bool(columns))
    for name in columns or [""] * sides:
        table.add_column(as_text(name), overflow="fold")
    for row in rows:
        table.add_row(*map(as_text, row))
    wide_console().print(table)


def wide_console() -> Console:
    """Return a rich console on stdout, as wide as the terminal; WIDTH columns if stdout is not a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)


def as_text(value: object) -> Text:
    """Return a value as plain text for rich, so that nothing in it is read as markup."""
    from rich.text import Text

    return Text(shown(str(value)))


def shown(text: str) -> str:
    """Return one line of text as it may be shown: secrets masked, unprintable characters escaped."""
    text = masked(text)
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text
    )


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: `1 shard`, `1,282 shards`; `plural` is for nouns such as `boxes`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names for a message, each cut to 100 characters: `a, b, c, d, e, ...`."""
    few = [name if len(name) <= 100 else f"{name[:100]}..." for name in names[:most]]
    return ", ".join([*few, "..."] if len(names) > most else few)


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them: `0.4 s`, `48 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size * 1.5:
            return f"{seconds / size:.1f} {unit}" if unit != "min" else f"{seconds / size:.0f} min"
    return f"{seconds:.1f} s" if 0.05 <= seconds < 0.95 else f"{seconds:.0f} s"


def data_size(count: int) -> str:
    """Return a number of bytes in the unit that suits it: `640 bytes`, `41 kB`, `12.3 MB`, `1.2 TB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:.0f} kB" if count >= 1000 else counted(count, "byte")


def note_traceback(error: BaseException) -> None:
    """Print an error with its traceback on stderr."""
    note(*"".join(traceback.format_exception(error)).splitlines())


def _note_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    note_traceback(error)
