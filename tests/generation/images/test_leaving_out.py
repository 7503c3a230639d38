"""--on-error skip leaves out bad and missing images, but stops if the whole disk or bucket is unavailable."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

import slg_wds
from slg_wds import errors
from slg_wds.cli import main
from slg_wds.config import VerifyConfig
from slg_wds.images.source import FolderSource
from slg_wds.labelset.left_out import most_left_out
from slg_wds.verification.verify import verify
from support.models.names import TINY
from support.reads import before_read
from support.servers.shaky_proxy import shaky
from support.sets import trust_sets


@pytest.fixture(scope="module")
def small(photographs, tmp_path_factory):
    """32 small photographs in class folders."""
    folder = tmp_path_factory.mktemp("small")
    return trust_sets.small_photographs(photographs, folder / "few", 9)


@pytest.fixture
def images(small, tmp_path) -> Path:
    return trust_sets.copy_of(small, tmp_path / "images")


def config(images, target, **options):
    given = {"num_crops": 4, "num_seg": 4, "samples_per_shard": 2, "threads_per_forward": 1, **options}
    return slg_wds.GenerateConfig(
        data=str(images),
        save_path=str(target),
        teacher_source="private",
        arch=TINY,
        **{"on_error": "skip", **given},
    )


def files(images: Path) -> list[Path]:
    return sorted(images.rglob("*.jpg"))


def spoil(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    return whole


def left_out(target) -> list[str]:
    labels = slg_wds.open_labels(str(target))
    return sorted(
        entry["path"] for n in range(labels.num_shards) for entry in labels.shard(n).header.left_out
    )


@pytest.mark.parametrize("share", [0.07, 0.29, 0.57, 0.1, 1.0, 0.0])
def test_a_share_is_taken_as_it_is_written(share):
    assert [most_left_out(count, share) for count in (100, 1000)] == [round(100 * share), round(1000 * share)]


def test_an_image_that_cannot_be_embedded_is_left_out(images, tmp_path):
    strange = files(images)[0]
    Image.open(strange).save(strange, "JPEG2000")
    options = {"embed_images": "original", "on_error": "fail"}
    with pytest.raises(
        errors.ImageError, match=r"not embedded as 'jp2' .*max-side=512.*--on-error skip"
    ) as raised:
        slg_wds.generate(config(images, tmp_path / "set", **options))
    assert raised.value.key == str(strange.relative_to(images / "train"))
    assert slg_wds.generate(config(images, tmp_path / "set", **{**options, "on_error": "skip"})).complete
    assert left_out(tmp_path / "set") == [raised.value.key]
    smaller = config(images, tmp_path / "smaller", **{**options, "embed_images": "max-side=40"})
    assert slg_wds.generate(smaller).complete and left_out(tmp_path / "smaller") == []


def vanish_whole(images):
    (images / "train").rename(images / "elsewhere")


def vanish_to_an_empty_mount_point(images):
    (images / "train").rename(images / "elsewhere")
    (images / "train").mkdir()


def vanish_class_folders(images):
    for number, folder in enumerate(sorted((images / "train").iterdir())):
        folder.rename(images / f"elsewhere{number}")


def vanish_behind_links(images):
    """A folder of links to another disk, which disappears."""
    store = images.parent / "disk"
    shutil.move(images / "train", store)
    for path in sorted(store.rglob("*.jpg")):
        link = images / "train" / path.relative_to(store)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return lambda: store.rename(images.parent / "away"), lambda: (images.parent / "away").rename(store)


VANISHING = [vanish_whole, vanish_to_an_empty_mount_point, vanish_class_folders]


@pytest.mark.parametrize("vanish", VANISHING, ids=lambda vanish: vanish.__name__)
def test_a_disk_that_vanishes_stops_the_run_which_resumes(images, tmp_path, monkeypatch, vanish):
    whole = trust_sets.copy_of(images, tmp_path / "whole")
    with monkeypatch.context() as patch:
        before_read(4, FolderSource, patch, lambda: vanish(images))
        with pytest.raises(errors.SlgWdsError, match="run the same command again"):
            slg_wds.generate(config(images, tmp_path / "set"))
    shutil.rmtree(images)
    whole.rename(images)
    assert slg_wds.generate(config(images, tmp_path / "set")).complete
    assert len(list(slg_wds.open_labels(str(tmp_path / "set")))) == 9


def test_links_whose_disk_vanishes_stop_the_run(images, tmp_path, monkeypatch):
    vanish, come_back = vanish_behind_links(images)
    with monkeypatch.context() as patch:
        before_read(4, FolderSource, patch, vanish)
        with pytest.raises(errors.StoreUnavailableError, match=r"is a link to .*/disk/.*, where nothing is"):
            slg_wds.generate(config(images, tmp_path / "set"))
    come_back()
    assert slg_wds.generate(config(images, tmp_path / "set")).complete and not left_out(tmp_path / "set")


def test_a_link_to_nothing_is_named_and_left_out_once_it_is_removed(images, tmp_path):
    link = files(images)[3]
    link.unlink()
    link.symlink_to("gone.jpg")
    with pytest.raises(
        errors.StoreUnavailableError, match=r"a link to gone\.jpg, .*or remove the link"
    ) as caught:
        slg_wds.generate(config(images, tmp_path / "set"))
    assert caught.value.url == str(link)
    link.unlink()
    assert slg_wds.generate(config(images, tmp_path / "set")).complete
    assert len(left_out(tmp_path / "set")) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_stops_the_run(images, tmp_path):
    files(images)[3].chmod(0)
    with pytest.raises(errors.StoreError, match="cannot be read"):
        slg_wds.generate(config(images, tmp_path / "set"))


def test_a_folder_that_cannot_be_read_as_a_file_stops_the_run(images, tmp_path, monkeypatch):
    """EISDIR stands for every fault of a disk that a test cannot make."""
    path = files(images)[3]
    before_read(0, FolderSource, monkeypatch, lambda: (path.unlink(), path.mkdir()))
    with pytest.raises(errors.StoreError, match="cannot be read"):
        slg_wds.generate(config(images, tmp_path / "set"))


@pytest.mark.parametrize("status", ["401", "403", "404"])
def test_a_bucket_that_refuses_for_a_while_stops_the_run(images, s3_server, s3_url, tmp_path, status):
    store = slg_wds.store.open_store(s3_url, s3_server.options())
    for path in files(images):
        store.create(f"images/{path.relative_to(images / 'train')}", path.read_bytes())

    def fault(request):
        refused = request.method == "GET" and request.path.endswith(".jpg") and len(seen) >= 4
        seen.append(request.path) if request.path.endswith(".jpg") else None
        return status if refused and broken else ""

    seen, broken = [], True
    with shaky(s3_server, fault) as proxy:
        run = config(f"{s3_url}/images", tmp_path / "set", store_options=proxy.options())
        with pytest.raises(errors.StoreError):
            slg_wds.generate(run)
        broken = False
        assert slg_wds.generate(run).complete
    assert not left_out(tmp_path / "set")


def test_an_object_that_is_gone_is_left_out(images, s3_server, s3_url, tmp_path, monkeypatch):
    store = slg_wds.store.open_store(s3_url, s3_server.options())
    names = [f"images/{path.relative_to(images / 'train')}" for path in files(images)]
    for name, path in zip(names, files(images), strict=True):
        store.create(name, path.read_bytes())
    options = s3_server.options()
    before_read(0, FolderSource, monkeypatch, lambda: [store.delete(name) for name in names[:2]])
    assert slg_wds.generate(config(f"{s3_url}/images", tmp_path / "set", store_options=options)).complete
    assert left_out(tmp_path / "set") == [name.removeprefix("images/") for name in names[:2]]


def test_gone_images_are_left_out_and_their_shard_may_be_empty(images, tmp_path, monkeypatch):
    gone = files(images)[:2]
    before_read(0, FolderSource, monkeypatch, lambda: [path.unlink() for path in gone])
    result = slg_wds.generate(config(images, tmp_path / "set", samples_per_shard=1))
    assert result.complete and len(result.stats.left_out) == 2
    assert left_out(tmp_path / "set") == [str(path.relative_to(images / "train")) for path in gone]
    labels = slg_wds.open_labels(str(tmp_path / "set"))
    assert labels.num_shards == 9 and len(list(labels)) == 7


def test_a_gone_image_stops_a_run_that_skips_nothing(images, tmp_path, monkeypatch):
    before_read(0, FolderSource, monkeypatch, lambda: files(images)[0].unlink())
    failing = slg_wds.GenerateConfig(**{**vars(config(images, tmp_path / "set")), "on_error": "fail"})
    with pytest.raises(errors.ImageGoneError, match=r"put it back, or .*--on-error skip"):
        slg_wds.generate(failing)


def test_the_share_is_bounded_over_all_runs_and_processes(images, tmp_path):
    """Two of nine are bad; one may be. What an earlier run left out counts."""
    bad = files(images)[2], files(images)[6]
    whole = [spoil(path) for path in bad]
    with pytest.raises(errors.LabelSetError, match=r"2 of 9 images .* more than the 1 .*--max-left-out"):
        slg_wds.generate(config(images, tmp_path / "set", max_left_out=0.2))
    with pytest.raises(errors.LabelSetError, match=r"2 of 9 images"):  # the other one was committed before
        slg_wds.generate(config(images, tmp_path / "set", max_left_out=0.2))
    assert sum(len(path.name) > 0 for path in (tmp_path / "set").glob("*.tar")) >= 1
    bad[1].write_bytes(whole[1])
    bad[0].write_bytes(whole[0])
    assert slg_wds.generate(config(images, tmp_path / "set", max_left_out=0.2)).complete
    assert len(left_out(tmp_path / "set")) == 1


def test_one_percent_and_at_least_ten(photographs, tmp_path):
    images = trust_sets.copy_of(photographs, tmp_path / "images")
    for path in files(images)[:11]:
        spoil(path)
    with pytest.raises(errors.LabelSetError, match="11 of 36 images would be left out, more than the 10"):
        slg_wds.generate(config(images, tmp_path / "set"))
    done = slg_wds.generate(config(images, tmp_path / "set", max_left_out=1.0))
    assert done.complete and len(left_out(tmp_path / "set")) == 11


@pytest.mark.parametrize("share", ["1.5", "-0.1", "nan"])
def test_a_share_that_is_none_is_refused(images, tmp_path, share, capsys):
    arguments = ["generate", str(images), "-a", TINY, "--save-path", str(tmp_path / "set")]
    assert main([*arguments, "--max-left-out", share]) == 2
    assert "--max-left-out" in capsys.readouterr().err


def test_everyone_says_how_many_and_mended_ones_are_made(images, tmp_path, capsys):
    whole = trust_sets.make(images, tmp_path / "whole", samples_per_shard=2)
    bad = files(images)[4]
    content = spoil(bad)
    target = trust_sets.make(images, tmp_path / "set", samples_per_shard=2, on_error="skip")
    with pytest.warns(UserWarning, match=r"left out of the labels .*: 1 of 9 images"):
        assert trust_sets.loader_of(target, images, global_batch_size=12).left_out == 1
    result = verify(VerifyConfig(labels=str(target), processes=1))
    assert result.ok and sum(result.left_out.values()) == 1
    assert main(["verify", str(target), "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert "left out when the set was made: 1 image, in 1 shard" in said and "--delete-left-out" in said
    assert main(["inspect", str(target)]) == 0
    assert "images left out" in capsys.readouterr().out
    bad.write_bytes(content)
    assert main(["verify", str(target), "--delete-left-out", "--processes", "1"]) == 1
    assert f"removed {next(iter(result.left_out))}" in capsys.readouterr().out
    with pytest.raises(errors.IncompleteSetError):
        slg_wds.open_labels(str(target))
    trust_sets.make(images, target, samples_per_shard=2, on_error="skip")
    assert trust_sets.objects_of(target).keys() == trust_sets.objects_of(whole).keys()
    names = [name for name in trust_sets.objects_of(whole) if name not in ("slg.json",)]
    assert all((target / name).read_bytes() == (whole / name).read_bytes() for name in names)
