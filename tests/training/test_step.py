"""A step in pieces, its clipping, and when processes exchange gradients, against plain torch."""

from __future__ import annotations

import math
import socket
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.utils._python_dispatch import TorchDispatchMode

from slg_wds import SoftCrossEntropy
from slg_wds.labels import from_topk
from slg_wds.training.flags import Settings, parse
from slg_wds.training.loop import make_deterministic
from slg_wds.training.state import Training
from slg_wds.training.step import train_step
from slg_wds.training.student import set_up
from support.models.tiny_students import CLASSES, plain
from support.training import SHOWN

CROPS, RATE = 16, 0.5


def settings(*flags: str) -> Settings:
    args = parse(["--lr", str(RATE), *flags])
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    return args


def beginning() -> nn.Module:
    torch.manual_seed(7)
    return plain()


def batches(count: int = 2) -> list[SimpleNamespace]:
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        value = torch.rand(CROPS, 3, generator=generator).sort(descending=True).values / 3
        index = torch.stack([torch.randperm(CLASSES, generator=generator)[:3] for _ in range(CROPS)])
        images = torch.randn(CROPS, 3, 32, 32, generator=generator)
        labels = from_topk(index, value, CLASSES, rule="marginal_smoothing_k3")
        made.append(SimpleNamespace(images=images, labels=labels))
    return made


def stepped(training: Training, args: Settings) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The weights after a step on each batch, and the losses."""
    losses = [train_step(args, training, SoftCrossEntropy(args.temp), batch).item() for batch in batches()]
    return training.model.state_dict(), losses


def by_torch(bound: float = math.inf) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The same in plain torch, on whole batches with dense labels; gradients of a norm above `bound` are shortened."""
    model, losses = beginning(), []
    parameters = list(model.parameters())
    momenta = [torch.zeros_like(parameter) for parameter in parameters]
    for batch in batches():
        loss = -(batch.labels.dense() * model(batch.images).log_softmax(1)).sum(1).mean()
        gradients = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        with torch.no_grad():
            for parameter, gradient, momentum in zip(parameters, gradients, momenta, strict=True):
                momentum.mul_(0.9).add_(gradient * min(1.0, bound / norm) + 1e-4 * parameter)
                parameter.sub_(RATE * momentum)
        losses.append(loss.item())
    return model.state_dict(), losses


def alike(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6)
    assert not torch.allclose(found["4.weight"], beginning().state_dict()["4.weight"], atol=1e-3)


@pytest.mark.parametrize("pieces", [1, 2, 3, 16])
@pytest.mark.parametrize("bound", [math.inf, 0.05])
def test_pieces_together_are_one_step_of_the_whole_batch(pieces, bound):
    """3 pieces have 5, 5 and 6 crops. The sum of the gradients is clipped, not those of a piece."""
    clip = () if bound == math.inf else ("--clip-grad", str(bound))
    args = settings("--grad-accum-steps", str(pieces), *clip)
    weights, losses = stepped(set_up(args, beginning(), SHOWN), args)
    expected, their_losses = by_torch(bound)
    alike(weights, expected)
    assert losses == pytest.approx(their_losses, rel=1e-5)


def updates(*flags: str) -> dict[str, torch.Tensor]:
    """What one step changes."""
    args = settings("--momentum", "0", "--wd", "0", *flags)
    training = set_up(args, beginning(), SHOWN)
    train_step(args, training, SoftCrossEntropy(), batches(1)[0])
    before = beginning().state_dict()
    return {name: before[name] - value for name, value in training.model.state_dict().items()}


def norm_of(tensors) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


def test_the_norm_of_all_gradients_is_clipped():
    free = updates()
    for bound in (norm_of(free.values()) / RATE / 4, norm_of(free.values()) / RATE * 4):
        clipped = updates("--clip-grad", str(bound))
        share = min(1.0, RATE * bound / norm_of(free.values()))
        for name, change in free.items():
            torch.testing.assert_close(clipped[name], change * share, rtol=1e-4, atol=1e-7)


def test_values_are_clipped_one_by_one():
    free, bound = updates(), 1e-3
    clipped = updates("--clip-grad", str(bound), "--clip-mode", "value")
    for name, change in free.items():
        expected = change.clamp(-RATE * bound, RATE * bound)
        torch.testing.assert_close(clipped[name], expected, rtol=1e-4, atol=1e-7)
    assert max(float(change.abs().max()) for change in free.values()) > RATE * bound


def test_adaptive_clipping_follows_the_weights_and_leaves_the_classifier_alone():
    free, bound = updates(), 1e-3
    clipped = updates("--clip-grad", str(bound), "--clip-mode", "agc")
    weight = beginning().state_dict()["0.weight"].flatten(1)
    largest = bound * weight.norm(dim=1).clamp(min=1e-3)
    torch.testing.assert_close(clipped["0.weight"].flatten(1).norm(dim=1) / RATE, largest, rtol=1e-3, atol=0)
    for name in ("4.weight", "4.bias"):
        assert torch.equal(clipped[name], free[name]) and free[name].abs().max() > RATE * bound


def test_gradients_are_clipped_after_the_scaling_of_fp16_is_taken_back():
    args = settings("--clip-grad", "0.05", "--grad-accum-steps", "2")
    training = set_up(args, beginning(), SHOWN)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    alike(stepped(training, args)[0], by_torch(0.05)[0])


FUSED = ("--opt", "adamw", "--fused", "--filter-bias-and-bn", "--ema", "0.9")


@pytest.mark.parametrize(
    ("more", "scales"), [((), False), (FUSED, False), (FUSED, True), (("--fused",), True)]
)
def test_a_step_brings_no_number_to_the_host(more, scales):
    """A device would be waited for. tests/replay/test_no_waits.py looks for everything else that it is waited for."""

    class NoNumbers(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            assert "_local_scalar_dense" not in str(function)
            return function(*arguments, **(options or {}))

    args = settings("--clip-grad", "1", "--grad-accum-steps", "2", "--mixup_cutmix", *more)
    training = set_up(args, beginning(), SHOWN)
    if scales:
        training.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with NoNumbers():
        train_step(args, training, SoftCrossEntropy(), batches(1)[0])


@pytest.fixture
def group(monkeypatch):
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("pieces", [1, 4])
def test_processes_exchange_gradients_once_a_step(group, pieces):
    args = settings("--grad-accum-steps", str(pieces))
    training = set_up(args, beginning(), SHOWN)
    net = nn.parallel.DistributedDataParallel(training.model)
    exchanged = []

    def exchange(state, bucket):
        exchanged.append(bucket.buffer().clone())
        return allreduce_hook(state, bucket)

    net.register_comm_hook(None, exchange)
    training.net = net
    alike(stepped(training, args)[0], by_torch()[0])
    assert len(exchanged) == 2


def test_deterministic_steps_fill_no_memory_that_is_written_anyway(monkeypatch):
    """Torch fills it with NaN by default, each batch of the loader too."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.are_deterministic_algorithms_enabled()
    try:
        make_deterministic(True)
        assert torch.are_deterministic_algorithms_enabled()
        again = torch.ones(4096)
        del again
        assert not torch.empty(4096).isnan().all()
    finally:
        torch.use_deterministic_algorithms(before)
