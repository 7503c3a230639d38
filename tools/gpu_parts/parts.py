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
    "machine": Part("gpu_parts.machine:describe", 30),
    "forwards": Part("gpu_parts.forwards:check", 70),
    "sets": Part("gpu_parts.sets:check", 80),
    "batches": Part("gpu_parts.batches:check", 40),
    "generation": Part("gpu_parts.generation:usual_settings", 105),
    "replay": Part("gpu_parts.replay:check", 45),
    "training": Part("gpu_parts.training:check", 120),
    "resuming": Part("gpu_parts.resuming:check", 35),
    "faults": Part("gpu_parts.faults:check", 15),
    "simulation": Part("gpu_parts.simulation:check", 40),
    "settings": Part("gpu_parts.generation:other_settings", 240),
}
