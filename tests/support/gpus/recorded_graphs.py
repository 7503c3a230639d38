"""CUDA graphs imitated on a CPU: the operators of a recording are repeated, in order and on the same memory."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten

from support.gpus.streams import own_streams


class RecordedGraph:
    """In place of torch.cuda.CUDAGraph."""

    made: ClassVar[list[RecordedGraph]] = []

    def __init__(self) -> None:
        self.steps, self.replays = [], 0
        self.made.append(self)

    def replay(self) -> None:
        self.replays += 1
        with _disable_current_modes(), torch.inference_mode():
            for func, args, kwargs, outputs in self.steps:
                for kept, new in zip(tensors(outputs), tensors(func(*args, **kwargs)), strict=True):
                    if kept.data_ptr() != new.data_ptr():
                        kept.copy_(new)


WAITS = ("_local_scalar_dense", "item", "is_nonzero")


class Recording(TorchDispatchMode):
    def __init__(self, graph: RecordedGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in WAITS):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        outputs = func(*args, **(kwargs or {}))
        self.graph.steps.append((func, args, kwargs or {}, outputs))
        return outputs


class NoWaits(TorchDispatchMode):
    """In place of torch.cuda.set_sync_debug_mode("error")."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(name in str(func) for name in WAITS):
            raise RuntimeError("called a synchronizing CUDA operation")
        return func(*args, **(kwargs or {}))


class SyncDebugMode:
    def __init__(self) -> None:
        self.mode: int | str = 0
        self.entered = contextlib.ExitStack()

    def set(self, mode: int | str) -> None:
        self.mode = mode
        self.entered.close()
        if mode == "error":
            self.entered.enter_context(NoWaits())


def tensors(outputs) -> list[torch.Tensor]:
    return [one for one in tree_flatten(outputs)[0] if isinstance(one, torch.Tensor)]


def install(monkeypatch) -> list[RecordedGraph]:
    """Imitate torch.cuda's graphs and streams. Returns the graphs, as they are made."""

    @contextlib.contextmanager
    def graph(recorded, stream=None, capture_error_mode="global"):
        assert capture_error_mode == "thread_local", "other threads may use the device"
        with Recording(recorded):
            yield

    own_streams(monkeypatch)
    RecordedGraph.made = []
    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 << 30, 80 << 30))
    waits = SyncDebugMode()
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: waits.mode)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", waits.set)
    return RecordedGraph.made
