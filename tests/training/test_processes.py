"""Which device a process uses, and how the processes of a run end."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d
from torch.testing._internal.distributed import fake_pg  # noqa: F401  # registers the backend

from slg_wds.errors import SlgWdsError, UsageError
from slg_wds.training import loop, processes
from slg_wds.training.command import main
from slg_wds.training.flags import parse
from support.training import PLAIN


class Ended(BaseException):
    """In place of the end of the process."""


@pytest.fixture
def group(monkeypatch):
    """A training as the first process of so many, in a group of a backend."""

    def begin(backend: str, size: int) -> None:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=size)

    yield begin
    if dist.is_initialized():
        dist.destroy_process_group()


def failing(monkeypatch, group, error: BaseException, size: int = 2) -> None:
    """Train in a group whose processes wait for each other on their GPUs, as NCCL's do, until an error."""

    def fails(args) -> None:
        raise error

    monkeypatch.setattr(processes, "start_process_group", lambda args: group("fake", size))
    monkeypatch.setattr(loop, "run", fails)
    main(["-a", PLAIN])


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SlgWdsError("an image is broken"), 1, "an image is broken"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("of a model"), 1, "ZeroDivisionError: of a model"),
    ],
)
def test_a_process_that_fails_waits_for_no_other(monkeypatch, group, capsys, error, code, said):
    """To leave the group, it would wait for the others, and these for it."""
    codes = []

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: pytest.fail("it waits"))
    with monkeypatch.context() as patched, pytest.raises(Ended):
        failing(patched, group, error)
    assert codes == [code] and said in capsys.readouterr().err
    monkeypatch.undo()


def test_a_process_that_fails_alone_leaves_its_group(monkeypatch, group):
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail("nobody waits for it"))
    failing(monkeypatch, group, SlgWdsError("an image is broken"), size=1)
    assert not dist.is_initialized()
    with pytest.raises(ZeroDivisionError):
        failing(monkeypatch, group, ZeroDivisionError(), size=1)
    assert not dist.is_initialized()


def test_the_end_warns_of_nothing(monkeypatch, group):
    """A barrier does, on a machine with GPUs: nobody tells it which one."""
    monkeypatch.setattr(torch._C, "_get_accelerator", lambda *_: torch.device("cuda"))
    monkeypatch.setattr(distributed_c10d, "_get_object_coll_device", lambda *_: "cuda")
    group("gloo", 1)
    args = parse(["-a", PLAIN])
    args.device = torch.device("cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        processes.end_together(args)
    assert [str(one.message) for one in caught] == []


def device_of(monkeypatch, gpus: int, gpu: str | None = None, **launcher: str) -> torch.device:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    args = parse(["-a", PLAIN, *(["--gpu", gpu] if gpu else [])])
    processes.take_place(args)
    return args.device


@pytest.mark.parametrize(
    ("gpus", "gpu", "device"), [(0, None, "cpu"), (4, None, "cuda:0"), (4, "3", "cuda:3"), (1, "0", "cuda:0")]
)
def test_a_process_by_itself_has_the_gpu_that_was_asked_for(monkeypatch, gpus, gpu, device):
    assert str(device_of(monkeypatch, gpus, gpu)) == device


def test_each_process_of_a_launcher_has_a_gpu_of_its_own(monkeypatch):
    started = {"RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2"}
    assert str(device_of(monkeypatch, 4, **started)) == "cuda:2"
    assert str(device_of(monkeypatch, 1, **started)) == "cuda:0"  # it sees no other
    assert str(device_of(monkeypatch, 4, "0", **started)) == "cuda:2"  # as in FKD


@pytest.mark.parametrize(
    ("gpus", "gpu", "said"),
    [(2, "5", "no GPU 5: this machine has 2 GPUs, 0..1"), (0, "0", "no GPU 0: .* no GPU;")],
)
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, gpus, gpu, said):
    """Another one, or the CPU, would do something else than was asked for."""
    with pytest.raises(UsageError, match=said):
        device_of(monkeypatch, gpus, gpu)
