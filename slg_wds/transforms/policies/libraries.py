"""The policies of timm, torchvision and DeiT III: which operations they draw from, in which ranges.

Where a library gives a length in pixels, it is taken as a share of 224 pixels, so that it holds for every input size.
"""

from __future__ import annotations

from slg_wds.transforms.operations import (
    AUTO_CONTRAST,
    BRIGHTNESS,
    COLOR,
    CONTRAST,
    EQUALIZE,
    GAUSSIAN_BLUR,
    INVERT,
    POSTERIZE,
    ROTATE,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    SOLARIZE,
    SOLARIZE_ADD,
    TRANSLATE_X,
    TRANSLATE_Y,
)
from slg_wds.transforms.policies.rules import Levels, OperationChoice, OperationRule

SIDE = 224
BILINEAR = 1
# timm draws bilinear or bicubic for each operation, or takes the one that it is told. Bicubic takes far longer.
TIMM_RESAMPLINGS = (BILINEAR,)
TORCHVISION_BINS = 31

# timm 1.0, timm/data/auto_augment.py. Level 1 is its magnitude 10.
_ROTATE = OperationChoice(ROTATE, end=30.0, mirrored=True)
_GEOMETRIC = {
    "ShearX": OperationChoice(SHEAR_X, end=0.3, mirrored=True),
    "ShearY": OperationChoice(SHEAR_Y, end=0.3, mirrored=True),
    "TranslateXRel": OperationChoice(TRANSLATE_X, end=0.45, mirrored=True),
    "TranslateYRel": OperationChoice(TRANSLATE_Y, end=0.45, mirrored=True),
}
_PLAIN = {
    "AutoContrast": OperationChoice(AUTO_CONTRAST),
    "Equalize": OperationChoice(EQUALIZE),
    "Invert": OperationChoice(INVERT),
    "Rotate": _ROTATE,
}
_ENHANCED = {"Color": COLOR, "Contrast": CONTRAST, "Brightness": BRIGHTNESS, "Sharpness": SHARPNESS}
_SOLARIZE_ADD = OperationChoice(SOLARIZE_ADD, end=110.0, rounding="down")

TIMM = {
    **_PLAIN,
    "Posterize": OperationChoice(POSTERIZE, end=4.0, rounding="down"),
    "Solarize": OperationChoice(SOLARIZE, end=256.0, rounding="down"),
    "SolarizeAdd": _SOLARIZE_ADD,
    **{name: OperationChoice(operation, -0.9, 0.9) for name, operation in _ENHANCED.items()},
    **_GEOMETRIC,
}
TIMM_INCREASING = {
    **_PLAIN,
    "PosterizeIncreasing": OperationChoice(POSTERIZE, 4.0, 0.0, rounding="up"),
    "SolarizeIncreasing": OperationChoice(SOLARIZE, 256.0, 0.0, rounding="up"),
    "SolarizeAdd": _SOLARIZE_ADD,
    **{
        f"{name}Increasing": OperationChoice(operation, end=0.9, mirrored=True)
        for name, operation in _ENHANCED.items()
    },
    **_GEOMETRIC,
}
_TIMM_3A = {
    "SolarizeIncreasing": TIMM_INCREASING["SolarizeIncreasing"],
    "Desaturate": OperationChoice(COLOR, -0.5, -1.0),
    "GaussianBlur": OperationChoice(GAUSSIAN_BLUR, 0.1 / SIDE, 2.0 / SIDE),
}
_ANY = {**TIMM_INCREASING, **_TIMM_3A}
_WEIGHTS = {
    "weights": {
        "Rotate": 3.0,
        "ShearX": 2.0,
        "ShearY": 2.0,
        "TranslateXRel": 1.0,
        "TranslateYRel": 1.0,
        "ColorIncreasing": 0.25,
        "SharpnessIncreasing": 0.25,
        "AutoContrast": 0.25,
        "SolarizeIncreasing": 0.05,
        "SolarizeAdd": 0.05,
        "ContrastIncreasing": 0.05,
        "BrightnessIncreasing": 0.05,
        "Equalize": 0.05,
        "PosterizeIncreasing": 0.05,
        "Invert": 0.05,
    },
    "3aw": {
        "SolarizeIncreasing": 6.0,
        "Desaturate": 6.0,
        "GaussianBlur": 6.0,
        "Rotate": 3.0,
        "ShearX": 2.0,
        "ShearY": 2.0,
        "PosterizeIncreasing": 1.0,
        "AutoContrast": 1.0,
        "ColorIncreasing": 1.0,
        "SharpnessIncreasing": 1.0,
        "ContrastIncreasing": 1.0,
        "BrightnessIncreasing": 1.0,
        "Equalize": 1.0,
        "Invert": 1.0,
    },
}
TIMM_SETS = ("3a", *_WEIGHTS)


