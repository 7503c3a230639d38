"""Decoding frames together gives for each frame what decoding it alone gives, also if one is damaged."""

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.errors import RecordError
from slg_wds.format.frames import decompress, decompress_all

SIZES = (
    1,
    2,
    255,
    256,
    257,
    1000,
    65_791,
    65_792,
    300_000,
)  # about what one, two and four bytes declare; several blocks


def framed(content: bytes, window_log: int = 0, level: int = 3, checksum: bool = True) -> bytes:
    """One frame; a window smaller than the content has the frame say how large it is."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, window_log=window_log, write_checksum=checksum, write_content_size=True
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(content)


def content_of(size: int, noise: int) -> bytes:
    return np.random.default_rng(size).integers(0, max(1, noise), size).astype(np.uint8).tobytes()


def alone(frame: object, size: int) -> bytes | None:
    try:
        return decompress(frame, size, RecordError)
    except RecordError:
        return None


def together(frames: list[object], sizes: list[int]) -> bytes | None:
    try:
        return bytes(decompress_all(frames, sizes, RecordError))
    except RecordError:
        return None


BEFORE, AFTER = b"abc" * 9, bytes(70_000)
FRAMES = [framed(BEFORE), framed(AFTER)]


def assert_alike(frame: object, size: int) -> None:
    """A frame decoded among others has the same outcome as alone."""
    content = alone(frame, size)
    expected = None if content is None else BEFORE + content + AFTER
    assert together([FRAMES[0], frame, FRAMES[1]], [len(BEFORE), size, len(AFTER)]) == expected


@pytest.mark.parametrize("window_log", [0, 10])
@pytest.mark.parametrize("noise", [1, 7, 256])
@pytest.mark.parametrize("size", SIZES)
def test_every_form_of_a_header_is_read(size: int, noise: int, window_log: int) -> None:
    content = content_of(size, noise)
    frame = framed(content, window_log)
    assert alone(frame, size) == content
    assert_alike(frame, size)
    for wrong in (size - 1, size + 1, size + 256, 0):
        assert alone(frame, wrong) is None
        assert_alike(frame, wrong)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_changed_frame_has_the_same_outcome_among_others(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from(SIZES[:-1]))
    frame = bytearray(
        framed(content_of(size, data.draw(st.sampled_from([1, 7, 256]))), data.draw(st.sampled_from([0, 10])))
    )
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, min(len(frame), 24) - 1) | st.integers(0, len(frame) - 1))
        frame[place] ^= 1 << data.draw(st.integers(0, 7))
    change = data.draw(st.sampled_from(["none", "cut", "more", "frame", "skippable"]))
    if change == "cut":
        del frame[data.draw(st.integers(0, len(frame) - 1)) :]
    frame += {"more": b"\0", "frame": framed(b""), "skippable": b"\x50\x2a\x4d\x18" + bytes(4)}.get(
        change, b""
    )
    assert_alike(bytes(frame), size)


def test_a_number_of_no_dictionary_is_taken_as_it_is_alone() -> None:
    frame = framed(b"abc" * 9)
    for number, said in ((b"\0", 1), (b"\0\0", 2), (bytes(4), 3), (b"\1", 1)):
        numbered = frame[:4] + bytes([frame[4] | said]) + number + frame[5:]
        assert_alike(numbered, 27)


def test_what_is_no_frame_is_refused_among_others() -> None:
    for other in (
        None,
        7,
        "text",
        [],
        b"",
        b"\x28\xb5\x2f\xfd",
        bytearray(framed(b"abc")),
        framed(b"abc", checksum=False),
    ):
        assert alone(other, 3) is None
        assert_alike(other, 3)


def test_frames_of_nothing_alone_are_opened() -> None:
    """In one call the library would free what it has twice, which ends the process."""
    empty = framed(b"")
    assert together([empty], [0]) == b""
    assert together([empty, empty], [0, 0]) == b""
    assert together([empty, framed(bytes(70_000))], [0, 70_000]) == bytes(70_000)
