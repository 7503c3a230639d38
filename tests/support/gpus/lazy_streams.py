"""CUDA streams imitated on a CPU: nothing runs before the host waits for it, and then only what it waits for.

Operators on tensors of the device are queued with their arguments; their results are poisoned until they run. A stream
runs when an event on it is awaited, up to that event, and first runs other streams as far as it was told to wait for
them. So labels are wrong if a wait is forgotten, or if memory is used again too early. An operator for whose result the
host would have to wait is an error, and so is a copy to the device that is not asynchronous or not from pinned memory.
`dropped` counts tensors that were let go while another stream than their own still had to use them: torch would give
their memory to others.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map, tree_map_only

from support.gpus.streams import own_streams

POISON = 0xA5
DEVICE = torch.device("cuda")  # a name only: torch is not asked for this device
PLAIN_TO, PLAIN_EMPTY = torch.Tensor.to, torch.empty
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "item", "unique")


class HostWaitsError(AssertionError):
    """The host would wait for the device."""


class Stream:
    def __init__(self, name: str) -> None:
        self.name, self.queue, self.done = name, [], 0

    def run(self, until: int) -> None:
        while self.done < until:
            step, self.done = self.queue[self.done], self.done + 1
            step()

    def wait_event(self, event: Event) -> None:
        self.queue.append(event.reach)

    def wait_stream(self, other: Stream) -> None:
        until = len(other.queue)
        self.queue.append(lambda: other.run(until))


class Event:
    def __init__(self, blocking: bool = False) -> None:
        self.blocking = blocking

    def record(self, stream: Stream) -> None:
        self.stream, self.until = stream, len(stream.queue)

    def query(self) -> bool:
        return self.stream.done >= self.until

    def synchronize(self) -> None:
        assert self.blocking, "the host would look all the time, not sleep"
        self.reach()

    def reach(self) -> None:
        with _disable_current_modes(), torch.inference_mode():
            self.stream.run(self.until)


class LazyStreams(TorchDispatchMode):
    """One device. As a context it queues the operators of the thread that entered it."""

    def __init__(self) -> None:
        super().__init__()
        self.main = self.current = Stream("main")
        self.owner: dict[int, Stream] = {}  # by the address of memory: the stream that allocated it
        self.pending: Counter[int] = (
            Counter()
        )  # operators of other streams that have still to run, by address
        self.dropped = 0
        self.kept: list[torch.Tensor] = []  # all of that memory, so that no address is used twice
        self.pinned: set[int] = set()  # addresses
        self.operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors: list[torch.Tensor] = []
        tree_map_only(torch.Tensor, tensors.append, (args, kwargs))
        if not any(self.known(tensor) for tensor in tensors):
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        if name in WAITS:
            raise HostWaitsError(f"{func} needs a value of the device")
        if func.is_view:
            view = func(*args, **kwargs)
            first = view[0] if isinstance(view, list | tuple) else view
            if self.known(first):  # else it is a copy, as `to` and `reshape` make where they must
                return view
        self.operators += 1
        foreign = [a for t in tensors if self.known(t) and self.current is not self.owner[a := address(t)]]
        self.pending.update(foreign)
        later_args, later_kwargs = tree_map_only(torch.Tensor, torch.ops.aten.alias.default, (args, kwargs))

        def run() -> Any:
            self.pending.subtract(foreign)
            return func(*later_args, **later_kwargs)

        if func._schema.is_mutable:
            self.current.queue.append(run)
            return args[0]
        shapes = func(*tree_map_only(torch.Tensor, on_meta, args), **kwargs_on_meta(kwargs))
        outputs = tree_map(self.poisoned, shapes)
        kept = tree_map_only(torch.Tensor, torch.ops.aten.alias.default, outputs)
        self.current.queue.append(lambda: tree_map(copied, kept, run()))
        return outputs

    def known(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == "cpu" and address(tensor) in self.owner

    def poisoned(self, like: Any, ours: bool = True) -> Any:
        if not isinstance(like, torch.Tensor):
            return like
        made = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype)
        made.untyped_storage().fill_(POISON)
        if ours and made.numel():
            self.owner[address(made)] = self.current
            self.kept.append(torch.ops.aten.alias.default(made))
            weakref.finalize(made, self.let_go, address(made)).atexit = False
        return made

    def let_go(self, block: int) -> None:
        self.dropped += self.pending[block] > 0

    def to(self, tensor: torch.Tensor, *where, non_blocking: bool = False, **more) -> torch.Tensor:
        to_device, to_host = bool(where) and where[0] == DEVICE, bool(where) and where[0] == "cpu"
        if not (to_device or (to_host and self.known(tensor))):
            return PLAIN_TO(tensor, *where, non_blocking=non_blocking, **more)
        if not non_blocking:
            raise HostWaitsError("a copy that the host waits for")
        if to_device and tensor.numel() and address(tensor) not in self.pinned:
            raise HostWaitsError("a copy from memory that is not pinned, which the host waits for")
        with _disable_current_modes(), torch.inference_mode():
            moved = self.poisoned(tensor, ours=to_device)
        target, source = torch.ops.aten.alias.default(moved), tensor
        self.current.queue.append(lambda: target.copy_(source))
        return moved

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self.pinned.add(address(tensor))
        self.kept.append(tensor.detach())
        return tensor

    @contextlib.contextmanager
    def stream(self, stream: Stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    def wait(self) -> None:
        """Run all that the main stream has to do."""
        with _disable_current_modes():
            self.main.run(len(self.main.queue))

    def install(self, monkeypatch) -> LazyStreams:
        def empty(*shape, pin_memory=False, **more):
            made = PLAIN_EMPTY(*shape, **more)
            return self.pin(made) if pin_memory else made

        own_streams(monkeypatch)
        monkeypatch.setattr(torch, "empty", empty)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.pin(tensor.clone()))
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: self.to(tensor, *a, **k))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: Stream("copies"))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: self.current)
        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "stream", self.stream)
        return self


def address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def on_meta(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


def kwargs_on_meta(kwargs: dict[str, Any]) -> dict[str, Any]:
    moved = tree_map_only(torch.Tensor, on_meta, kwargs)
    return {**moved, "device": torch.device("meta")} if "device" in moved else moved


def copied(target: Any, source: Any) -> None:
    if isinstance(target, torch.Tensor):
        target.copy_(source)
