"""`slg-wds generate --dry-run`: what a run would do.

    prediction.py  images, shards, bytes and hours, from a few measured forwards
    sizes.py       the bytes of all shards, from a few samples
    variants.py    the hours at other precisions, for a GPU

Enters: the options. Leaves: numbers and lines for people; nothing is written.
"""

from __future__ import annotations

from slg_wds.generation.dry_run.prediction import DryRun, dry_run

__all__ = ["DryRun", "dry_run"]
