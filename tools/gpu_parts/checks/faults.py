"""Errors of the device, as only a device makes them. The last error breaks the process, which ends with this part."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from gpu_parts.equipment.setup import Setup
from gpu_parts.supervision.findings import Findings
from slg_wds.errors import DeviceError, MemoryFullError
from slg_wds.teachers.faults import device_faults


def check(findings: Findings) -> None:
    setup = Setup(findings)
    if not setup.gpu:
        return
    expect(setup, "more memory than there is", MemoryFullError, too_much)
    still = torch.ones(4, device=setup.device).sum().item() == 4
    findings.holds("the device works after a full memory", still)
    expect(setup, "an assertion on the device", DeviceError, out_of_range)
    expect(setup, "work after that", DeviceError, lambda device: torch.ones(4, device=device).sum().item())
    os._exit(0)  # on its way out torch would find a device that is broken, and abort


def expect(setup: Setup, name: str, kind: type[Exception], work: Callable[[torch.device], object]) -> None:
    """Check that some work ends with an error of a kind."""
    try:
        with device_faults(setup.device, name):
            work(setup.device)
        seen = "no error"
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"[:300]
        setup.findings.holds(f"{name}: {kind.__name__}", isinstance(error, kind), seen)
        return
    setup.findings.holds(f"{name}: {kind.__name__}", False, seen)


def too_much(device: torch.device) -> object:
    return torch.empty(1 << 44, dtype=torch.uint8, device=device)


def out_of_range(device: torch.device) -> object:
    return torch.zeros(4, device=device)[torch.tensor([9], device=device)].sum().item()
