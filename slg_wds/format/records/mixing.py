"""Second views that are mixed into the views of crops: arrays <-> a field and columns of a record.

Shapes: M crops of a record, X mixed ones, P partner images. In memory a crop names its partner by the number in the
plan; the table of P numbers exists in the bytes of a record alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import F64, I64, U8, Bools
from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.columns import encode_ascending, encode_column

GRID = 255  # steps of a side of the view, in which mix boxes and erased boxes are given
WHOLE = 256  # the weights of both views of a mixup
MAX_PARTNERS = 255  # images of a record
MAX_IMAGE = (1 << 28) - 1
UNMIXED = -1
_NAMES = ("partner", "crop", "lam", "box")
_WIDTHS = {"mix_partners": 4, "mix_crops": 2}  # bytes of a column's numbers, where they are more than one


class MixingField(NamedTuple):
    """The field `mixing` of a record whose set is mixed, an array of three numbers.

    Attributes:
        partners: P, the images that are mixed in.
        mixed: X, the crops that have a partner.
        blended: U, those of them that are mixed by mixup, not CutMix.
    """

    partners: int
    mixed: int
    blended: int


@dataclass(frozen=True, eq=False)
class Mixing:
    """Which second view is mixed into each crop, and how.

    The leading axes are those of the crops: [M] in a record, [n, c] in a batch. The second view has the box, flip,
    operations and erased box of its own crop, but is not mixed itself. `slg_wds.transforms.mixing` makes the pixels.

    Attributes:
        partner: int64 [...], the number in the plan of the image that is mixed in; -1 where none is.
        crop: uint16 [...], which of the partner's crops; 0 where there is none.
        lam: uint8 [...], in mixup the weight of the own view, 1 to 255 of 256; 0 for CutMix and where nothing is mixed.
        box: uint8 [..., 4] (top, left, height, width) in 1/255 of the side, where CutMix shows the partner; else zeros.
    """

    partner: I64
    crop: NDArray[np.uint16]
    lam: U8
    box: U8

    @classmethod
    def none(cls, *crops: int) -> Mixing:
        """Return the mixing of crops of which none is mixed; `crops` are the lengths of the leading axes."""
        partner = np.full(crops, UNMIXED, np.int64)
        zeros = np.zeros(crops, np.uint8)
        return cls(partner, np.zeros(crops, np.uint16), zeros, np.zeros((*crops, 4), np.uint8))

    def __getitem__(self, at: Any) -> Mixing:
        """Return the mixing of some crops; `at` is an index into the leading axes."""
        return Mixing(*(getattr(self, name)[at] for name in _NAMES))

    @property
    def mixed(self) -> Bools:
        """Whether a second view is mixed in, bool [...]."""
        return np.asarray(self.partner >= 0)

    def weights(self) -> F64:
        """Return the weight of each crop's own view, float64 [...] in 0..1: 1 where nothing is mixed in."""
        area = self.box[..., 2].astype(np.float64) * self.box[..., 3] / GRID**2
        weights: F64 = np.where(self.lam > 0, self.lam / WHOLE, 1.0 - area)
        return weights

    def partners(self) -> I64:
        """Return the numbers of all partners, ascending and each once, int64 [P]."""
        return np.unique(self.partner[self.mixed])

    def without(self, lost: Bools) -> Mixing:
        """Return the mixing in which nothing is mixed into some of the crops; `lost` is bool [M]."""
        left = replace(self, **{name: getattr(self, name).copy() for name in _NAMES})
        left.partner[lost] = UNMIXED
        for part in (left.crop, left.lam, left.box):
            part[lost] = 0
        return left

    def renumbered(self, numbers: dict[int, int]) -> Mixing:
        """Return the same mixing for another plan; `numbers` has the number there of every partner."""
        partner = self.partner.copy()
        for old in self.partners().tolist():
            partner[self.partner == old] = numbers[old]
        return replace(self, partner=partner)


def same_mixing(one: Mixing | None, other: Mixing | None) -> bool:
    """Return whether the same is mixed into the same crops; None is for sets without mixing, and only equals None."""
    if one is None or other is None:
        return one is other
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _NAMES)


