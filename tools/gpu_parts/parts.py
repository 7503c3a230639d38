"""Which parts gpu_check has, in order of value, and how long each may take."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """One part.

    Attributes:
        runs: module:function, which takes `Findings`.
        seconds: after these it begins nothing new; a little later it is killed.
    """

    runs: str
    seconds: float


PARTS = {
    "machine": Part("gpu_parts.rates.machine:describe", 30),
    "forwards": Part("gpu_parts.checks.forwards:check", 70),
    "sets": Part("gpu_parts.checks.sets:check", 80),
    "batches": Part("gpu_parts.checks.batches:check", 50),
    "generation": Part("gpu_parts.rates.generation:usual_settings", 105),
    "replay": Part("gpu_parts.rates.replay:check", 65),
    "training": Part("gpu_parts.rates.training:check", 120),
    "resuming": Part("gpu_parts.checks.resuming:check", 55),
    "faults": Part("gpu_parts.checks.faults:check", 15),
    "commands": Part("gpu_parts.checks.commands:check", 70),
    "simulation": Part("gpu_parts.rates.simulation:check", 40),
    "settings": Part("gpu_parts.rates.generation:other_settings", 240),
}
