"""Checks of option values: what the command line refuses is refused from Python too."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from slg_wds.errors import UsageError

LOW_RANK = "lowrank"
# Threads, processes or actors: no machine has more cores, and no set divides well among more.
MOST_AT_ONCE = 4096
_OF_LABELS = ("label_type", "max_kl", "tail_classes", "extendable")
# These options go with labels over a teacher's own classes.
_OF_CLASSES = ("temp", "weights", "class_subset", "evaluate")
_MAY_BE_EMPTY = ("teacher_path",)  # then the published weights are loaded


def check_choices(config: Any) -> None:
    """Check the options that take one of a few words, and those that take a sequence.

    The command line does this while it parses; Python callers need it here.

    Args:
        config: a config of any command.

    Raises:
        UsageError: a value is none of the words of its option, or a single text where a sequence belongs.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        kinds = list(parts_of_union(hint))
        words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
        if words and value not in words and not (value is None and type(None) in kinds):
            near = difflib.get_close_matches(str(value), words, 1)
            raise UsageError(
                f"{flag(name)} {value!r} is not one of {', '.join(words)}",
                hint=f"did you mean {near[0]}?" if near else None,
            )
        if isinstance(value, str) and _is_sequence(kinds):
            raise UsageError(f"{flag(name)} is a sequence, not one text", hint=f"write [{value!r}]")


def check_not_empty(config: Any) -> None:
    """Raise UsageError if a text is empty: a variable of the shell that is not set is no place to write to."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        given = value != field.default and field.name not in _MAY_BE_EMPTY
        if given and "" in (value if isinstance(value, tuple) else [value]):
            raise UsageError(empty(_spelled(config, field.name)))


def _spelled(config: Any, name: str) -> str:
    """Return the option of a field as it is written: `--list`, or a positional argument by its word, `SET`."""
    notes = getattr(get_type_hints(type(config), include_extras=True)[name], "__metadata__", ())
    about = next((one for one in notes if getattr(one, "metavar", None)), None)
    if about is None:
        return flag(name)
    return about.metavar if Positional in notes else flag(about.name or name)


def empty(option: str) -> str:
    """Return what to say of an option whose value is an empty text."""
    return f"{option} is empty; a variable of the shell may not be set"


def check_least(config: Any, **least: int) -> None:
    """Check numeric options against their least values, given by the options' names.

    Raises:
        UsageError: a value is smaller. None is allowed.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise UsageError(f"{flag(name)} {value} is below {lowest}")


def check_at_once(config: Any, **least: int) -> None:
    """Check numbers of threads, processes or actors against their least values and MOST_AT_ONCE.

    Raises:
        UsageError: a value is out of range. None is allowed.
    """
    check_least(config, **least)
    for name in least:
        value = getattr(config, name)
        if value is not None and value > MOST_AT_ONCE:
            raise UsageError(f"{flag(name)} {value} is above {MOST_AT_ONCE:,}")


def check_share(config: Any, name: str) -> None:
    """Raise UsageError if the option of this name is neither None nor inside 0..1."""
    share = getattr(config, name)
    if share is not None and not 0 <= share <= 1:
        raise UsageError(f"{flag(name)} {share:g} is not inside 0..1")


def check_left_out(config: Any) -> None:
    """Check --max-left-out by itself and against --on-error.

    Raises:
        UsageError: the share is not inside 0..1, or --on-error leaves no image out.
    """
    check_share(config, "max_left_out")
    if config.max_left_out is not None and config.on_error != "skip":
        raise UsageError("--max-left-out is for --on-error skip: without that no image is left out")


def check_targets(config: Any, map_for_subset: bool = False) -> None:
    """Check the options that give targets against --no-targets.

    Args:
        config: a SourceConfig.
        map_for_subset: whether --class-map is needed for more than targets: for --class-subset auto.

    Raises:
        UsageError: targets are to be read and to be ignored.
    """
    if not config.no_targets:
        return
    for name in ("target_field", "class_map"):
        if getattr(config, name) is not None and not (name == "class_map" and map_for_subset):
            raise UsageError(
                f"{flag(name)} says how targets are read, but --no-targets ignores them",
                hint="leave one of the two out",
            )


