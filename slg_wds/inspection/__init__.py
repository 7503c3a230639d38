"""`slg-wds inspect`: shows how a label set was made, how much of it exists, and the labels of one image.

In: a label set, finished or not. Out: plain values, as JSON or tables. No shard is read whole, and neither torch nor
webdataset is imported. The folder may import label sets, the format and stores.

    inspect   the command
    state     which shards exist; images left out
    pace      when and how fast shards were committed
    sizes     bytes per crop
    low_rank  what low-rank labels state; embeddings: what low-rank embeddings state
    makers    whether some shards were made by the same device, software and settings
    image     the labels of one image
    tables    all of it as tables
"""
