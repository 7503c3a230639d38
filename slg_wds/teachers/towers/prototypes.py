"""One teacher without a head, and a bank: distributions of crops over prototypes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slg_wds.banks import Bank
from slg_wds.errors import UsageError
from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.forwards.backends import gpu_settings
from slg_wds.teachers.teacher import Teacher

if TYPE_CHECKING:
    import torch


class PrototypeTower(Ensemble):
    """A teacher whose classes are the prototypes of a bank.

    Attributes:
        bank: the bank. `num_classes` is the number of its prototypes, `temperature` what its scores are divided by.
    """

    hint_of_nan = "try --precision fp32 or bf16, and look for large numbers in the bank"

    def __init__(self, teachers: Sequence[Teacher], bank: Bank, temperature: float | None = None) -> None:
        """Join a teacher and a bank.

        Args:
            teachers: one.
            bank: of prototypes for its embeddings.
            temperature: above 0; None for the bank's own.

        Raises:
            UsageError: several teachers, a bank that does not fit, or no temperature.
        """
        from slg_wds.banks.head import BankHead

        super().__init__(teachers, temperature=bank.temperature_or(temperature))
        if len(teachers) > 1:
            raise UsageError(
                f"--output prototypes takes one teacher, not {len(teachers)}",
                hint="make a set with each and its own bank",
            )
        bank.check_teacher(teachers[0].name, teachers[0].num_classes, teachers[0].weights_digest)
        self.bank = bank
        self.num_classes = self.full_classes = bank.size
        self._head = BankHead(bank, self.temperature, self.device)

    def probabilities(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the distributions over the prototypes; see `Ensemble.probabilities`."""
        import torch

        embeddings = self.teachers[0].logits(batches[self._batch_of[0]])
        # The bank's products are exact whatever the teacher's are, and whatever the caller has set for its own.
        with torch.inference_mode(), gpu_settings(self.device, "fp32"):
            return self._head.probabilities(embeddings)

    def _check_together(self, teachers: Sequence[Teacher]) -> None:
        """Accept teachers of any width; that there is one is checked later."""
