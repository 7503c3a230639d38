"""Bad input to a loader: one line with what is wrong, where, and what to do, as early as possible."""

from __future__ import annotations

import json
import os
import shutil
import tarfile

import pytest

import slg_wds
from slg_wds.errors import (
    BatchTooLargeError,
    ChecksumError,
    ImageError,
    ImageShardError,
    ImageSourceError,
    IncompleteSetError,
    ManifestError,
    NoImagesError,
    NotALabelSetError,
    NotFoundError,
    PermissionDeniedError,
    ReplayError,
    RuleError,
    SlgWdsError,
    UsageError,
)
from support.sets.replay_sets import Made, make, three_places


@pytest.fixture(scope="module")
def made(photographs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    return {
        **three_places(photographs, folder),
        "hard": Made(make(photographs, folder / "hard", label_type="hard"), str(photographs)),
        "other": Made(make(photographs, folder / "other", seed=3), str(photographs)),
    }


def refused(kind: type[SlgWdsError], what: str, where: str | None, do: str | None, act) -> SlgWdsError:
    """Return the error of `act`; it must be one line with the problem, the place and a hint."""
    with pytest.raises(kind, match=what) as caught:
        act()
    text = str(caught.value)
    assert "\n" not in text
    assert where is None or where in text
    assert do is None or (caught.value.hint and do in caught.value.hint), text
    return caught.value


def test_sets_and_settings(made, tmp_path):
    folder, embedded, hard = made["folder"], made["embedded"], made["hard"]
    refused(
        UsageError, "has no images in it", folder.labels, "pass images=, the folder or the WebDataset shards",
        lambda: folder.loader(images=None),
    )  # fmt: skip
    refused(
        NoImagesError, "images of the label set are not there", folder.labels, "pass the folder",
        lambda: folder.loader(images=folder.labels),
    )  # fmt: skip
    refused(
        NotALabelSetError,
        "no label set here",
        str(tmp_path),
        "check the path",
        Made(str(tmp_path), None).loader,
    )
    refused(
        ReplayError, "25 crops does not divide by 2 ranks x 4 crops per image", None, "take 24 or 32",
        lambda: embedded.loader(global_batch_size=25, crops_per_image=4, rank=0, world_size=2),
    )  # fmt: skip
    refused(
        ReplayError, "24 crops does not divide by 64 ranks x 2", None, "take 128",  # more ranks than can be fed
        lambda: embedded.loader(rank=0, world_size=64),
    )  # fmt: skip
    refused(
        BatchTooLargeError, "36 images cannot fill a batch of 64 images, 2 crops of each", embedded.labels,
        "lower global_batch_size, or pass last='pad'",
        lambda: embedded.loader(global_batch_size=128, rank=0, world_size=64),
    )  # fmt: skip
    refused(
        RuleError,
        "marginal_smoothing_k9",
        folder.labels,
        "can give",
        lambda: folder.loader(rule="marginal_smoothing_k9"),
    )
    refused(
        RuleError,
        "only the top class",
        hard.labels,
        "can give hard",
        lambda: hard.loader(rule="marginal_smoothing_k1"),
    )
    refused(
        ReplayError, f"its plan is not that of {folder.labels}", made["other"].labels, "same images, --seed",
        lambda: slg_wds.SoftLabelLoader(
            [folder.labels, made["other"].labels], folder.images, global_batch_size=4
        ),
    )  # fmt: skip
    refused(UsageError, "deadline is 0", None, "seconds", lambda: embedded.loader(deadline=0))
    refused(UsageError, "threads is 0", None, "1 is the least", lambda: embedded.loader(threads=0))


def changed(made: Made, folder, change) -> Made:
    """A copy of a set, changed."""
    shutil.copytree(made.labels, folder)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    change(folder)
    return Made(str(folder), made.images)


def test_an_unfinished_set(made, tmp_path):
    def unfinished(folder):
        (folder / "_info.json").unlink()
        (folder / "train-000003.tar").unlink()

    one = changed(made["embedded"], tmp_path / "set", unfinished)
    refused(IncompleteSetError, "lacks 1 of 8 shards", one.labels, "allow_incomplete", one.loader)


def cut(folder):
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:2000])


def flip(folder):
    path = folder / "train-000001.tar"
    data = bytearray(path.read_bytes())
    for at in range(700, len(data) - 20480, 400):
        data[at] ^= 4
    path.write_bytes(data)


def swap(folder):
    one, two = folder / "train-000001.tar", folder / "train-000002.tar"
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


