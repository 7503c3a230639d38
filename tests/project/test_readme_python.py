"""The README's blocks of Python run as they stand there, but for a few substitutions."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import textwrap
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import slg_wds
from slg_wds import SoftCrossEntropy
from support.readme.blocks import block_with
from support.readme.world import CROPS, run_there
from support.sets.mixed_sets import mixed_of
from support.sets.replayed import BATCH, Made, given, make, student, walked


def executed(code: str, labels: str, images: str = "", **names) -> dict:
    """The names that a block of Python has at its end."""
    for old, new in {
        "/data/labels": labels,
        "/data/imagenet/train": images,
        "=1024": f"={BATCH}" if "crops_per_image" in code else f"={BATCH}, crops_per_image=2",
        "cuda": "cpu",
        "nccl": "gloo",
        "range(75)": "range(2)",
        '"resnet50"': '"test_resnet"',
        "num_workers=8": "num_workers=0",
        "cut_crops(224": "cut_crops(32",
        "batch_size=64": "batch_size=6",
    }.items():
        code = code.replace(old, new)
    found = {"SoftLabelLoader": slg_wds.SoftLabelLoader, "SoftCrossEntropy": SoftCrossEntropy, **names}
    exec(code, found)
    return found


@pytest.fixture(scope="module")
def replayed(photographs, tmp_path_factory) -> Made:
    return Made(make(photographs, tmp_path_factory.mktemp("readme") / "labels"), str(photographs))


def executed_on(made: Made, code: str, **names) -> dict:
    return executed(code, made.labels, made.images, **names)


def test_generating_and_reading(world, tmp_path):
    code = block_with("python", "GenerateConfig(")
    changed = code.replace("/data/imagenet", str(world.folder / "imagenet"))
    changed = changed.replace('"resnet50"', f"{world.teacher('first')!r}, num_crops={CROPS}")
    found = executed(changed, str(tmp_path / "set"))
    assert found["record"].crops.shape == (CROPS, 4)
    assert found["record"].distribution().shape == (CROPS, 1000)


@pytest.mark.filterwarnings("ignore:Grad strides do not match")
def test_pytorch(world, monkeypatch):
    """One process of gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    try:
        found = executed(
            block_with("python", "DistributedDataParallel"),
            str(world.folder / "a"),
            str(world.folder / "imagenet/train"),
        )
    finally:
        torch.distributed.destroy_process_group()
    assert found["epoch"] == 1 and found["batch"].images.shape == (BATCH, 3, 32, 32)
    assert all(parameter.grad is not None for parameter in found["student"].parameters())


def test_temperature(replayed):
    found = executed_on(replayed, block_with("python", "temperature=lambda"))
    assert [found["loader"].temperature.of(epoch) for epoch in (0, 10, 40)] == [4.0, 3.0, 1.0]
    batch = next(iter(found["loader"]))
    assert found["loss"](torch.zeros(BATCH, batch.labels.num_classes), batch.labels) > 0


