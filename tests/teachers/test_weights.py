"""Weights files: which are read or refused, and the errors for files that do not fit."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from slg_wds.errors import WeightsError
from slg_wds.teachers import digest
from slg_wds.teachers.weights import fit, head_classes, read_weights


def small(seed: int = 0, classes: int = 5) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()
        )
        | OrderedDict(fc=nn.Linear(4, classes))
    )


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}


def averaged(module: nn.Module) -> dict[str, Any]:
    return dict(torch.optim.swa_utils.AveragedModel(module).state_dict())


NESTS: dict[str, Callable[[nn.Module], Any]] = {
    "": lambda m: m.state_dict(),
    "[state_dict]": lambda m: {"state_dict": m.state_dict(), "epoch": 90, "best": 76.1},
    "[model]": lambda m: {"model": m.state_dict(), "optimizer": {"state": {}}, "model_ema": None},
    "[model_ema]": lambda m: {"model": small(9).state_dict(), "model_ema": averaged(m)},
    "[state_dict_ema]": lambda m: {"state_dict": small(9).state_dict(), "state_dict_ema": m.state_dict()},
    "[ema]": lambda m: {"state_dict": small(9).state_dict(), "ema": m.state_dict()},
    "[model_state_dict]": lambda m: {"model_state_dict": m.state_dict(), "loss": 1.0},
    "[net]": lambda m: {"net": m.state_dict(), "acc": 95.3, "epoch": 199},
    "[state_dict.model]": lambda m: {"state_dict": {"model": m.state_dict()}},
}
PREFIXES = [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "net._orig_mod.",
    "backbone.",
]


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar"])
@pytest.mark.parametrize("place", NESTS)
def test_nestings(tmp_path: Path, place: str, suffix: str) -> None:
    file = tmp_path / f"teacher{suffix}"
    torch.save(NESTS[place](small(1)), file)
    state, described, *_ = read_weights(str(file))
    assert described == f"teacher{suffix} {place}".strip()
    module = small(2)
    fit(module, state, str(file))
    assert digest(module) == digest(small(1))


@pytest.mark.parametrize("average", [None, {}, {"decay": 0.9, "shadow": {}}, small(9).fc.state_dict()])
def test_an_average_has_the_names_of_the_weights(tmp_path: Path, average: Any) -> None:
    """A student trained without --ema has none, and in files of others `ema` may be anything."""
    torch.save({"state_dict": small(1).state_dict(), "ema": average}, tmp_path / "a.pth")
    state, described, *_ = read_weights(str(tmp_path / "a.pth"))
    assert described == "a.pth [state_dict]" and torch.equal(state["fc.bias"], small(1).fc.bias)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_in_every_kind_of_file(tmp_path: Path, prefix: str) -> None:
    state = prefixed(small(1).state_dict(), prefix)
    torch.save(state, tmp_path / "a.pth")
    torch.save({"model": state}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        for wrap in (lambda m: m, nn.DataParallel):
            module = wrap(small(2))
            fit(module, read_weights(str(tmp_path / name)).state, name)
            assert digest(getattr(module, "module", module)) == digest(small(1))


def test_old_files_without_batch_counters_and_half_precision(tmp_path: Path) -> None:
    state = {n: v.half() for n, v in small(1).state_dict().items() if not n.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "old.pth")
    module = small(2)
    fit(module, read_weights(str(tmp_path / "old.pth")).state, "old.pth")
    assert torch.equal(module.state_dict()["fc.weight"], state["fc.weight"].float())


class Execute:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["torch.save", "torch.save legacy", "plain pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    file, marker = tmp_path / "evil.pth", tmp_path / "ran"
    content = {"state_dict": small().state_dict(), "x": Execute(f"touch {marker}")}
    if how == "plain pickle":
        file.write_bytes(pickle.dumps(content["x"], protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(
        WeightsError, match=r"evil\.pth is a pickle .* refused, nothing of it was run"
    ) as caught:
        read_weights(str(file))
    assert "safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    # The file does run code in a loader that is not careful.
    load = f"import pickle; pickle.load(open({str(file)!r}, 'rb'))"
    if how != "plain pickle":
        load = f"import torch; torch.load({str(file)!r}, weights_only=False)"
    subprocess.run([sys.executable, "-c", load], check=False, capture_output=True)
    assert marker.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "module.pt")
    with pytest.raises(WeightsError, match=r"would run code \(torch\.nn\.modules\.container\.Sequential\)"):
        read_weights(str(tmp_path / "module.pt"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "cut off, damaged"),
        ("junk.pth", b"hello world" * 50, "cut off, damaged"),
        ("junk.safetensors", b"hello world" * 50, "cannot be read as safetensors"),
        ("weights.npz", b"PK", "weights are read from .safetensors"),
    ],
)
def test_damaged_and_foreign_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_weights(str(tmp_path / name))


@given(st.data())
def test_a_cut_or_flipped_file_is_an_error_or_other_weights(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    save_file(small().state_dict(), file)
    raw = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw) - 1)) :]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(raw)
    module = small()
    before = digest(module)
    try:
        state, *_ = read_weights(str(file))
        fit(module, state, str(file))
    except WeightsError as error:
        assert "\n" not in str(error)
    else:
        assert digest(module) != before


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file at"):
        read_weights(str(tmp_path / "absent.pth"))
    for content in ([torch.ones(1)], {"epoch": 3}, torch.ones(3)):
        torch.save(content, tmp_path / "list.pth")
        with pytest.raises(WeightsError, match="holds no named tensors"):
            read_weights(str(tmp_path / "list.pth"))


def misfit(state: dict[str, Any]) -> str:
    with pytest.raises(WeightsError) as caught:
        fit(small(), OrderedDict(state), "file.pth")
    return caught.value.message


def test_misfits_are_named() -> None:
    whole = small().state_dict()
    cut = {name: value for name, value in whole.items() if name != "conv.bias"}
    assert misfit(cut) == "file.pth does not fit the teacher: 1 missing (conv.bias)"
    extra = whole | {f"layer.{n}": torch.ones(1) for n in range(5)}
    assert misfit(extra).endswith("5 unexpected (layer.0, layer.1, layer.2, ...)")
    head = small(classes=7).state_dict()
    assert misfit(head).endswith(
        "2 of another shape (fc.weight: [7, 4] in the file, [5, 4] in the model, "
        "fc.bias: [7] in the file, [5] in the model)"
    )
    other = {f"blocks.{n}.w": torch.ones(1) for n in range(4)}
    message = misfit(other)
    assert "8 missing (conv.weight, conv.bias, norm.weight, ...)" in message
    assert message.endswith("so the file is of another architecture")


def test_head_classes() -> None:
    state = small(classes=7).state_dict()
    assert head_classes(state, ["head", "fc"]) == 7
    assert head_classes({"fc.bias": torch.ones(3)}, ["fc"]) == 3
    assert head_classes(state, ["head"]) is None
    assert head_classes(state, []) is None


def test_digest_is_of_names_types_shapes_and_every_bit() -> None:
    module = small(3)
    whole = digest(module)
    assert whole == digest(small(3))
    assert len(whole) == 64
    assert digest(nn.Sequential(OrderedDict(reversed(list(module.named_children()))))) == whole
    for name, tensor in module.state_dict().items():
        view = tensor.reshape(-1).view(torch.uint8)
        for byte in (0, -1):
            view[byte] ^= 1
            assert digest(module) != whole, name
            view[byte] ^= 1
    assert digest(module) == whole
    assert digest(module.to(memory_format=torch.channels_last)) == whole
    assert digest(module.half()) != whole


def test_digest_is_what_it_says() -> None:
    import hashlib

    module = nn.Linear(2, 1)
    weight, bias = (p.detach().numpy().tobytes() for p in (module.weight, module.bias))
    expected = hashlib.sha256(b"bias\nfloat32\n1\n" + bias + b"weight\nfloat32\n1,2\n" + weight).hexdigest()
    assert digest(module) == expected
