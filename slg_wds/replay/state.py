"""Where a loader is: what a checkpoint keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slg_wds.errors import ReplayError
from slg_wds.replay.order.fingerprint import check_fingerprint
from slg_wds.replay.temperature import LabelTemperature

VERSION = 1
Position = tuple[int, int]  # epoch, batches of it


class LoaderProgress:
    """How far the trainer is, and where its next walk begins.

    Both are kept, since a trainer may choose another epoch while it still takes batches of this one. A state then says
    what was taken last, and never the batches of one epoch under the number of another.

    Args:
        length: batches of an epoch.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._taken: Position = (0, 0)
        self._chosen: Position | None = None  # where the next walk begins; None: where the last one leads

    @property
    def epoch(self) -> int:
        """The epoch that is being walked, or that the next walk is of."""
        return self._taken[0] if self._chosen is None else self._chosen[0]

    @property
    def place(self) -> Position:
        """What a state says: the batches of its epoch that the trainer has been given."""
        return self._taken

    def choose(self, epoch: int) -> None:
        """Let the next walk be of this epoch; a loaded place in this very epoch stays."""
        if epoch != self.epoch or (self._chosen is None and self._all_taken):
            self.go_to((epoch, 0))

    def go_to(self, place: Position) -> None:
        """Let the next walk begin here."""
        self._taken = self._chosen = place

    def begin(self) -> Position:
        """Return where a walk begins: the chosen place, else the beginning of an epoch.

        That is the next epoch if all batches of this one were taken, also where nobody asked for one more.
        """
        self._taken = self._chosen or (self.epoch + self._all_taken, 0)
        self._chosen = None
        return self._taken

    def take(self, epoch: int, batches: int) -> None:
        """Note that so many batches of an epoch have been given to the trainer."""
        self._taken = (epoch, batches)

    def end(self, epoch: int) -> None:
        """Note that the trainer heard that an epoch has no more batches. An old walk's end changes nothing."""
        if self._taken[0] == epoch:
            self._taken = self._chosen or (epoch + 1, 0)

    @property
    def _all_taken(self) -> bool:
        return self._taken[1] == self._length


def to_state(
    epoch: int, batches: int, fingerprint: Mapping[str, Any], temperature: LabelTemperature
) -> dict[str, Any]:
    """Return the state after `batches` batches of an epoch, JSON-able, with the temperature if one was chosen."""
    state = {"version": VERSION, "epoch": epoch, "batches": batches, "fingerprint": dict(fingerprint)}
    return {**state, "temperature": temperature.of(epoch)} if temperature.chosen else state


def from_state(state: Any, fingerprint: Mapping[str, Any], temperature: LabelTemperature) -> tuple[int, int]:
    """Return (epoch, batches) of a state.

    Raises ReplayError for one of another order, naming each difference, or with labels of another temperature.
    """
    if not isinstance(state, Mapping) or state.get("version") != VERSION:
        raise ReplayError(f"this is not a loader's state of version {VERSION}: {str(state)[:80]}")
    check_fingerprint(state.get("fingerprint"), fingerprint)
    epoch, batches = state.get("epoch"), state.get("batches")
    if type(epoch) is not int or type(batches) is not int or epoch < 0 or batches < 0:
        raise ReplayError(f"the state is at batch {batches!r} of epoch {epoch!r}")
    temperature.check(epoch, state.get("temperature"))
    return epoch, batches
