"""Images -> crops -> teacher -> labels -> records -> shards: `slg-wds generate` and `evaluate`.

Enters: the options, an image source, teachers. Leaves: committed shards of a label set. Imports engines and what is
below them.
"""
