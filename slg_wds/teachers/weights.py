"""Weights files <-> modules. Nothing in a file is executed; tensors that do not fit are named."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from slg_wds.console import first_few
from slg_wds.errors import WeightsError

if TYPE_CHECKING:
    import torch

State = OrderedDict[str, "torch.Tensor"]

TORCH_SUFFIXES = (".pth", ".pt", ".tar", ".bin", ".ckpt")

# The keys under which training scripts store weights. Averages go first: they are what scripts evaluate and publish.
_NESTS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network")
# Prefixes of every name that come from DataParallel, torch.compile and the wrapper modules of training scripts.
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
_CONVERT = "if you trust the file, load it yourself and write its state dict with safetensors.torch.save_file"


class Weights(NamedTuple):
    """What a weights file holds.

    Attributes:
        state: the tensors by name, without the prefixes that wrappers add to all names.
        found: where they were found, in words.
        shown: how the model was shown images in training, settings of `Preprocessing` by name. Checkpoints of
            `slg-wds train` say it; empty for other files.
        class_folders: which class folders are which of the model's classes, as such a checkpoint keeps it; else None.
    """

    state: State
    found: str
    shown: Mapping[str, Any]
    class_folders: object

    def own(self, config: Mapping[str, Any], origin: str) -> tuple[Mapping[str, Any], str]:
        """Return a model's own settings and where they are from: what the file says counts more than its architecture.

        Args:
            config: those of the architecture.
            origin: where these are from, in words.
        """
        parts = [origin, f"{', '.join(self.shown)} from {self.found}" if self.shown else ""]
        return {**config, **self.shown}, "; ".join(filter(None, parts))


def read_weights(path: str) -> Weights:
    """Read the weights in a `.safetensors` file or a file of torch.save.

    Args:
        path: the file's path; its extension says which kind it is.

    Raises:
        WeightsError: there is no such file, or it is damaged, has no weights, or is a pickle that would run code.
    """
    loaded = read_nested(path)
    state, nest = _unnest(loaded)
    if not state:
        raise WeightsError(f"{path} holds no named tensors")
    # AveragedModel stores a counter beside the prefixed names. It is dropped together with the prefix.
    prefix = _wrappers([name for name in state if name != "n_averaged"])
    found = f"{Path(path).name}{f' [{nest}]' if nest else ''}"
    folders = loaded.get("class_folders") if isinstance(loaded, Mapping) else None
    return Weights(_rewrap(state, prefix, ""), found, _shown(loaded), folders)


def _shown(loaded: Any) -> dict[str, Any]:
    settings = loaded.get("preprocessing") if isinstance(loaded, Mapping) else None
    known = settings if isinstance(settings, Mapping) else {}
    return {name: known[name] for name in ("input_size", "mean", "std", "interpolation") if name in known}


def read_nested(path: str) -> Any:
    """Read all that a `.safetensors` file or a file of torch.save holds, as it is nested there.

    Raises:
        WeightsError: there is no such file, or it is damaged, or is a pickle that would run code.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsError(f"no weights file at {path}")
    if file.suffix.lower() == ".safetensors":
        return _read_safetensors(file)
    if file.suffix.lower() in TORCH_SUFFIXES:
        return _read_torch(file)
    raise WeightsError(f"{path}: weights are read from .safetensors, {', '.join(TORCH_SUFFIXES)} files")


def _read_safetensors(file: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file} cannot be read as safetensors: {one_line(error)}") from None


def _read_torch(file: Path) -> Any:
    import torch

    try:
        with warnings.catch_warnings():
            # Torch warns about pickle protocols, then reads or refuses them anyway.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"a pickle that would run code ({found[1]})" if found else "a pickle of more than weights"
        raise WeightsError(
            f"{file} is {what} and was refused, nothing of it was run", hint=_CONVERT
        ) from None
    except Exception as error:  # torch.load has no error of its own: EOFError, KeyError, RuntimeError, ...
        if "TorchScript" in str(error):
            raise WeightsError(
                f"{file} is a TorchScript archive, not weights, and was refused", hint=_CONVERT
            ) from None
        raise WeightsError(
            f"{file} is cut off, damaged or not a file of torch.save: {one_line(error)}"
        ) from None