def joined_mixing(parts: Sequence[Mixing | None]) -> Mixing | None:
    """Return the mixing of several parts' crops, one part after the other. All parts have one, or none has."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return Mixing(*(np.concatenate([getattr(part, name) for part in known]) for name in _NAMES))


def with_mixing(mixing: Mixing | None, at: Any, others: Mixing | None, of: Any) -> Mixing | None:
    """Return the mixing of all crops, with the crops `at` mixed as the crops `of` of `others` are."""
    if mixing is None or others is None:
        return None
    parts = [getattr(mixing, name).copy() for name in _NAMES]
    for part, name in zip(parts, _NAMES, strict=True):
        part[at] = getattr(others, name)[of]
    return Mixing(*parts)


def read_mixing_field(fields: dict[str, Any]) -> MixingField | None:
    """Return the field `mixing` of a record; None for one without. Raises RecordError if it is not sound."""
    found = fields.get("mixing")
    if found is None:
        return None
    if type(found) is not list or [type(number) for number in found] != [int] * 3:
        raise RecordError(f"mixing is {brief(found)}, not three whole numbers")
    field = MixingField(*found)
    partners, mixed, blended = field
    if not (0 <= partners <= MAX_PARTNERS and partners <= mixed and 0 <= blended <= mixed):
        raise RecordError(f"a number of mixing is out of its range: {found}")
    if mixed > fields["num_crops"] or (mixed and not partners) or fields.get("views") is None:
        raise RecordError(f"mixing {found} does not fit {fields['num_crops']} crops and their views")
    return field


def check_mixing(mixing: Mixing, num_crops: int) -> None:
    """Check the arrays of a record's mixing before they are encoded. Raises RecordError."""
    M = num_crops
    shapes = tuple(getattr(mixing, name).shape for name in _NAMES)
    if shapes != ((M,), (M,), (M,), (M, 4)):
        raise RecordError(f"mixing of shapes {shapes} is not that of {M} crops")
    dtypes = [getattr(mixing, name).dtype for name in _NAMES]
    if dtypes != [np.int64, np.uint16, np.uint8, np.uint8]:
        raise RecordError(f"mixing has the types {', '.join(map(str, dtypes))}")
    if M and (mixing.partner.min() < UNMIXED or mixing.partner.max() > MAX_IMAGE):
        raise RecordError(f"a partner is not an image's number, 0 to {MAX_IMAGE}")
    if len(mixing.partners()) > MAX_PARTNERS:
        raise RecordError(
            f"the crops of an image have {len(mixing.partners())} partners, over {MAX_PARTNERS}"
        )
    left = ~mixing.mixed
    if mixing.crop[left].any() or mixing.lam[left].any() or mixing.box[left | (mixing.lam > 0)].any():
        raise RecordError("a crop has mixing without a partner, or a mix box and a weight")
    _check_boxes(mixing.box[mixing.mixed & (mixing.lam == 0)])


def _check_boxes(boxes: U8) -> None:
    wide = boxes.astype(np.int64)
    if not boxes[:, 2:].all() or (wide[:, :2] + wide[:, 2:] > GRID).any():
        raise RecordError("a mix box has a side of 0, or is not within its view")


def mixing_fields(mixing: Mixing | None) -> dict[str, list[int]]:
    """Return the field of a record that is mixed so; none for a set without mixing."""
    if mixing is None:
        return {}
    counts = (len(mixing.partners()), np.count_nonzero(mixing.mixed), np.count_nonzero(mixing.lam))
    return {"mixing": [int(count) for count in counts]}


def mixing_columns(mixing: Mixing | None) -> dict[str, list[bytes]]:
    """Encode the columns of a record that is mixed so, [M, ...]."""
    if mixing is None or not mixing.mixed.any():
        return {}
    there, partners = mixing.mixed, mixing.partners()
    place = np.where(there, np.searchsorted(partners, mixing.partner) + 1, 0)
    ahead = mixing.crop[there] - np.flatnonzero(there).astype(np.uint16)  # modulo 2^16
    columns = {
        "mix_partners": encode_ascending(partners),
        "mixed": encode_column(place.astype(np.uint8)),
        "mix_crops": encode_column(ahead),
        "mix_lambdas": encode_column(mixing.lam[there]),
    }
    if (boxes := mixing.box[there & (mixing.lam == 0)]).size:
        columns["mix_boxes"] = encode_column(boxes.T)
    return columns


def mixing_column_sizes(fields: dict[str, Any]) -> dict[str, int]:
    """Return how many numbers each column of a record's mixing has. Columns that it lacks are not there."""
    field = read_mixing_field(fields)
    if field is None or not field.mixed:
        return {}
    sizes = {"mix_partners": field.partners, "mixed": fields["num_crops"]}
    sizes |= {"mix_crops": field.mixed, "mix_lambdas": field.mixed}
    boxes = 4 * (field.mixed - field.blended)
    return {**sizes, "mix_boxes": boxes} if boxes else sizes


def width_of(column: str) -> int:
    """Return the bytes of each number of a column of views or mixing."""
    return _WIDTHS.get(column, 1)


def assembled_mixing(fields: dict[str, Any], columns: dict[str, NDArray[Any]], at: Any) -> Mixing | None:
    """Return the mixing of some crops of a record, [at, ...], from its decoded columns; None without mixing.

    Raises:
        RecordError: the columns do not fit each other, or a mix box is not within its view.
    """
    field, M = read_mixing_field(fields), fields["num_crops"]
    if field is None:
        return None
    found = Mixing.none(M)
    if field.mixed:
        place, lambdas = columns["mixed"], columns["mix_lambdas"]
        there = place > 0
        if np.count_nonzero(there) != field.mixed or np.count_nonzero(lambdas) != field.blended:
            raise RecordError(f"other crops are mixed than the {field.mixed} that belong")
        found.partner[there] = _partners(columns["mix_partners"], int(place.max()))[place[there] - 1]
        found.crop[there] = columns["mix_crops"] + np.flatnonzero(there).astype(np.uint16)
        found.lam[there] = lambdas
        pasted = there & (found.lam == 0)
        found.box[pasted] = columns.get("mix_boxes", np.zeros(0, np.uint8)).reshape(4, -1).T
        _check_boxes(found.box[pasted])
    return found[at]


def _partners(steps: NDArray[Any], most: int) -> I64:
    numbers = steps.cumsum(dtype=np.int64)
    if not steps[1:].all() or numbers[-1] > MAX_IMAGE:
        raise RecordError("the partners do not ascend, or are no images' numbers")
    if most > len(numbers):
        raise RecordError(f"a crop has partner {most} of {len(numbers)}")
    return numbers
