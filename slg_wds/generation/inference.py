"""Batches of crops -> top-k labels and tail sums.

Only these leave the device, not the probabilities of all classes, except for full and low-rank labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.concurrency.prefetch import window
from slg_wds.errors import TeacherOutputError
from slg_wds.format.records.embeddings.fields import EMBEDDING
from slg_wds.format.records.low_rank.blocks import LOW_RANK
from slg_wds.generation.batching import Buffers, CropBatch
from slg_wds.labels import LabelType, tail_sums, topk
from slg_wds.teachers.faults import device_faults

if TYPE_CHECKING:
    import torch

    from slg_wds.teachers import Ensemble

T = TypeVar("T")
FORWARDS_IN_FLIGHT = 2  # on a GPU: one runs while the next waits in its queue


@dataclass(frozen=True)
class Labelled:
    """The labels of one batch.

    Attributes:
        batch: the batch.
        index: int64 [N, k], the top-k classes of each crop, most probable first; None for full and low-rank labels, and
            for embeddings.
        value: float32 [N, k], their probabilities; for full and low-rank labels [N, C] in class order. Embeddings of
            the teachers side by side.
        tail_sums: float64 [spans, C], for each span the probability outside the top-k, summed over its crops; None
            where records get no tail.
    """

    batch: CropBatch
    index: npt.NDArray[np.int64] | None
    value: npt.NDArray[np.float32]
    tail_sums: npt.NDArray[np.float64] | None


class Forward:
    """Runs the teachers on batches: one at a time on a CPU, a few in flight on a GPU.

    Args:
        teacher: the teachers, loaded onto the device.
        label: the label type.
        with_tail: whether to compute tail sums.
        device: the teachers' device.
        buffers: takes back the memory of each batch whose forward is done.
    """

    def __init__(
        self, teacher: Ensemble, label: LabelType, with_tail: bool, device: torch.device, buffers: Buffers
    ) -> None:
        self.teacher = teacher
        self.label = label
        self.with_tail = with_tail
        self.device = device
        self.buffers = buffers
        self._depth = FORWARDS_IN_FLIGHT if device.type == "cuda" else 0
        self._copies: CopyStream | None = None

    def label_all(self, batches: Iterable[CropBatch]) -> Iterator[Labelled]:
        """Yield the labels of each batch, in order.

        Raises:
            TeacherOutputError: a probability is NaN or infinite.
            DeviceError: the device failed.
        """
        launched = ((batch, self._on_device(self._launch, batch)) for batch in batches)
        for batch, outputs in window(launched, self._depth):
            yield self._on_device(self._land, batch, outputs)

    def _on_device(self, step: Callable[..., T], *arguments: Any) -> T:
        """Call `step`, and raise an error of the device as DeviceError.

        A GPU may report an error at a later call than the one at fault, so every step is called through here.
        """
        with device_faults(self.device, f"labelling with {self.teacher.name} failed"):
            return step(*arguments)

    def _launch(self, batch: CropBatch) -> _Outputs:
        import torch

        if not batch.spans:
            return _Outputs()
        with torch.inference_mode():
            if self.device.type != "cuda":
                return self._answers(batch, batch.inputs)
            if self._copies is None:
                self._copies = CopyStream(self.device)
            inputs, copied = self._copies.begin(
                lambda: [one.to(self.device, non_blocking=True) for one in batch.inputs]
            )
            self._copies.hand_over(copied)
            outputs = self._answers(batch, inputs)
            self._copies.give_back(inputs)
            return outputs

    def _answers(self, batch: CropBatch, inputs: list[torch.Tensor]) -> _Outputs:
        """Compute the part of the teachers' answers that is kept, from a batch's inputs on the device."""
        import torch

        probs_NC = self.teacher.answers(inputs)[: batch.filled]
        finite = torch.isfinite(probs_NC).all()
        if self.label.kind in ("full", LOW_RANK, EMBEDDING):
            return self._outputs(finite, None, probs_NC, None)
        index_Nk, value_Nk = topk(probs_NC, self.label.stored_k(probs_NC.shape[1]))
        sums = None
        if self.with_tail:
            segments = [(span.start, span.start + span.count) for span in batch.spans]
            sums = tail_sums(probs_NC, index_Nk, segments)
        return self._outputs(finite, index_Nk, value_Nk, sums)

    def _outputs(
        self,
        finite: torch.Tensor,
        index: torch.Tensor | None,
        value: torch.Tensor,
        sums: torch.Tensor | None,
    ) -> _Outputs:
        if self.device.type != "cuda":
            return _Outputs(finite, index, value, sums)
        import torch

        def to_host(tensor: torch.Tensor | None) -> torch.Tensor | None:
            return None if tensor is None else tensor.to("cpu", non_blocking=True)

        host = _Outputs(to_host(finite), to_host(index), to_host(value), to_host(sums))
        # With `blocking` the host thread sleeps until the event. Otherwise it polls, and takes a core from the threads
        # that cut.
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        # The default would be the stream of the current device, which may be another one than the teacher's.
        event.record(torch.cuda.current_stream(self.device))
        return dataclasses.replace(host, event=event)

    def _land(self, batch: CropBatch, outputs: _Outputs) -> Labelled:
        if outputs.event is not None:
            outputs.event.synchronize()
        self.buffers.give_back(batch.inputs)
        if outputs.finite is None or outputs.value is None:
            return Labelled(batch, None, np.empty((0, 0), np.float32), None)
        if not bool(outputs.finite):
            keys = sorted({span.image.path for span in batch.spans})
            raise TeacherOutputError(
                f"the teacher {self.teacher.name} gave NaN or infinity for a crop of {', '.join(keys[:3])}",
                hint=self.teacher.hint_of_nan,
            )
        return Labelled(
            batch,
            None if outputs.index is None else outputs.index.numpy(),
            outputs.value.numpy(),
            None if outputs.tail_sums is None else outputs.tail_sums.numpy(),
        )


@dataclass(frozen=True)
class _Outputs:
    finite: torch.Tensor | None = None
    index: torch.Tensor | None = None
    value: torch.Tensor | None = None
    tail_sums: torch.Tensor | None = None
    event: torch.cuda.Event | None = None
