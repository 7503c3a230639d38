"""Read batches as one rank under torchrun: walking_rank.py LABELS FOLDER BATCHES.

Resumes from FOLDER/state.json if it exists. Writes the keys and crops of its part of the next BATCHES batches (0: all
that are left) to FOLDER/RANK.json. Rank 0 also writes the state after them, which must be the same on all ranks.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from itertools import islice
from pathlib import Path

import torch.distributed as dist

from slg_wds import SoftLabelLoader


def main(labels: str, folder: Path, batches: int) -> None:
    dist.init_process_group("gloo")
    loader = SoftLabelLoader(labels, global_batch_size=24, crops_per_image=2, threads=2)
    assert (loader.rank, loader.world_size) == (dist.get_rank(), dist.get_world_size())
    state = folder / "state.json"
    if state.exists():
        loader.load_state_dict(json.loads(state.read_text()))
    walk = islice(iter(loader), batches or None)
    seen = [[batch.key, batch.crop.tolist()] for batch in walk]
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(seen))
    states: list[object] = [None] * dist.get_world_size()
    dist.all_gather_object(states, loader.state_dict())
    assert all(one == states[0] for one in states), states
    if dist.get_rank() == 0:
        state.write_text(json.dumps(states[0]))
    dist.barrier()
    dist.destroy_process_group()
    # Not through the interpreter's end, where a thread of gloo's that still lets go of its last tensors aborts the
    # process now and then (pytorch/pytorch#179291). The loader's threads have ended: the walk above went to its end.
    assert not [thread for thread in threading.enumerate() if "slg" in thread.name]
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
