"""Images, a label set and commands for the tests of errors, which damage them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slg_wds
from slg_wds import errors
from support.models.names import TINY
from support.servers.scripted import reply, serving
from support.sets import trust_sets

Made = Callable[["World"], Any]
ROWS: dict[type[errors.SlgWdsError], tuple[Made, dict[str, str]]] = {}


class World:
    """A folder with images and a label set that one row may damage."""

    def __init__(self, folder: Path, made: Path, images: Path, stack: contextlib.ExitStack) -> None:
        self.folder, self.made, self.stack = folder, made, stack
        self.images = trust_sets.copy_of(images, folder / "images")

    @property
    def labels(self) -> Path:
        """A copy of the label set, which the row may change."""
        target = self.folder / "labels"
        return target if target.exists() else trust_sets.copy_of(self.made, target)

    @property
    def photograph(self) -> Path:
        return sorted(self.images.rglob("*.jpg"))[0]

    def generate(self, *more: str, data: Path | None = None, to: str = "new", arch: str = TINY) -> list[str]:
        target = to if "://" in to else str(self.folder / to)
        options = [
            "--teacher_source",
            "private",
            "--num_crops",
            "4",
            "--num_seg",
            "4",
            "--threads-per-forward",
            "1",
        ]
        return ["generate", str(data or self.images), "-a", arch, "--save_path", target, *options, *more]

    def teacher(self, source: str) -> str:
        file = self.folder / "teacher.py"
        file.write_text(source)
        return f"{file}:factory"

    def loader(self, **options: Any) -> slg_wds.SoftLabelLoader:
        return trust_sets.loader_of(self.labels, self.images, **options)

    def inspect(self, *more: str) -> list[str]:
        return ["inspect", str(self.labels), *more]

    def export(self) -> list[str]:
        return ["export", str(self.labels), str(self.folder / "exported")]

    def rewrite(self, name: str, change: Callable[[bytes], bytes]) -> None:
        path = self.labels / name
        path.write_bytes(change(path.read_bytes()))

    def serve(self, status: int) -> str:
        return self.stack.enter_context(serving(lambda handler, _: reply(handler, status))).url

    def key(self, number: int = 0) -> str:
        return str(slg_wds.open_labels(str(self.labels)).plan.keys[number])


def row(kind: type[errors.SlgWdsError], **said: str) -> Callable[[Made], None]:
    """Register the function that returns the call which raises `kind`, and patterns that its attributes must match."""

    def add(call: Made) -> None:
        assert kind not in ROWS
        ROWS[kind] = (call, said)

    return add


def store_options(options: dict[str, str]) -> list[str]:
    return ["--store-option", *(f"{name}={value}" for name, value in options.items())]
