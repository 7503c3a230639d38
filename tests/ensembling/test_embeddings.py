"""`slg-wds ensemble` of embeddings: several teachers' side by side, extended sets as one, nothing averaged."""

from __future__ import annotations

import numpy as np
import pytest

import slg_wds
from slg_wds.cli import main
from slg_wds.errors import IdentityMismatchError, UsageError
from support.models.names import TINY
from support.paths import MODELS
from support.sets.replay_sets import make

SHARES = f"{MODELS / 'towers.py'}:shares"


def embedded(images, target, **more) -> str:
    given = {"arch": TINY, "num_crops": 6, "samples_per_shard": 4, "output": "embedding", **more}
    return make(images, target, **given)


@pytest.fixture(scope="module")
def sets(small_images, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("embedded")
    tiny = embedded(small_images, folder / "tiny", embed_images="original")
    return {
        "tiny": tiny,
        "shares": embedded(small_images, folder / "shares", arch=SHARES, values="float16"),
        "other crops": embedded(small_images, folder / "other", arch=SHARES, seed=1),
        "unit": embedded(small_images, folder / "unit", arch=SHARES, normalize=True),
        "labels": make(small_images, folder / "labels", num_crops=6, samples_per_shard=4),
    }


def joined(target, *sets: str, **more):
    return slg_wds.ensemble(slg_wds.EnsembleConfig(sets=sets, save_path=str(target), processes=1, **more))


def test_embeddings_stand_side_by_side_as_they_were(sets, tmp_path, capsys):
    result = joined(tmp_path / "both", sets["tiny"], sets["shares"], samples_per_shard=3)
    assert "embeddings are as they were in the sets" in "\n".join(result.summary())
    found = slg_wds.open_labels(str(tmp_path / "both"))
    kinds = [(one["name"], one["dim"], one["values"]) for one in found.identity.embeddings]
    assert kinds == [("tiny_teacher.py:tiny", 20, "int8"), ("towers.py:shares", 48, "float16")]
    assert [one["arch"] for one in found.identity.teachers] == ["tiny_teacher.py:tiny", "towers.py:shares"]
    parts = [slg_wds.open_labels(sets[name]) for name in ("tiny", "shares")]
    assert [one["digest"] for one in found.identity.parents] == [one.digest for one in parts]
    assert found.num_shards == 3 and found.description.requires == ["embeddings", "trailer"]
    for record in found:
        one, other = (labels[record.key] for labels in parts)
        assert np.array_equal(record.crops, one.crops) and record.image_crc32 == one.image_crc32
        for name, part in (*one.embeddings.items(), *other.embeddings.items()):
            own = record.embeddings[name]
            assert np.array_equal(own.stored, part.stored) and own.stored.dtype == part.stored.dtype
            assert (own.scales is None) == (part.scales is None)
            assert own.scales is None or np.array_equal(own.scales, part.scales)
    assert main(["verify", str(tmp_path / "both"), "--processes", "1"]) == 0
    batch = next(iter(slg_wds.SoftLabelLoader(str(tmp_path / "both"), global_batch_size=8, threads=1)))
    assert {name: rows.shape[1] for name, rows in batch.embedding.items()} == {
        kinds[0][0]: 20,
        kinds[1][0]: 48,
    }


def test_a_set_and_the_one_that_extends_it_become_one(sets, small_images, tmp_path):
    more = embedded(
        small_images, tmp_path / "more", embed_images="original", num_crops=9, extend=sets["tiny"]
    )
    joined(tmp_path / "all", sets["tiny"], more)
    whole = slg_wds.open_labels(
        embedded(small_images, tmp_path / "whole", embed_images="original", num_crops=9)
    )
    found = slg_wds.open_labels(str(tmp_path / "all"))
    assert "extends" not in found.identity and found.num_crops == 9
    for record in found:
        expected = whole[record.key]
        assert np.array_equal(record.crops, expected.crops)
        (own,), (theirs,) = record.embeddings.values(), expected.embeddings.values()
        assert np.allclose(own.vectors, theirs.vectors, atol=2 * theirs.scales.max())


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("tiny", "tiny"), {}, "two sets have an embedding 'tiny_teacher.py:tiny'"),
        (("tiny", "labels"), {}, "holds labels and the other one embeddings"),
        (("tiny", "unit"), {}, "some sets hold embeddings of unit length"),
        (("tiny", "shares"), {"weights": (1.0, 2.0)}, "--weights is for labels"),
        (("tiny",), {"values": "float16"}, "--values is for labels"),
        (("tiny",), {"label_type": "hard"}, "--label-type is for labels"),
        (("tiny",), {"check_data": "x", "arch": "resnet18"}, "--check is for labels"),
    ],
)
def test_what_cannot_be_joined_is_refused(sets, tmp_path, names, options, message):
    with pytest.raises(UsageError, match=message):
        joined(tmp_path / "set", *(sets[name] for name in names), **options)
    assert not (tmp_path / "set").exists()


def test_other_crops_are_refused(sets, tmp_path):
    with pytest.raises(IdentityMismatchError, match="box of crop 0"):
        joined(tmp_path / "set", sets["tiny"], sets["other crops"])
