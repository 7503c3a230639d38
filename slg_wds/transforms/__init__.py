"""Views of an image: what is drawn for each crop, and how its pixels are made from that.

    randomness.py     random words of an image, by seed and key
    crops.py          boxes and flips, drawn from seed and key; cutting and resizing them
    cutting.py        the loop that cuts them, in TorchScript
    drawn.py          the crops of an image with all that is done to them, drawn or recorded; their pixels
    policies/         operations and erased boxes, drawn from seed, key and policy
    operations.py     each operation: number, name, argument, pixels
    canvas.py         what operations work on
    mixing.py         a second view mixed into a view
    replaying.py      recorded views -> pixels, and words for people
    normalisation.py  uint8 crops -> the floats that a model takes

Enters: seed, key and size of an image, and what its record stores (boxes, flips, views); uint8 pixels [3, H, W].
Leaves: boxes int64 [M, 4], flips bool [M], Views, uint8 crops [M, 3, S, S]; float crops for a model. May import errors
and `format` only.

Both the generator and the loader call this folder, so a replayed crop is the crop that the teacher saw. Every recorded
augmentation has two halves: a draw, in numpy, that is a pure function of (seed, key, crop
number) and whose result the record stores; and its application to pixels, which takes what was stored and draws
nothing.
"""
