"""How options are shown: --help and its panels, shell completion. `arguments.py` parses them.

Every option is defined once, as a documented field of a dataclass. A class with a `PANEL` gathers options that belong
together. The config of a command inherits the classes that it needs, so Python callers give plain keyword arguments.
tyro shows a nested dataclass as a panel of --help, so a config is made such a nested form.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg, subcommand

from slg_wds.config.checks import parts_of_union
from slg_wds.errors import UsageError

# The order of panels in every --help. Options without a panel stand before them, beside -h.
PANELS = (
    "", "Output", "Teacher", "Crop", "View", "Label", "Image", "Repair", "Check", "Machine", "Ray", "Object store",
    "FKD compatibility",
)  # fmt: skip
MARKERS = (FlagCreatePairsOff, OmitArgPrefixes)


def option(
    metavar: str | None = None, *, default: str | None = None, name: str | None = None, short: str | None = None,
    constructor: Callable[..., Any] | None = None,
) -> Any:  # fmt: skip
    """Say how --help shows an option. It stands in the annotation of the option's field.

    Args:
        metavar: what the user replaces by a value, such as N or FOLDER.
        default: the default in words, if the value itself would not tell, such as None.
        name: the option's name, if it is not the field's.
        short: a second spelling, such as -a.
        constructor: a function that makes the value. Its argument is parsed instead.
    """
    return arg(
        metavar=metavar,
        name=name,
        aliases=[short] if short else None,
        help_behavior_hint=None if default is None else f"(default: {default})",
        constructor=constructor,
    )


def required(metavar: str, unless: str = "") -> Any:
    """Say how --help shows an option that `check` requires, not the parser.

    Args:
        metavar: what the user replaces by a value.
        unless: when it is not required, as the end of a sentence.
    """
    return arg(metavar=metavar, help_behavior_hint=f"(required{unless})")


def print_help(config: type, prog: str) -> NoReturn:
    """Print the options of a command and end the process.

    Args:
        config: the class of the command's options.
        prog: program and command: `slg-wds inspect`.

    Raises:
        SystemExit: always, with code 0.
    """
    with contextlib.suppress(SystemExit):  # rich ends with 1 if whoever reads has left
        tyro.cli(_nested(config), prog=prog, args=["--help"], config=MARKERS)
    raise SystemExit(0)


def print_completion(configs: Mapping[str, type | None], prog: str, shell: str) -> None:
    """Print the script with which a shell completes the commands and options of a program.

    Args:
        configs: the config of each command; None for a command whose options are not completed.
        prog: name of the program.
        shell: bash, zsh or fish.

    Raises:
        SystemExit: always, because tyro ends the process.
        UsageError: the installed version of tyro does not know the shell.
    """
    kinds = [
        _with(_nested(config) if config else _dataclass(name, []), subcommand(name))
        for name, config in configs.items()
    ]
    commands: Any = Union[tuple(kinds)]  # noqa: UP007  # their number is known only now
    try:
        tyro.cli(commands, prog=prog, args=["--tyro-print-completion", shell], config=MARKERS)
    except AssertionError as error:
        raise UsageError(f"this version of tyro does not complete in {shell}", hint="upgrade tyro") from error


def _nested(config: type) -> Any:
    """Return a dataclass with one field per panel, each a dataclass of that panel's options."""
    hints = get_type_hints(config, include_extras=True)
    known = {field.name: field for field in dataclasses.fields(config)}
    panels: defaultdict[str, list[Any]] = defaultdict(list)
    for title, name, text in _options(config):
        panels[title].append((name, *_described(hints[name], known[name], text)))
    fields = [
        (f"panel_{number}", _with(_dataclass(title or "options", panels[title]), arg(name=title, help="")))
        for number, title in enumerate(sorted(panels, key=PANELS.index))
    ]
    return _dataclass(config.__name__, fields, inspect.getdoc(config) or "")


def _described(kind: Any, field: dataclasses.Field[Any], text: str) -> tuple[Any, dataclasses.Field[Any]]:
    """Return an option's type and field with its help.

    Without tyro's hint about the default of a flag or of None; a positional argument that may be left out in brackets.
    """
    given = [one for one in getattr(kind, "__metadata__", ()) if hasattr(one, "help_behavior_hint")]
    if any(one.constructor_factory for one in given):  # its argument has help and default
        return _with(kind, arg(help="")), dataclasses.field()
    hinted = any(one.help_behavior_hint is not None for one in given)
    silent = field.default is None or isinstance(field.default, bool)
    shown = arg(help=text, help_behavior_hint="" if silent and not hinted else None)
    metavar = next((one.metavar for one in given if one.metavar), None)
    if metavar and Positional in kind.__metadata__ and field.default is not dataclasses.MISSING:
        kind = _with(kind, arg(metavar=f"[{metavar}]"))
    field = copy.copy(field)
    kind, field.default = _without_none(kind, field.default)
    return _with(kind, shown), field


def _without_none(kind: Any, default: Any) -> tuple[Any, Any]:
    """Return a choice that may be left out as a choice without None, which a shell would complete, and a default.

    tyro wants a default of that type. Nobody sees it: --help has the default in words, and `arguments.py` parses.
    """
    notes = getattr(kind, "__metadata__", ())
    chosen, *others = parts_of_union(kind.__origin__ if notes else kind)
    if others != [type(None)] or get_origin(chosen) is not Literal:
        return kind, default
    first = get_args(chosen)[0]
    for note in notes:
        chosen = _with(chosen, note)
    return chosen, first


def _with(kind: Any, shown: object) -> Any:
    return Annotated[kind, shown]


def _dataclass(name: str, fields: Sequence[Any], about: str = "") -> type:
    # tyro shows the docstring above the options. dataclass makes one if there is none.
    return dataclasses.make_dataclass(name, fields, namespace={"__doc__": about}, kw_only=True)


def _options(config: type) -> Iterator[tuple[str, str, str]]:
    """Yield (panel, name, help) of every option: those that a class adds, before those that it inherits."""
    names = {field.name for field in dataclasses.fields(config)}
    for base in filter(dataclasses.is_dataclass, config.__mro__):
        texts = _texts(base.__module__).get(base.__name__, {})
        for name in [name for name in base.__annotations__ if name in names]:
            names.remove(name)
            yield vars(base).get("PANEL", ""), name, texts.get(name, "")


@cache
def _texts(module: str) -> dict[str, dict[str, str]]:
    """Return the docstrings of the fields of a module's classes, each as one line; tyro would keep the breaks."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            fields = found[node.name] = {}
            for field, after in zip(node.body, node.body[1:], strict=False):
                text = after.value if isinstance(after, ast.Expr) else None
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Constant):
                    fields[ast.unparse(field.target)] = " ".join(str(text.value).split())
    return found
