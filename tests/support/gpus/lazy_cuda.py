"""CUDA's memory and streams imitated on a CPU: pinning, asynchronous copies, memory that is reused.

Pinning works as in ATen: it copies into a block with the tensor's strides. The allocator works as torch's for pinned
memory: a block is reused once no tensor shares it and every copy from it is done. A freed block is overwritten at
once, so that a test fails if something still reads it.
"""

from __future__ import annotations

import contextlib
import weakref

import torch

from support.gpus.streams import own_streams

POISON = 0xA5
PLAIN_TO, PLAIN_EMPTY, PLAIN_PINNED = torch.Tensor.to, torch.empty, torch.Tensor.is_pinned


class LazyCuda:
    """One device, also named "cpu". `synchronize` runs the pending copies."""

    def __init__(self) -> None:
        self.copies: list[tuple[torch.Tensor, torch.Tensor, int]] = []  # from, to, block
        self.blocks: dict[int, torch.Tensor] = {}  # address -> memory
        self.free: list[int] = []
        self.dead: set[int] = set()  # no tensor shares them, but a copy has still to be done
        self.given_again = 0

    def allocate(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return pinned memory, as torch.empty(..., pin_memory=True) does."""
        size = max(1, torch.Size(shape).numel() * dtype.itemsize)
        again = next((address for address in self.free if len(self.blocks[address]) == size), None)
        if again is None:
            memory = PLAIN_EMPTY(size, dtype=torch.uint8)
            again = memory.data_ptr()
            self.blocks[again] = memory
        else:
            self.free.remove(again)
            self.given_again += 1
        shared = self.blocks[again].numpy()[:]
        weakref.finalize(shared, self.let_go, again).atexit = False
        return torch.from_numpy(shared)[: torch.Size(shape).numel() * dtype.itemsize].view(dtype).view(shape)

    def let_go(self, address: int) -> None:
        if any(block == address for _, _, block in self.copies):
            self.dead.add(address)
        else:
            self.blocks[address].fill_(POISON)
            self.free.append(address)

    def block(self, tensor: torch.Tensor) -> int | None:
        address = tensor.untyped_storage().data_ptr()
        return address if address in self.blocks else None

    def pin(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.block(tensor) is not None:
            return tensor
        reach = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
        memory = self.allocate((reach if tensor.numel() else 0,), tensor.dtype)
        return memory.as_strided(tensor.shape, tensor.stride()).copy_(tensor)

    def to(self, tensor: torch.Tensor, *where, non_blocking: bool = False, **more) -> torch.Tensor:
        """Copy to the device: later from pinned memory, at once from other memory."""
        if not where or where[0] not in ("cpu", torch.device("cpu")):
            return PLAIN_TO(tensor, *where, non_blocking=non_blocking, **more)
        block = self.block(tensor)
        if block is None or not non_blocking:
            return tensor.clone()
        moved = torch.empty_like(tensor).fill_(1)
        # Memory alone: the copy keeps no tensor alive.
        source = self.blocks[block][: 0 if not tensor.numel() else None].view(tensor.dtype)
        source = source.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        self.copies.append((source, moved, block))
        return moved

    def synchronize(self) -> None:
        for source, moved, _ in self.copies:
            moved.copy_(source)
        self.copies.clear()
        for address in self.dead:
            self.blocks[address].fill_(POISON)
            self.free.append(address)
        self.dead.clear()

    def install(self, monkeypatch) -> LazyCuda:
        def empty(*shape, dtype=None, pin_memory=False, **more):
            if not pin_memory:
                return PLAIN_EMPTY(*shape, dtype=dtype, **more)
            return self.allocate(
                tuple(shape[0] if isinstance(shape[0], tuple | torch.Size) else shape), dtype
            )

        own_streams(monkeypatch)
        monkeypatch.setattr(torch, "empty", empty)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: self.pin(tensor))
        monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: self.block(tensor) is not None)
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: self.to(tensor, *a, **k))
        monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: _Stream())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: _Stream(self))
        monkeypatch.setattr(torch.cuda, "Event", lambda: _Event(self))
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        return self


class _Stream:
    def __init__(self, cuda: LazyCuda | None = None) -> None:
        self.cuda = cuda

    def wait_event(self, event: _Event) -> None:
        event.synchronize()  # the device waits; here the copies have to be done before the next operator

    def wait_stream(self, other: _Stream) -> None:
        pass  # the device runs nothing by itself here


class _Event:
    def __init__(self, cuda: LazyCuda) -> None:
        self.cuda, self.done = cuda, False

    def record(self, stream: _Stream) -> None:
        self.last = len(self.cuda.copies)

    def query(self) -> bool:
        return self.done

    def synchronize(self) -> None:
        self.done = True
        self.cuda.synchronize()
