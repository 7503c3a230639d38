"""The files beside the shards <-> bytes: plan, slg.json, index, _info.json. Imports shards and records."""
