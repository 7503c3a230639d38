"""`slg-wds inspect`: shows how a label set was made, how much of it exists, and the labels of one image.

Enters: a label set, finished or not. Leaves: plain values, as JSON or tables. No shard is read whole, and neither
torch nor webdataset is imported. The folder may import label sets, the format and stores.

    inspect.py   the command
    state.py     which shards exist; images left out
    pace.py      when and how fast shards were committed
    sizes.py     bytes per crop
    low_rank.py  what low-rank labels state; embeddings: what low-rank embeddings state
    makers.py    whether some shards were made by the same device, software and settings
    image.py     the labels of one image
    tables.py    all of it as tables
"""
