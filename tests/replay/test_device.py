"""Batches moved to a GPU: every kind of label, reused memory, moves by other libraries."""

from __future__ import annotations

import gc

import pytest
import torch

import slg_wds
from slg_wds.errors import UsageError
from slg_wds.labels import SoftLabels
from slg_wds.replay.batch import Batch
from slg_wds.replay.device import DeviceLoader
from support.gpus.lazy_cuda import LazyCuda
from support.sets.label_kinds import EVERY, RULES, of_every_kind
from support.sets.replay_sets import Made, comparable


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    return of_every_kind(photographs, tmp_path_factory.mktemp("device"))


@pytest.fixture
def cuda(monkeypatch):
    return LazyCuda().install(monkeypatch)


def on_a_gpu(loader) -> DeviceLoader:
    """What `loader.to("cuda")` is, on the emulated device."""
    moved = loader.to("cpu")
    loader.pin_memory()
    moved._cuda = True
    return moved


def columns(batch: Batch) -> list[torch.Tensor]:
    """Copies of all that is moved."""
    return [tensor.detach().clone() for tensor in batch.tensors()]


@pytest.mark.parametrize(("kind", "rule"), EVERY)
def test_every_kind_of_label_reaches_a_gpu(sets, cuda, kind, rule):
    options = {"rule": rule, "last": "pad", "prefetch": 2}
    expected = [columns(batch) for batch in sets[kind].loader(**options).to("cpu")]
    assert len(expected) >= 3
    given = 0
    for batch, wanted in zip(on_a_gpu(sets[kind].loader(**options)), expected, strict=True):
        found = columns(batch)
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one.dtype == other.dtype and torch.equal(one, other)
        given += 1
    assert given == len(expected) and cuda.given_again > 0


def test_the_device_is_that_of_the_batches(sets):
    """As "cuda" it would be another GPU in a thread that has another current one; "cpu:0" is such a name too."""
    loader = sets["hard"].loader().to("cpu:0")
    (device,) = {tensor.device for tensor in next(iter(loader)).tensors()}
    assert loader.device == device != torch.device("cpu:0")


def test_two_sets_reach_a_gpu(sets, cuda):
    both = Made([sets["full"].labels, sets["full"].labels], None)
    expected = [columns(batch) for batch in both.loader().to("cpu")]
    for batch, wanted in zip(on_a_gpu(both.loader()), expected, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(columns(batch), wanted, strict=True))


@pytest.mark.parametrize("kind", RULES)
def test_a_copy_of_ones_own_is_never_written_over(sets, cuda, kind):
    """The batch is dropped at once, and its copies run at the very end: nothing may have used its memory."""
    plain = sets[kind].loader(prefetch=1)
    expected = [comparable(batch for batch in plain) for _ in range(2)]
    loader = sets[kind].loader(prefetch=1)
    loader.pin_memory()
    for epoch in range(2):
        copies = []
        for batch in loader:
            assert all(tensor.is_pinned() or 0 in tensor.stride() for tensor in batch.tensors())
            copies.append(batch.to("cpu", non_blocking=True))
            del batch
        gc.collect()
        cuda.synchronize()
        assert comparable(copies) == expected[epoch]
    assert cuda.given_again > 0


def test_a_walk_that_is_broken_off_spoils_no_copy(sets, cuda):
    expected = [batch.images.clone() for batch in sets["tail"].loader()]
    loader = sets["tail"].loader()
    loader.pin_memory()
    copies = []
    for _ in range(2):
        for batch in loader:
            copies.append(batch.images.to("cpu", non_blocking=True))
            break
        loader.set_epoch(1)
        loader.set_epoch(0)
    for batch in loader:
        del batch
    cuda.synchronize()
    assert torch.equal(copies[0], expected[0]) and torch.equal(copies[1], expected[0])


@pytest.mark.parametrize("kind", RULES)
def test_to_and_pin_memory_keep_what_is_not_a_tensor(sets, cuda, kind):
    batch = next(iter(sets[kind].loader()))
    for moved in (batch.pin_memory(), batch.to("cpu"), batch.to(torch.device("cpu"), non_blocking=True)):
        assert comparable([moved]) == comparable([batch]) and isinstance(moved, Batch)
        assert moved.labels.num_classes == batch.labels.num_classes and moved.key == batch.key
        assert (moved.tail is None) == (batch.tail is None) and len(moved) == len(batch)


def test_class_numbers_of_full_labels_are_moved_once(cuda):
    labels = SoftLabels(torch.arange(1000).expand(64, -1), torch.full((64, 1000), 1e-3), None, 1000)
    pinned = labels.pin_memory()
    assert pinned.index.untyped_storage().nbytes() == 8 * 1000
    moved = pinned.to("cpu", non_blocking=True)
    assert moved.index.untyped_storage().nbytes() == 8 * 1000
    cuda.synchronize()
    assert torch.equal(moved.index, labels.index) and torch.equal(moved.dense(), labels.dense())


def test_torchs_pin_memory_helper_takes_a_batch(sets, cuda):
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = next(iter(sets["full"].loader()))
    for pinned in (pin_memory(batch), pin_memory({"batch": batch})["batch"], pin_memory([batch])[0]):
        assert comparable([pinned]) == comparable([batch])
        assert pinned.images.is_pinned() and pinned.labels.mass.is_pinned() and pinned.mask.is_pinned()


def test_a_device_that_is_not_there_is_named(sets, monkeypatch):
    made = next(iter(sets.values()))
    loader = slg_wds.SoftLabelLoader(made.labels, made.images, global_batch_size=4)
    for gpus, asked, said in (
        (0, "cuda", "no device cuda: torch sees no GPU"),
        (2, "cuda:2", r"no device cuda:2: torch sees 2 GPUs, 0\.\.1"),
        (0, "gpu", "unknown device 'gpu'; write cpu, cuda or cuda:N"),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        with pytest.raises(UsageError, match=said):
            loader.to(asked)