@pytest.mark.parametrize(
    ("damage", "kind", "what"),
    [
        (cut, ChecksumError, "truncated|of its"),
        (flip, ChecksumError, "CRC-32"),
        (swap, ChecksumError, "CRC-32|of its index"),
        (lambda folder: (folder / "train-000001.tar").unlink(), NotFoundError, "no such file"),
        (lambda folder: (folder / "index/train-000001").write_bytes(b"{}"), ManifestError, "."),
    ],
    ids=["truncated", "corrupt", "swapped", "gone", "index"],
)
def test_damaged_shards(made, tmp_path, damage, kind, what):
    one = changed(made["embedded"], tmp_path / "set", damage)
    error = refused(kind, what, str(tmp_path / "set"), None, lambda: list(one.loader(last="pad")))
    assert error.shard in ("train-000001.tar", "train-000002.tar")


def test_a_plan_or_description_of_another_set(made, tmp_path):
    def plan(folder):
        shutil.copy(made["other"].labels + "/plan", folder / "plan")

    def numbers(folder):
        path = folder / "slg.json"
        path.write_text(path.read_text().replace('"num_crops": 12', '"num_crops": 13'))

    def info(folder):
        path = folder / "_info.json"
        found = json.loads(path.read_text())
        found["splits"]["train"]["shard_lengths"][2] += 1
        path.write_text(json.dumps(found))

    for name, change in (("plan", plan), ("slg.json", numbers), ("_info.json", info)):
        one = changed(made["embedded"], tmp_path / name, change)
        refused(ManifestError, ".", str(tmp_path / name), None, one.loader)


def test_images_that_lack_a_key_or_are_others(made, photographs, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(photographs / "train", images)
    path = sorted(images.rglob("*.jpg"))[7]
    content = path.read_bytes()

    def read():
        return list(made["folder"].loader(images=str(images), last="pad"))

    path.unlink()
    refused(NotFoundError, "the image is not there", path.stem, None, read)
    path.write_bytes(content[: len(content) // 3])
    refused(ImageError, ".", path.stem, None, read)
    from slg_wds.images import reencode

    path.write_bytes(reencode(content, 100))
    error = refused(
        ImageError, f"{path.name} is not the image that was labelled", path.stem,
        "give the images that the labels were made from", read,
    )  # fmt: skip
    assert error.url == str(path) and error.shard and error.key


@pytest.mark.parametrize("kind", ["folder", "tars"])
def test_a_place_that_is_not_there_is_said(made, tmp_path, s3_server, kind):
    """It is not said of the first image or tar alone: whoever mistypes a bucket looks for the image in vain."""
    one, nothing = made[kind], str(tmp_path)
    refused(NoImagesError, "nothing in it", nothing, "check the path", lambda: one.loader(images=nothing))
    gone = f"{tmp_path}/gone"
    refused(NoImagesError, "no such folder", gone, None, lambda: one.loader(images=gone))
    bucket = "s3://no-such-bucket/images"
    given = {"images": bucket, "store_options": s3_server.options()}
    refused(NotFoundError, "no such bucket", bucket, None, lambda: one.loader(**given))


def test_image_shards_that_are_gone_cut_or_others(made, photographs, tmp_path):
    one = made["tars"]

    def tars(name: str, change) -> Made:
        folder = tmp_path / name
        shutil.copytree(one.images, folder)
        change(folder)
        return Made(one.labels, str(folder))

    def others(folder):
        """The same pictures under the same names, in another order."""
        paths = sorted((photographs / "train").rglob("*.jpg"), reverse=True)
        with tarfile.open(folder / "pictures-0002.tar", "w") as tar:
            for path in paths[:8]:
                tar.add(path, f"{path.parent.name}_{path.stem}.jpg")

    first = tars("first", lambda folder: (folder / "pictures-0000.tar").unlink())
    refused(
        ImageSourceError, "pictures-000.*plan is not there", str(tmp_path / "first"), "tars that the labels were made",
        first.loader,
    )  # fmt: skip
    later = tars("later", lambda folder: (folder / "pictures-0002.tar").unlink())
    error = refused(
        NotFoundError, "no such file", "pictures-0002.tar", None, lambda: list(later.loader(last="pad"))
    )
    assert error.key
    short = tars("short", lambda folder: os.truncate(folder / "pictures-0002.tar", 5000))
    refused(ImageShardError, "truncated", "pictures-0002.tar", None, lambda: list(short.loader(last="pad")))
    refused(
        (ImageShardError, ImageError), "tar changed after the labels were made|pixels", "pictures-0002.tar", None,
        lambda: list(tars("others", others).loader(last="pad")),
    )  # fmt: skip
    refused(
        UsageError, "made from a folder of images, not from tars", "x.tar", "pass that folder",
        lambda: made["folder"].loader(images="x.tar"),
    )  # fmt: skip


def test_missing_credentials(s3_server, monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    # Where there is no metadata service its requests end at once, as this closed port does.
    options = {"endpoint": s3_server.endpoint, "metadata_endpoint": "http://127.0.0.1:9"}
    refused(
        PermissionDeniedError, "no credentials", s3_server.url, "AWS_ACCESS_KEY_ID",
        lambda: slg_wds.SoftLabelLoader(f"{s3_server.url}/set", global_batch_size=4, store_options=options),
    )  # fmt: skip
