"""The files beside the shards <-> bytes: plan, slg.json, index parts and _info.json.

    plan.py         which image is which sample of which shard; strings.py holds its names
    plan_codec.py   a plan <-> bytes
    description.py  slg.json; identity.py has what decides the labels
    index.py        where the parts of one shard lie
    info.py         _info.json, as timm's reader expects it

Enters: plans, descriptions, shards. Leaves: their bytes, and back. Imports records and shards.
"""
