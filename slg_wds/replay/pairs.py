"""A loader's batches in another form: epochs, state and length stay the loader's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from slg_wds.errors import UsageError

if TYPE_CHECKING:
    import torch

    from slg_wds.replay.batch import Batch
    from slg_wds.replay.loader import SoftLabelLoader


class LoaderView:
    """What is the same in every form.

    Args:
        loader: whose batches they are.
    """

    batch_sampler = None

    def __init__(self, loader: SoftLabelLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def epoch(self) -> int:
        """See SoftLabelLoader."""
        return self.loader.epoch

    @property
    def sampler(self) -> SoftLabelLoader:
        """See SoftLabelLoader."""
        return self.loader

    def set_epoch(self, epoch: int) -> None:
        """See SoftLabelLoader."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See SoftLabelLoader."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See SoftLabelLoader."""
        self.loader.load_state_dict(state)


class PairLoader(LoaderView):
    """(images, probabilities) for trainers whose batches are two tensors, such as timm's; see `SoftLabelLoader.pairs`.

    Args:
        batches: the loader itself, or a view of it whose batches are on a device.
    """

    dataset = None  # timm's script asks it for an epoch, as it does `batch_sampler` and `sampler`

    def __init__(self, loader: SoftLabelLoader, batches: Iterable[Batch]) -> None:
        if loader.pads:
            raise UsageError("pairs cannot say what is padding", hint="leave out last='pad' and evaluation")
        for labels in loader.sets.members:
            labels.refuse_embeddings()
        super().__init__(loader)
        self._batches = batches

    def __repr__(self) -> str:
        return f"PairLoader({self._batches!r})"

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in self._batches:
            assert batch.labels is not None  # a set of embeddings was refused
            yield batch.images, batch.labels.dense()
