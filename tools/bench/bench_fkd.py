"""How fast FKD's label files are imported and written, against torch's own load and save of them.

usage: bench_fkd.py [--files 1024] [--rounds 3]

Label files of 500 crops, k = 5, float32, invented labels of 1000 classes, of photographs of 300 x 300 pixels; one
process, start-up and imports of modules excluded. Printed are files per second of processor time: `import`, the whole
way to committed shards; `export`, the way back; and torch.load and torch.save alone, which neither check, convert nor
compress anything.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

import slg_wds  # noqa: E402
from support.sets import made_sets  # noqa: E402

CROPS = 500
SIDE = 300
CLASSES = ("n02123045", "n07920052")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay_out(folder, options.files)
        rates: dict[str, list[float]] = {}
        for number in range(options.rounds + 1):  # the first one imports modules
            for what, run in measured(folder, str(number)).items():
                begin = time.process_time()
                run()
                rates.setdefault(what, []).append(options.files / (time.process_time() - begin))
    medians = {what: float(np.median(found[1:])) for what, found in rates.items()}
    for what, rate in medians.items():
        print(f"{what}: {rate:,.0f} files per second of processor time")
    print(f"import / torch.load {medians['import'] / medians['torch.load']:.2f}", end=", ")
    print(f"export / torch.save {medians['export'] / medians['torch.save']:.2f}")


def lay_out(folder: Path, files: int) -> None:
    """Write label files, and links to one photograph as their images."""
    photograph = folder / "photograph.jpg"
    Image.fromarray(skimage.data.chelsea()[:SIDE, :SIDE]).save(photograph, quality=92)
    for number in range(files):
        place = Path("train", CLASSES[number % 2], f"{number}")
        image, file = folder / "data" / f"{place}.jpg", folder / "labels" / f"{place}.tar"
        for path in (image, file):
            path.parent.mkdir(parents=True, exist_ok=True)
        os.link(photograph, image)
        rows = made_sets.probabilities(number, CROPS, 1000)
        made = made_sets.record(f"{number}", rows, "marginal_smoothing_k5", tail=0)
        coords = (made.crops / SIDE).astype(np.float32)
        labels = np.stack([made.index.astype(np.float32), made.value], axis=1)
        torch.save([coords, made.flips, labels], file)


def measured(folder: Path, round_: str) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    target, back, saved = (str(folder / f"{name}{round_}") for name in ("set", "back", "saved"))
    files = sorted((folder / "labels").rglob("*.tar"))
    loaded: list[object] = []

    def load() -> None:
        loaded[:] = [torch.load(file, weights_only=False) for file in files]

    def save() -> None:
        Path(saved).mkdir()
        for number, parts in enumerate(loaded):
            torch.save(parts, f"{saved}/{number}.tar")

    imported = slg_wds.ImportConfig(
        fkd_dir=str(folder / "labels"), images=str(folder / "data"), save_path=target, processes=1
    )
    return {
        "torch.load": load,
        "import": lambda: slg_wds.import_fkd(imported),
        "torch.save": save,
        "export": lambda: slg_wds.export_fkd(slg_wds.ExportConfig(labels=target, fkd_dir=back)),
    }


if __name__ == "__main__":
    main()
