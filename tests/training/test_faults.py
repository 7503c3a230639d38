"""Full memory, devices that fail and processes that are lost end a training with one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from slg_wds.errors import DeviceError, MemoryFullError, SlgWdsError
from slg_wds.training.command import main
from slg_wds.training.faults import run_faults
from slg_wds.training.flags import Settings, parse
from slg_wds.training.output.checkpoints import restore
from support.models.tiny_students import plain
from support.training import STUDENTS, common

GREEDY = ("-a", f"{STUDENTS}:greedy", "--epochs", "1", "--num_crops", "1")
AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)  # since torch 2.8


def settings(*flags: str) -> Settings:
    args = parse(flags)
    args.rank, args.ranks, args.device = 1, 4, torch.device("cpu")
    return args


def words(labels, images, folder, *more: str) -> list[str]:
    return [*common(labels), *GREEDY, *more, "--save_checkpoint_path", str(folder), str(images)]


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (
            (),
            "lower -b or take a batch in more pieces (--grad-accum-steps) or halve the activations (--amp bf16)",
        ),
        (("--amp", "bf16"), "lower -b or take a batch in more pieces (--grad-accum-steps)"),
    ],
)
def test_full_memory_is_one_line_that_says_what_takes_less(labels, photographs, tmp_path, capsys, more, hint):
    """Torch's allocator on the CPU, which has no such memory, raises a plain RuntimeError."""
    assert main(words(labels, photographs, tmp_path, *more), "train") == 1
    said = capsys.readouterr().err
    assert said.startswith("train: the training failed: ") and "can't allocate memory" in said
    assert said.endswith(f"; {hint}\n") and said.count("\n") == 1


def test_what_takes_less_memory_is_what_the_run_can_do():
    def hint(*flags: str) -> str:
        with pytest.raises(MemoryFullError) as caught, run_faults(settings(*flags)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return caught.value.hint

    assert "--grad-accum-steps" in hint() and "--amp bf16" in hint()
    assert hint("-e", "--pretrained", "--amp", "bf16") == "lower -b"
    assert "--grad-accum-steps" not in hint("--distill", "embedding", "--embedding-loss", "relation")


NCCL = """NCCL error in: ProcessGroupNCCL.cpp:1333, invalid usage (run with NCCL_DEBUG=WARN for details)
ncclInvalidUsage: This usually reflects invalid usage of NCCL library.
Last error:
Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 4000"""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (AcceleratorError("CUDA error: device-side assert triggered"), DeviceError, "because of the device cpu"),
        (RuntimeError("CUDA error: the launch timed out and was terminated"), DeviceError, "nvidia-smi -q"),
        (AcceleratorError("CUDA error: no kernel image is available for execution on the device"), SlgWdsError,
         "this torch is not built for the device cpu: "),
        (torch.distributed.DistBackendError(NCCL), SlgWdsError, "Duplicate GPU detected"),
        (torch.distributed.DistNetworkError("The socket has timed out"), SlgWdsError, "process 1 of 4 lost touch"),
        (RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer"), SlgWdsError, "--resume auto"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError, "mat1"),
        (ValueError("CUDA error"), ValueError, "CUDA"),
    ],
)  # fmt: skip
def test_errors_of_devices_and_of_the_exchange_are_told_from_others(error, kind, message):
    with pytest.raises(Exception) as caught, run_faults(settings()):
        raise error
    assert type(caught.value) is kind and message in str(caught.value)


def test_a_checkpoint_that_does_not_fit_into_memory_is_not_blamed():
    """The error is a RuntimeError, as those of weights of another model are."""

    def full(state):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    optimizer = SimpleNamespace(load_state_dict=full, param_groups=[])
    model = plain()
    training = SimpleNamespace(model=model, average=None, optimizer=optimizer, scaler=None)
    with pytest.raises(MemoryFullError):
        restore(settings(), training, {"state_dict": model.state_dict(), "optimizer": {"param_groups": []}})


@pytest.mark.slow
def test_processes_that_lose_one_end_with_one_line_each(labels, photographs, tmp_path):
    """The second one has no memory. The first one learns it from gloo."""
    command = [sys.executable, "-m", "slg_wds", "train", *words(labels, photographs, tmp_path)]
    place = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SLURM_STEP_TASKS_PER_NODE": "2"}
    place |= {"SLG_TEST_GREEDY": "1", "OMP_NUM_THREADS": "1"}
    places = [{**os.environ, **place, "SLURM_PROCID": one, "SLURM_LOCALID": one} for one in ("0", "1")]
    tasks = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=one) for one in places]
    first, second = (task.communicate(timeout=120)[1] for task in tasks)
    assert [task.returncode for task in tasks] == [1, 1]
    assert "process 0 of 2 lost touch with the others" in first and "Traceback" not in first
    assert "can't allocate memory" in second and "Traceback" not in second
