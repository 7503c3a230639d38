"""Labels over prototypes say nothing of the classes of IMAGES/val."""

from __future__ import annotations

from types import SimpleNamespace

from slg_wds.images.class_folders import ClassFolders
from slg_wds.training.flags import parse
from slg_wds.training.validation import open_validations
from support.training import SHOWN


def test_images_of_val_are_not_taken_for_prototypes(photographs, tmp_path, capsys):
    (tmp_path / "val").symlink_to(photographs / "train")
    args = parse([str(tmp_path)])
    args.rank, args.ranks = 0, 1
    labels = SimpleNamespace(identity=SimpleNamespace(bank_sha256="0" * 64))
    assert open_validations(args, [labels], ClassFolders(), 16, SHOWN) == []
    assert "over prototypes, not over classes, so IMAGES/val is not used" in capsys.readouterr().out
