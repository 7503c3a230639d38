"""The operations of views. The number, name, argument and pixels of each are defined here and nowhere else.

Pixels are those of Pillow's functions on RGB images of 8 bits. A code is one byte: 32 and 64 are added to an
operation's number for a negative argument and for the resampling, which is 0 (nearest), 1 (bilinear) or 2 (bicubic).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from slg_wds.arrays import F64, U8
from slg_wds.errors import RecordError
from slg_wds.format.records.mixing import GRID
from slg_wds.transforms.canvas import RAMP, Canvas, blended, equalized, smoothed, stretched

if TYPE_CHECKING:
    from PIL import Image
    from PIL.Image import Resampling

NEGATIVE = 32
RESAMPLING = 64
RESAMPLINGS = ("nearest", "bilinear", "bicubic")
FINEST = 1 << 15  # distances are multiples of 1 / FINEST pixels


@dataclass(frozen=True)
class Operation:
    """One operation.

    The value that it works with is `origin` + or - argument x `full` / 255; its argument is a byte.

    Attributes:
        number: 1 to 31.
        name: as timm and torchvision call it.
        words: what it does, as a format of its value.
        pixels: does it to a canvas: (canvas, value, resampling).
        full: how far from the origin the argument 255 is.
        origin: the value of the argument 0.
        signed: whether values below the origin exist.
        resampled: whether pixels are resampled.
        idle_from: from this value on it changes nothing; None if there is no such value.
    """

    number: int
    name: str
    words: str
    pixels: Callable[[Canvas, float, int], None]
    full: float = 0.0
    origin: float = 0.0
    signed: bool = False
    resampled: bool = False
    idle_from: float | None = None

    def encode(self, values: F64) -> tuple[U8, U8]:
        """Return the codes (without resampling) and arguments that are nearest to values; code 0 for idle ones."""
        steps = (values - self.origin) / self.full * GRID if self.full else np.zeros_like(values)
        arguments = np.rint(np.abs(steps))
        negative = (steps < 0) & (arguments > 0)
        codes = np.where(negative, self.number + NEGATIVE, self.number)
        idle = values >= self.idle_from if self.idle_from is not None else np.zeros(len(values), np.bool_)
        codes, arguments = np.where(idle, 0, codes), np.where(idle, 0, arguments)
        if (arguments > GRID).any() or (negative.any() and not self.signed):
            raise ValueError(f"a value of {self.name} is out of its range")
        return codes.astype(np.uint8), arguments.astype(np.uint8)

    def value(self, code: int, argument: int) -> float:
        """Return the value that a code and argument stand for."""
        offset = argument * self.full / GRID
        return self.origin - offset if code & NEGATIVE else self.origin + offset


def operation_of(code: int) -> tuple[Operation, int]:
    """Return the operation of a code other than 0, and its resampling.

    Raises:
        RecordError: there is no such operation.
    """
    operation = _BY_NUMBER.get(code & (NEGATIVE - 1))
    resampling = code // RESAMPLING
    if (
        operation is None
        or (code & NEGATIVE and not operation.signed)
        or resampling >= (len(RESAMPLINGS) if operation.resampled else 1)
    ):
        raise RecordError(f"views have an operation of code {code}, which is unknown", hint="update slg-wds")
    return operation, resampling


def _filter(resampling: int) -> Resampling:
    from PIL.Image import Resampling

    return (Resampling.NEAREST, Resampling.BILINEAR, Resampling.BICUBIC)[resampling]


def _move(canvas: Canvas, slope: float, shift: float, vertical: bool, resampling: int) -> None:
    """Take each pixel from slope (n + 1/2) + shift pixels further along its row n, or along its column if `vertical`.

    Bilinear is a blend of the two nearest pixels, in a fifth of the time of Pillow's own. Steps of 2^-15 are exact in
    Pillow's arithmetic of 16 binary places, so both sides round down at the same pixel.
    """
    from PIL import Image

    slope, shift = (round(part * FINEST) / FINEST for part in (slope, shift))
    if RESAMPLINGS[resampling] != "bilinear":
        canvas.image = _moved(canvas, slope, shift, vertical, _filter(resampling))
        return
    near, far = (
        _moved(canvas, slope, shift + half, vertical, Image.Resampling.NEAREST) for half in (-0.5, 0.5)
    )
    distance = slope * (np.arange(canvas.side) + 0.5) + shift
    weights = np.rint(255 * (distance - np.floor(distance))).astype(np.uint8)
    weights = np.broadcast_to(weights if vertical else weights[:, None], (canvas.side, canvas.side))
    canvas.image = Image.composite(far, near, Image.fromarray(np.ascontiguousarray(weights)))


def _moved(canvas: Canvas, slope: float, shift: float, vertical: bool, resampling: Resampling) -> Image.Image:
    from PIL.Image import Transform

    matrix = (1, 0, 0, slope, 1, shift) if vertical else (1, slope, shift, 0, 1, 0)
    size = (canvas.side, canvas.side)
    return canvas.image.transform(size, Transform.AFFINE, matrix, resampling, fillcolor=canvas.fill)


def _auto_contrast(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(stretched(canvas.histogram()))


def _equalize(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(equalized(canvas.histogram()))


def _invert(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map((255 - RAMP).astype(np.uint8))


def _rotate(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.image = canvas.image.rotate(value, _filter(resampling), fillcolor=canvas.fill)


def _posterize(canvas: Canvas, value: float, resampling: int) -> None:
    dropped = max(0, 8 - int(value))
    canvas.map((RAMP >> dropped << dropped).astype(np.uint8))


def _solarize(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(np.where(value > RAMP, RAMP, 255 - RAMP).astype(np.uint8))


def _solarize_add(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(np.where(RAMP < 128, np.minimum(RAMP + int(value), 255), RAMP).astype(np.uint8))


def _color(canvas: Canvas, value: float, resampling: int) -> None:
    from PIL import ImageEnhance

    canvas.image = ImageEnhance.Color(canvas.image).enhance(value)


def _contrast(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(blended(canvas.mean_grey(), value))


def _brightness(canvas: Canvas, value: float, resampling: int) -> None:
    canvas.map(blended(0, value))


def _sharpness(canvas: Canvas, value: float, resampling: int) -> None:
    from PIL import Image

    smooth = Image.fromarray(smoothed(np.asarray(canvas.image)))
    canvas.image = Image.blend(smooth, canvas.image, value)


def _shear_x(canvas: Canvas, value: float, resampling: int) -> None:
    _move(canvas, value, 0.0, False, resampling)


def _shear_y(canvas: Canvas, value: float, resampling: int) -> None:
    _move(canvas, value, 0.0, True, resampling)


def _translate_x(canvas: Canvas, value: float, resampling: int) -> None:
    _move(canvas, 0.0, value * canvas.side, False, resampling)


def _translate_y(canvas: Canvas, value: float, resampling: int) -> None:
    _move(canvas, 0.0, value * canvas.side, True, resampling)


def _gaussian_blur(canvas: Canvas, value: float, resampling: int) -> None:
    from PIL import ImageFilter

    canvas.image = canvas.image.filter(ImageFilter.GaussianBlur(value * canvas.side))


AUTO_CONTRAST = Operation(1, "AutoContrast", "contrast stretched", _auto_contrast)
EQUALIZE = Operation(2, "Equalize", "equalized", _equalize)
INVERT = Operation(3, "Invert", "inverted", _invert)
ROTATE = Operation(
    4, "Rotate", "rotated by {:+.1f} degrees", _rotate, full=135.0, signed=True, resampled=True
)
POSTERIZE = Operation(5, "Posterize", "posterized to {:.0f} bits", _posterize, full=255.0, idle_from=8.0)
SOLARIZE = Operation(6, "Solarize", "solarized from {:.0f} on", _solarize, full=255.0, idle_from=256.0)
SOLARIZE_ADD = Operation(7, "SolarizeAdd", "{:.0f} added below 128", _solarize_add, full=255.0)
COLOR = Operation(8, "Color", "colour x {:.2f}", _color, full=1.0, origin=1.0, signed=True)
CONTRAST = Operation(9, "Contrast", "contrast x {:.2f}", _contrast, full=1.0, origin=1.0, signed=True)
BRIGHTNESS = Operation(10, "Brightness", "brightness x {:.2f}", _brightness, 1.0, origin=1.0, signed=True)
SHARPNESS = Operation(11, "Sharpness", "sharpness x {:.2f}", _sharpness, full=1.0, origin=1.0, signed=True)
SHEAR_X = Operation(12, "ShearX", "sheared along x by {:+.2f}", _shear_x, 1.0, signed=True, resampled=True)
SHEAR_Y = Operation(13, "ShearY", "sheared along y by {:+.2f}", _shear_y, 1.0, signed=True, resampled=True)
TRANSLATE_X = Operation(
    14, "TranslateX", "moved along x by {:+.0%}", _translate_x, 0.5, signed=True, resampled=True
)
TRANSLATE_Y = Operation(
    15, "TranslateY", "moved along y by {:+.0%}", _translate_y, 0.5, signed=True, resampled=True
)
GAUSSIAN_BLUR = Operation(16, "GaussianBlur", "blurred by {:.2%} of the side", _gaussian_blur, full=0.01)

OPERATIONS = (
    AUTO_CONTRAST,
    EQUALIZE,
    INVERT,
    ROTATE,
    POSTERIZE,
    SOLARIZE,
    SOLARIZE_ADD,
    COLOR,
    CONTRAST,
    BRIGHTNESS,
    SHARPNESS,
    SHEAR_X,
    SHEAR_Y,
    TRANSLATE_X,
    TRANSLATE_Y,
    GAUSSIAN_BLUR,
)
_BY_NUMBER = {operation.number: operation for operation in OPERATIONS}