def timm_randaugment(
    levels: Levels, count: int = 2, probability: float = 0.5, increasing: bool = False, among: str = ""
) -> OperationRule:
    """Return timm's RandAugment.

    Args:
        levels: how strong operations are; level 1 is timm's magnitude 10.
        count: operations of a view.
        probability: with which each is done.
        increasing: draw from operations that grow stronger with the level.
        among: another set to draw from: one of TIMM_SETS; empty for none.
    """
    if among in _WEIGHTS:
        choices = tuple(_ANY[name] for name in _WEIGHTS[among])
        weights = tuple(_WEIGHTS[among].values())
        return OperationRule(choices, count, levels, weights, probability, TIMM_RESAMPLINGS)
    named = _TIMM_3A if among == "3a" else TIMM_INCREASING if increasing else TIMM
    return OperationRule(tuple(named.values()), count, levels, None, probability, TIMM_RESAMPLINGS)


def _torchvision(
    shear: float, translation: float, degrees: float, factor: float, bits: int
) -> tuple[OperationChoice, ...]:
    """Return what torchvision draws from, in its order, with the ranges of one of its policies."""
    return (
        OperationChoice(SOLARIZE, 256.0, 256.0),  # its Identity: solarized from 256 on, which changes nothing
        OperationChoice(SHEAR_X, end=shear, mirrored=True),
        OperationChoice(SHEAR_Y, end=shear, mirrored=True),
        OperationChoice(TRANSLATE_X, end=translation, mirrored=True),
        OperationChoice(TRANSLATE_Y, end=translation, mirrored=True),
        OperationChoice(ROTATE, end=degrees, mirrored=True),
        OperationChoice(BRIGHTNESS, end=factor, mirrored=True),
        OperationChoice(COLOR, end=factor, mirrored=True),
        OperationChoice(CONTRAST, end=factor, mirrored=True),
        OperationChoice(SHARPNESS, end=factor, mirrored=True),
        OperationChoice(POSTERIZE, 8.0, 8.0 - bits, rounding="nearest"),
        OperationChoice(SOLARIZE, 255.0, 0.0, rounding="up"),
        OperationChoice(AUTO_CONTRAST),
        OperationChoice(EQUALIZE),
    )


def torchvision_randaugment(count: int, magnitude: int) -> OperationRule:
    """Return torchvision's RandAugment (0.29); `magnitude` is below TORCHVISION_BINS."""
    choices = _torchvision(0.3, 150 / 331, 30.0, 0.9, 4)
    return OperationRule(choices, count, Levels(magnitude / (TORCHVISION_BINS - 1)))


def torchvision_trivialaugment() -> OperationRule:
    """Return torchvision's TrivialAugmentWide (0.29)."""
    choices = _torchvision(0.99, 32 / SIDE, 135.0, 0.99, 6)
    return OperationRule(choices, 1, Levels(1.0, bins=TORCHVISION_BINS))


def three_augment() -> OperationRule:
    """Return the three augmentations of DeiT III (arXiv 2204.07118, section 3): grey, solarized or blurred."""
    choices = (
        OperationChoice(COLOR, -1.0, -1.0),
        OperationChoice(SOLARIZE, 128.0, 128.0),
        OperationChoice(GAUSSIAN_BLUR, 0.1 / SIDE, 2.0 / SIDE),
    )
    return OperationRule(choices, 1, Levels(1.0, even=True))


def color_jitter(strength: float) -> OperationRule:
    """Return torchvision's ColorJitter of brightness, contrast and saturation by factors in 1 +- strength."""
    choices = tuple(OperationChoice(one, -strength, strength) for one in (BRIGHTNESS, CONTRAST, COLOR))
    return OperationRule(choices, 3, Levels(1.0, even=True), weights=(1.0, 1.0, 1.0))
