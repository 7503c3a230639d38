"""The format of a label set: values <-> bytes, as FORMAT.md in this folder defines them.

Enters: records, plans, descriptions. Leaves: their bytes, and back. Imports errors and console alone; no storage,
torch or PIL.

    records/     one image's labels <-> the bytes of a record
    shards/      records and images <-> a tar
    manifest/    plan, slg.json, index parts and _info.json
    recovery/    a record's columns -> distributions
    canonical.py, frames.py, packed.py    JSON, zstd and msgpack, as all of these use them
    counting.py                           where things stand that lie one after the other
"""
