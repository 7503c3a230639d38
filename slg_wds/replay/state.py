"""Where a loader is: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slg_wds.errors import ReplayError
from slg_wds.replay.order import check_fingerprint

VERSION = 1


def to_state(epoch: int, batches: int, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The state after `batches` batches of an epoch, JSON-able."""
    return {"version": VERSION, "epoch": epoch, "batches": batches, "fingerprint": dict(fingerprint)}


def from_state(state: Any, fingerprint: Mapping[str, Any]) -> tuple[int, int]:
    """(epoch, batches) of a state. Raises ReplayError for one of another order, naming each difference."""
    if not isinstance(state, Mapping) or state.get("version") != VERSION:
        raise ReplayError(f"this is not a loader's state of version {VERSION}: {str(state)[:80]}")
    check_fingerprint(state.get("fingerprint"), fingerprint)
    epoch, batches = state.get("epoch"), state.get("batches")
    if type(epoch) is not int or type(batches) is not int or epoch < 0 or batches < 0:
        raise ReplayError(f"the state is at batch {batches!r} of epoch {epoch!r}")
    return epoch, batches
