"""What bench_replay.py compares.

labels.py      made-up label sets of photographs
contenders.py  each contender, and the CPU time that a crop costs it
stock.py       transforms of timm and torchvision
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))  # has makers of sets, and an S3 server
