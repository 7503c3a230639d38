"""The command line: finds a command, parses its options, runs it, and turns errors into one line and an exit code.

Exit codes: 0 success; 1 an error of slg-wds; 2 wrong usage; 3 a label set lacks shards; 130 interrupted; 141 whoever
read the output has left, as `head` does.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import NamedTuple

from slg_wds import console, interrupts
from slg_wds.errors import SlgWdsError, UsageError


class Command(NamedTuple):
    """A command. Its modules are imported only when it is called, so that no command waits for the imports of others.

    Attributes:
        config: `module:class` of its options; None if the body parses the arguments itself.
        body: `module:function` that runs it and returns the exit code.
        summary: what it does, for the overview.
    """

    config: str | None
    body: str
    summary: str


# A command is added by its line here, in the order of the overview. Options are in slg_wds/config.
COMMANDS = {
    "demo": Command("config:DemoConfig", "demo.command:main", "label real photographs and show the labels"),
    "generate": Command("config:GenerateConfig", "generation.command:main", "label crops of images with a teacher"),
    "evaluate": Command("config:EvaluateConfig", "generation.evaluation:main", "measure a teacher on labelled images"),
    "train": Command(None, "training.command:main", "train a student on a label set"),
    "inspect": Command("config:InspectConfig", "inspection.inspect:main", "show how a set was made, and its state"),
    "verify": Command("config:VerifyConfig", "verification.verify:main", "check every byte and label of a set"),
    "report": Command("config:ReportConfig", "report.command:main", "draw label sets as a page for the browser"),
    "prototypes": Command("config:PrototypesConfig", "prototypes.command:main", "make a bank: labels of embeddings"),
    "ensemble": Command("config:EnsembleConfig", "ensembling:main", "merge label sets of the same crops into one"),
    "import": Command("config:ImportConfig", "interop.fkd.importing:main", "turn FKD's label files into a label set"),
    "export": Command("config:ExportConfig", "interop.fkd.exporting:main", "turn a label set into FKD's label files"),
}  # fmt: skip

# Commands that keep every finished shard, so that the same command goes on from there.
RESUMABLE = ("generate", "ensemble", "import")

READER_LEFT = 128 + 13  # as a shell calls the end by SIGPIPE

SHELLS = ("bash", "zsh", "fish")
# The annotation, as source text, of a config's only required argument. `_parse` then needs no parser.
ONE_TEXT = 'Annotated[Positional[str], option("SET")]'

LAUNCHER_FLAGS = {
    "world-size": "start it with torchrun, srun or several times on one --save-path",
    "rank": "start it with torchrun, srun or several times on one --save-path",
    "dist-url": "no process group is needed: processes share the work through --save-path",
    "dist-backend": "no process group is needed: processes share the work through --save-path",
    "multiprocessing-distributed": "start one process per GPU with --gpu N on one --save-path",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name.

    Args:
        arguments: a command and its options; None for those in sys.argv.

    Returns:
        The exit code.
    """
    console.prepare()
    try:
        try:
            return _dispatch(*((sys.argv[1:] if arguments is None else arguments) or [""]))
        finally:
            sys.stdout.flush()  # here, since an error at the end of the process could not be caught
    except OSError as error:
        if isinstance(error, BrokenPipeError) and console.reader_left():
            return READER_LEFT
        if (fault := console.stdout_fault()) is None:
            raise
        console.note(f"slg-wds: stdout cannot be written: {fault}")
        return 1


def _dispatch(name: str, *rest: str) -> int:
    if name in ("", "-h", "--help"):
        console.tell(*_overview())
        return 0 if name else 2
    if name == "--version":
        from slg_wds import __version__

        console.tell(f"slg-wds {__version__}")
        return 0
    if name == "--print-completion":
        return _print_completion(rest)
    if name not in COMMANDS:
        console.note(f"slg-wds: no command {name!r}{_suggestion(name)}", "", *_overview())
        return 2
    return _run(name, COMMANDS[name], rest)


def _suggestion(name: str) -> str:
    near = difflib.get_close_matches(name, [*COMMANDS, "--help", "--version", "--print-completion"], 1)
    return f"; did you mean {near[0]}?" if near else ""


def _overview() -> list[str]:
    width = max(map(len, COMMANDS))
    return [
        "usage: slg-wds COMMAND [options]      (slg-wds COMMAND --help lists them)",
        "",
        "Soft labels of strong teachers for many crops of every image, as WebDataset shards.",
        "",
        *(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()),
        "",
        "  --version                   print the version",
        "  --print-completion SHELL    print the completion of commands and options for bash, zsh or fish;",
        '                              bash:  eval "$(slg-wds --print-completion bash)"',
    ]


def _print_completion(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in SHELLS:
        console.note(f"slg-wds: --print-completion takes one of {', '.join(SHELLS)}")
        return 2
    from slg_wds.config.command_line import print_completion

    configs = {
        name: _resolve(command.config) if command.config else None for name, command in COMMANDS.items()
    }
    try:
        print_completion(configs, "slg-wds", arguments[0])
    except UsageError as error:
        console.note(f"slg-wds: {error}")
        return 2
    return 0


def _run(name: str, command: Command, arguments: Sequence[str]) -> int:
    kept = "; every finished shard is kept, run the same command to resume" if name in RESUMABLE else ""
    with interrupts.raised(f"slg-wds {name}", f"interrupted{kept}"):
        try:
            options: object = arguments
            if command.config is not None:
                _refuse_launcher_flags(arguments)
                options = _parse(name, _resolve(command.config), arguments)
                _import_numpy()
            return int(_resolve(command.body)(options) or 0)
        except SlgWdsError as error:
            console.note(f"slg-wds {name}: {error.for_command(_spellings(command))}")
            return error.exit_code
        except KeyboardInterrupt:
            console.note(f"slg-wds {name}: interrupted{kept}")
            return interrupts.INTERRUPTED


def _spellings(command: Command) -> set[str]:
    """Return how the options of a command are written; those of `train` it knows itself."""
    from slg_wds.config.arguments import spellings_of

    return set() if command.config is None else spellings_of(_resolve(command.config))


def _import_numpy() -> None:
    """Import numpy with one BLAS thread: by default it starts one per core, which spin and are never used here."""
    name = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(name)
    os.environ.setdefault(name, "1")
    importlib.import_module("numpy")
    if given is None:
        del os.environ[name]  # torch may load another BLAS, which needs its threads


def _refuse_launcher_flags(arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.lstrip("-").partition("=")[0].replace("_", "-")
        if argument.startswith("--") and flag in LAUNCHER_FLAGS:
            raise UsageError(f"{argument} belongs to FKD's own process launcher", hint=LAUNCHER_FLAGS[flag])


def _parse(name: str, kind: type, arguments: Sequence[str]) -> object:
    if len(arguments) == 1 and not arguments[0].startswith("-") and (needed := _only_required(kind)):
        return kind(**{needed: arguments[0]})  # the usual call; tyro takes 60 ms for the same
    from slg_wds.config.arguments import parse

    return parse(kind, f"slg-wds {name}", arguments)


def _only_required(config: type) -> str | None:
    """Return the name of the only required option, if that is one text in first place; else None."""
    required = [one for one in fields(config) if one.default is MISSING and one.default_factory is MISSING]
    return required[0].name if [one.type for one in required] == [ONE_TEXT] else None


def _resolve(place: str):  # type: ignore[no-untyped-def]
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(f"slg_wds.{module}"), attribute)
