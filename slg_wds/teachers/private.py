"""Private teachers: a factory in a module or a file, named on the command line and nowhere else."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slg_wds.errors import TeacherError
from slg_wds.teachers.built import BuiltModel
from slg_wds.teachers.identity import code_digest, digest, hidden_digest
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.weights import fit, one_line, read_weights

_Digests = tuple[str, str | None]
_folders: dict[str, str] = {}  # of the modules that teachers have imported from beside them, by their names
_first_digests: MutableMapping[Any, _Digests] = weakref.WeakKeyDictionary()


def build_private(spec: TeacherSpec) -> BuiltModel:
    """Import the factory, call it, and load the weights file, if one is given, into the module that it returns.

    Raises:
        TeacherError: there is no such file, module or factory; one of them raised an error; or the factory returned
            the module of an earlier call, which has changed since.
        WeightsError: the weights file cannot be read or does not fit the module.
    """
    target, _, name = spec.arch.rpartition(":")
    is_file = target.endswith(".py")
    with _importable(str(Path(target).resolve().parent if is_file else Path.cwd())):
        factory = _find_factory(spec, target, name, is_file)
        module, returned = _call(factory, spec)
    weights_from, folders = "the factory", None
    config, config_from = _private_config(spec, module, returned)
    if spec.path is not None:
        weights = read_weights(spec.path)
        fit(module, weights.state, spec.path)
        weights_from, folders = weights.found, weights.class_folders
        config, config_from = weights.own(config, config_from)
    arch = f"{Path(target).name if is_file else target}:{name}"
    digests = digest(module), hidden_digest(module, factory)
    _refuse_changed(module, digests, spec)
    code = code_digest(module, factory)
    return BuiltModel(module, arch, digests[0], weights_from, config, config_from, digests[1], code, folders)


def _call(factory: Callable[[], Any], spec: TeacherSpec) -> tuple[Any, Any]:
    """Return (the module that the factory makes, the preprocessing returned beside it or None)."""
    from torch import nn

    try:
        made = factory()
    except (Exception, SystemExit) as error:
        raise TeacherError(f"{spec.name}: the factory raised {one_line(error)}") from error
    module, returned = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise TeacherError(
            f"{spec.name}: the factory returned {type(module).__name__}",
            hint="it must return a torch.nn.Module, or a pair: the module and a dict of its preprocessing",
        )
    return module, returned


def _refuse_changed(module: Any, digests: _Digests, spec: TeacherSpec) -> None:
    """Raise TeacherError for a module that was built before, if its digests are no longer what they were.

    A factory may cache its module. A teacher then converts it to float32 and runs it, which may store tensors in it;
    another weights file replaces the weights of a teacher that is still in use. Either way the digest that was recorded
    for one teacher would not be that of the module that makes its labels.
    """
    if _first_digests.setdefault(module, digests) != digests:
        raise TeacherError(
            f"{spec.name}: the factory returned the module of an earlier call, which has changed since",
            hint="make a new module at every call of the factory",
        )


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
    found: Callable[[], Any] = factory
    return found


def _load_file(path: str) -> Any:
    # Registered under a unique name: dataclasses and torch.compile look their module up.
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
    """Let a teacher import the files beside it, as `python file.py` would.

    Python keeps one module of each name. A teacher that imports `model` must not get the file beside another teacher,
    and with it that one's network: so the modules of other folders are out of the way meanwhile.
    """
    others = {
        name: sys.modules.pop(name) for name in list(sys.modules) if _folder_of(name) not in (None, folder)
    }
    before, added = set(sys.modules), folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)
        new = {name: module for name, module in sys.modules.items() if name not in before and "." not in name}
        _folders.update({name: folder for name, module in new.items() if _lies_in(module, folder)})
        sys.modules.update({name: one for name, one in others.items() if _folder_of(name) != folder})


def _folder_of(name: str) -> str | None:
    """Return the folder of the teacher that a module lies beside; None for modules from elsewhere."""
    return _folders.get(name.partition(".")[0])


def _lies_in(module: Any, folder: str) -> bool:
    """Return whether a file, or a folder as a package, lies directly in a folder."""
    places = (getattr(module, "__file__", None), *getattr(module, "__path__", ()))
    return any(place is not None and os.path.dirname(place) == folder for place in places)  # noqa: PTH120


def _private_config(spec: TeacherSpec, module: Any, returned: Any) -> tuple[Mapping[str, Any], str]:
    """Return (the model's own preprocessing, where it comes from in words)."""
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
