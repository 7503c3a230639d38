"""Banks: what they compute, their files, and what is refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file
from torch import nn

from slg_wds.banks import Bank, DenseLayer, encode_bank, read_bank
from slg_wds.banks.file import decode_bank
from slg_wds.banks.head import BankHead
from slg_wds.errors import UsageError, WeightsError
from support.models.banks import layer, unit_bank, written
from support.paths import TESTS


def in_float64(bank: Bank, embeddings: np.ndarray, temperature: float) -> np.ndarray:
    """The definition, by torch's modules in float64."""
    z = torch.from_numpy(embeddings).double()
    for number, one in enumerate(bank.mlp):
        linear = nn.Linear(one.inputs, one.outputs).double()
        linear.weight.data = torch.from_numpy(one.weight).double()
        linear.bias.data = torch.from_numpy(one.bias).double()
        z = linear(nn.GELU()(z) if number else z)
    if bank.unit:
        length = z.square().sum(1, keepdim=True).sqrt()
        z = torch.where(length > 0, z / length, torch.zeros_like(z))
    bias = 0 if bank.prototypes.bias is None else torch.from_numpy(bank.prototypes.bias).double()
    scores = (z @ torch.from_numpy(bank.prototypes.weight).double().T + bias) / temperature
    return (scores - scores.logsumexp(1, keepdim=True)).exp().detach().numpy()


@pytest.mark.parametrize("dim", [1, 5, 8192])
@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_distributions_are_those_of_the_definition(dim, unit, depth):
    widths = [dim, 6, 7, 4][: depth + 1]
    mlp = tuple(layer(widths[n + 1], widths[n], n) for n in range(depth))
    bank = Bank(layer(9, widths[-1], 9, bias=depth != 1), mlp=mlp, unit=unit)
    embeddings = (np.random.default_rng(1).normal(size=(5, dim)) / np.sqrt(dim)).astype(np.float32)
    embeddings[3] = 0
    found = BankHead(bank, 0.3).probabilities(torch.from_numpy(embeddings)).numpy()
    assert found.dtype == np.float32
    assert np.abs(found - in_float64(bank, embeddings, 0.3)).max() < 1e-4


def test_zero_vectors_get_the_softmax_of_the_bias_and_lengths_do_not_matter():
    bank = unit_bank(6, 4)
    vectors = np.random.default_rng(2).normal(size=4).astype(np.float32)
    rows = torch.from_numpy(
        np.stack([vectors * 0, vectors, vectors * 1e30, vectors * 1e-35]).astype(np.float32)
    )
    found = BankHead(bank, 0.1).probabilities(rows)
    bias = torch.from_numpy(bank.prototypes.bias) / 0.1
    assert torch.allclose(found[0], bias.softmax(0), atol=1e-6)
    assert torch.allclose(found[1:], found[1].expand(3, 6), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("unit", [True, False])
def test_what_is_not_finite_is_not_hidden(bad, unit):
    bank = Bank(DenseLayer(np.abs(layer(5, 3, 0).weight)), unit=unit)
    rows = torch.tensor([[bad, 1.0, 1.0], [1.0, 1.0, 1.0]])
    found = BankHead(bank, 1.0).probabilities(rows)
    assert found[0].isnan().all() and found[1].isfinite().all()


def test_a_file_is_read_as_it_was_written_and_is_named_by_its_digest(tmp_path):
    bank = Bank(
        layer(9, 4, 0), mlp=(layer(6, 3, 1), layer(4, 6, 2, bias=False)), unit=True, temperature=0.07,
        made_from={"embedding": "a", "weights_sha256": "ab"},
    )  # fmt: skip
    path = written(bank, tmp_path / "bank.safetensors")
    again = read_bank(path)
    assert (again.size, again.dim, again.unit, again.temperature) == (9, 3, True, 0.07)
    assert again.made_from == bank.made_from
    for name, one in bank.named_layers().items():
        other = again.named_layers()[name]
        assert np.array_equal(one.weight, other.weight)
        assert np.array_equal(one.bias, other.bias) if one.bias is not None else other.bias is None
    data = (tmp_path / "bank.safetensors").read_bytes()
    assert again.sha256 == hashlib.sha256(data).hexdigest() and encode_bank(again) == data


def test_a_queue_that_somebody_saved_is_a_bank(tmp_path):
    queue = np.eye(4, 6, dtype=np.float32)
    save_file({"weight": queue}, tmp_path / "plain.safetensors")
    plain = read_bank(str(tmp_path / "plain.safetensors"))
    assert not plain.unit and plain.prototypes.bias is None and plain.temperature_or(0.5) == 0.5
    with pytest.raises(UsageError, match="names no temperature"):
        plain.temperature_or(None)
    about = json.dumps({"unit": True, "temperature": 0.04})
    save_file({"weight": queue}, tmp_path / "about.safetensors", {"bank": about})
    told = read_bank(str(tmp_path / "about.safetensors"))
    assert told.unit and told.temperature_or(None) == 0.04


W = np.eye(3, 4, dtype=np.float32)


@pytest.mark.parametrize(
    ("tensors", "about", "said"),
    [
        ({"weight": W.astype(np.float16)}, {}, "weight is F16, and a bank has float32"),
        ({"weight": W.astype(np.float64)}, {}, "weight is F64"),
        ({"weight": W * np.nan}, {}, "the prototypes is NaN or infinite"),
        ({"weight": W, "bias": np.full(3, np.inf, np.float32)}, {}, "NaN or infinite"),
        ({"weight": W[0]}, {}, r"float32 \[4\], not float32 \[outputs, inputs\]"),
        ({"weight": W[:1]}, {}, "it has 1 prototype, not 2 to"),
        ({"weight": W[:0]}, {}, r"\[0, 4\]"),
        ({"weight": W[:, :0]}, {}, r"\[3, 0\]"),
        ({"weight": W, "bias": np.zeros(4, np.float32)}, {}, r"bias of the prototypes is float32 \[4\]"),
        ({"weight": W, "mlp.0.weight": W}, {}, "mlp.0 gives 3 numbers, and the next layer takes 4"),
        ({"weight": W, "mlp.1.weight": W}, {}, "mlp.1.weight, where weight"),
        ({"head.last_layer.weight_v": W}, {}, "becomes a bank by slg-wds prototypes"),
        ({}, {}, "of nothing, where weight"),
        ({"weight": W}, {"temperature": 0}, "temperature 0 is not above 0 and at most"),
        ({"weight": W}, {"temperature": "warm"}, "temperature of its metadata is 'warm'"),
        ({"weight": W}, {"temperature": 10**7}, "temperature 10000000 is not above 0"),
        ({"weight": W}, {"temperature": 10**400}, "is not above 0 and at most"),
        ({"weight": W}, {"temperature": None}, "temperature of its metadata is None"),
        ({"weight": W}, {"unit": 1}, "unit of its metadata is 1"),
    ],
)  # fmt: skip
def test_what_is_no_bank_is_refused_by_name(tmp_path, tensors, about, said):
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(tensors, {"bank": json.dumps(about)}))
    with pytest.raises(WeightsError, match=said) as raised:
        read_bank(str(path))
    assert str(raised.value).startswith(f"{path} is not a bank: ")


