"""Some images of some batches at a time: their records decoded together, their pixels decoded and cut together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from slg_wds.arrays import I64
from slg_wds.errors import SlgWdsError
from slg_wds.replay.assembly.batch_builder import BatchBuilder, SampleBytes
from slg_wds.replay.sources.label_sets import SamplePlace
from slg_wds.replay.sources.records import SampleLabels

Part = tuple[BatchBuilder, Sequence[int]]  # a batch and some of its images
_Records = dict[tuple[BatchBuilder, int], list[SampleLabels]]  # of images, [set], by batch and number in it


def fill_labels(parts: Sequence[Part], loaded: SampleBytes | None = None) -> None:
    """Fill in the labels of some images of batches of one epoch, and make the batches that now have all of theirs.

    Many together, and not each before its image: between the pixels of two images their code and data fall out of the
    processor's caches, and decoding one takes three times as long. A batch of few images shares this with others.

    Args:
        parts: the batches, and some images of each.
        loaded: the bytes of the only image; None to read them here.
    """
    context, records = parts[0][0].context, _Records()
    _together(lambda some: records.update(_read(some, loaded)), parts)
    with context.in_turn:
        _together(lambda some: _decode(some, records), parts)
        if not context.sets.has_mixing:
            _note_labelled(parts)
    if context.sets.has_mixing:
        # What is mixed in has to be read first, and nobody should wait for that.
        _together(lambda some: _put_partners(some, loaded), parts)
        with context.in_turn:
            _note_labelled(parts)


def fill_images(part: Part, loaded: SampleBytes | None = None) -> None:
    """Fill in the pixels of some images of a batch, whose labels are there. Some together, for the same reason."""

    def put(some: Sequence[Part]) -> None:
        for builder, images in some:
            builder.content.put_pixels(images, loaded.image if loaded else None)

    _together(put, [part])
    builder, images = part
    builder.some_done(len(images))


def _together(step: Callable[[Sequence[Part]], None], parts: Sequence[Part]) -> None:
    """Take a step for some images at once. If it fails, take it for each alone, which tells the one at fault."""
    parts = [(builder, images) for builder, images in parts if builder.error is None]
    try:
        if parts:
            step(parts)
    except BaseException as error:
        each = [(builder, [i]) for builder, images in parts for i in images]
        if len(each) > 1 and isinstance(error, Exception):
            for one in each:
                _together(step, [one])
        else:
            for builder, images in parts:
                builder.fail(images[0], error)


def _read(parts: Sequence[Part], loaded: SampleBytes | None) -> _Records:
    """Read the records of some images, unless they are there."""
    read = parts[0][0].context.records.read
    records = [loaded.records] if loaded else read(*_wanted(parts))
    return dict(zip(_each(parts), records, strict=True))


def _each(parts: Sequence[Part]) -> list[tuple[BatchBuilder, int]]:
    return [(builder, i) for builder, images in parts for i in images]


def _wanted(parts: Sequence[Part]) -> tuple[list[SamplePlace], I64]:
    """Return where the records of some images lie, and the numbers of the crops [n, c] that are wanted of each."""
    places = [builder.samples[i] for builder, i in _each(parts)]
    return places, np.concatenate([builder.content.crops(images) for builder, images in parts])


def _decode(parts: Sequence[Part], records: _Records) -> None:
    """Decode the records of some images, and give each batch those of its own."""
    context, (_, crops) = parts[0][0].context, _wanted(parts)
    data = [records[one] for one in _each(parts)]
    for number, labels in enumerate(context.sets.members):
        try:
            rows, first = context.records.rows(number, [one[number] for one in data], crops), 0
            for builder, images in parts:
                builder.content.put_rows(number, images, rows[first : first + len(images)])
                first += len(images)
        except SlgWdsError as error:
            raise error.located(url=labels.url) from None


def _put_partners(parts: Sequence[Part], loaded: SampleBytes | None) -> None:
    for builder, images in parts:
        builder.content.put_partners(images, loaded.partners if loaded else None)


def _note_labelled(parts: Sequence[Part]) -> None:
    for builder, images in parts:
        builder.some_labelled(len(images))
