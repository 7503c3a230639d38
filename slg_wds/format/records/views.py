"""What is done to the pixels of crops after they are cut and resized: arrays <-> fields and columns of a record.

`mixing` beside it has the second views that are mixed in at the end.

Shapes: M crops of a record, S operations of each, A arguments, E erased boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from slg_wds.arrays import I64, U8, Bools
from slg_wds.errors import RecordError
from slg_wds.format.canonical import brief
from slg_wds.format.records.columns import decode_column, encode_column
from slg_wds.format.records.mixing import (
    GRID,
    Mixing,
    assembled_mixing,
    check_mixing,
    joined_mixing,
    mixing_column_sizes,
    mixing_columns,
    mixing_fields,
    read_mixing_field,
    same_mixing,
    width_of,
    with_mixing,
)

MAX_OPERATIONS = 16
MAX_COLOUR = 0xFFFFFF
_NAMES = ("operations", "arguments", "erased")


class ViewField(NamedTuple):
    """The field `views` of a record that has views, an array of five numbers.

    Attributes:
        operations: S, the most operations of a crop.
        arguments: A, the operations of all crops together.
        erased: E, the crops with an erased box.
        fill, erase_fill: see `Views`.
    """

    operations: int
    arguments: int
    erased: int
    fill: int
    erase_fill: int


@dataclass(frozen=True, eq=False)
class Views:
    """What is done to the pixels of crops: operations in their order, an erased box, then a second view mixed in.

    The leading axes are those of the crops: [M] in a record, [n, c] in a batch. Everything is relative to the side of
    the view, so it holds for every input size. `slg_wds.transforms.operations` knows what codes and arguments mean.

    Attributes:
        operations: uint8 [..., S], the code of each operation; 0 for none.
        arguments: uint8 [..., S], the argument of each operation; 0 where there is none.
        erased: uint8 [..., 4] (top, left, height, width), in 1/255 of the side; zeros where nothing is erased.
        fill: 0xRRGGBB, the colour of pixels that an operation brings in from outside of the crop.
        erase_fill: 0xRRGGBB, the colour of erased boxes.
        mixing: the second views; None for crops of a set without mixing.
    """

    operations: U8
    arguments: U8
    erased: U8
    fill: int = 0
    erase_fill: int = 0
    mixing: Mixing | None = None

    @property
    def num_operations(self) -> int:
        """The most operations that a crop can have, S."""
        return int(self.operations.shape[-1])

    @property
    def kind(self) -> tuple[int, int, int, bool]:
        """What all crops share: (S, fill, erase_fill, whether they may be mixed)."""
        return self.num_operations, self.fill, self.erase_fill, self.mixing is not None

    def __getitem__(self, at: Any) -> Views:
        """Return the views of some crops; `at` is an index into the leading axes."""
        parts = (self.operations[at], self.arguments[at], self.erased[at])
        return Views(*parts, self.fill, self.erase_fill, self.mixing and self.mixing[at])


def same_views(one: Views | None, other: Views | None) -> bool:
    """Return whether the same is done to the same crops; None is nothing at all, and only equals None."""
    if one is None or other is None:
        return one is other
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in _NAMES)
    return same and one.kind == other.kind and same_mixing(one.mixing, other.mixing)


def joined_views(parts: Sequence[Views | None]) -> Views | None:
    """Return the views of several parts' crops, one part after the other.

    Raises:
        RecordError: the parts differ in what all crops share, or only some have views.
    """
    known = _of_one_kind(parts)
    if not known:
        return None
    joined: dict[str, Any] = {}
    for name in _NAMES:
        joined[name] = np.concatenate([getattr(part, name) for part in known])
    return replace(known[0], **joined, mixing=joined_mixing([part.mixing for part in known]))


def with_views(views: Views | None, at: Any, others: Views | None, of: Any) -> Views | None:
    """Return the views of all crops, with those of the crops `at` taken from the crops `of` of `others`.

    Raises:
        RecordError: the two differ in what all crops share, or only one of them is None.
    """
    known = _of_one_kind([views, others])
    if not known:
        return None
    parts: dict[str, Any] = {name: getattr(known[0], name).copy() for name in _NAMES}
    for name, part in parts.items():
        part[at] = getattr(known[1], name)[of]
    return replace(known[0], **parts, mixing=with_mixing(known[0].mixing, at, known[1].mixing, of))


def _of_one_kind(parts: Sequence[Views | None]) -> list[Views]:
    known = [part for part in parts if part is not None]
    if known and (len(known) < len(parts) or len({part.kind for part in known}) > 1):
        raise RecordError("records that belong together differ in the kind of their views")
    return known


def read_view_field(fields: dict[str, Any]) -> ViewField | None:
    """Return the field `views` of a record; None for one without. Raises RecordError if it is not sound."""
    found = fields.get("views")
    read_mixing_field(fields)  # which there is only beside this one
    if found is None:
        return None
    M = fields["num_crops"]
    most = (MAX_OPERATIONS, MAX_OPERATIONS * M, M, MAX_COLOUR, MAX_COLOUR)
    if type(found) is not list or [type(number) for number in found] != [int] * len(most):
        raise RecordError(f"views is {brief(found)}, not five whole numbers")
    field = ViewField(*found)
    if not all(0 <= number <= limit for number, limit in zip(field, most, strict=True)):
        raise RecordError(f"a number of views is out of its range: {found}")
    if field.arguments > field.operations * M:
        raise RecordError(
            f"views have {field.arguments} operations of {M} crops, at most {field.operations} each"
        )
    return field


def check_views(views: Views, num_crops: int) -> None:
    """Check the arrays of a record's views before they are encoded. Raises RecordError."""
    S = views.num_operations
    shapes = (views.operations.shape, views.arguments.shape, views.erased.shape)
    if shapes != ((num_crops, S), (num_crops, S), (num_crops, 4)):
        raise RecordError(f"views of shapes {shapes} are not those of {num_crops} crops")
    if {one.dtype for one in (views.operations, views.arguments, views.erased)} != {np.dtype(np.uint8)}:
        raise RecordError("operations, arguments and erased boxes are not bytes")
    if views.arguments[views.operations == 0].any() or views.erased[~_erases(views.erased)].any():
        raise RecordError("views have an argument without an operation, or a box of which one side is 0")
    _check_within(views.erased)
    if views.mixing is not None:
        check_mixing(views.mixing, num_crops)


