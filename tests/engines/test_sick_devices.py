"""Devices that fail: the process ends and another continues; a full or dead device ends the run with a hint."""

from types import SimpleNamespace

import pytest
import torch

from slg_wds.errors import DeviceError, MemoryFullError
from slg_wds.generation.inference import Forward
from slg_wds.teachers.faults import device_faults
from support.models.names import TINY
from support.programs import made_here, tool

KILL, JOBS = tool("kill_test"), tool("fault_jobs")
SICK = TINY.replace("tiny_teacher.py:tiny", "sick_teacher.py:sick")
MORE = ["-a", SICK, "--samples-per-shard", "4", "--num_crops", "60"]


@pytest.fixture(scope="module")
def well(photographs, tmp_path_factory):
    target = tmp_path_factory.mktemp("sick") / "well"
    made_here(KILL.command(photographs, target, *MORE, "--devices", "cpu"))
    return KILL.contents(target)


@pytest.fixture
def ran(photographs, tmp_path):
    def run(kind, devices):
        command = KILL.command(photographs, tmp_path / "set", *MORE, "--devices", devices)
        run = JOBS.Run(command, SLG_TEST_SICK=f"{kind}:{tmp_path}")
        run.code = run.end()
        run.made = KILL.contents(tmp_path / "set")
        run.failures = len(list(tmp_path.glob("failed-*")))
        assert "Traceback" not in run.text
        assert not (tmp_path / "normal-exit").exists()  # which may hang in the driver of a device that failed
        return run

    return run


@pytest.mark.parametrize("devices", ["cpu", pytest.param("cpu:2", marks=pytest.mark.slow)])
def test_a_device_that_fails_once_costs_a_process_and_no_byte(ran, well, devices):
    run = ran("once", devices)
    assert run.code == 0, run.text
    assert run.failures == 1 and "uncorrectable ECC" in run.text
    assert run.made == well


@pytest.mark.slow
def test_a_device_that_fails_for_good_does_not_stop_the_other(ran, well):
    run = ran("one_of_two", "cpu:2")
    assert run.code == 0, run.text
    assert (
        run.failures == 3 and "it ended 3 times without a shard to blame and is not started again" in run.text
    )
    assert "given up" not in run.text
    assert run.made == well


@pytest.mark.slow
def test_the_last_device_that_fails_for_good_ends_the_run(ran):
    run = ran("always", "cpu")
    assert run.code == 1 and run.failures == 4  # the first time in the run's own process
    assert "workers end again and again, worker 0 at last" in run.said[-1] and "ECC" in run.said[-1]


@pytest.mark.slow
def test_a_full_device_ends_the_run_with_what_to_do(ran):
    run = ran("full", "cpu:2")
    assert run.code == 1 and run.failures <= 2
    assert run.said[-1].endswith("lower --num-seg") and "CUDA out of memory" in run.said[-1]


AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (AcceleratorError("CUDA error: device-side assert triggered"), DeviceError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"), DeviceError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceError),
        (RuntimeError("HIP error: an illegal memory access was encountered"), DeviceError),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), DeviceError),
        (AcceleratorError("CUDA error: out of memory"), MemoryFullError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), MemoryFullError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), MemoryFullError),
        (torch.OutOfMemoryError("CUDA out of memory."), MemoryFullError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), MemoryFullError),
        (MemoryError(), MemoryFullError),
        (AcceleratorError("CUDA error: no kernel image is available for execution on the device"), AcceleratorError),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED."), RuntimeError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), RuntimeError),
        (ValueError("CUDA error"), ValueError),
        (DeviceError("told already"), DeviceError),
    ],
)  # fmt: skip
def test_errors_of_a_device_are_told_from_others(error, kind):
    with pytest.raises(Exception) as caught, device_faults(torch.device("cpu"), "labelling failed"):
        raise error
    assert type(caught.value) is kind
    assert kind is not MemoryFullError or caught.value.hint is None  # only a command knows its options


def failing_event():
    raise AcceleratorError("CUDA error: unspecified launch failure")


def test_an_error_that_comes_to_light_after_the_forward_is_the_devices_too():
    forward = Forward(SimpleNamespace(name="timm:x"), None, False, torch.device("cpu"), None)
    late = SimpleNamespace(event=SimpleNamespace(synchronize=failing_event))
    with pytest.raises(DeviceError, match="labelling with timm:x failed, because of the device cpu"):
        forward._on_device(forward._land, None, late)


def test_the_end_of_a_forward_is_awaited_on_the_teachers_own_device(monkeypatch):
    """Also if another device is current: an event on another stream would complete too early."""
    recorded = []
    event = SimpleNamespace(record=lambda stream=None: recorded.append(stream))
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking=False: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: f"stream of {device}")
    forward = Forward(SimpleNamespace(name="timm:x"), None, False, torch.device("cuda:3"), None)
    found = forward._outputs(torch.tensor(True), None, torch.ones(2, 3), None)
    assert found.event is event and recorded == ["stream of cuda:3"]
