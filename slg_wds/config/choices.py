"""Options that are one of several words, or sequences: what the command line sees to, for callers in Python too."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from slg_wds.errors import UsageError


def check_choices(config: Any) -> None:
    """Raise UsageError for an option of a config that is none of its words, or one text where several are expected."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        kinds = list(_kinds(hint))
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if words and value not in words and not (value is None and type(None) in kinds):
            near = difflib.get_close_matches(str(value), words, 1)
            raise UsageError(
                f"{flag(name)} {value!r} is not one of {', '.join(words)}",
                hint=f"did you mean {near[0]}?" if near else None,
            )
        if (
            isinstance(value, str)
            and kinds
            and all(get_origin(kind) is tuple for kind in kinds if kind is not type(None))
        ):
            raise UsageError(f"{flag(name)} is a sequence, not one text", hint=f"write [{value!r}]")


def flag(name: str) -> str:
    """The option of the command line that sets a field."""
    return f"--{name.replace('_', '-')}"


def _is_sequence(kinds: list[Any]) -> bool:
    kinds = [kind for kind in kinds if kind is not type(None)]
    return bool(kinds) and all(get_origin(kind) is tuple for kind in kinds)


def _kinds(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _kinds(part)
    else:
        yield hint