def _erases(erased: U8) -> Bools:
    return np.asarray(erased[..., 2:].all(axis=-1))


def _check_within(erased: U8) -> None:
    wide = erased.astype(np.int64)
    if (wide[..., :2] + wide[..., 2:] > GRID).any():
        raise RecordError("an erased box is not within its view")


def view_fields(views: Views | None) -> dict[str, list[int]]:
    """Return the fields of a record that has these views; none without views."""
    if views is None:
        return {}
    operations, erased = np.count_nonzero(views.operations), np.count_nonzero(_erases(views.erased))
    numbers = [views.num_operations, int(operations), int(erased), views.fill, views.erase_fill]
    return {"views": numbers, **mixing_fields(views.mixing)}


def view_columns(views: Views | None) -> dict[str, list[bytes]]:
    """Encode the columns of a record that has these views, [M, ...]."""
    columns: dict[str, list[bytes]] = {}
    if views is None:
        return columns
    codes, there = views.operations.T, _erases(views.erased)
    if views.num_operations:
        columns["operations"] = encode_column(codes)
        arguments = views.arguments.T[codes > 0][_by_code(codes)]
        columns["arguments"] = encode_column(np.diff(arguments, prepend=np.uint8(0)))
    if there.any():
        columns["erased"] = encode_column(np.packbits(there, bitorder="little"))
        columns["erased_boxes"] = encode_column(views.erased[there].T)
    return columns | mixing_columns(views.mixing)


def _by_code(codes: U8) -> I64:
    """Return the order of the operations by their codes, [A]: arguments of one kind then follow each other."""
    return np.argsort(codes[codes > 0], kind="stable")


def view_column_sizes(fields: dict[str, Any]) -> dict[str, int]:
    """Return how many numbers each column of a record's views has. Columns that it lacks are not there."""
    sizes: dict[str, int] = {}
    if fields.get("views") is None:  # the most usual, and asked for every record
        return sizes
    field, M = read_view_field(fields), fields["num_crops"]
    if field is not None and field.operations:
        sizes |= {"operations": field.operations * M, "arguments": field.arguments}
    if field is not None and field.erased:
        sizes |= {"erased": (M + 7) // 8, "erased_boxes": 4 * field.erased}
    return sizes | mixing_column_sizes(fields)


def decode_views(fields: dict[str, Any], at: Any) -> Views | None:
    """Decode the views of some crops of a record.

    Args:
        fields: of the record, checked, with its columns.
        at: an index into the crops.

    Raises:
        RecordError: a column is damaged, or does not fit the others.
    """
    columns = fields["columns"]
    found = {
        name: decode_column(columns.get(name), (size,), itemsize=width_of(name))
        for name, size in view_column_sizes(fields).items()
    }
    return assembled(fields, found, at)


def assembled(fields: dict[str, Any], columns: dict[str, NDArray[Any]], at: Any) -> Views | None:
    """Return the views of some crops of a record, [at, ...], from its decoded columns; None without views.

    Raises:
        RecordError: the columns do not fit each other, or an erased box is not within its view.
    """
    field, M = read_view_field(fields), fields["num_crops"]
    if field is None:
        return None
    codes = columns.get("operations", np.zeros(0, np.uint8)).reshape(field.operations, M)
    arguments, erased = np.zeros(codes.shape, np.uint8), np.zeros((M, 4), np.uint8)
    if np.count_nonzero(codes) != field.arguments:
        raise RecordError(f"views have {np.count_nonzero(codes)} operations where {field.arguments} belong")
    if field.operations:
        given = np.empty(field.arguments, np.uint8)
        given[_by_code(codes)] = columns["arguments"].cumsum(dtype=np.uint8)
        arguments[codes > 0] = given
    if field.erased:
        there = np.unpackbits(columns["erased"], count=M, bitorder="little").view(np.bool_)
        if np.count_nonzero(there) != field.erased:
            raise RecordError(f"{np.count_nonzero(there)} crops are erased where {field.erased} belong")
        erased[there] = columns["erased_boxes"].reshape(4, -1).T
        if not _erases(erased)[there].all():
            raise RecordError("an erased box has a side of 0")
        _check_within(erased)
    mixing = assembled_mixing(fields, columns, at)
    return Views(codes.T[at], arguments.T[at], erased[at], field.fill, field.erase_fill, mixing)
