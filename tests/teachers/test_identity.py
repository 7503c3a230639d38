"""The digest of a model: all tensors that the factory built, or its code if it built none."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import IdentityMismatchError, TeacherError
from slg_wds.format.manifest.description import Description
from slg_wds.labelset.creating import identity_differences
from slg_wds.teachers import digest, load_teacher, parse_teachers
from slg_wds.teachers.identity import hidden_digest
from slg_wds.teachers.inside import find_hidden

SETTINGS = '{"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}'
WITHOUT_TENSORS = f"""
from torch import nn
class Model(nn.Module):
    pretrained_cfg = {SETTINGS}
    def forward(self, x):
        return x.mean(2)[:, :, :7].flatten(1) * SCALE
SCALE = 1.0
def factory():
    return Model()
"""


class Bank:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


class Holder(nn.Module):
    """One weight that torch knows, and one more that only `place` knows how to keep."""

    def __init__(self, place, value: float) -> None:
        super().__init__()
        self.known = nn.Linear(2, 2, bias=False)
        nn.init.ones_(self.known.weight)
        place(self, torch.full((3,), value))


def in_buffer(module, tensor):
    module.register_buffer("extra", tensor, persistent=False)


def in_attribute(module, tensor):
    module.extra = tensor


def in_array(module, tensor):
    module.extra = tensor.numpy()


def in_list(module, tensor):
    module.extra = [{"scale": (tensor,)}]


def in_hidden_module(module, tensor):
    layer = nn.BatchNorm1d(3)
    layer.weight = nn.Parameter(tensor)
    module.extra = [layer]


def in_object(module, tensor):
    module.extra = Bank(tensor)


def in_closure(module, tensor):
    module.extra = lambda x: x * tensor


@pytest.mark.parametrize(
    "place", [in_buffer, in_attribute, in_array, in_list, in_hidden_module, in_object, in_closure]
)
def test_a_tensor_counts_wherever_it_is_kept(place):
    one, same, other = (hidden_digest(Holder(place, value), Holder) for value in (1.0, 1.0, 2.0))
    assert one == same != other
    assert digest(Holder(place, 1.0)) == digest(Holder(place, 2.0))  # what the state dict alone says


def test_a_model_that_hides_nothing_has_the_digest_of_its_state_dict():
    def again(module, tensor):
        module.layers = [module.known, module.known.weight, {"same": module}]

    module = Holder(again, 1.0)
    assert find_hidden(module).tensors == {} and find_hidden(module).modules == {}
    assert hidden_digest(module, Holder) is None


def test_hidden_modules_and_tensors_are_found_by_their_place():
    found = find_hidden(Holder(in_hidden_module, 1.0))
    assert list(found.modules) == ["extra.0"]
    assert sorted(found.tensors) == [
        "extra.0._buffers.num_batches_tracked", "extra.0._buffers.running_mean", "extra.0._buffers.running_var",
        "extra.0._parameters.bias", "extra.0._parameters.weight",
    ]  # fmt: skip


def test_the_digest_of_a_model_without_tensors_is_that_of_its_code(tmp_path):
    def told(folder: str, text: str) -> str | None:
        file = tmp_path / folder / "mine.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return load_teacher(parse_teachers(f"private:{file}:factory")[0]).hidden_digest

    one = told("a", WITHOUT_TENSORS)
    assert told("b", WITHOUT_TENSORS) == one  # wherever it lies
    assert told("a", WITHOUT_TENSORS.replace("1.0", "2.0")) != one
    assert one is not None


def test_code_that_is_edited_between_two_starts_does_not_go_on_with_the_set(
    photographs: Path, tmp_path: Path
):
    file = tmp_path / "mine.py"
    config = slg_wds.GenerateConfig(
        data=str(photographs), save_path=str(tmp_path / "set"), arch=f"{file}:factory", teacher_source="private",
        num_crops=2, num_seg=16, samples_per_shard=18, workers=1, threads_per_forward=1, label_type="hard",
    )  # fmt: skip
    file.write_text(WITHOUT_TENSORS)
    assert slg_wds.generate(config).complete
    (tmp_path / "set" / "train-000001.tar").unlink()
    file.write_text(WITHOUT_TENSORS.replace("1.0", "2.0"))
    with pytest.raises(IdentityMismatchError, match="hidden_sha256"):
        slg_wds.generate(config)
    assert not (tmp_path / "set" / "train-000001.tar").exists()
    file.write_text(WITHOUT_TENSORS)
    assert slg_wds.generate(config).complete


WITH_WEIGHTS = f"""import torch
from torch import nn
class Model(nn.Module):
    pretrained_cfg = {SETTINGS}
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 7, bias=False)
        nn.init.eye_(self.head.weight)
    def forward(self, x):
        return self.head(nn.functional.adaptive_avg_pool2d(x, 4).flatten(1))
