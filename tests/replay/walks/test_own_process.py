"""A loader works only in the process that made it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import traceback

import pytest
import torch
from torch.testing._internal.distributed import fake_pg  # noqa: F401  # registers the backend
from torch.utils.data import DataLoader, IterableDataset

from slg_wds.errors import UsageError
from support.sets.replay_sets import Made, comparable, make


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    labels = make(photographs, tmp_path_factory.mktemp("process") / "set", embed_images="original")
    return Made(labels, None)


class Wrapped(IterableDataset):
    """A loader wrapped as a dataset; `make` is called in the worker."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        yield from self.make()


KIND = pytest.mark.parametrize("kind", ["plain", "device"])


def loader_of(made, kind):
    loader = made.loader()
    return loader if kind == "plain" else loader.to("cpu")


@pytest.mark.parametrize("kind", ["plain", pytest.param("device", marks=pytest.mark.slow)])
@pytest.mark.parametrize("where", ["before", pytest.param("in the worker", marks=pytest.mark.slow)])
def test_workers_of_a_dataloader_are_refused(made, kind, where):
    loader = loader_of(made, kind)
    wrapped = Wrapped((lambda: loader) if where == "before" else (lambda: loader_of(made, kind)))
    walk = iter(DataLoader(wrapped, batch_size=None, num_workers=2, multiprocessing_context="fork"))
    with pytest.raises(UsageError, match="each of the 2 workers would give every sample") as caught:
        list(walk)
    walk._shutdown_workers()  # else the collector does it, in the middle of another test
    assert "threads=" in str(caught.value) and "slg_wds.replay.stages" in str(caught.value)


def test_a_dataloader_without_workers_changes_nothing(made):
    loader = made.loader()
    through = DataLoader(Wrapped(lambda: loader), batch_size=None, num_workers=0)
    assert comparable(through) == comparable(made.loader())


@KIND
def test_a_forked_process_is_refused(made, kind):
    """As Accelerate's notebook launcher and Lightning's ddp_fork make their ranks."""
    loader = loader_of(made, kind)
    next(iter(loader))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            next(iter(loader))
            said = "it gave a batch"
        except UsageError as error:
            said = str(error)
        except BaseException:
            said = traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert f"made in process {os.getpid()} and is used in process {child}" in said
    assert "make the loader in each training process" in said


@KIND
@pytest.mark.parametrize("send", [pickle.dumps, copy.deepcopy])
def test_a_copy_is_refused(made, kind, send):
    with pytest.raises(UsageError, match="cannot be copied or sent to another process"):
        send(loader_of(made, kind))


def test_spawned_ranks_are_refused_where_they_are_started(made):
    context = multiprocessing.get_context("spawn")
    with pytest.raises(UsageError, match="make the loader in each training process"):
        context.Process(target=list, args=(made.loader(),)).start()


def test_a_rank_that_is_found_later_is_not_overlooked(made, tmp_path):
    """A loader made before torch.distributed starts has rank 0 of 1, so each rank would read all images."""
    found, given = made.loader(), made.loader(rank=0, world_size=1)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("fake", store=store, rank=1, world_size=2)
    try:
        with pytest.raises(
            UsageError, match=r"made for rank 0 of 1, and this is by now rank 1 of 2.*train_dataloader\(\)"
        ):
            next(iter(found))
        assert len(comparable(given)) == len(given), "every rank may evaluate all images, if told to"
        assert next(iter(made.loader())).key
    finally:
        torch.distributed.destroy_process_group()
    assert comparable(found) == comparable(made.loader())
