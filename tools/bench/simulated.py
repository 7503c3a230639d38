"""What both simulations need: sleeps that end on time, and photographs that nobody took."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

import torch
from PIL import Image

from slg_wds.teachers.forwards.scenes import scenes


def exact_sleeps() -> None:
    """Let this thread and those that it starts sleep to the microsecond; by default Linux adds 50."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(29, 1000, 0, 0, 0)  # PR_SET_TIMERSLACK, in nanoseconds


def photographs(folder: Path, count: int, distinct: int = 16) -> None:
    """Write synthetic photographs of 500 x 375 pixels, about 50 KB each, to class folders of folder/train.

    Args:
        folder: where to write.
        count: how many; beyond the first `distinct` they are links to those.
        distinct: how many different ones.
    """
    for number, pixels in enumerate(scenes(min(count, distinct), 500, 0)):
        noise = torch.randn(375, 500, 3, generator=torch.Generator().manual_seed(number)) * 6
        pixels_hwc = (pixels.permute(1, 2, 0)[:375] + noise).clamp(0, 255).to(torch.uint8)
        path = folder / "train" / f"class{number % 4}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels_hwc.numpy()).save(path, quality=85)
    for number in range(distinct, count):
        source = folder / "train" / f"class{number % distinct % 4}" / f"{number % distinct}.jpg"
        source.with_name(f"{number}.jpg").hardlink_to(source)