def factory():
    return Model()
"""
SWAPPED = WITH_WEIGHTS.replace("flatten(1))", "flatten(1)).flip(1)")


def code_set(photographs: Path, tmp_path: Path, text: str, **options) -> slg_wds.GenerateConfig:
    file = tmp_path / "mine.py"
    file.write_text(text)
    return slg_wds.GenerateConfig(
        data=str(photographs), arch=f"{file}:factory", teacher_source="private", num_seg=16, samples_per_shard=12,
        workers=1, threads_per_forward=1, **{"save_path": str(tmp_path / "set"), "num_crops": 2, **options},
    )  # fmt: skip


def test_a_set_of_two_codes_says_so(photographs: Path, tmp_path: Path, capsys):
    assert slg_wds.generate(code_set(photographs, tmp_path, WITH_WEIGHTS)).complete
    assert "is not the code that made" not in capsys.readouterr().err
    before = slg_wds.open_labels(str(tmp_path / "set"))
    (tmp_path / "set" / "train-000001.tar").unlink()
    again = slg_wds.generate(code_set(photographs, tmp_path, SWAPPED))
    said = capsys.readouterr().err
    assert again.complete and again.labels.digest == before.digest
    now, there = (
        load_teacher(parse_teachers(f"private:{file}:factory")[0]).code_digest[:12]
        for file in (tmp_path / "mine.py", written(tmp_path / "old", WITH_WEIGHTS))
    )
    assert (
        f"warning: mine.py:factory is not the code that made shards of {tmp_path / 'set'}: now {now}, "
        in said
    )
    assert f"there {there}: {before.num_shards - 1}." in said and "choose another --save-path" in said
    for command in ("inspect", "verify"):
        assert main([command, str(tmp_path / "set")]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"code of mine.py:factory differs between shards ({there}: 2, {now}: 1)" in told or (
            f"DIFFERENT code of mine.py:factory {there}: 2, {now}: 1 of 3 examined shards" in told
        )
        assert "of different functions, unless only comments" in told
    slg_wds.generate(
        code_set(
            photographs,
            tmp_path,
            SWAPPED,
            extend=str(tmp_path / "set"),
            save_path=str(tmp_path / "more"),
            num_crops=3,
        )
    )
    assert f"shards of {tmp_path / 'set'}: now {now}, there {there}: 2, {now}: 1." in capsys.readouterr().err


def test_a_merged_set_notes_the_code_of_all_its_parts(photographs: Path, tmp_path: Path, capsys):
    def code(url: Path) -> list[dict[str, str]]:
        labels = slg_wds.open_labels(str(url))
        return [labels.shard(number).header.provenance["code"] for number in range(labels.num_shards)]

    def merged(name: str, *sets: str, **options) -> list[dict[str, str]]:
        sets = [str(tmp_path / one) for one in sets]
        config = slg_wds.EnsembleConfig(sets=sets, save_path=str(tmp_path / name), processes=1, **options)
        assert slg_wds.ensemble(config).complete
        return code(tmp_path / name)

    slg_wds.generate(code_set(photographs, tmp_path, WITH_WEIGHTS))
    slg_wds.generate(code_set(photographs, tmp_path, SWAPPED, save_path=str(tmp_path / "swapped")))
    (one, *_), (other, *_) = code(tmp_path / "set"), code(tmp_path / "swapped")
    name = "mine.py:factory"
    both = {name: "+".join(sorted([one[name], other[name]]))}
    assert one != other and merged("alone", "set", samples_per_shard=36) == [one]
    with pytest.warns(UserWarning, match="given twice"):  # weights and crops are the same
        assert merged("both", "set", "swapped") == [both] * 3
    assert slg_wds.open_labels(str(tmp_path / "both")).description.provenance["code"] == both
    (tmp_path / "set" / "train-000001.tar").unlink()
    slg_wds.generate(code_set(photographs, tmp_path, SWAPPED))
    assert merged("again", "set", samples_per_shard=18) == [both, both]
    assert merged("as it was", "set") == [one, other, one]
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "as it was")]) == 0
    first, second = one[name][:12], other[name][:12]
    assert f"code of {name} differs between shards ({first}: 2, {second}: 1)" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "both")]) == 0
    assert "DIFFERENT" not in capsys.readouterr().out


def written(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "mine.py").write_text(text)
    return folder / "mine.py"


def test_code_is_the_files_of_the_factory_and_of_the_classes_of_its_modules(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "base_of_mine.py").write_text(WITH_WEIGHTS)
    inherits = "import base_of_mine\nclass Own(base_of_mine.Model): pass\ndef factory(): return Own()\n"

    def told(text: str, name: str = "mine.py") -> str | None:
        sys.modules.pop("base_of_mine", None)
        (tmp_path / name).write_text(text)
        return load_teacher(parse_teachers(f"private:{tmp_path / name}:factory")[0]).code_digest

    one = told(inherits)
    assert one is not None and told(inherits, "other_name.py") == one != told(inherits + "# a comment\n")
    (tmp_path / "base_of_mine.py").write_text(SWAPPED)
    assert told(inherits) != one


DECORATOR = """
import functools
def loud(made):
    @functools.wraps(made)
    def inner(): return made()
    return inner
