"""Heads in checkpoints of DINO and DINOv2: as banks they give the distributions of the head itself."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from slg_wds.banks import encode_bank, read_bank
from slg_wds.banks.head import BankHead
from slg_wds.cli import main
from slg_wds.errors import WeightsError
from slg_wds.prototypes.heads import read_head
from support.models.banks import Head

DIM, K = 12, 30


def head_of(seed: int) -> Head:
    torch.manual_seed(seed)
    head = Head(DIM, K)
    head.last_layer.weight_g.data.uniform_(0.5, 2)
    return head.eval()


def under(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor.clone() for name, tensor in module.state_dict().items()}


def dino(folder: Path, **options) -> tuple[Path, Head, torch.Tensor]:
    """A file like DINO's `..._full_checkpoint.pth`: both networks, the optimizer, the options, the centre."""
    teacher, student, backbone = head_of(1), head_of(2), nn.Linear(4, DIM)
    centre = torch.randn(1, K)
    saved = {
        "student": {**under("module.backbone.", backbone), **under("module.head.", student)},
        "teacher": {**under("backbone.", backbone), **under("head.", teacher)},
        "optimizer": torch.optim.AdamW(student.parameters()).state_dict(),
        "epoch": 100,
        "args": argparse.Namespace(arch="deit_small", out_dim=K, **options),
        "dino_loss": {"center": centre},
    }
    torch.save(saved, folder / "dino_full_checkpoint.pth")
    return folder / "dino_full_checkpoint.pth", teacher, centre


def as_head_gives(head: Head, centre: torch.Tensor | float, embeddings: torch.Tensor, temperature: float):
    with torch.no_grad():
        return ((head(embeddings) - centre) / temperature).softmax(1)


def given_by(path: Path | str, embeddings: torch.Tensor, temperature: float) -> torch.Tensor:
    return BankHead(read_bank(str(path)), temperature).probabilities(embeddings)


EMBEDDINGS = torch.randn(6, DIM, generator=torch.Generator().manual_seed(9)) * 3


def test_dinos_full_checkpoint(tmp_path, capsys):
    path, head, centre = dino(tmp_path, teacher_temp=0.04)
    assert main(["prototypes", str(path), "--save-path", str(tmp_path / "bank.safetensors")]) == 0
    said = capsys.readouterr().out
    assert "a bank of 30 prototypes, 3 layers in front, for embeddings of 12 numbers" in said
    assert "next: slg-wds ensemble SET --bank" in said
    bank = read_bank(str(tmp_path / "bank.safetensors"))
    assert bank.temperature == 0.04 and bank.unit and (bank.size, bank.dim) == (K, DIM)
    assert bank.made_from == {"checkpoint": "dino_full_checkpoint.pth", "head": "teacher.head"}
    found = given_by(tmp_path / "bank.safetensors", EMBEDDINGS, 0.04)
    assert torch.allclose(found, as_head_gives(head, centre, EMBEDDINGS, 0.04), atol=1e-5)


@pytest.mark.parametrize("form", ["teacher", "model", "safetensors", "new names", "plain"])
def test_dinov2s_checkpoints(tmp_path, form):
    teacher, student, patches, centre = head_of(1), head_of(2), head_of(4), 0.0
    path = tmp_path / "checkpoint.pth"
    heads = {
        **under("dino_head.", teacher),
        **under("ibot_head.", patches),
        **under("backbone.", nn.Linear(4, DIM)),
    }
    if form == "teacher":
        torch.save({"teacher": heads}, path)
    elif form == "model":
        centre = torch.randn(1, K)
        whole = {f"teacher.{name}": one for name, one in heads.items()} | under("student.dino_head.", student)
        torch.save({"model": {**whole, "dino_loss.center": centre}, "iteration": 7}, path)
    elif form == "safetensors":
        path = tmp_path / "head.safetensors"
        save_file(under("", teacher), path)
    else:
        nn.utils.remove_weight_norm(teacher.last_layer)
        if form == "new names":
            nn.utils.parametrizations.weight_norm(teacher.last_layer)
        torch.save({"teacher": under("dino_head.", teacher)}, path)
    bank = read_head(str(path), 0.1)
    (tmp_path / "bank").write_bytes(encode_bank(bank))
    assert (bank.prototypes.bias is not None) == (form == "model") and bank.temperature == 0.1
    assert read_head(str(path)).temperature == 0.07
    found = given_by(tmp_path / "bank", EMBEDDINGS, 0.1)
    assert torch.allclose(found, as_head_gives(teacher, centre, EMBEDDINGS, 0.1), atol=1e-5)


def test_a_head_of_one_layer(tmp_path):
    head = head_of(1)
    head.mlp = nn.Linear(DIM, 8)
    torch.save({"teacher": under("module.head.", head)}, tmp_path / "x.pth")
    (tmp_path / "bank").write_bytes(encode_bank(read_head(str(tmp_path / "x.pth"))))
    found = given_by(tmp_path / "bank", EMBEDDINGS, 0.07)
    assert torch.allclose(found, as_head_gives(head, 0.0, EMBEDDINGS, 0.07), atol=1e-5)


def test_heads_that_cannot_be_banks(tmp_path):
    path = tmp_path / "x.pth"

    def refused(saved: object, said: str) -> None:
        torch.save(saved, path)
        with pytest.raises(WeightsError, match=said):
            read_head(str(path))

    refused(
        under("", nn.Linear(3, 3)), "no head of DINO: no last_layer; backbones are published without heads"
    )
    refused({**under("a.", head_of(1)), **under("b.", head_of(2))}, "several heads: a, b")
    normed = head_of(1)
    normed.mlp.insert(1, nn.BatchNorm1d(24))
    refused({"teacher": under("head.", normed)}, "batch normalisation")
    nan = head_of(1)
    nan.mlp[0].weight.data[0, 0] = torch.nan
    refused({"teacher": under("head.", nan)}, "NaN or infinite")
    short = {name: one for name, one in under("head.", head_of(1)).items() if "mlp.2" not in name}
    short["head.mlp.2.weight"] = torch.ones(5, 24)
    refused({"teacher": short}, "mlp.1 gives 5 numbers, and the next layer takes 24")
    with pytest.raises(WeightsError, match="no weights file"):
        read_head(str(tmp_path / "none.pth"))


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_a_checkpoint_runs_nothing(tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"args": Harmful()}))
    assert main(["prototypes", str(tmp_path / "x.pth"), "--save-path", str(tmp_path / "bank")]) == 1
    said = capsys.readouterr()
    assert "was refused, nothing of it was run" in said.err and said.out == ""
    assert not (tmp_path / "bank").exists()
