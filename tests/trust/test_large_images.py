"""Images of just under the limit of pixels: decoding one of any format takes less than 1 GB."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from slg_wds.images.header import MAX_PIXELS

MAKE = """
import io, sys
from pathlib import Path
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
folder, height, width = Path(sys.argv[1]), 8192, int(sys.argv[2]) // 8192

def save(name, mode, colour, **options):
    Image.new(mode, (width, height), colour).save(folder / name, **options)

save("baseline.jpg", "RGB", (200, 30, 90), quality=60)
save("progressive.jpg", "RGB", (200, 30, 90), quality=60, progressive=True, subsampling=0)
save("cmyk.jpg", "CMYK", (200, 30, 90, 7), quality=60, progressive=True)
save("grey.jpg", "L", 128, quality=60)
save("grey progressive.jpg", "RGB", (128, 128, 128), quality=60, progressive=True, subsampling=0)
for mode, colour in {"RGB": (1, 2, 3), "RGBA": (1, 2, 3, 4), "P": 7, "L": 9, "I;16": 30_000, "1": 1}.items():
    save(f"{mode.replace(';', '')}.png", mode, colour, compress_level=1)
save("lossy.webp", "RGB", (9, 8, 7), quality=1, method=0)
save("lossless.webp", "RGBA", (9, 8, 7, 6), lossless=True, quality=0, method=0)
save("cmyk.tif", "CMYK", (1, 2, 3, 4), compression="tiff_deflate")
save("a.gif", "P", 3)
save("a.bmp", "RGB", (3, 4, 5))
"""
DECODE = """
import json, sys
from pathlib import Path

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

import PIL.Image, torch, torchvision.io
from slg_wds.images import decode
PIL.Image.init()
start = peak()
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak()
    shape = tuple(decode(data).shape)
    print(json.dumps([path.name, shape, peak() - before]), flush=True)
"""


@pytest.mark.slow
def test_memory_of_the_largest_images(tmp_path):
    subprocess.run([sys.executable, "-c", MAKE, str(tmp_path), str(MAX_PIXELS)], check=True, timeout=500)
    done = subprocess.run(
        [sys.executable, "-c", DECODE, str(tmp_path)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(list(tmp_path.iterdir())) == 16
    for name, shape, grown in found:
        assert shape == [3, 8192, MAX_PIXELS // 8192], name
        assert 3 * MAX_PIXELS / 2**20 * 0.9 < grown < 1000, (name, grown)