"""
DECORATED = """
import functools
from decorators_of_mine import loud
class Named:
    def __call__(self): return factory()
def make(classes): return factory()
cached = functools.cache(factory)
part = functools.partial(make, 7)
loud_one = loud(factory)
named = Named()
"""


@pytest.mark.parametrize("name", ["cached", "part", "loud_one", "named"])
@pytest.mark.parametrize("digest_of", ["code_digest", "hidden_digest"])
def test_a_factory_in_a_decorator_or_an_object_counts_as_a_bare_one(tmp_path, name, digest_of):
    """The file of the function itself, wherever the decorator is; the model's classes are of torch alone."""
    (tmp_path / "decorators_of_mine.py").write_text(DECORATOR)
    net = "nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(){})".format(
        ", nn.Linear(12, 7)" if digest_of == "code_digest" else ""
    )
    bare = f"from torch import nn\ndef factory():\n    net = {net}\n    net.default_cfg = {SETTINGS}\n    return net\n"

    def told(text: str) -> str | None:
        file = tmp_path / "mine.py"
        file.write_text(text + DECORATED)
        (spec,) = parse_teachers(f"private:{file}:{name}")
        return getattr(load_teacher(spec), digest_of)

    one = told(bare)
    assert one is not None and told(bare) == one != told(bare + "# a comment\n")


MADE = {"label_type": "full", "num_classes": 10, "num_crops": 4, "seed": 0}


@pytest.mark.parametrize("checksums", [False, True])
def test_sets_of_before_are_not_asked_for_what_they_do_not_say(checksums):
    """Older sets say nothing of hidden tensors; of the state dict, and in newer sets of all, every change counts."""
    teacher = {"arch": "mine.py:factory", "weights_sha256": "1"}
    stored = Description(1, 1, "", {**MADE, "teachers": [teacher]}, image_checksums=checksums)
    hides = {**MADE, "teachers": [{**teacher, "hidden_sha256": "2"}]}
    other = {**MADE, "teachers": [{**teacher, "weights_sha256": "3"}]}
    assert bool(identity_differences(stored, hides)) == checksums
    assert identity_differences(stored, other) == ["teachers[0].weights_sha256: '1' != '3'"]


class Keeping(nn.Module):
    """A small classifier; `remembers` says whether its forward stores a tensor in it, as caches of positions do."""

    def __init__(self, remembers: bool = False) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3}
        self.head = nn.Linear(48, 5)
        self.remembers = remembers

    def forward(self, x):
        if self.remembers:
            self.positions = torch.arange(len(x))
        return self.head(x.flatten(1))


def cached_factory(monkeypatch, module: nn.Module):
    """The spec of a factory that returns one and the same module at each call."""
    package = types.ModuleType("caching_package")
    package.factory = lambda: module
    monkeypatch.setitem(sys.modules, "caching_package", package)
    return parse_teachers("private:caching_package:factory")[0]


def test_a_cached_module_that_stays_as_it_was_makes_the_same_teacher_again(monkeypatch):
    spec = cached_factory(monkeypatch, Keeping())
    one, again = load_teacher(spec), load_teacher(spec)
    assert one.module is again.module and one.describe() == again.describe()


@pytest.mark.parametrize("module", [Keeping().half(), Keeping(remembers=True)], ids=["half", "remembers"])
def test_a_cached_module_that_its_teacher_has_changed_is_refused(monkeypatch, module):
    """Its digest differs from that of the first call, although the user changed nothing."""
    spec = cached_factory(monkeypatch, module)
    before = (digest(module), hidden_digest(module, Keeping))
    load_teacher(spec)
    assert (digest(module), hidden_digest(module, Keeping)) != before
    with pytest.raises(TeacherError, match=r"an earlier call, which has changed since.*; make a new module"):
        load_teacher(spec)


def test_two_weights_files_do_not_share_one_cached_module(monkeypatch, tmp_path):
    """The first teacher's labels would be made with the second's weights, under the first's digest."""
    spec = cached_factory(monkeypatch, Keeping())
    files = [str(tmp_path / name) for name in ("a.pt", "b.pt")]
    for file in files:
        torch.save(Keeping().state_dict(), file)
    load_teacher(dataclasses.replace(spec, path=files[0]))
    with pytest.raises(TeacherError, match="which has changed since"):
        load_teacher(dataclasses.replace(spec, path=files[1]))
