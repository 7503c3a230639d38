"""Where label files lie: images at any depth come back from an export, whichever reader it is for."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.interop.fkd.layout import Layout, find_layout
from slg_wds.interop.fkd.naming import COMPONENTS
from support.models.names import TINY

DEPTHS = {2: "n02123045/a", 3: "n02123045/sub/a", 4: "n07920052/x/y/b", 5: "n07920052/v/w/y/c"}
MIXES = [mix for count in range(1, 5) for mix in itertools.combinations(DEPTHS, count)]


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize("layout", COMPONENTS)
@pytest.mark.parametrize("mix", MIXES, ids=lambda mix: "-".join(map(str, mix)))
def test_files_where_a_reader_looks_are_found(mix, layout, split):
    stems = {DEPTHS[depth] for depth in mix}
    count = COMPONENTS[layout]
    written = Layout("", ("dataset", "train")[4 - count :], count)
    for above in ("", "mine/"):
        files = sorted(above + written.name(stem) for stem in stems)
        found = find_layout("folder", files, stems, split)
        assert {stem: found.name(stem) for stem in stems} == {
            stem: above + written.name(stem) for stem in stems
        }
        if 2 in mix:  # then the split's folder is known
            assert found.files([*files, f"{above}val/n02123045/z.tar"], stems) == frozenset(files)
        other = [*files, *(f"other/{name}" for name in files)]
        with pytest.raises(errors.InteropError, match="several folders: "):
            find_layout("folder", other, stems, split)


@pytest.fixture(scope="module")
def nested(tmp_path_factory) -> Path:
    """A label set of images of three depths, and the images."""
    root = tmp_path_factory.mktemp("nested")
    generator = np.random.default_rng(0)
    for stem in list(DEPTHS.values())[:3]:
        file = root / "data/train" / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), np.uint8)).save(file)
    slg_wds.generate(_generate(root / "data", root / "set"))
    return root


def _generate(data: Path, target: Path, **options) -> slg_wds.GenerateConfig:
    made = {"teacher_source": "private", "arch": TINY, "num_crops": 3, "num_seg": 4, **options}
    return slg_wds.GenerateConfig(
        data=str(data), save_path=str(target), label_type="marginal_smoothing_k5", values="float32", **made
    )


@pytest.mark.parametrize("layout", COMPONENTS)
def test_what_was_exported_comes_back(nested, tmp_path, layout):
    labels, images = slg_wds.open_labels(str(nested / "set")), str(nested / "data")
    exported = {"labels": labels.url, "fkd_dir": str(tmp_path / "files"), "layout": layout}
    slg_wds.export_fkd(slg_wds.ExportConfig(**exported))
    back = {"fkd_dir": str(tmp_path / "files"), "images": images, "save_path": str(tmp_path / "back")}
    imported = slg_wds.import_fkd(slg_wds.ImportConfig(**back, processes=1)).labels
    again = _generate(nested / "data", tmp_path / "again", reference_path=str(tmp_path / "files"))
    for others in (imported, slg_wds.generate(again).labels):
        assert sorted(record.key for record in others) == sorted(DEPTHS[depth] for depth in (2, 3, 4))
        for record in labels:
            other = others[record.key]
            assert (other.crops == record.crops).all() and (other.flips == record.flips).all()
            assert (other.index == record.index).all() and (other.value == record.value).all()


def test_images_with_one_end_share_a_file(nested, tmp_path):
    """The readers cannot tell n1/b/c/d from n2/b/c/d, so neither has its labels."""
    data = tmp_path / "data"
    for stem in ("n1/b/c/d", "n2/b/c/d", "n1/e"):
        (data / "train" / stem).parent.mkdir(parents=True, exist_ok=True)
        (data / "train" / f"{stem}.png").symlink_to(nested / "data/train/n02123045/a.png")
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(nested / "set"), fkd_dir=str(tmp_path / "all")))
    file = (tmp_path / "all/train/n02123045/a.tar").read_bytes()
    for name in ("train/n1/e", "b/c/d"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / f"{name}.tar").write_bytes(file)
    options = {"fkd_dir": str(tmp_path / "files"), "images": str(data), "processes": 1, "num_classes": 1000}
    with pytest.raises(
        errors.InteropError, match=r"2 images share .*n1/b/c/d\.png and n2/b/c/d\.png have b/c/d"
    ):
        slg_wds.import_fkd(slg_wds.ImportConfig(**options, save_path=str(tmp_path / "set")))
    skipped = slg_wds.import_fkd(
        slg_wds.ImportConfig(**options, save_path=str(tmp_path / "set"), on_error="skip")
    )
    assert [record.key for record in skipped.labels] == ["n1/e"]


def test_the_folder_itself_is_named_among_several(nested, tmp_path):
    slg_wds.export_fkd(slg_wds.ExportConfig(labels=str(nested / "set"), fkd_dir=str(tmp_path / "files")))
    for name in ("n02123045/a.tar", "train/n02123045/a.tar"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_bytes(b"x")
    again = _generate(nested / "data", tmp_path / "again", reference_path=str(tmp_path / "files"))
    with pytest.raises(errors.InteropError, match="in several folders: the folder itself, train/"):
        slg_wds.generate(again)
