"""Which partners of a batch's crops are read: each image once, with all its crops that are wanted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slg_wds.format.records.mixing import Mixing
from slg_wds.replay.assembly.partners import WantedPartners
from slg_wds.replay.sources.label_sets import SamplePlace

SETS = SimpleNamespace(sample=lambda number: SamplePlace(number // 10, number % 10, str(number)))
crops = st.tuples(st.integers(-1, 12), st.integers(0, 65535))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.lists(crops, min_size=1, max_size=24))
def test_every_partner_is_wanted_once_with_its_crops(c, drawn):
    drawn = drawn[: len(drawn) // c * c] or [(-1, 0)] * c
    partner, crop = (np.array(part).reshape(-1, c) for part in zip(*drawn, strict=True))
    mixing = Mixing.none(*partner.shape)
    mixing.partner[:], mixing.crop[:] = partner, np.where(partner >= 0, crop, 0)
    wanted = WantedPartners.of(SETS, mixing)
    numbers = [int(sample.key) for sample in wanted.samples]
    assert numbers == sorted(set(partner[partner >= 0].tolist()))
    pairs = {pair for pair in drawn if pair[0] >= 0}
    most = max([sum(number == one for number, _ in pairs) for one in numbers], default=0)
    assert wanted.crops.shape == (len(numbers), most), "no more columns than the image that is wanted most"
    for row, number in enumerate(numbers):
        assert {(number, one) for one in wanted.crops[row].tolist()} == {p for p in pairs if p[0] == number}
    for place in np.ndindex(partner.shape):
        row, column = wanted.at[place].tolist()
        if partner[place] < 0:
            assert (row, column) == (-1, -1)
        else:
            assert (numbers[row], wanted.crops[row, column]) == (partner[place], crop[place])
