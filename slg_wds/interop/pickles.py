"""The pickle inside a file of torch.save -> its numpy arrays and tensors, without running the pickle.

A pickle is a program. This module interprets the few steps that such files need, and refuses all others. Names in the
pickle are never imported: each of the few allowed names stands for a few lines of code below.

torch's restricted unpickler runs no foreign code either, but a file can make it take any amount of memory: by
`bytearray(2**40)`, by codecs that double their input, or by tensors with stride 0. Here no array is larger than the
bytes that it came from, and all arrays together are at most a few times as large as the file.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slg_wds.errors import LabelFileError

MAX_OPCODES = 4096  # a file of three arrays has about a hundred
MAX_COPIES = (
    3  # limit of the memory for arrays, as a multiple of the content; an array takes two copies to make
)
DTYPES = ("f2", "f4", "f8", "i8", "i4", "u1", "b1")
_STORAGES = {
    "torch HalfStorage": "f2",
    "torch FloatStorage": "f4",
    "torch DoubleStorage": "f8",
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "b1",
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
ReadStorage = Callable[[str], bytes]


@dataclass(frozen=True)
class _Name:
    """The name of a function or class, which is never imported."""

    name: str


@dataclass
class _Dtype:
    """The type of an array's elements.

    Attributes:
        code: one of DTYPES.
        order: the byte order, "<", ">" or "|".
    """

    code: str
    order: str = "<"


@dataclass
class _Array:
    """An array; None until its content comes."""

    array: NDArray[Any] | None = None


def load_arrays(pickled: bytes, storage: ReadStorage, size: int) -> Any:
    """Return what a pickle holds: a list or tuple of numpy arrays.

    Args:
        pickled: the pickle.
        storage: returns the bytes of a tensor's storage by its key.
        size: bytes of the pickle and of all storages together.

    Raises:
        LabelFileError: the pickle has a step, name or argument that is not allowed.
    """
    machine = _Machine(storage, MAX_COPIES * size)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
            if count > MAX_OPCODES:
                raise LabelFileError(f"it has over {MAX_OPCODES} steps")
            if opcode.name == "STOP":
                return _arrays(machine.pop())
            machine.step(opcode.name, argument)
    except LabelFileError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, DeprecationWarning) as error:
        raise LabelFileError(f"its steps do not fit together: {type(error).__name__} {error}") from None
    raise LabelFileError("it has no last step")


def _arrays(value: Any, depth: int = 0) -> Any:
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, list | tuple) and not depth:
        return [_arrays(part, depth + 1) for part in value]
    return value


class _Machine:
    """Interprets steps of a pickle with a stack and a memo. It makes arrays of at most `limit` bytes together."""

    def __init__(self, storage: ReadStorage, limit: int) -> None:
        self._storage, self._left = storage, limit
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise LabelFileError("its steps do not fit together")
        return self._stack.pop()

    def step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            parts = [self.pop() for _ in range(_TUPLES[name])]
            self._stack.append(tuple(reversed(parts)))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._stack.append(
                _Name(argument if name == "GLOBAL" else " ".join(reversed([self.pop(), self.pop()])))
            )
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._memo[len(self._memo) if name == "MEMOIZE" else argument] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            self._build(name)

    def _build(self, name: str) -> None:
        if name == "MARK":
            self._marks.append(len(self._stack))
        elif name in ("EMPTY_LIST", "EMPTY_DICT"):
            self._stack.append([] if name == "EMPTY_LIST" else {})
        elif name == "TUPLE":
            self._stack.append(tuple(self._since_mark()))
        elif name in ("APPENDS", "APPEND"):
            more = self._since_mark() if name == "APPENDS" else [self.pop()]
            self._stack[-1].extend(more) if type(self._stack[-1]) is list else self._refuse(name)
        elif name == "BINPERSID":
            self._put(self._stored(self.pop()))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            self._put(_called(function, arguments))
        elif name == "BUILD":
            state, built = self.pop(), self.pop()
            _fill(built, state)
            self._put(built)
        else:
            self._refuse(name)

    def _put(self, made: Any) -> None:
        array = made.array if isinstance(made, _Array) else made
        self._left -= len(array) if type(array) is bytes else getattr(array, "nbytes", 0)
        if self._left < 0:
            raise LabelFileError("its steps make more data than the file holds")
        self._stack.append(made)

    def _refuse(self, name: str) -> None:
        raise LabelFileError(f"it has a step {name}, which label files do not have")

    def _since_mark(self) -> list[Any]:
        at = self._marks.pop()
        parts = self._stack[at:]
        del self._stack[at:]
        return parts

    def _stored(self, place: Any) -> NDArray[Any]:
        """Return the storage of a tensor, flat."""
        what, kind, key, _, count = place
        if (
            what != "storage"
            or not isinstance(kind, _Name)
            or kind.name not in _STORAGES
            or type(key) is not str
        ):
            raise LabelFileError(f"it refers to {_brief(what)} {_brief(kind)}")
        data: NDArray[Any] = np.frombuffer(self._storage(key), f"<{_STORAGES[kind.name]}")
        if len(data) != count:
            raise LabelFileError(f"a storage has {len(data)} numbers instead of {count}")
        return data


def _called(function: Any, arguments: Any) -> Any:
    """Return the result of a call. Only the few functions are known that such files call."""
    if not isinstance(function, _Name) or type(arguments) is not tuple:
        raise LabelFileError("it calls something that is not a function")
    name = function.name.replace("numpy.core.", "numpy._core.")
    if name == "numpy._core.multiarray _reconstruct":
        kind, shape, _ = arguments
        if kind != _Name("numpy ndarray") or shape != (0,):
            raise LabelFileError("its arrays are not numpy's own")
        return _Array()
    if name == "numpy dtype":
        if arguments[0] not in DTYPES:
            raise LabelFileError(f"it holds elements of type {_brief(arguments[0])}")
        return _Dtype(arguments[0])
    if name == "_codecs encode":
        text, codec = arguments
        if type(text) is not str or codec not in ("latin1", "latin-1"):
            raise LabelFileError(f"it encodes text as {_brief(codec)}")
        return text.encode("latin-1")
    if name in ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"):
        return _Array(_tensor(*arguments[:4]))
    if name == "collections OrderedDict" and not arguments:
        return {}
    raise LabelFileError(f"it calls {name[:80]!r}")


def _fill(built: Any, state: Any) -> None:
    """Give a dtype its byte order, or an array its content."""
    if isinstance(built, _Dtype):
        if state[1] not in ("<", ">", "|"):
            raise LabelFileError(f"it has the byte order {_brief(state[1])}")
        built.order = state[1]
    elif isinstance(built, _Array):
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or type(data) is not bytes or not _is_shape(shape):
            raise LabelFileError("an array's content is not numbers")
        flat = np.frombuffer(data, dtype.order + dtype.code)
        array = flat.reshape(shape, order="F" if fortran else "C")
        if dtype.code == "b1" and array.size and array.view("u1").max() > 1:
            raise LabelFileError("a flag is neither true nor false")
        built.array = array.astype(array.dtype.newbyteorder("="), order="C", copy=True)
    elif type(built) is not dict:
        raise LabelFileError("it changes something that is not an array")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> NDArray[Any]:
    """Return the numbers of a tensor. It may not have more of them than its storage."""
    if not isinstance(storage, np.ndarray) or not (
        _is_shape(shape) and _is_shape(strides) and _is_shape((offset,))
    ):
        raise LabelFileError("a tensor's place in its storage is not given by whole numbers")
    if len(shape) != len(strides):
        raise LabelFileError("a tensor's shape and strides do not fit together")
    count, last = 1, offset
    for length, stride in zip(shape, strides, strict=True):
        count *= length
        last += (length - 1) * stride
    if count > len(storage) or (count and last >= len(storage)):
        raise LabelFileError("a tensor reaches out of its storage")
    if not count:
        return np.zeros(shape, storage.dtype)
    steps = [stride * storage.itemsize for stride in strides]
    found = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
    copied: NDArray[Any] = found.copy()
    return copied


def _is_shape(shape: Sequence[Any]) -> bool:
    return (
        type(shape) is tuple and len(shape) <= 8 and all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
    )


def _brief(value: Any) -> str:
    """Describe a value in a message: a text or name itself, of any other value only the type."""
    value = value.name if isinstance(value, _Name) else value
    return repr(value[:80]) if type(value) is str else type(value).__name__
