"""From the loader to the loss, and in `slg-wds train` to the new weights, the host waits for nothing of the device.

Two devices show it. Torch's "meta" has tensors without values: whatever needs one on the host raises, as `.item()`,
`if tensor:` or a shape that depends on values do. On a GPU these would wait for it. The imitated GPU runs nothing until
the host waits, so that the loss can be compared with the CPU's too.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from slg_wds import EmbeddingLoss, SoftCrossEntropy
from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.labels import LabelAdaptation, mix, recover
from slg_wds.labels.adaptation import adapted
from slg_wds.replay.batch import Batch
from slg_wds.training.distiller import DistillationLoss, Distiller
from slg_wds.training.flags import Settings, parse
from slg_wds.training.optimizer import make_optimizer
from slg_wds.training.state import Training
from slg_wds.training.step import train_step
from slg_wds.training.student import set_up
from slg_wds.training.transfer import sent
from support.gpus.lazy_streams import DEVICE, HostWaitsError, LazyStreams, Stream, address
from support.gpus.valueless import valueless
from support.models.tiny_students import features, restless
from support.sets.label_kinds import EVERY, of_every_kind
from support.sets.mixed_sets import mixed_of
from support.sets.replay_sets import Made, make
from support.training import SHOWN

CLASSES = 20
LOW_RANK = [("lowrank", "lowrank"), ("lowrank", "marginal_smoothing_k5"), ("mixed", "lowrank")]


@pytest.fixture(scope="module")
def sets(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("no_waits")
    low_rank = make(
        photographs, folder / "lowrank", label_type="lowrank", embed_images="original", num_crops=4
    )
    views = {"label_type": "shared_tail_k5", "num_crops": 4, "aa": "ra-n2-m9", "reprob": 0.25}
    more = {"views": views, "embeddings": {"output": "embedding", "num_crops": 4}}
    made = {**of_every_kind(photographs, folder), "lowrank": Made(low_rank, None)}
    for name, options in more.items():
        made[name] = Made(make(photographs, folder / name, embed_images="original", **options), None)
    return {**made, "mixed": Made(mixed_of(low_rank, str(folder / "mixed")), None)}


def losses(loader) -> list[torch.Tensor]:
    """The loss of a linear student of each batch, whose labels are mixed with its own reversed, and the gradient."""
    torch.manual_seed(0)
    student = torch.nn.Linear(3, CLASSES)
    found = []
    for batch in loader:
        labels = mix([batch.labels, batch.labels[torch.arange(len(batch) - 1, -1, -1)]], [0.7, 0.3])
        logits = student(batch.images.mean((2, 3)))
        loss = SoftCrossEntropy()(logits, labels)
        if batch.lam is not None:
            hard, second = (
                cross_entropy(logits, target.clamp(min=0), reduction="none")
                for target in (batch.target, batch.target2)
            )
            lam = batch.lam.clone()  # what the imitated GPU returns is of inference mode
            loss = loss + (lam * hard + (1 - lam) * second).mean()
        (gradient,) = torch.autograd.grad(loss, [student.weight])
        found += [loss.detach(), gradient]
    return found


@pytest.fixture
def gpu(monkeypatch):
    return LazyStreams().install(monkeypatch)


def on_the_gpu(loader):
    """What `loader.to("cuda")` is, on the imitated device."""
    moved = loader.to("cpu")
    loader.pin_memory()
    moved._cuda, moved.device = True, DEVICE
    return moved


@pytest.mark.parametrize(("kind", "rule"), [*EVERY, *LOW_RANK])
def test_nothing_waits_from_the_loader_to_the_loss(sets, gpu, kind, rule):
    expected = losses(sets[kind].loader(rule=rule).to("cpu"))
    assert len(expected) >= 4
    loader = on_the_gpu(sets[kind].loader(rule=rule))
    with gpu:
        found = losses(loader)
    assert gpu.operators > 20 and gpu.dropped == 0
    gpu.wait()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["full", "tail", "lowrank"])
def test_a_batch_is_in_memory_of_the_trainers_stream(sets, gpu, kind):
    """A trainer may let go of it at any time. The memory of the copies is kept until the trainer's stream read it."""
    loader = on_the_gpu(sets[kind].loader())
    with gpu:
        for batch in loader:
            assert {gpu.owner[address(one)] for one in batch.tensors() if one.numel()} == {gpu.main}
    assert gpu.dropped == 0


