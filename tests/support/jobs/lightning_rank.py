"""Train for an epoch on two CPU processes that Lightning starts: lightning_rank.py LABELS FOLDER hook|script.

The loader is made in the hook `train_dataloader`, or in the script, before Lightning starts anything. Each process
writes what it was given to FOLDER/RANK.json.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import torch

from slg_wds import SoftCrossEntropy, SoftLabelLoader
from support.jobs.ranks import write_given

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    import lightning


class Student(lightning.LightningModule):
    """Notes the batches it was given."""

    def __init__(self, labels: str, loader: SoftLabelLoader | None) -> None:
        super().__init__()
        self.labels, self.loader = labels, loader
        self.net, self.loss, self.seen = torch.nn.Linear(3, 20), SoftCrossEntropy(), []

    def train_dataloader(self):
        self.loader = self.loader or SoftLabelLoader(self.labels, global_batch_size=24, crops_per_image=2)
        return self.loader.to(self.device)

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.loss(self.net(batch.images.mean((2, 3))), batch.labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def main(labels: str, folder: Path, where: str) -> None:
    made = SoftLabelLoader(labels, global_batch_size=24, crops_per_image=2) if where == "script" else None
    student = Student(labels, made)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(
        accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, enable_checkpointing=False, **silent
    )
    trainer.fit(student)
    write_given(folder, student.loader, student.seen)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    os._exit(0)  # see walking_rank.py
