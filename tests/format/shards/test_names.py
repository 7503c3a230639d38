"""Keys: how paths become keys, and that WebDataset reads each key unchanged."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import base_plus_ext

from slg_wds.errors import ImageSourceError, ShardError
from slg_wds.format.shards.names import key_of, split_member


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("n01440764/n01440764_10026.JPEG", "n01440764/n01440764_10026"),
        ("a.b/img1.0.jpg", "a.b/img1%2E0"),
        ("a.b/img1.1.jpg", "a.b/img1%2E1"),
        ("100%/50%.png", "100%25/50%25"),
        ("a%2Eb.jpg", "a%252Eb"),
        ("noextension", "noextension"),
        (".hidden", "%2Ehidden"),
        (".hidden.jpg", "%2Ehidden"),
        ("a/...jpg", "a/%2E%2E%2Ejpg"),
        ("a..jpg", "a%2E"),
        ("trailing.", "trailing"),
        ("猫/三毛猫 1.jpg", "猫/三毛猫 1"),
        ("a\nb/c\td\x7f.jpg", "a%0Ab/c%09d%7F"),
        ("__MACOSX__/a.jpg", "%5F_MACOSX__/a"),
        ("____/a.jpg", "%5F___/a"),
        ("___/a.jpg", "___/a"),
        ("__x/__y__/a.jpg", "__x/__y__/a"),
        ("__x__.jpg", "__x__"),
        ("back\\slash.jpg", "back\\slash"),
    ],
)
def test_keys(path: str, key: str) -> None:
    assert key_of(path) == key


@pytest.mark.parametrize(
    ("path", "key"), [("a.jpg", "a%2Ejpg"), ("d.d/a.b.jpg", "d.d/a%2Eb%2Ejpg"), ("a", "a")]
)
def test_extensions_can_stay(path: str, key: str) -> None:
    assert key_of(path, keep_extension=True) == key


@pytest.mark.parametrize(
    "path", ["", "/a.jpg", "a//b.jpg", "a/", ".", "..", "../a.jpg", "a/./b.jpg", "a/../b", "a\0b"]
)
def test_paths_without_a_key(path: str) -> None:
    with pytest.raises(ImageSourceError, match=r"is not the path of an image below its source.*; rename it"):
        key_of(path)


def test_paths_that_are_too_long_or_not_text() -> None:
    assert len(key_of("a" * 4096)) == 4096
    with pytest.raises(ImageSourceError, match="over 4096 bytes"):
        key_of("é" * 2049)
    with pytest.raises(ImageSourceError, match=r"the key of '%+'\.\.\. is over 4096 bytes"):
        key_of("%" * 2000)
    with pytest.raises(ImageSourceError, match=r"'a\\udcff.jpg' is not UTF-8"):
        key_of("a\udcff.jpg")


PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8)
ODD = st.text(st.sampled_from("_.%a\n"), min_size=1, max_size=8)
PATHS = st.lists(PARTS | ODD, min_size=1, max_size=3).map("/".join)


def unescape(key: str) -> str:
    return re.sub("%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), key)


@settings(max_examples=400)
@given(PATHS)
def test_keys_keep_apart_what_is_different(path: str) -> None:
    if any(part in (".", "..") for part in path.split("/")):
        return
    assert unescape(key_of(path, keep_extension=True)) == path
    assert path.startswith(unescape(key_of(path)))


@settings(max_examples=400)
@given(PATHS, st.sampled_from(["cls", "jpg", "slg.msgpack"]))
def test_webdataset_finds_every_key(path: str, extension: str) -> None:
    if any(part in (".", "..") for part in path.split("/")):
        return
    key = key_of(path)
    name = f"{key}.{extension}"
    assert base_plus_ext(name) == (key, extension) == split_member(name)
    assert not re.match(r"__[^/]*__($|/)", name)  # what WebDataset skips


@pytest.mark.parametrize("name", ["a", "a/.jpg", "a.", "", "a.b/c"])
def test_members_without_key_or_extension(name: str) -> None:
    with pytest.raises(ShardError, match="has no key or no extension"):
        split_member(name)
