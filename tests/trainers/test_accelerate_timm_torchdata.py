"""Accelerate, timm's loop and torchdata's convention: the unwrapped loader, and the next batch after a resume."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn

from slg_wds import SoftCrossEntropy
from slg_wds.errors import UsageError
from slg_wds.replay.batch import Batch
from support.sets.replayed import Made, given, loader_of, make, parameters, student, walked

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="module", params=["shared_tail_k3", "full"])
def made(request, photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainers")
    return Made(make(photographs, folder / "set", embed_images="original", label_type=request.param), None)


def trained(made: Made, steps: int) -> nn.Module:
    """By a plain loop over what the loader gives."""
    model, loss = student(), SoftCrossEntropy()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    loader = loader_of(made).to("cpu", MEAN, STD)
    endless = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(endless, steps):
        optimizer.zero_grad()
        loss(model(batch.images), batch.labels).backward()
        optimizer.step()
    return model


class Accelerated:
    """A training by Accelerate: everything of it that a checkpoint keeps."""

    def __init__(self, made: Made) -> None:
        from accelerate import Accelerator

        self.accelerator = Accelerator(cpu=True)
        model = student()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.loader = loader_of(made).to(self.accelerator.device, MEAN, STD)
        self.accelerator.register_for_checkpointing(self.loader)
        self.loss, self.seen = SoftCrossEntropy(), []

    def train(self, epochs: int, save_at: int | None = None, folder: str = "") -> None:
        for _ in range(self.loader.epoch, epochs):
            for batch in self.loader:
                self.seen.append(given(batch))
                self.optimizer.zero_grad()
                self.accelerator.backward(self.loss(self.model(batch.images), batch.labels))
                self.optimizer.step()
                if len(self.seen) == save_at:
                    self.accelerator.save_state(folder)
                    return


@pytest.mark.parametrize("step", [2, 3, 4])
def test_accelerate_resumes_with_the_very_next_batch(made, tmp_path, step):
    first = Accelerated(made)
    first.train(2, step, str(tmp_path / "state"))
    second = Accelerated(made)
    second.accelerator.load_state(str(tmp_path / "state"))
    second.train(2)
    assert first.seen + second.seen == walked(made, 2)
    assert torch.equal(parameters(second.model), parameters(trained(made, 6)))


def test_accelerates_own_moving_takes_batches(made):
    from accelerate.utils import send_to_device

    batch = next(iter(loader_of(made)))
    moved = send_to_device({"batch": batch, "more": [batch]}, torch.device("meta"), non_blocking=True)
    for one in (moved["batch"], moved["more"][0], send_to_device(batch, "meta")):
        assert isinstance(one, Batch) and one.key == batch.key
        tensors = list(one.tensors())
        assert len(tensors) == len(list(batch.tensors()))
        assert all(tensor.device.type == "meta" for tensor in tensors)


def test_timms_task_and_loop_take_pairs(made):
    """The loop's contract: len(loader), (input, target) batches, loss_fn(output, target)."""
    from timm.loss import SoftTargetCrossEntropy
    from timm.task import ClassificationTask

    expected = parameters(trained(made, 6))
    for criterion in (SoftCrossEntropy(), SoftTargetCrossEntropy()):
        loader = loader_of(made).to("cpu", MEAN, STD).pairs()
        model = student()
        task = ClassificationTask(model, criterion=criterion, verbose=False)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            for input, target in itertools.islice(loader, len(loader)):
                assert input.shape[0] == target.shape[0] == 24 and target.dtype == torch.float32
                optimizer.zero_grad()
                task(input, target)["loss"].backward()
                optimizer.step()
        torch.testing.assert_close(parameters(model), expected, rtol=1e-4, atol=1e-5)


def test_timms_mixup_blends_pairs_as_ours_blends_labels(made):
    from slg_wds.labels import mix

    batch = next(iter(loader_of(made).to("cpu", MEAN, STD)))
    _, target = next(iter(loader_of(made).to("cpu", MEAN, STD).pairs()))
    other = torch.arange(len(batch)).flip(0)
    logits = torch.randn(len(batch), target.shape[1], generator=torch.manual_seed(0))
    ours = SoftCrossEntropy(2.0)(logits, mix([batch.labels, batch.labels[other]], [0.3, 0.7]))
    theirs = SoftCrossEntropy(2.0)(logits, target * 0.3 + target.flip(0) * 0.7)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_pairs_keep_epochs_and_state(made):
    loader = loader_of(made)
    batches = [batch for _ in range(2) for batch in loader]
    pairs = loader_of(made).pairs()
    assert len(pairs) == 3
    walk = iter(pairs)
    found = [next(walk), next(walk)]
    again = loader_of(made).pairs()
    again.load_state_dict(json.loads(json.dumps(pairs.state_dict())))
    found += [*again, *again]
    for (images, target), batch in zip(found, batches, strict=True):
        assert torch.equal(images, batch.images) and torch.equal(target, batch.labels.dense())


@pytest.mark.parametrize("options", [{"last": "pad"}, {"evaluation": True}])
def test_pairs_of_a_loader_that_pads_are_refused(made, options):
    with pytest.raises(UsageError, match=r"what is padding; leave out last='pad'"):
        loader_of(made, **options).to("cpu").pairs()


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("handed_over", range(4))
def test_the_state_is_that_of_torchdatas_loader(made, handed_over):
    """StatefulDataLoader beside ours: what is left after n batches, and what the epoch after that is."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    whole = walked(made, 1)

    def theirs() -> StatefulDataLoader:
        return StatefulDataLoader(whole, batch_size=None)

    left = []
    for make_one, told in ((theirs, lambda one: one), (lambda: loader_of(made), given)):
        loader = make_one()
        walk = iter(loader)
        head = [told(next(walk)) for _ in range(handed_over)]
        state = loader.state_dict()
        resumed = make_one()
        resumed.load_state_dict(state)
        left.append((len(head), [told(one) for one in resumed], len([told(one) for one in resumed])))
    assert [tuple(map(tuple, one)) for one in left[0][1]] == left[1][1] == whole[handed_over:]
    assert left[0][0] == left[1][0] and left[0][2] == left[1][2] == 3
