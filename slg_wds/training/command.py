"""Start and end a run: processes, errors, exit codes.

torch is imported only after the flags are parsed, so that --help and mistakes are quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from slg_wds.console import note, note_traceback, prepare, warnings_as_notes
from slg_wds.errors import SlgWdsError
from slg_wds.training.flags import Settings, parse
from slg_wds.training.flags.definitions import make_parser


def main(arguments: Sequence[str] | None = None, prog: str = "slg-wds train") -> int:
    """Train as the flags say.

    Args:
        arguments: the flags; None for those of the process.
        prog: name of the program in messages.

    Returns:
        The exit code: 0 success; 1 an error; 2 wrong usage; 3 a label set lacks shards; 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    prepare()
    args = parse(arguments, prog)

    from slg_wds.training.output.folder import CHECKPOINT, held
    from slg_wds.training.processes import launch, leave, may_be_awaited

    if args.multiprocessing_distributed and "RANK" not in os.environ:
        launch(args, arguments)
    code = 0
    try:
        with warnings_as_notes(prog, "default"):
            _train(args)
    except SlgWdsError as error:
        note(f"{prog}: {error.for_command(make_parser(prog).spellings)}")
        code = error.exit_code
    except KeyboardInterrupt:
        kept = CHECKPOINT in held(args)
        note(f"{prog}: interrupted" + ("; --resume auto goes on from the last checkpoint" if kept else ""))
        code = 130
    except Exception as error:
        if not may_be_awaited():
            leave(1)
            raise
        note_traceback(error)  # `leave` ends the process before Python would print it
        code = 1
    leave(code)
    return code


def _train(args: Settings) -> None:
    from slg_wds.training.faults import run_faults
    from slg_wds.training.loop import run
    from slg_wds.training.processes import end_together, start_process_group, take_place

    take_place(args)
    with run_faults(args):
        start_process_group(args)
        run(args)
        end_together(args)
