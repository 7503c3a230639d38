"""A parser whose errors are one line, its --help, and the actions of flags that take several values."""

from __future__ import annotations

import argparse
import ast
import difflib
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from slg_wds.console import note, tell


class Parser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line and ends with exit code 2."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # A type that is registered takes the place of Python's, whose name argparse would put into its message.
        self.register("type", int, _number(int, "a whole number"))
        self.register("type", float, _number(float, "a number"))

    @property
    def spellings(self) -> set[str]:
        """How the flags are written."""
        return set(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        """Print the message and end the process."""
        note(f"{self.prog}: {message} (--help lists the flags)")
        self.exit(2)

    def print_help(self, file: Any = None) -> None:
        """Print the flags on stdout. argparse itself would be silent where that cannot be written."""
        tell(*self.format_help().splitlines())

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Report words that are neither flags nor values of flags, and end the process."""
        word = next((one for one in unknown if one.startswith("-")), unknown[0])
        if not word.startswith("-"):
            several = "IMAGES is one folder, and --softlabel_path is given once for each label set"
            self.error(f"{word!r} is one argument too many; {several}")
        name = word.partition("=")[0]
        near = difflib.get_close_matches(name, self.spellings, 1)
        self.error(f"there is no flag {name}" + (f"; did you mean {near[0]}?" if near else ""))


class HelpFormatter(argparse.HelpFormatter):
    """Fills paragraphs, keeps indented lines as they are, and names each default that a help text does not name."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = text.strip("\n").split("\n\n")
        lines = [
            part.splitlines() if part.startswith(" ") else self._split_lines(part, width - len(indent))
            for part in parts
        ]
        return "\n\n".join(textwrap.indent("\n".join(one), indent) for one in lines)

    def _get_help_string(self, action: argparse.Action) -> str:
        # Python 3.10 itself adds the default of flags that have a --no- form.
        text, default = (action.help or "").removesuffix(" (default: %(default)s)"), action.default
        if "(default:" in text or default in ("", argparse.SUPPRESS) or isinstance(default, (bool, dict)):
            return text
        if isinstance(default, list):
            default = " ".join(map(str, default))
        shown = f"{default:g}" if isinstance(default, float) else default
        return f"{text} (default: {shown})" if shown not in (None, "") else text


def _number(kind: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    """Return a function that turns a text into a number, and refuses a text that is none.

    Args:
        kind: makes the number.
        what: what the text should be, for the message.
    """

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None

    return read


class Several(argparse.Action):
    """A flag that may be given several times; what is given takes the place of the default."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: Any = None
    ) -> None:
        """Add a value to those that were given before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), values])


class KeyValues(argparse.Action):
    """A flag of words KEY=VALUE, as timm has them: numbers, lists and None are read as Python writes them."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, flag: Any = None
    ) -> None:
        """Store the words as a mapping."""
        found: dict[str, Any] = {}
        for word in values:
            key, equals, text = word.partition("=")
            if not key or not equals:
                text = f"{word!r} is not KEY=VALUE; IMAGES stand before it or after another flag"
                raise argparse.ArgumentError(self, text)
            found[key] = value_of(text)
        setattr(namespace, self.dest, found)


def value_of(text: str) -> Any:
    """Return what a text stands for behind KEY=: a literal of Python, else itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def text_of(value: Any) -> str:
    """Return a text that stands for a value behind KEY=."""
    return value if isinstance(value, str) and value_of(value) == value else repr(value)
