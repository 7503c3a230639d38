"""The README's code for other trainers runs as it stands there, but for the paths, sizes and devices."""

from __future__ import annotations

import re
import warnings
from types import SimpleNamespace

import pytest
import torch

import slg_wds
from slg_wds import SoftCrossEntropy
from support.paths import ROOT
from support.sets.replayed import BATCH, given, make, student, walked

README = (ROOT / "README.md").read_text()
SECTION = README.partition("**Lightning, Accelerate, timm.**")[2].partition("`slg-wds train`")[0]
LIGHTNING, ACCELERATE, TIMM = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture(scope="module")
def labels(photographs, tmp_path_factory):
    return make(photographs, tmp_path_factory.mktemp("readme") / "labels", embed_images="original")


def executed(code: str, labels: str, **names) -> dict:
    changed = code.replace("/data/labels", labels).replace("1024", f"{BATCH}, crops_per_image=2")
    found = {
        **vars(slg_wds),
        "SoftLabelLoader": slg_wds.SoftLabelLoader,
        "SoftCrossEntropy": SoftCrossEntropy,
        **names,
    }
    exec(changed.replace("cuda", "cpu"), found)
    return found


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_lightning(labels, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        import lightning
    base = executed(LIGHTNING, labels, lightning=lightning)["Student"]

    class Whole(base):
        def __init__(self):
            super().__init__()
            self.net, self.loss, self.seen = student(), SoftCrossEntropy(), []

        def training_step(self, batch, batch_idx):
            self.seen.append(given(batch))
            return super().training_step(batch, batch_idx)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    model = Whole()
    loader = slg_wds.SoftLabelLoader(labels, global_batch_size=BATCH, crops_per_image=2).to("cpu")
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, enable_checkpointing=False, default_root_dir=tmp_path, **silent
    )
    trainer.fit(model, loader)
    assert model.seen == walked(SimpleNamespace(loader=loader_by(labels)), 2)


def loader_by(labels):
    return lambda **options: slg_wds.SoftLabelLoader(labels, **options)


def test_accelerate(labels):
    from accelerate import Accelerator

    loader = executed(ACCELERATE, labels, accelerator=Accelerator(cpu=True))["loader"]
    assert [given(batch) for batch in loader] == walked(SimpleNamespace(loader=loader_by(labels)), 1)


def test_timm(labels):
    found = executed(TIMM, labels)
    model = student()
    for images, target in found["loader_train"]:
        found["train_loss_fn"](model(images), target).backward()
    assert len(found["loader_train"]) == 3 and model[0].weight.grad is not None
