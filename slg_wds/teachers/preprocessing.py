"""How a teacher wants its pixels: size, mean, std, interpolation, and the evaluation transform.

Each setting is the user's override, else what the weights file says, else the model's own, else ImageNet's default. A
checkpoint of `slg-wds train` says how its student was shown images. The model's own are:

- timm: its pretrained_cfg;
- torchvision: the transforms of its published weights, also if the weights come from a file. These are the ones called
  DEFAULT, unless the name has a tag, as in `-a resnet50.IMAGENET1K_V1`;
- a private factory: what it returns beside its module, or the module's `preprocessing`, `pretrained_cfg` or
  `default_cfg`.

ImageNet's defaults are 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bilinear, 0.875.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from slg_wds.errors import SlgWdsError, TeacherError, UsageError

if TYPE_CHECKING:
    import torch

INTERPOLATIONS = ("bicubic", "bilinear", "nearest")
LARGEST_INPUT = 16384  # side in pixels

IMAGENET_DEFAULTS: dict[str, Any] = {
    "input_size": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "crop_mode": "center",
}


@dataclass(frozen=True)
class Preprocessing:
    """A model's input size and normalisation, and how images are resized for it.

    Attributes:
        input_size: side of the square input, in pixels.
        mean, std: per channel (red, green, blue), for pixels in 0..1.
        interpolation: `bicubic` or `bilinear`, both antialiased, or `nearest`.
        crop_pct: for evaluation only: the part of the resized shorter side that the centre crop keeps.
        crop_mode: for evaluation only: `squash` resizes to a square before the centre crop, `center` keeps the aspect
            ratio.
    """

    input_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    crop_mode: str = "center"

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide labels, as JSON values."""
        return {
            "input_size": self.input_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
        }

    def __str__(self) -> str:
        mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return f"{self.input_size} px, {self.interpolation}, mean ({mean}), std ({std}), crop_pct {self.crop_pct:.4g}"


def resolve(
    config: Mapping[str, Any], origin: str, overrides: Mapping[str, Any]
) -> tuple[Preprocessing, str]:
    """Choose each setting: the user's override, else the model's own, else ImageNet's default.

    Args:
        config: the model's own settings; keys that Preprocessing lacks are ignored.
        origin: where `config` comes from, in words.
        overrides: the user's settings by name; None for one that is not given.

    Returns:
        The preprocessing, and where its settings come from, in words.

    Raises:
        UsageError: an override that is invalid.
        TeacherError: one of the model's own settings that is invalid.
    """
    values: dict[str, Any] = {}
    given, own, assumed = [], [], []
    for name, parse in _PARSERS.items():
        if overrides.get(name) is not None:
            values[name] = parse(overrides[name], partial(_usage_error, name))
            given.append(name)
        elif config.get(name) is not None:
            values[name] = parse(config[name], partial(_model_error, origin, name))
            own.append(name)
        else:
            values[name] = IMAGENET_DEFAULTS[name]
            # That the centre crop is a plain one is not worth a mention.
            assumed += [name] if name != "crop_mode" else []
    parts = [origin] if own else []
    parts += [f"ImageNet defaults for {', '.join(assumed)}"] if assumed else []
    parts += [f"given: {', '.join(given)}"] if given else []
    return Preprocessing(**values), "; ".join(parts)


def check_overrides(overrides: Mapping[str, Any]) -> None:
    """Raise the UsageError of `resolve` for the user's settings early, before any model is built."""
    resolve({}, "", overrides)


def _usage_error(name: str, text: str) -> UsageError:
    return UsageError(f"--{name.replace('_', '-')} {text}")


def _model_error(origin: str, name: str, text: str) -> TeacherError:
    return TeacherError(f"{origin}: {name} {text}", hint=f"give --{name.replace('_', '-')} yourself")


_Error = Callable[[str], SlgWdsError]


def _parse_size(value: Any, error: _Error) -> int:
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    channels = sides.pop(0) if len(sides) == 3 else 3
    if (
        not all(isinstance(side, int) and 1 <= side <= LARGEST_INPUT for side in sides)
        or len(set(sides)) != 1
    ):
        raise error(f"{value!r} is not a square of 1 to {LARGEST_INPUT} pixels")
    if channels != 3:
        raise error(f"{value!r} has {channels} channels, only 3 are supported")
    return int(sides[0])


def _parse_triple(value: Any, error: _Error) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(channel) for channel in value)
    except (TypeError, ValueError):
        raise error(f"{value!r} is not three numbers") from None
    if not all(math.isfinite(channel) for channel in (red, green, blue)):
        raise error(f"{value!r} is not three finite numbers")
    return red, green, blue


def _parse_std(value: Any, error: _Error) -> tuple[float, float, float]:
    triple = _parse_triple(value, error)
    if min(triple) <= 0:
        raise error(f"{value!r} must be above 0")
    return triple


def _parse_interpolation(value: Any, error: _Error) -> str:
    name = str(getattr(value, "value", value)).lower()  # torchvision gives an enumeration
    if name not in INTERPOLATIONS:
        raise error(f"{name!r} is not one of {', '.join(INTERPOLATIONS)}")
    return name


def _parse_crop_pct(value: Any, error: _Error) -> float:
    # A few models of timm have more than 1: their images are resized below the input size and padded.
    if not isinstance(value, (int, float)) or not 0 < value <= 2:
        raise error(f"{value!r} is not above 0 and at most 2")
    return float(value)


def _parse_crop_mode(value: Any, error: _Error) -> str:
    # timm's "border" differs from "center" only in what it pads with, above crop_pct 1.
    return "squash" if value == "squash" else "center"


_PARSERS: dict[str, Callable[[Any, _Error], Any]] = {
    "input_size": _parse_size,
    "mean": _parse_triple,
    "std": _parse_std,
    "interpolation": _parse_interpolation,
    "crop_pct": _parse_crop_pct,
    "crop_mode": _parse_crop_mode,
}


def eval_transform(image: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize one image and cut its centre, as the model's own evaluation does.

    Args:
        image: uint8 [3,H,W].
        preprocessing: its input size is S.

    Returns:
        uint8 [3,S,S].
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    side = preprocessing.input_size
    # Rounded down, as timm does. The margin keeps 224 / (224 / 232) at the 232 of torchvision.
    resized = max(1, math.floor(side / preprocessing.crop_pct + 1e-6))
    size = [resized, resized] if preprocessing.crop_mode == "squash" else [resized]
    mode = InterpolationMode(preprocessing.interpolation)
    out: torch.Tensor = F.center_crop(F.resize(image, size, interpolation=mode, antialias=True), [side, side])
    return out
