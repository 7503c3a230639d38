"""The arguments of a command -> its config. What is wrong with them is said in one line, in the words of --help.

tyro tells options from values, and leaves the values as texts. They become numbers here: tyro's own messages name types
of Python, and differ between its versions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import inspect
import io
import re
from collections.abc import Sequence
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import tyro
from tyro.conf import Positional
from tyro.constructors import PrimitiveConstructorSpec

from slg_wds.config.checks import flag, parts_of_union
from slg_wds.config.command_line import MARKERS, print_help
from slg_wds.errors import UsageError

Config = TypeVar("Config")


class _Option(NamedTuple):
    """An option, or a positional argument.

    Attributes:
        name: the name of its field.
        field: the field of the config.
        kind: the type of its value, without None.
        optional: whether the value may also be None.
        notes: tyro's annotations.
        spellings: how it is written, such as -a and --arch; none for a positional argument.
        metavar: the word that stands for its value in --help.
    """

    name: str
    field: dataclasses.Field[Any]
    kind: Any
    optional: bool
    notes: tuple[Any, ...]
    spellings: tuple[str, ...]
    metavar: str

    def __str__(self) -> str:
        return " ".join([*self.spellings[:1], self.metavar])

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.default is self.field.default_factory is dataclasses.MISSING

    @property
    def parts(self) -> tuple[Any, ...]:
        """The type of each value, in order. An ellipsis means: any number of values of the type before it."""
        return get_args(self.kind) if get_origin(self.kind) is tuple else (self.kind,)


def parse(config: type[Config], prog: str, arguments: Sequence[str]) -> Config:
    """Parse the arguments of a command into its config.

    Args:
        config: the class of the command's options.
        prog: program and command, as messages name them: `slg-wds inspect`.
        arguments: what the user typed after the command.

    Raises:
        SystemExit: after --help, with code 0.
        UsageError: the arguments do not fit the options, or the config refuses a value.
    """
    if not {"-h", "--help"}.isdisjoint(arguments):
        print_help(config, prog)
    options = _options_of(config)
    texts, unknown = _texts(options, prog, arguments)
    if unknown:
        _refuse(unknown, options, prog)
    missing = [str(one) for one in options if one.required and one.name not in texts]
    if missing:
        example = re.search(r"^Example: (.*)$", inspect.getdoc(config) or "", re.MULTILINE)
        raise UsageError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing",
            hint=f"for example: {example[1]}" if example else f"see {prog} --help",
        )
    return config(**{one.name: _value(one, texts[one.name]) for one in options if one.name in texts})


def spellings_of(config: type) -> set[str]:
    """Return how the options of a command are written."""
    return {"--help", *(spelling for one in _options_of(config) for spelling in one.spellings)}


def _options_of(config: type) -> list[_Option]:
    hints = get_type_hints(config, include_extras=True)
    return [_option(field, hints[field.name]) for field in dataclasses.fields(config)]


def _option(field: dataclasses.Field[Any], hint: Any) -> _Option:
    notes = getattr(hint, "__metadata__", ())
    about = next((one for one in notes if hasattr(one, "metavar")), None)
    kinds = list(parts_of_union(hint.__origin__ if notes else hint))
    (kind,) = (one for one in kinds if one is not type(None))
    name, aliases, metavar = (about.name, about.aliases, about.metavar) if about else (None, None, None)
    if about and about.constructor_factory:  # the constructor's parameter is the option
        (name,) = inspect.signature(about.constructor_factory()).parameters
    spelling = flag(name or field.name)
    if field.default is True:
        spelling = spelling.replace("--", "--no-", 1)
    spellings = () if Positional in notes else (*(aliases or ()), spelling)
    if get_origin(kind) is Literal:
        metavar = metavar or f"{{{','.join(get_args(kind))}}}"
    return _Option(field.name, field, kind, len(kinds) > 1, notes, spellings, metavar or "")


def _texts(
    options: Sequence[_Option], prog: str, arguments: Sequence[str]
) -> tuple[dict[str, Any], Sequence[str]]:
    """Return the values of each option that is given, by its name, and the words that belong to no option.

    Raises:
        UsageError: an option has too few values.
    """
    words = [_hyphened(word) for word in arguments]  # tyro's oldest version refuses both spellings at once
    complaint = io.StringIO()
    flat: Any = dataclasses.make_dataclass("Options", map(_field_of_texts, options), kw_only=True)
    try:
        with contextlib.redirect_stderr(complaint):
            parsed, unknown = tyro.cli(
                flat, prog=prog, args=words, config=MARKERS, add_help=False, return_unknown_args=True
            )
    except SystemExit:
        said = complaint.getvalue()
        named = (one for one in options if any(re.search(rf"[\s'/]{name}\b", said) for name in one.spellings))
        if (option := next(named, None)) is None:
            raise UsageError(" ".join(said.split())) from None
        raise UsageError(f"{option.spellings[-1]} lacks a value: {option}") from None
    return {name: value for name, value in vars(parsed).items() if value not in (None, [])}, unknown


def _hyphened(word: str) -> str:
    """Write the name of an option with hyphens: --num_crops=4 becomes --num-crops=4."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if word.startswith("--") else word


def _field_of_texts(option: _Option) -> tuple[str, Any, dataclasses.Field[Any]]:
    """Return the field by which tyro parses an option: its values stay texts, None means that it is not given."""
    if option.kind is bool or option.kind == dict[str, str]:
        kind = option.kind
        for note in option.notes:
            kind = Annotated[kind, note]
        return option.name, kind, option.field
    spec: PrimitiveConstructorSpec[Any] = PrimitiveConstructorSpec(
        nargs="*" if ... in option.parts else len(option.parts),
        metavar=option.metavar,
        instance_from_str=list,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )
    kind = Any
    for note in (*option.notes, spec):
        kind = Annotated[kind, note]
    not_given: Any = None
    return option.name, kind, dataclasses.field(default=not_given)


def _refuse(unknown: Sequence[str], options: Sequence[_Option], prog: str) -> NoReturn:
    word = next((one for one in unknown if one.startswith("-")), unknown[0])
    if not word.startswith("-"):
        raise UsageError(f"{word!r} is one argument too many", hint=f"see {prog} --help")
    name = word.partition("=")[0]
    spellings = [spelling for one in options for spelling in one.spellings]
    near = difflib.get_close_matches(name, spellings, 1)
    hint = f"did you mean {near[0]}?" if near else f"{prog} --help lists the options"
    raise UsageError(f"there is no option {name}", hint=hint)


def _value(option: _Option, given: Any) -> Any:
    """Turn the texts that are given for an option into its value. Raises UsageError if one is no number."""
    if not isinstance(given, list):  # tyro has made the value of a flag, and of KEY=VALUE words
        return given
    if option.optional and given == ["None"]:
        return None
    parts = option.parts
    kinds = parts[:1] * len(given) if ... in parts else parts
    values = tuple(_read(option, kind, text) for kind, text in zip(kinds, given, strict=True))
    return values if get_origin(option.kind) is tuple else values[0]


def _read(option: _Option, kind: Any, text: str) -> Any:
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise UsageError(f"{option.spellings[-1]} {text!r} is not {number}", hint=f"give {option}") from None