def test_files_that_are_gone_or_damaged(tmp_path):
    with pytest.raises(
        WeightsError, match=r"no bank can be read from .*No such file.*slg-wds prototypes SET"
    ):
        read_bank(str(tmp_path / "none"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WeightsError, match="named pipe"):
        read_bank(str(tmp_path / "pipe"))
    path = tmp_path / "bank"
    data = encode_bank(unit_bank(4, 3))
    for damaged in (b"", data[:20], data[:-1], data + b"\0", b"\xff" * 64):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="is not a bank: it is no whole safetensors file"):
            read_bank(str(path))
    path.write_bytes(save({"weight": W}, {"bank": "{"}))
    with pytest.raises(WeightsError, match="metadata are damaged"):
        read_bank(str(path))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bytes_that_no_writer_made_are_a_bank_or_one_error(data):
    good = encode_bank(Bank(layer(3, 2, 0), mlp=(layer(2, 4, 1),), unit=True, temperature=0.1))
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(broken)))
    for one in (bytes(broken), bytes(broken[:cut])):
        with contextlib.suppress(WeightsError):
            assert decode_bank(one).size >= 2


@pytest.mark.parametrize("about", ["[]", "1", "null", "{}}", "\ud800", '{"temperature": 1e999}', "9" * 5000])
def test_metadata_that_say_nothing_sound(about):
    with pytest.raises(WeightsError):
        decode_bank(save({"weight": W}, {"bank": about.encode("utf-8", "ignore").decode() or "x"}))


def test_a_bank_fits_one_teacher():
    bank = unit_bank(4, 3, made_from={"weights_sha256": "a" * 64})
    bank.check_teacher("t", 3, "a" * 64, normalized=True)
    bank.check_teacher("t", 3, None)
    with pytest.raises(UsageError, match="takes embeddings of 3 numbers, and t gives 5"):
        bank.check_teacher("t", 5, None)
    with pytest.raises(
        UsageError, match="another teacher: its weights are aaaaaaaaaaaa, and those of t are bbbb"
    ):
        bank.check_teacher("t", 3, "b" * 64)
    for other in (Bank(layer(4, 3, 0)), Bank(layer(4, 3, 0), mlp=(layer(3, 3, 1),), unit=True)):
        with pytest.raises(UsageError, match="of the teacher's own length"):
            other.check_teacher("t", 3, None, normalized=True)


def of_the_text(data: bytes) -> tuple[dict[str, np.ndarray], dict]:
    """Read a bank from what FORMAT.md and the specification of safetensors say, without either library."""
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    about = json.loads(header.pop("__metadata__")["bank"])
    assert all(one["dtype"] == "F32" for one in header.values())
    return {
        name: np.frombuffer(rest[slice(*one["data_offsets"])], "<f4").reshape(one["shape"])
        for name, one in header.items()
    }, about


def test_the_golden_bank_still_reads_and_is_still_written():
    """Three prototypes behind a layer, on numbers that can be worked out by hand."""
    made = Bank(
        DenseLayer(np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32), np.array([0, 0.5, -0.5], np.float32)),
        mlp=(DenseLayer(np.array([[1, 2, 0], [0, 0, 4]], np.float32)),),
        unit=True, temperature=0.5, made_from={"embedding": "a", "weights_sha256": "00" * 32},
    )  # fmt: skip
    data = (TESTS / "golden" / "banks" / "bank.safetensors").read_bytes()
    assert encode_bank(made) == data
    tensors, about = of_the_text(data)
    assert about == {"unit": True, "temperature": 0.5, "made_from": dict(made.made_from)}
    z = np.array([1, 1, 1]) @ tensors["mlp.0.weight"].T  # 3, 4: of length 5
    scores = (tensors["weight"] @ z / 5 + tensors["bias"]) / about["temperature"]
    assert scores == pytest.approx([1.2, 2.6, 1.0])
    found = BankHead(read_bank(str(TESTS / "golden" / "banks" / "bank.safetensors")), 0.5)
    rows = found.probabilities(torch.ones(1, 3))[0].numpy()
    assert rows == pytest.approx(np.exp(scores) / np.exp(scores).sum(), abs=1e-6)
