"""Lists of images, and the classes of folders: ImageNet's own, or those of a class map."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from slg_wds.errors import ImageSourceError, UsageError
from slg_wds.images import FolderSource, imagenet_targets, read_class_map
from support.images.sources import FILES, fill, folder, planned


def listed(root: Path, text: str, **options: object) -> FolderSource:
    (root.parent / "list.txt").write_text(text, "utf-8")
    return folder(root, list_file=str(root.parent / "list.txt"), **options)


def test_list_file(tmp_path: Path) -> None:
    root = fill(tmp_path / "data/train").parent
    text = "# ten percent\n\ncat/1.jpg\r\n./dog/a.1.jpg\ntrain/dog/1.webp\n3.png\nx y.bmp\n"
    source = listed(root, text)
    assert planned(source) == {
        "cat/1.jpg": 0,
        "cat/sub/deeper/3.png": 0,
        "dog/1.webp": 1,
        "dog/a.1.jpg": 1,
        "Émile/x y.bmp": 2,
    }
    assert source.classes == ["cat", "dog", "Émile"]


def test_lists_as_editors_and_data_sets_write_them(tmp_path: Path) -> None:
    root = fill(tmp_path / "data/train")
    decomposed = unicodedata.normalize("NFD", "Émile/x y.bmp")
    text = f"{root}/cat/1.jpg 0\r\ndog/1.webp\t1\r\n{decomposed} 2\r\ntrain/cat/2.JPEG 0\r\n"
    expected = {"cat/1.jpg": 0, "cat/2.JPEG": 0, "dog/1.webp": 1, "Émile/x y.bmp": 2}
    for data in (text.encode("utf-8-sig"), text.encode("utf-16"), text.encode()):
        (tmp_path / "list.txt").write_bytes(data)
        assert planned(folder(tmp_path / "data", list_file=str(tmp_path / "list.txt"))) == expected
    (tmp_path / "link").symlink_to(root)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/link/cat/1.jpg\n{root}/dog/1.webp\n")
    through_a_link = folder(tmp_path / "link", list_file=str(tmp_path / "list.txt"))
    assert planned(through_a_link) == {"cat/1.jpg": 0, "dog/1.webp": 1}


def test_simclrs_list_of_base_names(tmp_path: Path) -> None:
    names = tuple(f"n0000000{c}/n0000000{c}_{i}.JPEG" for c in range(3) for i in range(9))
    root = fill(tmp_path / "train", names)
    source = listed(root, "n00000002_4.JPEG\nn00000000_1.JPEG\n")
    assert planned(source) == {"n00000002/n00000002_4.JPEG": 2, "n00000000/n00000000_1.JPEG": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cat/9.jpg\ncat/1.jpg\n8.jpg\ncat/notes.txt\n",
            r"3 of the list .* not among the images: cat/9\.jpg, 8",
        ),
        ("\n".join(f"z{i}.jpg" for i in range(9)), r"9 of the list .*: z0\.jpg, z1.*z4\.jpg, \.\.\."),
        ("cat/1.jpg\ncat/1.jpg\n", r"1 of the list .* more than once: cat/1\.jpg"),
        ("cat/sub/deeper/3.png\n3.png\n", r"more than once: cat/sub/deeper/3\.png"),
        ("same.jpg\n", r"names of several images: same\.jpg"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    root = fill(tmp_path / "data", (*FILES, "cat/same.jpg", "dog/same.jpg"))
    with pytest.raises(ImageSourceError, match=message):
        listed(root, text)


def test_list_files_that_cannot_be_read(tmp_path: Path) -> None:
    root = fill(tmp_path / "data")
    with pytest.raises(UsageError, match="names no image"):
        listed(root, "# nothing\n")
    with pytest.raises(UsageError, match="cannot be read"):
        folder(root, list_file=str(tmp_path / "no.txt"))


def test_imagenet_targets() -> None:
    assert imagenet_targets(["n01440764", "n15075141"]) == [0, 999]
    assert imagenet_targets(["n02123045", "n02123394"]) == [281, 283]
    assert imagenet_targets(["cat", "n01440764"]) is None
    assert imagenet_targets([]) is None
    assert imagenet_targets(["n01440764", "n99999999"]) == [0, None]
    assert imagenet_targets(["n02085620-Chihuahua", "n01440764_tench", "n15075141"]) == [151, 0, 999]
    assert imagenet_targets(["n02085620x", "n020856201", "n01440764"]) is None
    with pytest.raises(ImageSourceError, match=r"2 of 5 class folders .*: tmp, new; .*--class-map"):
        imagenet_targets(["n01440764", "tmp", "n01443537", "new", "n01484850"])


def test_class_map(tmp_path: Path) -> None:
    file = tmp_path / "map.txt"
    file.write_text("# names\ncat 281\nbig dog\t7\n\nÉmile  3\n", "utf-8")
    assert read_class_map(str(file)) == {"cat": 281, "big dog": 7, "Émile": 3}
    file.write_text(json.dumps({"cat": 281, "big dog": 7}))
    assert read_class_map(str(file)) == {"cat": 281, "big dog": 7}
    file.write_bytes(b"\xef\xbb\xbfcat 1\r\n/data/train/dog/ 2\r\nbird -\r\nfish null\r\ncow -1\r\n")
    named = {"cat": 1, "dog": 2, "bird": None, "fish": None, "cow": None}
    assert read_class_map(str(file)) == named
    file.write_bytes("cat 1\n".encode("utf-16"))
    assert read_class_map(str(file)) == {"cat": 1}
    file.write_text('{"cat": 1, "dog": 2, "bird": "-", "fish": null, "cow": -1}')
    assert read_class_map(str(file)) == named
    for text in (
        "",
        "cat",
        "cat x",
        "cat -2",
        "cat 1\n/a/cat 2",
        "cat 1\ncat 2",
        '{"a": "b"}',
        '{"a": true}',
        '{"a"',
        '{"a":1,"a":2}',
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"map\.txt"):
            read_class_map(str(file))
    with pytest.raises(UsageError, match="No such file"):
        read_class_map(str(tmp_path / "none"))
