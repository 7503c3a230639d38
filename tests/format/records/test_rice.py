"""Rice codes: any numbers come back, at any places, and bytes that are not exactly a code are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slg_wds.errors import RecordError
from slg_wds.format.records.rice import (
    MAX_NUMBER,
    ZEROS,
    RiceCode,
    RiceReader,
    best_parameter,
    fold,
    pack,
    unfold,
)

NUMBERS = st.one_of(st.integers(0, 3), st.integers(0, 300), st.integers(0, MAX_NUMBER))
GROUPS = st.lists(st.lists(NUMBERS, max_size=12) | st.just([0, 0, 0]), max_size=6)


def arrays(groups):
    return [np.array(group, np.int64) for group in groups]


def by_hand(group, k):
    """The bits of a group as text: quotients and remainders, written one number after the other."""
    quotients = "".join("0" * (u >> k) + "1" for u in group)
    return quotients, "".join(format(u & ((1 << k) - 1), f"0{k}b") if k else "" for u in group)


def as_bytes(bits):
    return bytes(int(bits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(bits), 8))


@given(st.lists(st.lists(st.integers(0, 300), max_size=12), max_size=6))
def test_the_bits_are_those_written_by_hand(groups):
    code = pack(arrays(groups))
    pairs = [
        by_hand(group, k) if k != ZEROS else ("", "")
        for group, k in zip(groups, code.parameters, strict=True)
    ]
    assert code.quotients == as_bytes("".join(pair[0] for pair in pairs))
    assert code.remainders == as_bytes("".join(pair[1] for pair in pairs))
    assert [k == ZEROS for k in code.parameters] == [not any(group) for group in groups]


@given(st.lists(GROUPS, min_size=1, max_size=4), st.randoms())
def test_numbers_of_several_strings_are_read_at_any_places(strings, random):
    codes = [pack(arrays(groups)) for groups in strings]
    reader = RiceReader(codes, [list(map(len, groups)) for groups in strings])
    everything = np.array([u for groups in strings for group in groups for u in group], np.int64)
    assert np.array_equal(reader.take(np.arange(len(everything))), everything)
    places = np.array([random.randrange(len(everything)) for _ in range(5 * bool(len(everything)))], np.int64)
    assert np.array_equal(reader.take(places), everything[places])


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=40))
def test_no_parameter_takes_fewer_bits(group):
    def bits(k):
        return sum(1 + k + (u >> k) for u in group)

    found = best_parameter(np.array(group, np.int64))
    assert found == ZEROS if not any(group) else bits(found) == min(map(bits, range(15)))


@given(st.integers(-(2**30), 2**30 - 1))
def test_signs_fold(number):
    assert unfold(fold(np.array([number]))) == [number] and fold(np.array([number])) >= 0


def test_known_folds():
    assert fold(np.array([0, -1, 1, -2, 2])).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "change",
    [
        lambda code: code._replace(quotients=code.quotients + b"\0"),
        lambda code: code._replace(quotients=code.quotients + b"\x80"),
        lambda code: code._replace(quotients=code.quotients[:-1]),
        lambda code: code._replace(quotients=b"\xff" + code.quotients),
        lambda code: code._replace(remainders=code.remainders + b"\0"),
        lambda code: code._replace(remainders=code.remainders[:-1]),
        lambda code: code._replace(parameters=b"\x19" + code.parameters[1:]),
        lambda code: code._replace(parameters=code.parameters + b"\0"),
    ],
)
def test_what_is_not_exactly_a_code_is_refused(change):
    groups = arrays([[5, 900, 31, 7], [], [0, 0], [1, 2, 3]])
    code, lengths = pack(groups), [[4, 0, 2, 3]]
    RiceReader([code], lengths)
    with pytest.raises(RecordError):
        RiceReader([change(code)], lengths)


def test_spare_bytes_of_zeros_alone_are_refused():
    zeros = RiceCode(bytes([ZEROS]), b"", b"")
    assert RiceReader([zeros], [[3]]).take(np.arange(3)).tolist() == [0, 0, 0]
    with pytest.raises(RecordError):
        RiceReader([zeros._replace(quotients=b"\0")], [[3]])


def test_numbers_outside_the_range_are_refused():
    with pytest.raises(RecordError, match="within"):
        pack(arrays([[MAX_NUMBER + 1]]))
    with pytest.raises(RecordError, match="within"):
        pack(arrays([[-1]]))
    over = RiceCode(bytes([14]), bytes(1 << 14) + b"\x80", bytes(2))  # 2^17 << 14
    with pytest.raises(RecordError, match="over"):
        RiceReader([over], [[1]]).take(np.arange(1))
