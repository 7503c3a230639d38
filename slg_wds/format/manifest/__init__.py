"""The files beside the shards <-> bytes: plan, slg.json, index parts and _info.json.

Enters: plans, descriptions, shards. Leaves: their bytes, and back. Imports records and shards.
"""
