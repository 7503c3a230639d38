"""Several teachers -> the mean of their softmax outputs, as MEAL V2 (arXiv:2009.08453) averages them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.errors import TeacherError, UsageError
from slg_wds.labels.shares import shares
from slg_wds.teachers.teacher import Teacher

if TYPE_CHECKING:
    import numpy as np
    import torch


class Ensemble:
    """One teacher or several that label the same crops.

    Attributes:
        teachers: the teachers, in the order of the options.
        weights: share of each teacher; they sum to 1.
        temperature: divides the logits before the softmax.
        inputs: the distinct pairs (input size, interpolation); crops are cut once for each.
        device: where all teachers run.
        full_classes: number of classes of each teacher, before the subset is taken.
        preprocessings: the teachers' distinct preprocessings, for `evaluate`. Two may have the same input but not the
            same evaluation transform.
        class_subset: the classes that are kept, by the teachers' numbers; None for all.
        num_classes: C, the width of `probabilities`: the size of the subset if there is one.
        hint_of_nan: what to do if a probability is NaN.
    """

    hint_of_nan = "try --precision fp32 or bf16, and check the weights with --evaluate"

    def __init__(
        self,
        teachers: Sequence[Teacher],
        weights: Sequence[float] | None = None,
        *,
        temperature: float = 1.0,
        class_subset: Sequence[int] | np.ndarray[Any, Any] | torch.Tensor | None = None,
    ) -> None:
        """Join teachers.

        Args:
            teachers: one or more, with the same classes, on the same device.
            weights: one share per teacher, at least 0; normalised to sum to 1. None: equal shares.
            temperature: divides the logits before the softmax; above 0.
            class_subset: int64 [C], the teachers' class numbers to keep, in that order; other logits are dropped.

        Raises:
            TeacherError: the teachers differ in their number of classes.
            UsageError: no teacher, or invalid weights, temperature or subset.
        """
        _check(teachers, temperature)
        self._check_together(teachers)
        self.teachers = list(teachers)
        self.weights = shares(weights, len(self.teachers), "teacher")
        self.temperature = temperature
        inputs = [(t.preprocessing.input_size, t.preprocessing.interpolation) for t in teachers]
        self.inputs: list[tuple[int, str]] = list(dict.fromkeys(inputs))
        self._batch_of = [self.inputs.index(pair) for pair in inputs]
        self.device = teachers[0].device
        self.full_classes = teachers[0].num_classes
        self.preprocessings = list(dict.fromkeys(teacher.preprocessing for teacher in teachers))
        self._subset = _subset(class_subset, self.full_classes, self.device)
        self.class_subset: list[int] | None = None if self._subset is None else self._subset.tolist()
        self.num_classes = self.full_classes if self._subset is None else len(self._subset)

    @property
    def name(self) -> str:
        """The teachers' names, joined by +."""
        return " + ".join(teacher.name for teacher in self.teachers)

    def probabilities(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the weighted mean of softmax(logits / temperature), without waiting for the device.

        Args:
            batches: for each of `inputs` in order, the same crops as uint8 [N,3,S,S] on the teachers' device.

        Returns:
            float32 [N,C]. If any teacher gave a logit that is not finite, even for a class outside the subset, the
            whole row is NaN. The caller finds it in the row's top-k, once that has been copied to the CPU: a look here
            would wait for the device.

        Raises:
            DeviceError, TeacherError: as `Teacher.logits`.
        """
        import torch

        if len(batches) != len(self.inputs):
            raise TeacherError(f"{len(batches)} batches for {len(self.inputs)} inputs")
        mean: torch.Tensor | None = None
        with torch.inference_mode():
            for teacher, weight, batch in zip(self.teachers, self.weights, self._batch_of, strict=True):
                share = self._softmax(teacher.logits(batches[batch]))
                share = share if weight == 1 else share * weight
                mean = share if mean is None else mean + share
        assert mean is not None
        return mean

    def answers(self, batches: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return what labels are made of: `probabilities`."""
        return self.probabilities(batches)

    def _check_together(self, teachers: Sequence[Teacher]) -> None:
        if len({teacher.num_classes for teacher in teachers}) > 1:
            listed = ", ".join(f"{teacher.name} has {teacher.num_classes}" for teacher in teachers)
            raise TeacherError(f"teachers of one ensemble must have the same classes: {listed}")

    @property
    def device_name(self) -> str:
        """The GPU's model, or the CPU's instruction set. Another one may change the last bits of a result."""
        import torch

        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} {torch.backends.cpu.get_cpu_capability()}"

    def describe(self) -> list[dict[str, Any]]:
        """Return what decides the labels, one JSON object per teacher, its ensemble weight included."""
        return [{**t.describe(), "weight": w} for t, w in zip(self.teachers, self.weights, strict=True)]

    def provenance(self) -> list[dict[str, Any]]:
        """Return what is recorded but decides no label, one JSON object per teacher."""
        return [teacher.provenance() for teacher in self.teachers]

    def code(self) -> dict[str, str]:
        """Return the digest of each private teacher's code by its architecture; empty without such teachers."""
        found: dict[str, str] = {}
        for number, teacher in enumerate(self.teachers, 1):
            if teacher.code_digest is not None:
                twice = teacher.arch in found  # files of one name in two folders
                found[f"{teacher.arch} ({number})" if twice else teacher.arch] = teacher.code_digest
        return found

    def _softmax(self, logits: torch.Tensor) -> torch.Tensor:
        import torch

        # 0 if all logits are finite, else NaN. Softmax alone would hide -inf, and the subset hides the other classes.
        nan_or_0 = (logits * 0).sum(1, keepdim=True)
        kept = logits if self._subset is None else logits.index_select(1, self._subset)
        return torch.softmax(kept / self.temperature, 1) + nan_or_0


def _check(teachers: Sequence[Teacher], temperature: float) -> None:
    if not teachers:
        raise UsageError("no teacher")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise UsageError(f"temperature {temperature} is not above 0 and finite")


def _subset(classes: Any, count: int, device: torch.device) -> torch.Tensor | None:
    import torch

    if classes is None:
        return None
    subset = torch.as_tensor(classes)
    if subset.ndim != 1 or subset.is_floating_point() or len(subset) == 0:
        raise UsageError("a class subset is a list of class numbers, not empty")
    subset = subset.long()
    if int(subset.min()) < 0 or int(subset.max()) >= count:
        outside = subset[(subset < 0) | (subset >= count)]
        raise UsageError(f"class {int(outside[0])} of the class subset is not one of the teacher's {count}")
    if len(set(subset.tolist())) != len(subset):
        raise UsageError("a class is in the class subset twice")
    return subset.to(device)
