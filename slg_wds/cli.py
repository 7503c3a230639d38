"""The command line: one frozen dataclass per command, turned into flags by tyro.

Exit codes: 0 done; 1 an error of slg-wds, told in one line; 2 wrong usage; 3 a label set lacks shards; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from types import FrameType

from slg_wds import console
from slg_wds.errors import IncompleteSetError, SlgWdsError, UsageError


@dataclass(frozen=True)
class Command:
    """Where a command's options and body are; both are imported only when it is called."""

    config: str
    body: str
    summary: str


COMMANDS = {
    "generate": Command(
        "slg_wds.config:GenerateConfig",
        "slg_wds.generation.command:main",
        "label crops of images with a teacher",
    ),
    "evaluate": Command(
        "slg_wds.config:EvaluateConfig",
        "slg_wds.generation.evaluation:main",
        "accuracy of a teacher on labelled images",
    ),
    "ensemble": Command(
        "slg_wds.config:EnsembleConfig",
        "slg_wds.ensembling:main",
        "merge label sets of the same crops into one",
    ),
    "import": Command(
        "slg_wds.config:ImportConfig",
        "slg_wds.interop.fkd.importing:main",
        "turn FKD's label files into a label set",
    ),
    "export": Command(
        "slg_wds.config:ExportConfig",
        "slg_wds.interop.fkd.exporting:main",
        "turn a label set into FKD's label files",
    ),
    "inspect": Command(
        "slg_wds.config:InspectConfig",
        "slg_wds.inspection.inspect:main",
        "say what a label set is, how far it is, and show an image's labels",
    ),
    "verify": Command(
        "slg_wds.config:VerifyConfig",
        "slg_wds.verification.verify:main",
        "check every byte and label of a set, and mend it",
    ),
    "report": Command(
        "slg_wds.config:ReportConfig", "slg_wds.report.page:main", "draw label sets as a page for the browser"
    ),
}

EXIT_CODES: dict[type[SlgWdsError], int] = {UsageError: 2, IncompleteSetError: 3}

LAUNCHER_FLAGS = {
    "world-size": "start it with torchrun, srun or several times on one --save_path",
    "rank": "start it with torchrun, srun or several times on one --save_path",
    "dist-url": "no process group is needed: processes share the work through --save_path",
    "dist-backend": "no process group is needed: processes share the work through --save_path",
    "multiprocessing-distributed": "start one process per GPU with --gpu N on one --save_path",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named by the arguments (default: the process's own) and return the exit code."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1] if rest else []
    console.prepare()
    if name in ("", "-h", "--help"):
        console.tell(*_overview())
        return 0 if name else 2
    if name == "--version":
        from slg_wds import __version__

        console.tell(f"slg-wds {__version__}")
        return 0
    if name not in COMMANDS:
        console.note(f"slg-wds: no command {name!r}{_meant(name)}", "", *_overview())
        return 2
    return _run(name, COMMANDS[name], rest)


def _meant(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, 1)
    return f"; did you mean {near[0]}?" if near else ""


def _overview() -> list[str]:
    width = max(map(len, COMMANDS))
    return [
        "usage: slg-wds COMMAND [options]      (slg-wds COMMAND --help lists them)",
        "",
        "Soft labels of strong teachers for many crops of every image, as WebDataset shards.",
        "",
        *(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()),
    ]


def _run(name: str, command: Command, arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _refuse_launcher_flags(arguments)
        config = _parse(name, command, arguments)
        _import_numpy()
        code = _resolve(command.body)(config)
        return int(code or 0)
    except SlgWdsError as error:
        console.note(f"slg-wds {name}: {error}")
        return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)
    except KeyboardInterrupt:
        console.note(
            f"slg-wds {name}: interrupted; every finished shard is kept, run the same command to resume"
        )
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """SIGTERM ends a run as Ctrl-C does: workers stop, temporaries are removed."""
    raise KeyboardInterrupt


def _import_numpy() -> None:
    """Import it without the threads of its BLAS, one a core, which spin as they start and have nothing to do here."""
    name = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(name)
    os.environ.setdefault(name, "1")
    importlib.import_module("numpy")
    if given is None:
        del os.environ[name]  # torch may bring a BLAS of its own


def _refuse_launcher_flags(arguments: Sequence[str]) -> None:
    for argument in arguments:
        flag = argument.lstrip("-").partition("=")[0].replace("_", "-")
        if argument.startswith("--") and flag in LAUNCHER_FLAGS:
            raise UsageError(
                f"{argument} belongs to the original's process launcher", hint=LAUNCHER_FLAGS[flag]
            )


def _parse(name: str, command: Command, arguments: Sequence[str]) -> object:
    kind = _resolve(command.config)
    if len(arguments) == 1 and not arguments[0].startswith("-") and (needed := _one_needed(kind)):
        return kind(**{needed: arguments[0]})  # as it is called mostly: tyro takes 60 ms to say the same
    import tyro

    said = io.StringIO()  # the parser's complaints repeat arguments, which may be anything
    try:
        with contextlib.redirect_stderr(said):
            config: object = tyro.cli(
                kind,
                prog=f"slg-wds {name}",
                args=_gathered(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    finally:
        console.note(*said.getvalue().splitlines())
    return config


def _one_needed(config: type) -> str | None:
    """The name of the text that is all that must be given of options; None where that is not so."""
    needed = [one for one in fields(config) if one.default is MISSING and one.default_factory is MISSING]
    return needed[0].name if [one.type for one in needed] == ["Positional[str]"] else None


def _gathered(arguments: Sequence[str]) -> list[str]:
    """The arguments with all values of a repeated --store-option behind one: tyro would keep the last's alone."""
    others: list[str] = []
    options: list[str] = []
    place = others
    for argument in arguments:
        flag, _, value = argument.partition("=")
        if flag in ("--store-option", "--store_option"):
            options += [value] if value else []
            place = others if value else options
            continue
        if argument.startswith("-"):
            place = others
        place.append(argument)
    return [*others, "--store-option", *options] if options else others


def _resolve(place: str):  # type: ignore[no-untyped-def]
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)
