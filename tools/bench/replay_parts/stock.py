"""What people train with: random crops and their views by timm or torchvision, on Pillow images or on tensors."""

from __future__ import annotations

import argparse
import io

import torch

SIZE = 224
MEAN = (0.485, 0.456, 0.406)


def policy_of(options: argparse.Namespace, tensors: bool) -> list:
    """Return the transforms of torchvision, or of timm where the policy is timm's and images are Pillow's."""
    from torchvision.transforms import v2

    if options.aa is None:
        return []
    if options.aa == "trivialaugment":
        return [v2.TrivialAugmentWide()]
    if tensors or not options.aa.startswith("rand"):
        return [v2.RandAugment(2, 9)]
    from timm.data.auto_augment import NAME_TO_OP, rand_augment_transform

    NAME_TO_OP["PosterizeIncreasing"] = posterize
    return [rand_augment_transform(options.aa, {"img_mean": tuple(round(255 * part) for part in MEAN)})]


def posterize(image, bits: int, **_):
    """Do what timm's function did before Pillow 13, which refuses the 0 bits that timm's policy draws now and then."""
    from PIL import Image, ImageOps

    if bits >= 8:
        return image
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)


def tensor_crops(options: argparse.Namespace) -> tuple:
    """Return what decodes a file to a tensor, and what makes a crop of it."""
    from torchvision.transforms import v2

    cut = [v2.RandomResizedCrop(SIZE, interpolation=3, antialias=True), v2.RandomHorizontalFlip()]
    return decoded, v2.Compose([*cut, *policy_of(options, True), *erasing(options)])


def pillow_crops(options: argparse.Namespace) -> tuple:
    """Return what decodes a file to a Pillow image, and what makes a crop of it."""
    from torchvision.transforms import v2

    cut = [v2.RandomResizedCrop(SIZE, interpolation=3), v2.RandomHorizontalFlip()]
    return opened_image, v2.Compose([*cut, *policy_of(options, False), v2.PILToTensor(), *erasing(options)])


def erasing(options: argparse.Namespace) -> list:
    from torchvision.transforms import v2

    return [v2.RandomErasing(options.reprob, value=[124, 116, 104])] if options.reprob else []


def decoded(data: bytes) -> torch.Tensor:
    return torch.ops.image.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), 3)


def opened_image(data: bytes):
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


class Crops:
    def __init__(self, decode, transform, c: int) -> None:
        self.decode, self.transform, self.c = decode, transform, c

    def __call__(self, data: bytes) -> torch.Tensor:
        image = self.decode(data)
        return torch.stack([self.transform(image) for _ in range(self.c)])
