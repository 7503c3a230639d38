"""The fingerprint of an order: it survives JSON, and a state with another one is refused."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from slg_wds.errors import ReplayError
from slg_wds.replay.order.fingerprint import check_fingerprint, fingerprint
from slg_wds.replay.order.shuffled import ShuffledOrder

DIGEST = "8f" * 32


def test_bytes_digest_is_its_hexadecimal_text():
    text, raw = (ShuffledOrder([9, 9], digest, 0, 0, 4, 2) for digest in ("8f" * 32, b"\x8f" * 32))
    assert text.fingerprint == raw.fingerprint
    assert np.array_equal(text.batch(1), raw.batch(1))


def test_fingerprint_survives_json_and_ignores_epoch_and_surplus_lanes():
    first = ShuffledOrder([50], DIGEST, 3, 0, 8, 100, 2).fingerprint
    again = json.loads(
        json.dumps(ShuffledOrder([50], DIGEST, np.int64(3), 9, np.int64(8), 8, 2, "pad").fingerprint)
    )
    check_fingerprint(again, first)
    assert again == fingerprint(DIGEST, 3, 8, 8, 2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"digest": "00"}, f"digest is '00' there and '{DIGEST}' here"),
        ({"seed": 4}, "seed is 4 there and 3 here"),
        ({"batch": 16}, "batch is 16 there and 8 here"),
        ({"lanes": 1}, "lanes is 1 there and 4 here"),
        ({"window": 5}, "window is 5 there and 2 here"),
        ({"order": 2}, "order is 2 there and 1 here"),
        ({"extra": 1}, "extra is 1 there and 'unknown' here"),
        ({"seed": 4, "window": 5}, "seed is 4 there and 3 here; window is 5 there and 2 here"),
    ],
)
def test_another_fingerprint_is_refused_and_each_difference_named(change, words):
    expected = fingerprint(DIGEST, 3, 8, 4, 2)
    with pytest.raises(ReplayError) as error:
        check_fingerprint({**expected, **change}, expected)
    assert f"another order: {words}; resume" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_a_state_without_fingerprint_is_refused():
    expected = fingerprint(DIGEST, 3, 8, 4, 2)
    with pytest.raises(ReplayError, match="says nothing"):
        check_fingerprint(None, expected)
    with pytest.raises(ReplayError, match="seed is 'missing' there and 3 here"):
        check_fingerprint({name: value for name, value in expected.items() if name != "seed"}, expected)
