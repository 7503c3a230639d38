"""The flags of `slg-wds train`: FKD's with FKD's meaning, and our own.

    settings.py     the parsed flags
    definitions.py  every flag, in the groups of --help
    parsers.py      the parser, its errors of one line, flags of several values
    parsing.py      arguments -> settings
    args_file.py    args.yaml: flags in a file
    checks.py       refuses flags that contradict each other or the machine

Enters: the arguments of the command. Leaves: settings. It imports no torch, so that --help is quick.
"""

from __future__ import annotations

from slg_wds.training.flags.checks import check, check_chains
from slg_wds.training.flags.parsing import parse
from slg_wds.training.flags.settings import Settings

__all__ = ["Settings", "check", "check_chains", "parse"]
