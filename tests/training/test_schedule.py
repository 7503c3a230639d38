"""Walks, FKD's learning rates, and timm's schedules at every step, by their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from timm.scheduler.scheduler_factory import create_scheduler_v2

from slg_wds.errors import UsageError
from slg_wds.training.flags import Settings, check, parse
from slg_wds.training.schedule import make_schedule, walks


@pytest.mark.parametrize("num_crops", [1, 3, 4])
@pytest.mark.parametrize("epochs", [1, 3, 4, 5, 6, 8, 30])
def test_epochs_count_passes_over_single_crops(epochs, num_crops):
    found = list(walks(0, epochs, num_crops))
    assert sum(crops for _, crops in found) == epochs
    expected, epoch = [], 0
    while (
        epoch < epochs
    ):  # as FKD: whole walks, then single crops from the first walk on that would reach the end
        if epoch >= epochs - num_crops:
            expected += [(e, 1) for e in range(epoch, epochs)]
            break
        expected.append((epoch, num_crops))
        epoch += num_crops
    assert found == expected
    for at, (epoch, _) in enumerate(found):  # a resumed run walks what the first would have
        assert list(walks(epoch, epochs, num_crops)) == found[at:]


def flags(*more: str) -> Settings:
    args = parse(more)
    args.rank, args.ranks, args.device = 0, 1, torch.device("cpu")
    return args


def test_rates_are_fkds():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)

    def rate(args, epoch, step=10**6):
        make_schedule(args, optimizer, {})(epoch, 0, step)
        return optimizer.param_groups[0]["lr"]

    steps = flags("--lr", "0.5", "--schedule", "3", "6")
    assert [rate(steps, epoch) for epoch in (0, 2, 3, 5, 6, 9)] == pytest.approx(
        [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]
    )
    cosine = flags("--lr", "0.5", "--cos", "--epochs", "40")
    assert rate(cosine, 12) == pytest.approx(0.25 * (1 + math.cos(math.pi * 12 / 40)))
    warm = flags("--lr", "0.5", "--warmup", "3")
    assert [rate(warm, 0, step) for step in range(5)] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])


STEPS = {4: 9, 1: 2}  # of walks with 4 crops and with one: 36 images, 16 crops a batch
TIMM = ("--lr", "0.5", "--epochs", "22", "--num_crops", "4")  # 5 walks of 9 steps, 2 of 2
TOTAL = 49


def two_groups(rate: float = 0.5) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": decay} for decay in (0.0, 0.1)]
    return torch.optim.SGD(groups, rate)


def rates(args: Settings, optimizer: torch.optim.Optimizer | None = None) -> list[float]:
    """Of every step of a training."""
    check(args)
    optimizer = optimizer or two_groups()
    set_rate = make_schedule(args, optimizer, STEPS)
    found, step = [], 0
    for epoch, crops in walks(args.start_epoch, args.epochs, args.num_crops):
        for batch in range(STEPS[crops]):
            set_rate(epoch, batch, step)
            first, second = (group["lr"] for group in optimizer.param_groups)
            assert first == second
            found.append(first)
            step += 1
    return found


def cosine(step: int) -> float:
    """Loshchilov & Hutter 2017, with a linear warmup."""
    warm = 3 * TOTAL / 22
    if step < warm:
        return 0.01 + step / warm * (0.5 - 0.01)
    return 0.02 + 0.5 * (0.5 - 0.02) * (1 + math.cos(math.pi * step / TOTAL))


COSINE = (*TIMM, "--sched", "cosine", "--warmup-epochs", "3", "--warmup-lr", "0.01", "--min-lr", "0.02")


def test_the_cosine_falls_at_every_step_over_the_whole_training():
    assert rates(flags(*COSINE)) == pytest.approx([cosine(step) for step in range(TOTAL)])


def test_a_resumed_run_goes_on_with_the_rates():
    """A checkpoint brings the rate of its last step, of any schedule."""
    optimizer = two_groups(0.03)
    optimizer.param_groups[0]["initial_lr"] = 0.2
    set_rate = make_schedule(flags(*COSINE), optimizer, STEPS)
    for epoch, batch, step in ((12, 3, 30), (12, 4, 31), (16, 0, 36), (21, 1, 48)):
        for taken in (step, 0, 12345):  # with other batches before, or counted by nobody
            set_rate(epoch, batch, taken)
            assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([cosine(step)] * 2)


def test_the_rates_are_timms_own_to_the_last_bit():
    args, optimizer = flags(*COSINE), two_groups()
    scheduler, _ = create_scheduler_v2(
        two_groups(), "cosine", num_epochs=22, updates_per_epoch=TOTAL / 22, step_on_epochs=False, warmup_epochs=3,
        warmup_lr=0.01, min_lr=0.02,
    )  # fmt: skip
    expected = []
    for step in range(TOTAL):
        scheduler.step_update(step)
        expected.append(scheduler.optimizer.param_groups[0]["lr"])
    assert rates(args, optimizer) == expected
    assert rates(flags(*COSINE, "--start-epoch", "8")) == expected[18:]


def test_walks_of_other_crops_end_with_the_schedule():
    """As after a checkpoint of another --num_crops: the steps that are left are the schedule's last."""
    found = rates(flags(*COSINE, "--start-epoch", "3"))
    assert found == pytest.approx([cosine(step) for step in range(TOTAL - len(found), TOTAL)])


