"""Some images of some batches at a time: their records decoded together, their pixels decoded and cut together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from slg_wds.errors import SlgWdsError
from slg_wds.replay.assembly.batch_builder import BatchBuilder, SampleBytes

Part = tuple[BatchBuilder, Sequence[int]]  # a batch and some of its images


def fill_labels(parts: Sequence[Part], loaded: SampleBytes | None = None) -> None:
    """Fill in the labels of some images of batches of one epoch.

    Many together, and not each before its image: between the pixels of two images their code and data fall out of the
    processor's caches, and decoding one takes three times as long. A batch of few images shares this with others.

    Args:
        parts: the batches, and some images of each.
        loaded: the bytes of the only image; None to read them here.
    """
    _together(lambda some: _put_labels(some, loaded), parts)
    for builder, images in parts:
        builder.some_labelled(len(images))


def fill_images(part: Part, loaded: SampleBytes | None = None) -> None:
    """Fill in the pixels of some images of a batch, whose labels are there. Some together, for the same reason."""

    def put(some: Sequence[Part]) -> None:
        for builder, images in some:
            builder.content.put_pixels(images, loaded.image if loaded else None)

    _together(put, [part])
    builder, images = part
    builder.some_done(len(images))


def _together(put: Callable[[Sequence[Part]], None], parts: Sequence[Part]) -> None:
    """Put what some images need, all at once. If it fails, do it for each alone, which tells the one at fault."""
    parts = [(builder, images) for builder, images in parts if builder.error is None]
    try:
        if parts:
            put(parts)
    except BaseException as error:
        each = [(builder, [i]) for builder, images in parts for i in images]
        if len(each) > 1 and isinstance(error, Exception):
            for one in each:
                _together(put, [one])
        else:
            for builder, images in parts:
                builder.fail(images[0], error)


def _put_labels(parts: Sequence[Part], loaded: SampleBytes | None) -> None:
    """Decode the records of some images, and give each batch the labels of its own."""
    context = parts[0][0].context
    places = [builder.samples[i] for builder, images in parts for i in images]
    crops = np.concatenate([builder.content.crops(images) for builder, images in parts])
    data = [loaded.records] if loaded else context.records.read(places, crops)
    with context.in_turn:
        for number, labels in enumerate(context.sets.members):
            try:
                rows, first = context.records.rows(number, [one[number] for one in data], crops), 0
                for builder, images in parts:
                    builder.content.put_rows(number, images, rows[first : first + len(images)])
                    first += len(images)
            except SlgWdsError as error:
                raise error.located(url=labels.url) from None
    for builder, images in parts:
        builder.content.put_partners(images, loaded.partners if loaded else None)
