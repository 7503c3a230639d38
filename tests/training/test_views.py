"""`slg-wds train` on views: it learns from the teacher's own pixels, at the teacher's size and at others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

import slg_wds
from slg_wds.images import decode
from slg_wds.training.command import main
from slg_wds.transforms.drawn import DrawnCrops
from support.models.tiny_students import plain, weights
from support.sets.replay_sets import make
from support.training import PLAIN

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
VIEWS = {"aa": "rand-m9-mstd0.5-inc1", "reprob": 0.5, "embed_images": "original"}
RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-4
WALKS = ((0, 4), (4, 1))  # of 5 epochs with 4 crops an image: (epoch of the loader, crops)


def truth(labels: str, size: int) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """(pixels, distribution) of every crop at a size, from whole records and images, as generation makes views."""
    found = {}
    opened = slg_wds.open_labels(labels)
    for sample in (one for number in range(opened.num_shards) for one in opened.shard(number)):
        drawn, pixels = DrawnCrops.of(sample.record), decode(sample.image)
        out = torch.empty((len(drawn), size, size, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        drawn.cut(pixels, out, "bilinear")
        dense = torch.from_numpy(sample.record.distribution()).float()
        images = (out.float() / 255 - MEAN) / STD
        found |= {(sample.record.key, n): (images[n], dense[n]) for n in range(len(drawn))}
    return found


def by_torch(labels: str, size: int) -> dict[str, torch.Tensor]:
    """The weights after the same training in plain torch, without the loader but for its order."""
    torch.manual_seed(3)
    model, every = plain(), truth(labels, size)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for epoch, crops in WALKS:
        loader = slg_wds.SoftLabelLoader(labels, global_batch_size=16, crops_per_image=crops, seed=3)
        loader.set_epoch(epoch)
        for batch in loader:
            places = list(zip(batch.key, batch.crop.tolist(), strict=True))
            images, dense = (torch.stack([every[place][part] for place in places]) for part in (0, 1))
            optimizer.zero_grad()
            (-(dense * model(images).log_softmax(1)).sum(1).mean()).backward()
            optimizer.step()
    return model.state_dict()


def flags(labels: str, folder: Path, *more: str) -> list[str]:
    common = ["-b", "16", "--lr", str(RATE), "--wd", str(DECAY), "--epochs", "5", "--seed", "3", "-j", "2"]
    return ["--softlabel_path", labels, "-a", PLAIN, *common, *more, "--save_checkpoint_path", str(folder)]


def check_weights(folder: Path, labels: str, size: int) -> None:
    found, expected = weights(str(folder / "checkpoint.pth.tar")), by_torch(labels, size)
    for name, value in expected.items():
        torch.testing.assert_close(found[f"/state_dict/{name}"], value, rtol=1e-3, atol=1e-5)


def test_a_process_trains_on_the_teachers_views(photographs, tmp_path):
    labels = make(photographs, tmp_path / "set", label_type="full", **VIEWS)
    words = [sys.executable, "-m", "slg_wds", "train", *flags(labels, tmp_path / "run")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    check_weights(tmp_path / "run", labels, 32)


def test_low_rank_labels_of_views_teach_students_of_another_size(photographs, tmp_path):
    labels = make(photographs, tmp_path / "set", label_type="lowrank", **VIEWS)
    assert main(flags(labels, tmp_path / "run", "--size", "48")) == 0
    check_weights(tmp_path / "run", labels, 48)
