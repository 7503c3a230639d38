"""FKD's original restated: its label files and its student's crops."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from slg_wds.demo.teacher import lite0

CROPS = 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def probabilities(image: Path, model: torch.nn.Module, generator: np.random.Generator):
    """Label random crops of a photograph: coords float32 [M, 4], flips bool [M], p float32 [M, C]."""
    picture = Image.open(image).convert("RGB")
    coords, flips, inputs = [], generator.random(CROPS) < 0.5, []
    for flip in flips:
        i, j, h, w = RandomResizedCrop.get_params(picture, (0.08, 0.936), (3 / 4, 4 / 3))
        width, height = picture.size
        coords.append(torch.FloatTensor((i / height, j / width, h / height, w / width)))
        crop = F.resized_crop(picture, i, j, h, w, [224, 224], InterpolationMode.BICUBIC)
        inputs.append(F.normalize(F.to_tensor(F.hflip(crop) if flip else crop), MEAN, STD))
    with torch.no_grad():
        p = torch.softmax(model(torch.stack(inputs)), dim=1)
    return torch.stack(coords).numpy(), flips, p


def quantised(p: torch.Tensor, label_type: str) -> np.ndarray:
    """Return labels as the original stores them: int64 [M], float32 [M, 2] or [M, 2, k]."""
    if label_type == "full":
        return p.numpy()
    if label_type == "hard":
        return p.argmax(dim=1).numpy()
    if label_type == "smoothing":
        value, index = p.max(dim=1)
        return torch.stack([index.float(), value], dim=1).numpy()
    value, index = p.topk(int(label_type.rpartition("_k")[2]), dim=1)
    return torch.stack([index.float(), value], dim=1).numpy()


def write(file: Path, coords: np.ndarray, flips: np.ndarray, labels: np.ndarray, half: bool = False) -> None:
    """Save one label file as the original does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if half:
        coords, labels = np.float16(coords), np.float16(labels)
    torch.save([coords, flips, labels], file)


def load(file: Path) -> list[np.ndarray]:
    """Load a label file as the original's reader does, by unrestricted unpickling."""
    return torch.load(file, map_location="cpu", weights_only=False)


def teacher() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    model: torch.nn.Module = lite0().eval()
    return model


def readers_box(coords: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) as the original's reader passes it to Pillow; `size` is (height, width)."""

    class Watched(Image.Image):
        seen: tuple[int, ...] = (0, 0, 1, 1)  # a box of the whole image, here of one pixel, is not cut

        def _crop(self, im, box):
            Watched.seen = tuple(map(int, map(round, box)))
            raise StopIteration

    picture = Image.new("L", (1, 1))
    picture.__class__ = Watched
    height, width = size
    i, j = coords[0].item() * height, coords[1].item() * width
    h, w = coords[2].item() * height, coords[3].item() * width
    with contextlib.suppress(StopIteration):
        F.crop(picture, i, j, h, w)
    return Watched.seen


def readers_crop(picture: Image.Image, coords: np.ndarray, flip: bool, side: int) -> np.ndarray:
    """Return the pixels [3, S, S] of one crop as the original's student gets them, bilinear."""
    width, height = picture.size
    i, j = coords[0].item() * height, coords[1].item() * width
    h, w = coords[2].item() * height, coords[3].item() * width
    crop = F.resized_crop(picture, i, j, h, w, [side, side], InterpolationMode.BILINEAR)
    return np.asarray(F.hflip(crop) if flip else crop).transpose(2, 0, 1)