def test_each_epoch_copies_on_the_same_stream(sets, gpu, monkeypatch):
    """Another stream would take memory of its own: torch gives what one has let go to no other."""
    made = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or Stream("copies"))
    loader = sets["tail"].loader()
    with gpu:
        for _ in range(2):
            assert len(list(on_the_gpu(loader))) == len(loader)
    assert made == [DEVICE]


def test_copies_that_are_let_go_too_early_are_seen(sets, gpu, monkeypatch):
    monkeypatch.setattr(CopyStream, "give_back", lambda stream, copies: None)
    with gpu:
        losses(on_the_gpu(sets["tail"].loader()))
    assert gpu.dropped > 0


def trained_on(batch: Batch) -> torch.Tensor:
    """Do what a training step does with a batch, mixup and the loss without padding included; return the gradient."""
    logits = torch.zeros(len(batch), batch.labels.num_classes, device="meta", requires_grad=True)
    order = torch.arange(len(batch), device="meta").flip(0)
    mixed = mix([batch.labels, batch.labels[order]], [0.7, 0.3])
    loss = SoftCrossEntropy()
    (loss(logits, mixed) + loss(logits, batch.labels.dense(), mask=batch.mask)).backward()
    return logits.grad


def on_meta(made: Made, **options) -> list[Batch]:
    return list(made.loader(last="pad", global_batch_size=28, **options).to("meta", dtype=torch.bfloat16))


@pytest.mark.parametrize("temperature", [None, 3.0])
@pytest.mark.parametrize(("kind", "rule"), [*EVERY, *LOW_RANK, ("views", "shared_tail_k5")])
def test_from_the_loader_to_the_loss(sets, kind, rule, temperature):
    batches = on_meta(sets[kind], rule=rule, temperature=temperature)
    assert len(batches) == 3
    for batch in batches:
        assert {tensor.device.type for tensor in batch.tensors()} == {"meta"}
        assert batch.images.shape == (28, 3, 32, 32) and batch.images.dtype == torch.bfloat16
        assert trained_on(batch).shape == (28, batch.labels.num_classes)


def test_from_embeddings_to_the_loss(sets):
    batches = on_meta(sets["embeddings"])
    assert len(batches) == 3
    for batch in batches:
        assert {tensor.device.type for tensor in batch.tensors()} == {"meta"}
        for found in batch.embedding.values():
            student = torch.zeros(found.shape, device="meta", requires_grad=True)
            EmbeddingLoss()(student, found, mask=batch.mask).backward()
            assert student.grad.shape == found.shape


@pytest.mark.parametrize(("kind", "rule"), [*EVERY, ("mixed", "lowrank")])
def test_padding_has_no_part_in_the_loss(sets, kind, rule):
    seen = 0
    for batch in sets[kind].loader(rule=rule, last="pad", global_batch_size=28).to("cpu"):
        logits = torch.randn(len(batch), CLASSES, generator=torch.Generator().manual_seed(0))
        rows = -(batch.labels.dense() * logits.log_softmax(1)).sum(1)[batch.mask]
        torch.testing.assert_close(SoftCrossEntropy()(logits, batch.labels), rows.mean())
        assert (batch.labels.mask is None) == bool(batch.mask.all())  # whole batches cost nothing
        seen += len(rows)
    assert seen == 72


