"""Samples of a batch -> pixels and labels, in threads.

    context.py            what all batches of a loader are made from
    selection.py          which samples and crops take part
    epoch.py              which of them are in which batch, for one rank
    workers.py            the threads
    filling.py            some images of some batches, at a time
    batch_builder.py      one batch in the making: who fills what, and what went wrong
    batch_content.py      its labels and pixels, as far as they are filled in
    label_columns.py      labels of a batch; embedding_columns.py has embeddings
    adaptation.py         label adaptation, checked
    partners.py           second views that are mixed in
    jpeg_crops.py         JPEGs decoded and cut in one call
    buffers.py            memory that is used again

Enters: the batches that an epoch plans, records and image files. Leaves: filled batches, in order. May import the
folders beside it and all that `slg_wds.replay` may.
"""
