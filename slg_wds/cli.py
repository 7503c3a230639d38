"""The command line: one frozen dataclass per command, turned into flags by tyro.

Exit codes: 0 done; 1 an error of slg-wds, told in one line; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from types import FrameType

from slg_wds.errors import SlgWdsError, UsageError


@dataclass(frozen=True)
class Command:
    """Where a command's options and body are; both are imported only when it is called."""

    config: str
    body: str
    summary: str


COMMANDS = {
    "generate": Command(
        "slg_wds.config:GenerateConfig", "slg_wds.generating:main", "label crops of images with a teacher"
    ),
    "evaluate": Command(
        "slg_wds.config:EvaluateConfig", "slg_wds.evaluating:main", "accuracy of a teacher on labelled images"
    ),
    "ensemble": Command(
        "slg_wds.config:EnsembleConfig",
        "slg_wds.ensembling:main",
        "merge label sets of the same crops into one",
    ),
    "import": Command(
        "slg_wds.config:ImportConfig",
        "slg_wds.interop.importing:main",
        "turn FKD's label files into a label set",
    ),
    "export": Command(
        "slg_wds.config:ExportConfig",
        "slg_wds.interop.exporting:main",
        "turn a label set into FKD's label files",
    ),
    "inspect": Command(
        "slg_wds.config:InspectConfig",
        "slg_wds.report.inspect:main",
        "say what a label set is, how far it is, and show an image's labels",
    ),
    "verify": Command(
        "slg_wds.config:VerifyConfig",
        "slg_wds.report.verify:main",
        "check every byte and label of a set, and mend it",
    ),
    "report": Command(
        "slg_wds.config:ReportConfig", "slg_wds.report.page:main", "draw label sets as a page for the browser"
    ),
}

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
    if name in ("", "-h", "--help"):
        print(_overview())
        return 0 if name else 2
    if name == "--version":
        from slg_wds import __version__

        print(f"slg-wds {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"slg-wds: no command {name!r}\n\n{_overview()}", file=sys.stderr)
        return 2
    return _run(name, COMMANDS[name], rest)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: slg-wds COMMAND [options]      (slg-wds COMMAND --help lists them)",
            "",
            "Soft labels of strong teachers for many crops of every image, as WebDataset shards.",
            "",
            *lines,
        ]
    )


def _run(name: str, command: Command, arguments: Sequence[str]) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _refuse_launcher_flags(arguments)
        config = _parse(name, command, arguments)
        _import_numpy()
        code = _resolve(command.body)(config)
        return int(code or 0)
    except UsageError as error:
        print(f"slg-wds {name}: {error}", file=sys.stderr)
        return 2
    except SlgWdsError as error:
        print(f"slg-wds {name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"slg-wds {name}: interrupted; every finished shard is kept, run the same command to resume",
            file=sys.stderr,
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

    config: object = tyro.cli(
        kind,
        prog=f"slg-wds {name}",
        args=_gathered(arguments),
        config=(tyro.conf.FlagCreatePairsOff,),
    )
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
