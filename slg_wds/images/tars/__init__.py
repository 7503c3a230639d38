"""Images in WebDataset tars.

    files.py           which tars a source has, and their names
    reader.py          a tar -> its members, read strictly
    samples.py         members -> samples: an image and its target
    sample_targets.py  a target member -> a class number or name
    source.py          tars -> a plan; reading the images of a shard

Enters: a URL or brace pattern. Leaves: a plan of samples, and the bytes of images. May import what images/ may, and
the modules of images/.
"""