def test_mixed_views(replayed, tmp_path):
    mixed = Made(mixed_of(replayed.labels, str(tmp_path / "mixed")), replayed.images)
    code = block_with("python", "batch.target2").replace("/data/mixed", mixed.labels)
    found = executed_on(mixed, code, student=student())
    assert 0 < found["loss"] < 20 and (found["batch"].lam < 1).any()


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
@pytest.mark.filterwarnings("ignore:The number of training batches")
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_lightning(replayed, tmp_path):
    """The whole training, and what is left of it after a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import lightning
        from lightning.pytorch.callbacks import ModelCheckpoint
    base = executed_on(replayed, block_with("python", "lightning."), lightning=lightning)["Student"]

    class Whole(base):
        def __init__(self):
            super().__init__()
            self.net, self.loss, self.seen = student(), SoftCrossEntropy(), []

        def training_step(self, batch, batch_idx):
            self.seen.append(given(batch))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    seen = []
    for checkpoint in (None, tmp_path / "step=4.ckpt"):
        model, saving = Whole(), ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
        lightning.Trainer(accelerator="cpu", max_epochs=2, callbacks=[saving], **silent).fit(
            model, ckpt_path=checkpoint
        )
        seen.append(model.seen)
    assert seen == [walked(replayed, 2), walked(replayed, 2)[4:]]


def test_accelerate(replayed):
    from accelerate import Accelerator

    found = executed_on(replayed, block_with("python", "accelerator."), accelerator=Accelerator(cpu=True))
    assert [given(batch) for batch in found["loader"]] == walked(replayed, 1) and found["loader"].epoch == 1


def test_timm(replayed):
    """With what timm's script has there: its arguments, the device, the student's configuration."""
    import timm
    from timm.data import resolve_data_config

    model = timm.create_model("test_resnet", num_classes=20)
    here = {
        "args": SimpleNamespace(batch_size=BATCH, world_size=1, seed=42),
        "device": torch.device("cpu"),
        "data_config": resolve_data_config({"img_size": 32}, model=model),
    }
    found = executed_on(replayed, block_with("python", ".pairs()"), **here)
    for images, target in found["loader_train"]:
        assert images.shape == (BATCH, 3, 32, 32)
        found["train_loss_fn"](model(images), target).backward()
    assert len(found["loader_train"]) == 6 and all(one.grad is not None for one in model.parameters())


@pytest.mark.slow
def test_timms_own_script(world, tmp_path):
    """Neither timm's wheel nor its source distribution has it. TIMM_TRAIN says where a clone does."""
    path = os.environ.get("TIMM_TRAIN")
    if not path:
        pytest.skip("no package has timm's train.py; TIMM_TRAIN names that of a clone")
    before, line, after = (
        Path(path).read_text().partition("    validate_loss_fn = nn.CrossEntropyLoss().to(device=device)\n")
    )
    block = block_with("python", ".pairs()").replace("/data/labels", f"{world.folder}/a")
    block = block.replace("/data/imagenet", f"{world.folder}/imagenet")
    assert line
    (tmp_path / "train.py").write_text(before + line + textwrap.indent(block, "    ") + after)
    words = (
        f"--data-dir {world.folder}/imagenet --model test_resnet --img-size 32 -b 12 --epochs 2 --workers 0"
    )
    more = f"--device cpu --lr 0.1 --warmup-epochs 0 --grad-accum-steps 2 --clip-grad 1 --output {tmp_path}/output"
    said = run_there([sys.executable, str(tmp_path / "train.py"), *words.split(), *more.split()], {})
    results = json.loads(said.partition("--result")[2])
    first, second = (one["train"]["loss"] for one in sorted(results, key=lambda one: one["epoch"]))
    assert second < first


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
def test_torchdata(replayed, tmp_path):
    """The block with our loader, and with torchdata's over the same batches."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    code = block_with("python", "resumed.load_state_dict").replace("== 1000", "== 2")
    code = code.replace("/data/loader.pt", f"{tmp_path}/loader.pt")
    whole = walked(replayed, 2)
    first, second = whole[:3], whole[3:]
    ours = executed_on(replayed, code, torch=torch)["resumed"]
    theirs = executed_on(
        replayed,
        code,
        torch=torch,
        SoftLabelLoader=lambda *_, **__: StatefulDataLoader(first, batch_size=None),
    )["resumed"]
    assert [given(batch) for batch in ours] == [tuple(map(tuple, one)) for one in theirs] == first[2:]
    assert [given(batch) for batch in ours] == second and len(list(theirs)) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")
def test_webdataset(photographs, tmp_path):
    """In each epoch the crops and labels that the loader gives in it."""
    labels = make(photographs, tmp_path / "labels", embed_images="original")
    loop, seen = "        batch.images, batch.labels", []
    code = block_with("python", "decode_record_stage(")
    assert code.count(loop) == 1
    executed(code.replace(loop, "        seen.append((epoch, batch))"), labels, seen=seen)
    gc.collect()  # WebDataset leaves the last shard open
    loader = slg_wds.SoftLabelLoader(labels, global_batch_size=BATCH, crops_per_image=4)
    found, wanted = (
        labels_by_place(seen),
        labels_by_place((loader.epoch, batch) for _ in "12" for batch in loader),
    )
    assert found.keys() == wanted.keys() and len(found) == 2 * 36 * 4
    for place, row in wanted.items():
        torch.testing.assert_close(found[place], row, atol=1e-6, rtol=0)
    first, second = ({place[1:] for place in found if place[0] == epoch} for epoch in (0, 1))
    assert not first & second, "8 of 12 crops of each image"


def labels_by_place(batches) -> dict[tuple[int, str, int], torch.Tensor]:
    """The distributions of (epoch, batch) pairs by epoch, key and crop."""
    return {
        (epoch, key, crop): row
        for epoch, batch in batches
        for key, crop, row in zip(batch.key, batch.crop.tolist(), batch.labels.dense(), strict=True)
    }
