"""Parts of slg_wds/training that can be wrong without an error: mixing, averages; and what they are made of."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from slg_wds import training
from slg_wds.errors import NoTargetsError
from slg_wds.labels import from_topk
from slg_wds.teachers import Preprocessing
from slg_wds.training.flags import Settings, parse
from slg_wds.training.mixing import mixup_cutmix
from slg_wds.training.schedule import label_temperature
from slg_wds.training.student import make_average, make_student
from slg_wds.training.validation import HardTargets, known_folders
from slg_wds.training.validation.images import open_val
from support.images.sources import tar_bytes
from support.models.tiny_students import restless
from support.sets.made_sets import label_set


def flags(*more: str) -> Settings:
    args = parse(more)
    args.rank, args.ranks, args.seed = 0, 1, 3
    return args


def test_the_temperature_of_labels_goes_evenly_from_the_first_epoch_to_the_last():
    def of(*more, crops, walk):
        return label_temperature(flags("--epochs", "9", *more), crops)(walk)

    annealed = ("--label-temp", "5", "--label-temp-end", "1")
    assert [of(*annealed, crops=4, walk=walk) for walk in (0, 1)] == [5.0, 3.0]  # epochs 0 and 4 of 9
    assert [of(*annealed, crops=1, walk=walk) for walk in (5, 8)] == [2.5, 1.0]
    assert of("--label-temp", "5", crops=4, walk=1) == 5.0
    assert (
        label_temperature(flags("--label-temp", "3", "--label-temp-end", "2", "--epochs", "1"), 1)(0) == 3.0
    )
    assert label_temperature(flags(), 4) is None


def some_labels(count: int):
    value = torch.rand(count, 3).sort(descending=True).values / 3
    index = torch.stack([torch.randperm(10)[:3] for _ in range(count)])
    return from_topk(index, value, 10, rule="marginal_smoothing_k3")


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixing_moves_pixels_and_labels_alike(kind):
    args = flags("--mixup_cutmix", "--mixup_switch_prob", "1" if kind == "mixup" else "0")
    torch.manual_seed(0)
    images = torch.rand(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    labels, before = some_labels(6), images.clone()
    dense = labels.dense()
    shares = []
    for step in range(30):
        mixed, soft = mixup_cutmix(args, step, images, labels)
        assert torch.equal(images, before)  # the loader's own memory is left alone
        again = mixup_cutmix(args, step, images, labels)
        assert torch.equal(mixed, again[0]) and torch.equal(soft.dense(), again[1].dense())
        for row in range(6):
            share, other = explained(mixed[row], images, row, kind)
            expected = share * dense[row] + (1 - share) * dense[other]
            torch.testing.assert_close(soft.dense()[row], expected, atol=2e-5, rtol=0)
            shares.append(share)
    # Images paired with themselves count as 1, and edges cut boxes off.
    assert len(set(np.round(shares, 3))) > 10 and 0.4 < np.mean(shares) < (0.75 if kind == "mixup" else 0.9)


def explained(mixed: torch.Tensor, images: torch.Tensor, row: int, kind: str) -> tuple[float, int]:
    """(share of its own, the other image) that give this image, found by trying all."""
    for other in [*(o for o in range(len(images)) if o != row), row]:
        a, b = images[row], images[other]
        if kind == "mixup":
            share = float(((mixed - b) * (a - b)).sum() / ((a - b) ** 2).sum()) if other != row else 1.0
            if torch.allclose(share * a + (1 - share) * b, mixed, atol=1e-5):
                return share, other
        else:
            own, theirs = (mixed == a).all(0), (mixed == b).all(0)
            if bool((own | theirs).all()):
                rows, columns = torch.nonzero(~own | (own & theirs), as_tuple=True)
                boxed = len(rows) == 0 or len(rows) == len(rows.unique()) * len(columns.unique())
                assert boxed, "not a box"
                return float(own.float().mean()), other
    raise AssertionError("made of no two images")


def test_mixing_happens_as_often_as_asked():
    args = flags("--mixup_cutmix", "--mixup_cutmix_prob", "0.3", "--mixup_switch_prob", "1")
    images, labels = torch.rand(4, 3, 8, 8), some_labels(4)
    mixed = [mixup_cutmix(args, step, images, labels)[0] is not images for step in range(400)]
    assert 0.2 < np.mean(mixed) < 0.4
    orders = [mixup_cutmix(flags("--mixup_cutmix"), step, images, labels)[0] for step in (1, 2)]
    assert not torch.equal(*orders)


def test_the_average_is_of_weights_and_buffers():
    model = restless()
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    average = make_average(model, 0.75)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.fill_(8)
    average.update(model)
    average.update(model)
    for name, value in average.module.state_dict().items():
        assert (value == (8 if "tracked" in name else 8 * (1 - 0.75**2))).all(), name


def test_drop_path_and_other_arguments_reach_timms_model():
    args = flags(
        "-a", "test_vit", "--drop-path", "0.2", "--model-kwargs", "proj_drop_rate=0.3", "global_pool=avg"
    )
    model = make_student(args, 10, {})[0]
    assert model.blocks[-1].drop_path1.drop_prob == pytest.approx(0.2) and model.blocks[-1].mlp.drop1.p == 0.3
    assert model.global_pool == "avg" and model.head.out_features == 10


@pytest.mark.parametrize("name", ["loop", "data", "schedule", "mixing", "meter", "step", "optimizer"])
def test_a_user_could_have_written_it(name):
    """From the package come only names that it, or one of its folders, offers; other modules serve types alone."""
    tree = ast.parse(Path(training.__file__).with_name(f"{name}.py").read_text())
    typing_only = [block for block in tree.body if isinstance(block, ast.If)]
    used = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert used and all(ast.unparse(block.test) == "TYPE_CHECKING" for block in typing_only)
    for node in used:
        package, _, module = (node.module or "").partition(".")
        if package == "slg_wds" and not module.startswith("training"):
            home = importlib.import_module(node.module)
            offered = getattr(home, "__all__", [one for one in vars(home) if not one.startswith("_")])
            assert "." not in module and {alias.name for alias in node.names} <= set(offered), node.module


def test_numbers_of_validation_tars_follow_the_class_subset_of_the_labels(tmp_path, photographs):
    """Samples of tars have the teacher's numbers; a student of the classes 3, 7 and 19 numbers them 0, 1 and 2."""
    pixels = [path.read_bytes() for path in sorted((photographs / "train").rglob("*.jpg"))[:4]]

    def targets_of(name: str, numbers: list[int]) -> list[int]:
        files = [
            file
            for at, (number, image) in enumerate(zip(numbers, pixels, strict=False))
            for file in ((f"{at}.cls", b"%d" % number), (f"{at}.jpg", image))
        ]
        (tmp_path / name / "val").mkdir(parents=True)
        (tmp_path / name / "val" / "a.tar").write_bytes(tar_bytes(files))
        chosen = {"class_subset": [3, 7, 19]}
        labels = label_set(
            tmp_path / f"{name}.labels", 1, classes=3, label_type="full", tail=0, identity=chosen
        )
        args, shown = flags(str(tmp_path / name)), Preprocessing(32, (0, 0, 0), (1, 1, 1), "bilinear", 1)
        args.device = torch.device("cpu")
        folders = known_folders([labels], None)
        plan = HardTargets(args, open_val(args), folders, 3, shown).images.plan
        return [int(target) for _, target in sorted(zip(plan.paths, plan.targets, strict=True))]

    assert targets_of("some", [7, 11, 19, 0]) == [1, -1, 2, -1]
    with pytest.raises(NoTargetsError, match="no image of val has one of the student's 3 classes"):
        targets_of("none", [0, 1, 2])
