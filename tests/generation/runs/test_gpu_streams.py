"""Generation on an imitated GPU: the labels are those of the CPU, and the host never waits where it need not."""

from __future__ import annotations

import dataclasses

import pytest

import slg_wds
from slg_wds.concurrency.copy_stream import CopyStream
from slg_wds.engines.reports.run_stats import RunObserver
from slg_wds.generation import inference
from slg_wds.generation.batching import Buffers
from slg_wds.generation.recipe import Recipe
from slg_wds.generation.setup import open_job
from slg_wds.generation.worker import work
from slg_wds.labels import reduce
from support.gpus.lazy_streams import DEVICE, POISON, HostWaitsError, LazyStreams
from support.models.names import TINY
from support.programs import tool

KILL = tool("kill_test")
LABELS = {
    "marginal_smoothing_k5": {},
    "shared_tail_k5": {"tail_classes": 8},
    "full": {"values": "float32"},
    "hard": {},
    "lowrank": {},
}


def job_of(photographs, target, **options):
    config = slg_wds.GenerateConfig(
        data=str(photographs), arch=TINY, teacher_source="private", save_path=str(target), num_crops=7, num_seg=32,
        threads_per_forward=1, workers=2, samples_per_shard=18, **options,
    )  # fmt: skip
    return open_job(Recipe.of(config), "cpu")


def made_late(job, monkeypatch) -> LazyStreams:
    """Run the job's worker loop on the imitated device, with buffers that are poisoned when they are given back."""
    gpu = LazyStreams().install(monkeypatch)
    give_back = Buffers.give_back

    def poisoned(buffers, tensors):
        for tensor in tensors:
            tensor.untyped_storage().fill_(POISON)
        give_back(buffers, tensors)

    monkeypatch.setattr(Buffers, "give_back", poisoned)
    monkeypatch.setattr(inference, "topk", reduce._packed_topk)  # a GPU's way, which looks for no ties
    job.teacher.device = job.teacher.teachers[0].device = DEVICE
    with gpu:
        work(job, None, RunObserver())
    return gpu


@pytest.mark.parametrize("label_type", LABELS)
def test_labels_are_those_of_a_device_that_does_everything_at_once(
    photographs, tmp_path, monkeypatch, label_type
):
    options = {"label_type": label_type, **LABELS[label_type]}
    work(job_of(photographs, tmp_path / "cpu", **options), None, RunObserver())
    gpu = made_late(job_of(photographs, tmp_path / "gpu", **options), monkeypatch)
    assert gpu.operators > 100 and gpu.dropped == 0
    assert KILL.contents(tmp_path / "gpu") == KILL.contents(tmp_path / "cpu")


def broken_wait(monkeypatch):
    monkeypatch.setattr("support.gpus.lazy_streams.Stream.wait_event", lambda stream, event: None)


def broken_buffers(monkeypatch):
    plain = inference.Forward._launch

    def launch(forward, batch):
        outputs = plain(forward, batch)
        forward.buffers.give_back(batch.inputs)
        return outputs

    monkeypatch.setattr(inference.Forward, "_launch", launch)


def broken_copies(monkeypatch):
    monkeypatch.setattr(CopyStream, "give_back", lambda stream, copies: None)


def broken_event(monkeypatch):
    monkeypatch.setattr("support.gpus.lazy_streams.Event.synchronize", lambda event: None)


@pytest.mark.parametrize("fault", [broken_wait, broken_buffers, broken_copies, broken_event])
def test_what_is_used_too_early_is_seen(photographs, tmp_path, monkeypatch, fault):
    """The imitation finds what it is for."""
    options = {"label_type": "full", "values": "float32"}
    work(job_of(photographs, tmp_path / "cpu", **options), None, RunObserver())
    job = job_of(photographs, tmp_path / "gpu", **options)
    fault(monkeypatch)
    try:
        gpu = made_late(job, monkeypatch)
    except slg_wds.SlgWdsError:
        return
    assert gpu.dropped or KILL.contents(tmp_path / "gpu") != KILL.contents(tmp_path / "cpu")


def test_a_wait_of_the_host_is_seen(photographs, tmp_path, monkeypatch):
    job = job_of(photographs, tmp_path / "gpu")
    monkeypatch.setattr(
        reduce, "_packed_topk", lambda probs, k: reduce.topk(probs, k) if probs.any() else None
    )
    with pytest.raises(HostWaitsError):
        made_late(job, monkeypatch)


def test_the_number_of_crops_in_a_forward_follows_the_device(photographs, tmp_path):
    config = slg_wds.GenerateConfig(data="d", arch="a")
    assert [config.crops_of_forward(name) for name in ("cpu", "cuda", "cuda:3")] == [50, 256, 256]
    given = dataclasses.replace(config, num_seg=7)
    assert [given.crops_of_forward(name) for name in ("cpu", "cuda:3")] == [7, 7]
