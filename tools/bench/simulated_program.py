"""The program of a loader's process in `simulate_gpu.py replay`: decoding and cutting sleep there too."""

from simulate_replay import sleeping
from simulated import exact_sleeps

from slg_wds.replay.processes import program


def main(pipe: int, opening: int) -> None:
    """See `slg_wds.replay.processes.program.main`."""
    exact_sleeps()
    with sleeping():
        program.main(pipe, opening)
