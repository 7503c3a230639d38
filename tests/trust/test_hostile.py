"""Files made to exhaust memory or time: each is refused, or read with less than 1 GB.

They are read in a process of their own, whose peak of memory is measured after each.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.hostile.hostile_files import FILES, bmp
from support.hostile.hostile_labels import RECORDS_AND_PLANS

HOSTILE = {**RECORDS_AND_PLANS, **FILES}
MOST_MB = 1024
PROBE = """
import json, sys, warnings
import numpy as np
from pathlib import Path
from slg_wds.errors import SlgWdsError
from slg_wds.interop.fkd import read_label_file
from slg_wds.format.manifest.index import decode_index
from slg_wds.format.manifest.description import decode_description
from slg_wds.format.manifest.info import decode_info
from slg_wds.format.manifest.plan_codec import decode_plan
from slg_wds.format.records.tail_sums import decode_tail_sums
from slg_wds.format.records.decoding import decode_record, unpack_record
from slg_wds.format.records.rows import decode_rows
from slg_wds.format.shards.shard import read_shard
from slg_wds.images.header import image_extension, image_size
from slg_wds.images.tars.samples import scan_samples
from slg_wds.images.tars.reader import RangeReader
from slg_wds.verification.records import all_sound

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def record(data):
    decode_record(data)
    all_sound([unpack_record(data)], 1.0)
    decode_rows([data] * 12, np.zeros((12, 2), np.int64))
    decode_tail_sums(data)

def tar(data):
    scan_samples(RangeReader(lambda at, size: data[at : at + size], len(data), 1 << 13))

def image(data):
    from slg_wds.images import decode
    decode(data)

READERS = {"record": record, "plan": decode_plan, "index": decode_index, "shard": read_shard, "tar": tar,
    "slg.json": decode_description, "_info.json": decode_info, "label_file": read_label_file, "image": image}
import slg_wds.images.pixels, torch, torchvision.io, PIL.Image
start = peak()
for reader, path in json.loads(sys.argv[1]):
    data = Path(path).read_bytes()
    try:
        READERS[reader](data)
        said = None
    except SlgWdsError as error:
        said = str(error)
    print(json.dumps([Path(path).name, peak() - start, said]), flush=True)
"""


@pytest.fixture(scope="module")
def probed(tmp_path_factory) -> dict[str, tuple[float, str | None]]:
    """For each hostile file the peak of memory above the start in MB, and what its reader said, None for nothing."""
    folder = tmp_path_factory.mktemp("hostile")
    cases = []
    for name, (reader, make, _) in HOSTILE.items():
        (folder / name).write_bytes(make())
        cases.append((reader, str(folder / name)))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(cases)], capture_output=True, text=True, timeout=500
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: (grown, said) for name, grown, said in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_memory_is_bounded_and_the_file_is_refused(probed, name):
    grown, said = probed[name]
    assert grown < MOST_MB
    wanted = HOSTILE[name][2]
    if wanted is None:
        assert said is None
    else:
        assert said is not None and re.search(wanted, said), said


def test_the_files_are_small():
    """What takes much memory must not be large itself."""
    for name in ("full record", "many crops", "many classes", "plan of long paths", "plan of one long path"):
        assert len(HOSTILE[name][1]()) < 400_000, name


def test_nothing_is_probed_that_is_not_there(tmp_path: Path):
    """The probe itself detects memory that is allocated."""
    code = PROBE.replace("def image(data):", "def image(data):\n    bytearray(1 << 28)\n")
    path = tmp_path / "x"
    path.write_bytes(bmp(1, 1))
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([["image", str(path)]])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)[1] > 200