def test_a_later_start_begins_within_the_schedule():
    assert rates(flags(*COSINE, "--start-epoch", "8")) == pytest.approx(
        [cosine(step) for step in range(18, TOTAL)]
    )


def test_other_schedules_of_timm():
    per_epoch = TOTAL / 22
    assert rates(
        flags(*TIMM, "--sched", "step", "--sched-kwargs", "decay_epochs=4", "decay_rate=0.5")
    ) == pytest.approx([0.5 * 0.5 ** (step // (4 * per_epoch)) for step in range(TOTAL)])
    milestones = rates(flags(*TIMM, "--sched", "multistep", "--schedule", "8", "16"))
    assert (
        milestones[17:19] == pytest.approx([0.05] * 2)
        and milestones[16] == 0.5
        and milestones[-1] == pytest.approx(0.005)
    )
    assert rates(flags(*TIMM, "--sched", "poly", "--sched-kwargs", "decay_rate=2")) == pytest.approx(
        [0.5 * (1 - step / TOTAL) ** 2 for step in range(TOTAL)]
    )
    cycles = rates(flags(*TIMM, "--sched", "cosine", "--sched-kwargs", "k_decay=2"))
    assert cycles == pytest.approx(
        [0.25 * (1 + math.cos(math.pi * (step / TOTAL) ** 2)) for step in range(TOTAL)]
    )


def test_cycles_and_cooldown_lie_within_the_training():
    """Two cycles of 10 of the 22 epochs, the second from half the rate, and two at the end."""
    more = ("num_epochs=10", "cycle_limit=2", "cycle_decay=0.5", "cooldown_epochs=2")
    cycle = 10 * TOTAL / 22
    assert rates(flags(*TIMM, "--sched", "cosine", "--sched-kwargs", *more)) == pytest.approx(
        [
            (0.25, 0.125, 0)[int(step // cycle)] * (1 + math.cos(math.pi * (step % cycle) / cycle))
            for step in range(TOTAL)
        ]
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sched", "cosines"], "cosines.*; known ones are cosine, tanh, step, multistep, poly"),
        (["--sched", "plateau"], "Plateau LR only supports step per epoch"),
        (["--sched", "cosine", "--sched-kwargs", "speed=3"], "unexpected keyword argument 'speed'"),
        (
            ["--sched", "cosine", "--sched-kwargs", "updates_per_epoch=3"],
            "multiple values for keyword argument 'updates_per_epoch'",
        ),
        (
            ["--sched", "cosine", "--sched-kwargs", "cycle_limit=3"],
            "takes 66 epochs, and --epochs are 22; num_epochs in",
        ),
        (["--sched", "poly", "--sched-kwargs", "cooldown_epochs=2"], "takes 24 epochs"),
        (
            ["--sched", "tanh", "--warmup-epochs", "3", "--sched-kwargs", "warmup_prefix=True"],
            "takes 25 epochs",
        ),
        (["--sched", "cosine", "--cos"], "--cos and --warmup are of FKD's schedules"),
        (["--sched", "cosine", "--warmup", "9"], "take --sched cosine and --warmup-epochs"),
        (["--cos", "--warmup-epochs", "3"], "are of timm's schedules; give --sched"),
        (["--sched", "cosine", "--min-lr", "-1"], "--min-lr -1.0 is below 0"),
    ],
)
def test_what_does_not_go_together_is_refused(more, message):
    with pytest.raises(UsageError, match=message):
        rates(flags(*TIMM, *more))