def check_low_rank(config: Any) -> None:
    """Check --max-kl, and that no option contradicts low-rank labels.

    Args:
        config: a config with the options of labels.

    Raises:
        UsageError: --max-kl is not above 0, or an option contradicts the label type.
    """
    check_above_zero(config, "max_kl")
    if config.label_type != LOW_RANK:
        if config.max_kl is not None and config.label_type is not None:
            raise UsageError(f"--max-kl is for --label-type {LOW_RANK}, not {config.label_type}")
        return
    for name in ("values", "tail_classes", "extendable", "use_fp16"):
        if getattr(config, name, None) not in (None, False):
            raise UsageError(
                f"{flag(name)} is not for --label-type {LOW_RANK}, which stores every class in a form of its own",
                hint="--max-kl says how exact it is",
            )


def check_output(config: Any) -> None:
    """Check that no option contradicts --output.

    Args:
        config: a config with the options of labels and teachers.

    Raises:
        UsageError: an option contradicts --output.
    """
    _check_min_cosine(config)
    if config.output != "embedding":
        if config.normalize:
            raise UsageError("--normalize is for --output embedding")
        if config.values == "int8":
            raise UsageError(
                "--values int8 is for --output embedding", hint="log8 takes as few bytes of labels"
            )
    elif config.values == "log8":
        raise UsageError("--values log8 is for probabilities", hint="int8 takes as few bytes of embeddings")
    check_bank(config, config.output == "prototypes")
    if config.output == "labels":
        return
    usual = {one.name: one.default for one in dataclasses.fields(config)}
    for name in (*_OF_CLASSES, *(_OF_LABELS if config.output == "embedding" else ())):
        if getattr(config, name) != usual[name]:
            kind = "labels" if name in _OF_LABELS else "labels over a teacher's classes"
            raise UsageError(
                f"{flag(name)} is for {kind}, and --output {config.output} stores none",
                hint="give --bank-temp" if name == "temp" and config.output == "prototypes" else None,
            )


def check_above_zero(config: Any, name: str) -> None:
    """Raise UsageError unless an option is a number above 0, or not given."""
    value = getattr(config, name)
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"{flag(name)} {value:g} is not a number above 0")


def check_bank(config: Any, used: bool, what: str = "--output prototypes") -> None:
    """Check --bank and --bank-temp.

    Args:
        config: a config with these options.
        used: whether labels are made with a bank.
        what: what makes use of a bank, for messages.

    Raises:
        UsageError: one of the two is missing, has no use, or is out of range.
    """
    if used and config.bank is None:
        raise UsageError(
            f"{what} needs --bank FILE", hint="slg-wds prototypes makes one of a set of embeddings"
        )
    for name in ("bank", "bank_temp"):
        if not used and getattr(config, name) is not None:
            raise UsageError(f"{flag(name)} is for {what}")
    check_above_zero(config, "bank_temp")


def _check_min_cosine(config: Any) -> None:
    if config.min_cosine is None:
        return
    if config.output != "embedding":
        raise UsageError("--min-cosine is for --output embedding", hint="--max-kl says how exact labels are")
    if not 0 < config.min_cosine < 1:
        raise UsageError(
            f"--min-cosine {config.min_cosine:g} is not above 0 and below 1",
            hint="give --values float32 for the exact numbers" if config.min_cosine == 1 else None,
        )
    for name in ("values", "use_fp16"):
        if getattr(config, name) not in (None, False):
            raise UsageError(
                f"--min-cosine contradicts {flag(name)}: it stores embeddings in a form of its own",
                hint="leave one of the two out",
            )


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that does not fit into 63 bits."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} is not inside 0..2^63-1")


def flag(name: str) -> str:
    """Return the option of the command line that sets a field."""
    return f"--{name.replace('_', '-')}"


def _is_sequence(kinds: list[Any]) -> bool:
    kinds = [kind for kind in kinds if kind is not type(None)]
    return bool(kinds) and all(get_origin(kind) is tuple for kind in kinds)


def parts_of_union(hint: Any) -> Iterator[Any]:
    """Yield the types of a union, one after the other; of any other type, that type."""
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from parts_of_union(part)
    else:
        yield hint
