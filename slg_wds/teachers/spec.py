"""The options that name teachers: `-a`, `--teacher-source`, `--teacher-path`, `--weights`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from slg_wds.console import counted
from slg_wds.errors import UsageError
from slg_wds.labels.shares import shares

SOURCES = ("timm", "pytorch", "private")

# The parts before the colon in names of timm that have one. They are not sources.
_TIMM_SCHEMES = ("hf-hub", "hf_hub", "local-dir")


@dataclass(frozen=True)
class TeacherSpec:
    """One teacher that the options name.

    Attributes:
        source: `timm`, `pytorch` (torchvision) or `private`.
        arch: the model's name; for `private`, `package.module:factory` or `path/file.py:factory`.
        path: the weights file; None for the published weights, or those that the factory sets.
        weight: share in the ensemble, 0..1; the shares of all teachers sum to 1.
    """

    source: str
    arch: str
    path: str | None = None
    weight: float = 1.0

    @property
    def name(self) -> str:
        """`source:arch`, as messages name the teacher."""
        return f"{self.source}:{self.arch}"


def parse_teachers(
    arch: str, source: str = "timm", paths: Sequence[str] = (), weights: Sequence[float] | None = None
) -> list[TeacherSpec]:
    """Parse the options into one spec per teacher.

    Args:
        arch: names separated by commas, each with its source in front (`timm:`, `pytorch:`, `private:`) or without.
        source: the source of names without one.
        paths: weights files, one per teacher in order, "" for published weights; or none at all. With several teachers,
            one text may hold several files, separated by commas.
        weights: shares in the ensemble, at least 0, one per teacher; normalised to sum to 1. None: equal shares.

    Raises:
        UsageError: an invalid name, source or share, or another number of files or shares than of teachers.
    """
    named = [_parse_one(item.strip(), source) for item in arch.split(",")]
    files = _parse_paths(paths, len(named))
    lone = len(named) == 1 and not weights  # an empty list goes with one teacher too
    parts = shares(None if lone else weights, len(named), "teacher")
    return [
        TeacherSpec(kind, name, path, share)
        for (kind, name), path, share in zip(named, files, parts, strict=True)
    ]


def _parse_one(item: str, default: str) -> tuple[str, str]:
    prefix, colon, rest = item.partition(":")
    source, arch = (prefix, rest) if colon and prefix in SOURCES else (default, item)
    if source not in SOURCES:
        raise _unknown_source(source)
    if not arch:
        raise UsageError("an architecture's name is empty", hint="name each teacher, as in -a resnet50")
    if source == "private":
        target, _, factory = arch.rpartition(":")
        if not target or not factory.isidentifier():
            raise UsageError(
                f"private teacher {arch!r} does not name a factory",
                hint="write package.module:factory or path/file.py:factory",
            )
    elif ":" in arch and not (source == "timm" and prefix in _TIMM_SCHEMES):
        raise _unknown_source(prefix)
    return source, arch


def _unknown_source(source: str) -> UsageError:
    near = difflib.get_close_matches(source, SOURCES, 1) or (
        ["pytorch"] if source.lower() in ("torch", "torchvision") else []
    )
    guess = f"did you mean {near[0]}? " if near else ""
    return UsageError(f"unknown teacher source {source!r}", hint=f"{guess}known are {', '.join(SOURCES)}")


def _parse_paths(paths: Sequence[str], count: int) -> list[str | None]:
    # The path of a single teacher is not split: file names may have commas.
    files = [part.strip() for path in paths for part in path.split(",")] if count > 1 else list(paths)
    if not any(files):
        return [None] * count
    if len(files) != count:
        raise UsageError(
            f"--teacher-path: {counted(len(files), 'teacher path')} for {counted(count, 'teacher')}",
            hint="give one --teacher-path per teacher, in order; leave one empty for pretrained weights",
        )
    return [file or None for file in files]
