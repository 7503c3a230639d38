"""Private teachers: a factory in a module or a file, named on the command line and nowhere else."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slg_wds.errors import TeacherError
from slg_wds.teachers.built import Built
from slg_wds.teachers.identity import digest, hidden_digest
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.weights import fit, one_line, read_weights


def build_private(spec: TeacherSpec) -> Built:
    """Import the factory, call it, and load the weights file, where one is given, into what it made.

    Raises:
        TeacherError: no such file, module or factory, or what they raised; WeightsError below it.
    """
    from torch import nn

    target, _, name = spec.arch.rpartition(":")
    is_file = target.endswith(".py")
    with _importable(str(Path(target).resolve().parent) if is_file else str(Path.cwd())):
        factory = _find_factory(spec, target, name, is_file)
        try:
            made = factory()
        except (Exception, SystemExit) as error:
            raise TeacherError(f"{spec.name}: the factory raised {one_line(error)}") from error
    module, config = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise TeacherError(
            f"{spec.name}: the factory returned {type(module).__name__}",
            hint="it must return a torch.nn.Module, or such and a dict of its preprocessing",
        )
    weights_from = "the factory"
    if spec.path is not None:
        state, weights_from = read_weights(spec.path)
        fit(module, state, spec.path)
    config, config_from = _private_config(spec, module, config)
    arch = f"{Path(target).name if is_file else target}:{name}"
    hidden = hidden_digest(module, factory)
    return Built(module, arch, digest(module), weights_from, config, config_from, hidden)


def _find_factory(spec: TeacherSpec, target: str, name: str, is_file: bool) -> Callable[[], Any]:
    if is_file and not Path(target).is_file():
        raise TeacherError(f"{spec.name}: no file {target}")
    try:
        loaded = _load_file(target) if is_file else importlib.import_module(target)
    except (Exception, SystemExit) as error:
        raise TeacherError(f"{spec.name}: importing {target} failed, {one_line(error)}") from error
    factory = getattr(loaded, name, None)
    if not callable(factory):
        near = difflib.get_close_matches(name, [n for n, value in vars(loaded).items() if callable(value)], 3)
        hint = f"near names are {', '.join(near)}" if near else None
        raise TeacherError(f"{spec.name}: {target} has no function {name}", hint=hint)
    made: Callable[[], Any] = factory
    return made


def _load_file(path: str) -> Any:
    # Registered under a name of its own: dataclasses and torch.compile look their module up.
    unique = hashlib.sha256(str(Path(path).resolve()).encode()).hexdigest()[:12]
    name = f"slg_wds_private_{Path(path).stem}_{unique}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise ImportError(f"{path} is not Python source")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """Let a teacher import what lies beside it, as `python file.py` would."""
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _private_config(spec: TeacherSpec, module: Any, returned: Any) -> tuple[Mapping[str, Any], str]:
    if returned is not None and not isinstance(returned, Mapping):
        raise TeacherError(
            f"{spec.name}: the preprocessing returned is {type(returned).__name__}, not a dict"
        )
    if returned is not None:
        return returned, "what the factory returned"
    for name in ("preprocessing", "pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        if isinstance(config, Mapping):
            return config, f"the module's {name}"
    return {}, ""
