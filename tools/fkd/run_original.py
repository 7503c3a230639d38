"""Run the original generator from a checkout with this project's demo teacher, on a CPU.

usage: run_original.py FKD/FKD_SLG/generate_soft_label.py [its own arguments]

Two names are replaced before its own code runs: timm.create_model gives the demo teacher, and DataParallel gives back
the model, whose .cuda() does nothing, since the original cannot run without a GPU otherwise.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import timm
import torch

from slg_wds.demo.teacher import lite0


def main() -> None:
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    teacher = lite0()
    timm.create_model = lambda *args, **kwargs: teacher
    if not torch.cuda.is_available():
        torch.nn.DataParallel = lambda model: model
        torch.nn.Module.cuda = lambda self, device=None: self
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
