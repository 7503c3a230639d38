"""The arguments of `slg-wds train` -> its settings."""

from __future__ import annotations

from collections.abc import Sequence

from slg_wds.errors import UsageError
from slg_wds.training.flags.definitions import make_parser
from slg_wds.training.flags.parsers import Parser
from slg_wds.training.flags.settings import Settings


def parse(arguments: Sequence[str] | None = None, prog: str = "slg-wds train") -> Settings:
    """Parse flags; None for those of the process. A mistake and --help end the process."""
    parser = make_parser(prog)
    early = Parser(prog=prog, add_help=False, allow_abbrev=False)
    early.add_argument("-c", "--config")
    path = early.parse_known_args(arguments)[0].config
    if path is not None:
        from slg_wds.training.flags.args_file import read_args

        try:
            parser.set_defaults(**read_args(path, make_parser(f"{prog} --config {path}")))
        except UsageError as error:
            parser.error(str(error))
    settings, unknown = parser.parse_known_args(arguments, Settings())
    if unknown:
        parser.refuse(unknown)
    if settings.config != path:
        parser.error("--config must be written out")
    settings.flags = {name: value for name, value in vars(settings).items() if name != "config"}
    settings.deterministic, settings.seed = settings.seed is not None, settings.seed or 0
    return settings
