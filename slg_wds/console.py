"""Everything that the package prints, on stdout and stderr; counts, durations and tables.

File names, messages and paths may come from anybody. This module masks secrets, and escapes what would move a
terminal's cursor, colour it, hide text or forge a line. No other module prints.
"""

from __future__ import annotations

import io
import json
import os
import select
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from slg_wds.masking import masked

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

WIDTH = 160  # columns of a table that goes to a file or pipe
WHOLE = 20  # characters of a cell that is never broken over lines


def prepare() -> None:
    """Make stdout escape characters that its encoding lacks; print tracebacks of crashes through this module.

    A stdout or stderr that the shell closed (`>&-`), which Python calls None, becomes one that drops what it is given.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr is from the start
    sys.excepthook = _note_crash


def reader_left() -> bool:
    """Return whether nobody reads stdout or stderr any more, as after `slg-wds inspect SET | head -1`.

    What is printed there from now on is dropped, so that the end of the process says nothing about it.
    """
    closed = [stream for stream in (sys.stdout, sys.stderr) if _is_broken(stream)]
    for stream in closed:
        _drop(stream)
    return bool(closed)


def stdout_fault() -> str | None:
    """Return why stdout cannot be written, such as a full disk; None if it can. A line of nothing is tried.

    If not, what was not written yet, and what is printed from now on, is dropped.
    """
    try:
        print(flush=True)
    except OSError as error:
        _drop(sys.stdout)
        return error.strerror or str(error)
    return None


def _drop(stream: TextIO) -> None:
    """Let a stream lead nowhere, so that the end of the process says nothing about it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _is_broken(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe without a reader."""
    try:
        poll, descriptor = select.poll(), -1 if stream is None else stream.fileno()
    except (AttributeError, OSError, ValueError):  # Windows, a notebook's output, a closed stream
        return False
    poll.register(descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def tell(*lines: str) -> None:
    """Print lines on stdout, which is for results."""
    for line in lines:
        print(shown(line), flush=True)


def note(*lines: str) -> None:
    """Print lines on stderr, which is for progress and errors."""
    for line in lines:
        with losing_notes():
            print(shown(line), file=sys.stderr, flush=True)


@contextmanager
def losing_notes() -> Iterator[None]:
    """Lose what is printed on stderr in the block if it cannot be written. The work is worth more.

    The disk of a log is full, or a terminal was closed. What is printed there later is lost too.

    Raises:
        BrokenPipeError: whoever read stderr has left, as `head` does; then the command ends.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError:
        _drop(sys.stderr)


@contextmanager
def note_if_slow(line: str, seconds: float) -> Iterator[None]:
    """Print a line on stderr if the block takes long, so that nobody takes it for a process that hangs."""
    timer = threading.Timer(seconds, note, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def warn(text: str, level: int = 1) -> None:
    """Issue a UserWarning.

    Args:
        text: one line.
        level: which line of code the warning names. Let f call `warn`: 1 names the line that called f, 2 the line that
            called f's caller, and so on.
    """
    warnings.warn(shown(text), UserWarning, stacklevel=level + 2)


@contextmanager
def warnings_as_notes(program: str, often: Literal["always", "default"] = "always") -> Iterator[None]:
    """Print the warnings of a command as lines on stderr, each at once, since the command may take hours.

    Args:
        program: what each line begins with, such as `slg-wds import`.
        often: "default" prints a warning once where libraries may repeat theirs at every step.
    """

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        note(f"{program}: warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter(often, UserWarning)
        warnings.showwarning = show
        yield


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
    """Print a table on stdout: as wide as the terminal, WIDTH columns elsewhere, no blanks at line ends.

    Where the columns have no room beside each other, each row is a table of its own.

    Args:
        title: line above the table.
        columns: names of the columns; if empty, the table has no head.
        rows: cells of each row.
        sides: number of columns of a table without a head.
    """
    from rich.console import Console

    # rich does not print itself: where the reader has left, it would end the process.
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, force_jupyter=False)
    head = [as_text(name) for name in columns or [""] * sides]
    cells = [[as_text(value) for value in row] for row in rows]
    of_all = list(zip(head, *cells, strict=True))
    tables = [_table(of_all, console.width)]
    if columns and _least(of_all, True, console.width) is None:
        blank = as_text("")
        tables = [_table([(blank, *head), (blank, *row)], console.width) for row in cells]
    with console.capture() as drawn:
        console.print(as_text(title), style="table.title", soft_wrap=True)
        for table in tables:
            console.print(table, crop=False)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _table(columns: Sequence[Sequence[Text]], width: int) -> Table:
    """Return a table of these columns: the name of each, which may be empty, and its cells."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=any(name for name, *_ in columns))
    for (name, *_), own in zip(columns, _widths(columns, width), strict=True):
        table.add_column(name, overflow="fold", width=own)
    for row in zip(*(cells for _, *cells in columns), strict=True):
        table.add_row(*row)
    return table


def _widths(columns: Sequence[Sequence[Text]], width: int) -> list[int | None]:
    """Return the width of each column; all None where not even words have room.

    A column gets its least, and then those that want little more get all of it. rich would break words of one column
    where another has room to spare.
    """
    least = next((one for whole in (True, False) if (one := _least(columns, whole, width))), None)
    if least is None:
        return [None] * len(columns)
    more = [max(cell.cell_len for cell in column) - own for column, own in zip(columns, least, strict=True)]
    spare, widths = width - _width_of(least), list[int | None](least)
    for turn, at in enumerate(sorted(range(len(more)), key=more.__getitem__)):
        given = min(more[at], spare // (len(more) - turn))
        widths[at], spare = least[at] + given, spare - given
    return widths


def _least(columns: Sequence[Sequence[Text]], whole: bool, width: int) -> list[int] | None:
    """Return the least width of each column at which no word of at most WHOLE characters is broken over lines.

    Args:
        columns: name and cells of each column.
        whole: whether cells of at most WHOLE characters are not broken either.
        width: of the table. None is returned if it is less.
    """
    from rich.cells import cell_len

    parts = [[word for cell in column for word in cell.plain.split()] for column in columns]
    if whole:
        parts = [
            words + [cell.plain for cell in cells] for words, (_, *cells) in zip(parts, columns, strict=True)
        ]
    lengths = [[cell_len(part) for part in column] for column in parts]
    least = [max((one for one in column if one <= WHOLE), default=1) for column in lengths]
    return least if _width_of(least) <= width else None


def _width_of(columns: Sequence[int]) -> int:
    """Return the width of a table: a blank on each side of a column, and one at each edge of it."""
    return sum(columns) + 3 * len(columns) + 1


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


def per_second(rate: float) -> str:
    """Return a rate for people: `1,158`, `46`, `0.2`."""
    return f"{rate:,.0f}" if rate >= 9.5 else f"{rate:.1f}"


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
