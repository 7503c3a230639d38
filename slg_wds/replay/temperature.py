"""The teacher's temperature at which a loader reads labels: none, one, or one for each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable

from slg_wds.errors import ReplayError
from slg_wds.format.recovery.temperature import checked_temperature

Temperature = float | Callable[[int], float]


class LabelTemperature:
    """What the caller of a loader chose.

    Args:
        given: the temperature, or a function of the epoch, from 0 on; None leaves labels as they were made.

    Raises:
        UsageError: the temperature, or that of epoch 0, is not above 0.
    """

    def __init__(self, given: Temperature | None) -> None:
        self._given = given
        self.of(0)

    @property
    def chosen(self) -> bool:
        """Whether labels are read at another temperature than the one they were made at."""
        return self._given is not None

    def of(self, epoch: int) -> float | None:
        """Return the temperature of an epoch, None for that of the labels. Raises UsageError unless it is above 0."""
        if self._given is None:
            return None
        value = self._given(epoch) if callable(self._given) else self._given
        return checked_temperature(value, f"the temperature of labels in epoch {epoch}")

    def check(self, epoch: int, then: object) -> None:
        """Raise ReplayError unless a state's temperature is that of its epoch here.

        Args:
            epoch: the state's epoch.
            then: what the state says of the temperature; None: it was that of the labels.
        """
        here = self.of(epoch)
        numbers = isinstance(then, (int, float)) and here is not None
        if then == here or (numbers and math.isclose(then, here, rel_tol=1e-9)):  # type: ignore[arg-type]
            return
        texts = ["as they were made" if one is None else f"at temperature {one}" for one in (then, here)]
        raise ReplayError(
            f"the state is of epoch {epoch} with labels {texts[0]}, and here that epoch has them {texts[1]}",
            hint="resume with the same temperature; a function of the epoch changes it between epochs",
        )