@pytest.mark.parametrize(("kind", "rule"), EVERY)
def test_from_stored_columns_to_labels(sets, kind, rule):
    batch = next(iter(sets[kind].loader(rule=rule))).to("meta")
    classes = batch.labels.num_classes
    index = None if kind == "full" else batch.index
    tail = batch.tail if rule.startswith("shared_tail") else None
    assert recover(index, batch.value, classes, rule=rule, tail=tail).shape == (len(batch), classes)
    by = LabelAdaptation(0.5)
    assert adapted(batch.labels, batch.target, batch.value.amax(dim=1), by).dense().device.type == "meta"


STEP = (
    "--mixup_cutmix",
    "--mixup_switch_prob",
    "1",
    "--clip-grad",
    "1",
    "--grad-accum-steps",
    "3",
    "--ema",
    "0.9",
)
EMBEDDINGS = ("--distill", "embedding", "--clip-grad", "1", "--clip-mode", "value", "--grad-accum-steps", "2")


def on_meta_in_training(flags: tuple[str, ...], batch: Batch) -> tuple[Settings, Training, torch.nn.Module]:
    """What `train_step` takes but for the batch."""
    args = parse(flags)
    args.rank, args.ranks, args.device = (
        0,
        1,
        torch.device("cpu"),
    )  # "meta" has no autocast and no random numbers
    widths = {name: rows.shape[1] for name, rows in batch.embedding.items()}
    model = Distiller(features(), widths, 32, True, "unit") if args.distills else restless()
    training = set_up(args, model.train(), SHOWN)
    for part in (training.model, training.average):
        if part is not None:
            part.to("meta")
    training.optimizer = make_optimizer(args, model)
    return args, training, DistillationLoss("both", model.compared) if args.distills else SoftCrossEntropy()


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("tail", STEP),
        ("full", (*STEP, "--clip-mode", "agc", "--opt", "adamw")),
        ("hard", (*STEP, "--mixup_switch_prob", "0")),
        ("lowrank", STEP),
        ("mixed", STEP),
        ("embeddings", EMBEDDINGS),
    ],
)
def test_a_training_step_waits_for_nothing(sets, monkeypatch, kind, flags):
    batches = list(sets[kind].loader().to("meta"))
    args, training, criterion = on_meta_in_training(flags, batches[0])
    with valueless(monkeypatch):
        for batch in batches:
            assert train_step(args, training, criterion, batch).is_meta
            training.progress.step += 1
    assert len(training.optimizer.state) == len(list(training.model.parameters()))


def test_what_is_sent_to_a_gpu_is_not_waited_for(gpu):
    order = torch.tensor([2, 0, 1])
    with gpu:
        found = sent(order, DEVICE)
        with pytest.raises(HostWaitsError, match="not pinned"):
            order.to(DEVICE, non_blocking=True)
        with pytest.raises(HostWaitsError, match="the host waits"):
            order.pin_memory().to(DEVICE)
    with torch.inference_mode():  # as copies are made there
        gpu.wait()
    assert torch.equal(found, order) and sent(order, torch.device("cpu")) is order


@pytest.mark.parametrize(
    "waiting",
    [
        lambda: torch.arange(3).to("meta"),
        lambda: torch.arange(3).to("meta", non_blocking=True),
        lambda: torch.arange(3).pin_memory().to("meta"),
        lambda: torch.zeros(3, device="meta").copy_(torch.arange(3)),
        lambda: torch.tensor([1, 2], device="meta"),
        lambda: torch.zeros(3, device="meta")[torch.tensor([True, False, True])],
    ],
)
def test_copies_that_would_wait_raise_here(monkeypatch, waiting):
    with valueless(monkeypatch), pytest.raises(HostWaitsError):
        waiting()


@pytest.mark.parametrize(
    "waiting",
    [
        lambda tensor: tensor.sum().item(),
        lambda tensor: bool((tensor > 0).any()),
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor.nonzero(),
        lambda tensor: tensor.cpu(),
    ],
)
def test_what_would_wait_raises_here(waiting):
    with pytest.raises((RuntimeError, NotImplementedError)):
        waiting(torch.zeros(3, device="meta"))