def _unnest(loaded: Any) -> tuple[State, str]:
    """Return (the named tensors, the keys under which they were nested, joined by dots)."""
    import torch

    path: list[str] = []
    while isinstance(loaded, Mapping) and (nest := _nest(loaded)) is not None:
        loaded = loaded[nest]
        path.append(nest)
    named = loaded.items() if isinstance(loaded, Mapping) else ()
    state = OrderedDict(
        (name, value) for name, value in named if isinstance(name, str) and isinstance(value, torch.Tensor)
    )
    # torch.save keeps version numbers of layers here, by which they convert old weights.
    if hasattr(loaded, "_metadata"):
        state._metadata = loaded._metadata  # type: ignore[attr-defined]
    return state, ".".join(path)


def _nest(loaded: Mapping[str, Any]) -> str | None:
    """Return the key under which a file has weights; None if they are not nested any deeper.

    `slg-wds train` has the average as `ema`, by which it chooses the best student. In files of others `ema` may be
    anything, so it counts only if it has the very names of the weights beside it.
    """
    average, weights = loaded.get("ema"), loaded.get("state_dict")
    if isinstance(average, Mapping) and isinstance(weights, Mapping) and average.keys() == weights.keys():
        return "ema"
    return next((name for name in _NESTS if isinstance(loaded.get(name), Mapping)), None)


def _wrappers(names: Collection[str]) -> str:
    """Return the longest run of _PREFIXES that all names start with."""
    prefix = ""
    while more := next((p for p in _PREFIXES if names and all(n.startswith(prefix + p) for n in names)), ""):
        prefix += more
    return prefix


def _rewrap(state: State, old: str, new: str) -> State:
    """Return the tensors whose names start with `old`, with `new` in its place, and the version numbers of layers."""
    wrapped: State = OrderedDict(
        (new + name[len(old) :], value) for name, value in state.items() if name.startswith(old)
    )
    versions: dict[str, Any] = getattr(state, "_metadata", {})
    if versions:
        renamed = {(new + name[len(old) :]).rstrip("."): value for name, value in versions.items()}
        wrapped._metadata = renamed  # type: ignore[attr-defined]
    return wrapped


def fit(module: torch.nn.Module, state: State, path: str) -> None:
    """Load weights into a module. Both must have the same tensors.

    Args:
        module: receives the weights.
        state: tensors by name, as `read_weights` finds them.
        path: of the weights file, for messages.

    Raises:
        WeightsError: tensors that are missing, unexpected or of another shape. Its message names them.
    """
    own = module.state_dict()
    entries = _rewrap(state, "", _wrappers(own))
    if not hasattr(entries, "_metadata"):
        entries._metadata = getattr(own, "_metadata", {})  # type: ignore[attr-defined]
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    for name, value in counters.items():
        # Counts of training steps: old files lack them, and inference does not use them.
        entries.setdefault(name, value)
    try:
        module.load_state_dict(entries)
    except Exception as error:
        raise WeightsError(
            f"{path} does not fit the teacher: {_misfit(own, entries, counters) or one_line(error)}"
        ) from None


def _misfit(own: Mapping[str, Any], state: Mapping[str, Any], ignored: Collection[str]) -> str:
    """Say which tensors of a file do not fit those of a model; "" if all do."""
    own, state = (
        {name: entries[name] for name in entries if name not in ignored} for entries in (own, state)
    )
    shapes = {name: (list(state[name].shape), list(own[name].shape)) for name in own if name in state}
    other = [
        f"{name}: {theirs} in the file, {ours} in the model"
        for name, (theirs, ours) in shapes.items()
        if theirs != ours
    ]
    groups = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": other,
    }
    text = "; ".join(
        f"{len(names)} {what} ({first_few(names, 3)})" for what, names in groups.items() if names
    )
    return text + (", so the file is of another architecture" if text and not shapes else "")


def head_classes(state: Mapping[str, torch.Tensor], heads: Iterable[str]) -> int | None:
    """Return the number of outputs of the first layer of `heads` that is in the weights; None if none is."""
    for head in heads:
        for name in (f"{head}.weight", f"{head}.bias"):
            if name in state and state[name].ndim:
                return int(state[name].shape[0])
    return None


def one_line(error: BaseException) -> str:
    """Return an error of other code as one short line: its type and the first line of its message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
