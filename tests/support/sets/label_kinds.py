"""Sets of every kind of labels, and the rules by which each can be read."""

from __future__ import annotations

from pathlib import Path

from support.sets.replay_sets import Made, make

RULES = {
    "tail": ("shared_tail_k5", "marginal_smoothing_k4", "marginal_renorm_k2", "smoothing", "hard"),
    "full": ("full", "marginal_smoothing_k5", "marginal_renorm_k5", "smoothing", "hard"),
    "hard": ("hard",),
}
EVERY = [(kind, rule) for kind, rules in RULES.items() for rule in rules]
LABEL_TYPES = {"tail": "shared_tail_k5", "full": "full", "hard": "hard"}


def of_every_kind(photographs: Path, folder: Path) -> dict[str, Made]:
    """A set of each kind, with 8 crops of each image, which it embeds."""
    return {
        kind: Made(
            make(photographs, folder / kind, label_type=label_type, embed_images="original", num_crops=8),
            None,
        )
        for kind, label_type in LABEL_TYPES.items()
    }
