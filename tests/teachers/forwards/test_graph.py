"""A forward as a CUDA graph: used where it gives the plain forward's bits, else the plain forward runs."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from slg_wds.errors import TeacherError, UsageError
from slg_wds.teachers import load, load_teacher, parse_teachers
from slg_wds.teachers.about import about_device
from slg_wds.teachers.forwards.scenes import scenes
from support.gpus import recorded_graphs
from support.models.names import TINY

ROWS = 12


@pytest.fixture
def graphs(monkeypatch):
    return recorded_graphs.install(monkeypatch)


@pytest.fixture
def teacher():
    return load_teacher(parse_teachers(f"private:{TINY}")[0])


def test_the_graph_runs_forwards_of_its_size_and_gives_the_same_bits(graphs, teacher):
    images = [scenes(ROWS, 32, seed) for seed in (1, 2)]
    plain, few = [teacher.logits(batch) for batch in images], teacher.logits(images[0][:5])
    teacher.use_graph(ROWS)
    assert teacher.no_graph == "" and len(graphs) == 1
    before = graphs[0].replays
    found = [teacher.logits(batch) for batch in images]
    assert graphs[0].replays == before + 2
    # Compared after both, since the graph writes over its own output.
    assert all(torch.equal(*pair) for pair in zip(found, plain, strict=True))
    assert torch.equal(teacher.logits(images[0][:5]), few) and graphs[0].replays == before + 2


class Counting(nn.Module):
    """Decides in Python, by the number of the call."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.inner(x) * self.calls


class Looking(nn.Module):
    """Waits for a value of the device."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if x.mean() > -9 else x.flatten(1)


@pytest.mark.parametrize(
    ("kind", "why"), [(Counting, "bit for bit"), (Looking, "synchronizing CUDA operation")]
)
def test_what_a_graph_cannot_repeat_runs_plainly(graphs, teacher, kind, why):
    inner = teacher.module
    wrapped = kind(inner)
    plain_run = teacher._run
    teacher._run = lambda images: wrapped(plain_run_pixels(teacher, images))
    teacher.use_graph(ROWS)
    assert why in teacher.no_graph
    replays = [graph.replays for graph in graphs]
    teacher._run = plain_run
    images = scenes(ROWS, 32, 1)
    assert torch.equal(teacher.logits(images), plain_run(images))
    assert [graph.replays for graph in graphs] == replays


def plain_run_pixels(teacher, images):
    from slg_wds.transforms.normalisation import Normalisation

    return Normalisation(teacher.preprocessing.mean, teacher.preprocessing.std, "cpu")(images)


def test_too_little_memory_for_a_graph_is_no_error(graphs, teacher, monkeypatch):
    def full(*given, **more):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")

    monkeypatch.setattr(torch.cuda, "graph", full)
    teacher.use_graph(ROWS)
    assert "out of memory" in teacher.no_graph
    assert teacher.logits(scenes(ROWS, 32, 1)).shape == (ROWS, 20)


def test_nothing_is_recorded_where_the_memory_may_not_do(graphs, teacher, monkeypatch):
    """A recording that runs out of memory can spoil torch's allocator for the rest of the process."""

    def recorded(*given, **more):
        raise AssertionError("it is recorded")

    reserved = iter([10 << 20, 2058 << 20])
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: next(reserved))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "graph", recorded)
    teacher.use_graph(ROWS)
    assert teacher.no_graph.endswith("it needs 2.4 GB of memory, and 2.1 GB are free")
    assert teacher.logits(scenes(ROWS, 32, 1)).shape == (ROWS, 20)


def test_a_recording_that_breaks_off_says_why_and_the_plain_forward_goes_on(graphs, teacher, monkeypatch):
    """Its end raises an error of its own, and then some versions of torch cannot empty their cache."""

    @contextlib.contextmanager
    def breaks_off(*given, **more):
        try:
            raise RuntimeError("the cause")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        yield

    def refused():
        if broken:
            raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    broken = []
    monkeypatch.setattr(torch.cuda, "graph", lambda *given, **more: broken.append(1) or breaks_off())
    monkeypatch.setattr(torch.cuda, "empty_cache", refused)
    teacher.use_graph(ROWS)
    assert teacher.no_graph == "RuntimeError: the cause"
    assert teacher.logits(scenes(ROWS, 32, 1)).shape == (ROWS, 20)


def on_gpu(no_graph, used):
    def use_graph(rows):
        used.append(rows)
        one.no_graph = no_graph

    one = SimpleNamespace(device=torch.device("cuda"), name="timm:x", no_graph=None, use_graph=use_graph)
    return one


@pytest.mark.parametrize(
    ("wanted", "no_graph", "used"), [("auto", "", 1), ("auto", "why", 1), ("on", "", 1), ("off", "", 0)]
)
def test_the_option_says_whether_a_graph_is_made(wanted, no_graph, used):
    calls = []
    load._use_graph(on_gpu(no_graph, calls), 256, wanted)
    assert calls == [256] * used


def test_a_graph_that_is_wanted_and_cannot_be_made_is_an_error(teacher):
    with pytest.raises(TeacherError, match="no CUDA graph of timm:x: it looks; leave out --cuda-graph on"):
        load._use_graph(on_gpu("it looks", []), 256, "on")
    with pytest.raises(UsageError, match="--cuda-graph on is for GPUs, not cpu"):
        load._use_graph(teacher, 50, "on")
    load._use_graph(teacher, 50, "auto")
    assert teacher.no_graph is None


@pytest.mark.parametrize(
    ("no_graphs", "said"),
    [
        (["", ""], ["on NVIDIA H100, bf16, forwards as CUDA graphs"]),
        (["", "it looks"], ["on NVIDIA H100, bf16", "no CUDA graph of timm:1: it looks"]),
        ([None, None], ["on NVIDIA H100, bf16"]),
    ],
)
def test_the_opening_lines_say_so(no_graphs, said):
    teachers = [
        SimpleNamespace(precision="bf16", name=f"timm:{n}", no_graph=why) for n, why in enumerate(no_graphs)
    ]
    ensemble = SimpleNamespace(device=torch.device("cuda"), device_name="NVIDIA H100", teachers=teachers)
    assert about_device(ensemble, 4, False) == said
