"""Lightning trains with the unwrapped loader and resumes from its checkpoints with the next batch."""

from __future__ import annotations

import warnings

import pytest
import torch

from slg_wds import SoftCrossEntropy
from support.sets.replayed import Made, given, loader_of, make, parameters, student, walked

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import ModelCheckpoint

# Warnings of Lightning about the machine and about settings of these tests.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step`"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
]
EPOCHS, LENGTH = 3, 3


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lightning")
    return Made(make(photographs, folder / "set", embed_images="original", label_type="shared_tail_k3"), None)


@pytest.fixture(scope="module")
def full(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lightning-full")
    return Made(make(photographs, folder / "set", embed_images="original", label_type="full"), None)


class Student(pl.LightningModule):
    """Notes the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = student(), SoftCrossEntropy()
        self.seen, self.validated, self.dtypes = [], 0, set()

    def training_step(self, batch, number):
        self.seen.append(given(batch))
        self.dtypes |= {tensor.dtype for tensor in batch.labels.tensors()}
        images = batch.images if batch.images.is_floating_point() else batch.images.float() / 255
        loss = self.loss(self.net(images), batch.labels)
        self.log("loss", loss, on_epoch=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch, number):
        self.validated += int(batch.mask.sum())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)


def fit(loader, folder, *, model=None, checkpoint=None, callbacks=(), validation=None, **options) -> Student:
    model = model or Student()
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {
        "accelerator": "cpu",
        "max_epochs": EPOCHS,
        "default_root_dir": folder,
        "num_sanity_val_steps": 1,
    }
    trainer = pl.Trainer(
        **{**settings, **silent, **options}, callbacks=list(callbacks), enable_checkpointing=bool(callbacks)
    )
    trainer.fit(model, loader, validation, ckpt_path=checkpoint)
    return model


def of_kind(made, kind):
    loader = loader_of(made)
    return loader.to("cpu") if kind == "device" else loader


@pytest.mark.parametrize("kind", ["plain", "device"])
def test_every_epoch_is_the_next(made, tmp_path, kind):
    assert fit(of_kind(made, kind), tmp_path).seen == walked(made, EPOCHS)


def test_epochs_cut_short_are_epochs_too(made, tmp_path):
    seen = fit(loader_of(made), tmp_path, limit_train_batches=2).seen
    whole = walked(made, EPOCHS)
    assert seen == [whole[LENGTH * epoch + number] for epoch in range(EPOCHS) for number in range(2)]


def test_full_labels_and_validation(full, tmp_path):
    evaluation = loader_of(full, evaluation=True)
    model = fit(loader_of(full), tmp_path, validation=evaluation)
    assert model.seen == walked(full, EPOCHS) and model.validated == 24 + EPOCHS * 36


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-true", torch.bfloat16), ("64-true", torch.float64)])
def test_labels_are_never_rounded_to_the_models_precision(made, tmp_path, precision, dtype):
    model = fit(loader_of(made).to("cpu"), tmp_path, precision=precision, max_epochs=1)
    assert next(model.parameters()).dtype == dtype and len(model.seen) == LENGTH
    assert model.dtypes == {torch.int64, torch.float32}


WHEN = {
    "steps": {"every_n_train_steps": 1},
    "epochs": {"every_n_epochs": 1, "save_on_train_epoch_end": True},
    "validations": {"every_n_epochs": 1, "save_on_train_epoch_end": False},
}


@pytest.fixture(scope="module")
def whole(made, tmp_path_factory):
    """Runs with checkpoints at every step, after every epoch, and after every validation."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, when in WHEN.items():
        saving = ModelCheckpoint(folder / name, filename="{step}", save_top_k=-1, **when)
        model = fit(loader_of(made), folder, callbacks=[saving], validation=loader_of(made, evaluation=True))
        assert model.seen == walked(made, EPOCHS)
    return folder, model


# With max_steps Lightning miscounts epochs after a checkpoint of an epoch's end, with any loader; so not those.
BY_STEPS = {"max_epochs": -1, "max_steps": EPOCHS * LENGTH}
RESUMED = [("steps", step, {}) for step in (1, 3, 5)]
RESUMED += [(when, step, {}) for when in ("epochs", "validations") for step in (3, 6)]
RESUMED += [("steps", 2, BY_STEPS), ("steps", 6, BY_STEPS), ("validations", 3, BY_STEPS)]


@pytest.mark.parametrize(("when", "step", "limit"), RESUMED)
def test_a_checkpoint_resumes_with_the_very_next_batch(made, whole, tmp_path, when, step, limit):
    folder, model = whole
    path = str(folder / when / f"step={step}.ckpt")
    validation = loader_of(made, evaluation=True)
    resumed = fit(loader_of(made), tmp_path, checkpoint=path, validation=validation, **limit)
    assert resumed.seen == model.seen[step:]
    assert torch.equal(parameters(resumed), parameters(model))


def test_a_stopped_run_resumes_from_its_last_checkpoint(made, tmp_path):
    class Stopped(Student):
        def training_step(self, batch, number):
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().training_step(batch, number)

    saving = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(loader_of(made), tmp_path, model=Stopped(), callbacks=[saving])
    resumed = fit(loader_of(made), tmp_path, checkpoint=str(tmp_path / "last.ckpt"))
    assert resumed.seen == walked(made, EPOCHS)[4:]
