"""args.yaml: the flags of a run in a file of its output folder, and how `--config` reads such a file."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path
from types import NoneType
from typing import Any

from slg_wds.errors import UsageError
from slg_wds.masking import masked
from slg_wds.store.whole_file import whole_file
from slg_wds.training.flags.parsers import Several, text_of

ARGS_FILE = "args.yaml"  # timm's name
HEAD = (
    "# `slg-wds train --config args.yaml --save_checkpoint_path OTHER` runs this training again, into another folder.\n"
    "# Flags on the command line come first.\n"
)
LEFT_OUT = "# {} is not here, because it holds a secret: give it on the command line.\n"


def without_secrets(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags whose values hold no password, key or signed URL."""
    return {name: value for name, value in flags.items() if masked(value) == value}


def write_args(folder: Path, flags: dict[str, Any]) -> None:
    """Write args.yaml. A comment names the flags that are left out because they hold secrets.

    Args:
        folder: where it goes.
        flags: names and values, as they were parsed.

    Raises:
        StoreError: it cannot be written.
    """
    import yaml

    kept = without_secrets(flags)
    head = HEAD + "".join(LEFT_OUT.format(name) for name in flags if name not in kept)
    lines = yaml.safe_dump({name: _plain(kept[name]) for name in kept}, sort_keys=False, allow_unicode=True)
    with whole_file(folder / ARGS_FILE) as file:
        file.write((head + lines).encode())


def _plain(value: Any) -> Any:
    """Return a value as YAML has it. It has no tuples, which KEY=VALUE may give: those are texts of a command line."""
    if not isinstance(value, dict):
        return value
    return {
        key: one if isinstance(one, (bool, int, float, NoneType)) else text_of(one)
        for key, one in value.items()
    }


def read_args(path: str, parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Return the flags of a file of lines `name: value`, checked and converted as on a command line.

    Args:
        path: the file. Names are those of args.yaml; `null` is as if the line were not there.
        parser: knows the flags. A value that does not fit one ends the process.

    Raises:
        UsageError: the file cannot be read, or names something that is no flag.
    """
    given = {name: value for name, value in _content(path).items() if value is not None}
    actions = {action.dest: action for action in parser._actions if action.dest not in ("config", "help")}
    words: list[str] = []
    for name, value in given.items():
        if name not in actions:
            near = difflib.get_close_matches(str(name), actions, 3)
            hint = f"near names are {', '.join(near)}" if near else "names are those of args.yaml"
            raise UsageError(f"there is no flag {name!r}", hint=hint, url=path)
        words += _words(actions[name], value, path)
    parsed = vars(parser.parse_args(words))
    return {name: parsed[name] for name in given}


def _content(path: str) -> dict[Any, Any]:
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the file of flags cannot be read: {error.strerror}", url=path) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"the file of flags is not YAML: {' '.join(str(error).split())}", url=path) from None
    if not isinstance(found, dict):
        raise UsageError("the file of flags has no lines `name: value`", url=path)
    return found


def _words(action: argparse.Action, value: Any, path: str) -> list[str]:
    """Return what gives the value on a command line."""
    if not action.option_strings:
        return [str(value)]
    flag = next(one for one in action.option_strings if one.startswith("--"))
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{action.dest} is {value!r}, not true or false", url=path)
        off = [f"--no-{flag[2:]}"] if isinstance(action, argparse.BooleanOptionalAction) else []
        return [flag] if value else off
    if isinstance(value, dict):
        texts = {key: one if isinstance(one, str) else repr(one) for key, one in value.items()}
        return [flag, *(f"{key}={text}" for key, text in texts.items())]
    if action.nargs is not None:
        return [flag, *map(str, value if isinstance(value, list) else [value])]
    several = value if isinstance(value, list) and isinstance(action, Several) else [value]
    return [f"{flag}={one}" for one in several]
