"""Where modules come from: timm, torchvision, and private factories named on the command line."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slg_wds.errors import SlgWdsError, TeacherError, UnknownArchError
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.weights import fit, head_classes, one_line, read_weights

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Built:
    """Attributes:
    module: the model with its weights, on the CPU.
    arch: its architecture alone, as it is recorded: no weights tag, no folders. The digest says which weights.
    weights_from: in words where the weights are from.
    config: its own preprocessing, possibly incomplete.
    config_from: in words where that is from.
    """

    module: torch.nn.Module
    arch: str
    weights_from: str
    config: Mapping[str, Any] = field(default_factory=dict)
    config_from: str = ""


def build(spec: TeacherSpec, *, num_classes_hint: int | None = None, input_size: int | None = None) -> Built:
    """Make the model of `spec` with its weights.

    Args:
        num_classes_hint: width of the head where weights come from a file that does not tell it.
        input_size: side of the input asked for; architectures that are made for one size are made for this one.

    Raises:
        UnknownArchError, WeightsError, TeacherError
    """
    if spec.source == "timm":
        return _build_timm(spec, num_classes_hint, input_size)
    if spec.source == "pytorch":
        return _build_torchvision(spec, num_classes_hint)
    return _build_private(spec)


def _build_timm(spec: TeacherSpec, num_classes_hint: int | None, input_size: int | None) -> Built:
    import timm
    import timm.data

    # Names of old releases, as in FKD's own example, have new names with the weights' tag in them.
    name = timm.models.get_deprecated_models().get(spec.arch) or spec.arch
    config = None if ":" in name else _timm_config(timm, name)
    kwargs: dict[str, Any] = {}
    if (
        config
        and config.fixed_input_size
        and input_size
        and tuple(config.input_size[1:]) != (input_size,) * 2
    ):
        kwargs["img_size"] = input_size
    if spec.path is None:
        with _making(spec):
            module = timm.create_model(name, pretrained=True, **kwargs)
        weights_from = f"timm {name}"
    else:
        state, weights_from = read_weights(spec.path)
        heads = (config.classifier or ()) if config else ()
        classes = head_classes(state, (heads,) if isinstance(heads, str) else heads) or num_classes_hint
        kwargs |= {"num_classes": classes} if classes else {}
        with _making(spec):
            module = timm.create_model(name, pretrained=False, **kwargs)
        fit(module, state, spec.path)
    own: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    arch = str(own.get("architecture") or name.partition(".")[0])
    tag = f"{arch}.{own['tag']}" if own.get("tag") else arch
    return Built(
        module,
        arch,
        weights_from,
        timm.data.resolve_model_data_config(module),
        f"timm's pretrained_cfg of {tag}",
    )


def _timm_config(timm: Any, name: str) -> Any:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        others = _torchvision_names()
        raise _unknown(f"timm has no model {base!r}", base, timm.list_models(), others, "pytorch")
    try:
        return timm.get_pretrained_cfg(name)
    except RuntimeError:
        known = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
        raise UnknownArchError(
            f"timm has no weights {tag!r} for {base}", hint=f"known are {', '.join(known) or 'none'}"
        ) from None


def _build_torchvision(spec: TeacherSpec, num_classes_hint: int | None) -> Built:
    from torchvision import models

    base, _, tag = spec.arch.partition(".")
    if base not in _torchvision_names():
        import timm

        raise _unknown(
            f"torchvision has no model {base!r}", base, _torchvision_names(), timm.list_models(), "timm"
        )
    known = models.get_model_weights(base)
    if tag and tag not in known.__members__:
        names = ", ".join(known.__members__)
        raise UnknownArchError(f"torchvision has no weights {tag!r} for {base}", hint=f"known are {names}")
    weights = known[tag] if tag else known.DEFAULT
    if spec.path is None:
        with _making(spec):
            # torchvision unpickles what it downloads; read it once without running anything first.
            weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
            module = models.get_model(base, weights=weights)
        weights_from = f"torchvision {weights}"
    else:
        module, weights_from = _fill_torchvision(spec, base, num_classes_hint)
    own = weights.transforms()
    config = {
        "input_size": own.crop_size[0],
        "crop_pct": own.crop_size[0] / own.resize_size[0],
        **{name: getattr(own, name) for name in ("mean", "std", "interpolation")},
    }
    return Built(module, base, weights_from, config, f"the transforms of torchvision's {weights}")


def _fill_torchvision(
    spec: TeacherSpec, base: str, num_classes_hint: int | None
) -> tuple[torch.nn.Module, str]:
    from torchvision import models

    assert spec.path is not None
    state, weights_from = read_weights(spec.path)
    # These two move pixels from ImageNet's mean and std to their own, and are made so only with pretrained weights.
    special = (
        {"transform_input": True, "init_weights": False} if base in ("googlenet", "inception_v3") else {}
    )
    with _making(spec):
        module: torch.nn.Module = models.get_model(base, weights=None, **special)
        own = module.state_dict()
        # torchvision does not say which layer is the head: it is the last one with a thousand outputs.
        heads = [
            name.removesuffix(".weight")
            for name in own
            if name.endswith(".weight") and len(own[name]) == 1000
        ]
        classes = head_classes(state, heads[-1:]) or num_classes_hint
        if classes not in (None, 1000):
            module = models.get_model(base, weights=None, num_classes=classes, **special)
    fit(module, state, spec.path)
    return module, weights_from


def _torchvision_names() -> list[str]:
    from torchvision import models

    return list(models.list_models(module=models))


def _unknown(
    what: str, name: str, known: Iterable[str], others: Iterable[str], other_source: str
) -> UnknownArchError:
    if name in set(others):
        return UnknownArchError(what, hint=f"{other_source} has: -a {other_source}:{name}")
    near = difflib.get_close_matches(name, list(known), 4, 0.6)
    return UnknownArchError(what, hint=f"near names are {', '.join(near)}" if near else None)


@contextmanager
def _making(spec: TeacherSpec) -> Iterator[None]:
    """Turn what goes wrong in timm, torchvision or the network into one line."""
    try:
        yield
    except SlgWdsError:
        raise
    except Exception as error:
        if "No pretrained weights" in str(error):
            raise TeacherError(
                f"{spec.source} has no pretrained weights for {spec.arch}",
                hint="give a file of weights by --teacher_path",
            ) from None
        package = type(error).__module__.partition(".")[0]
        if isinstance(error, OSError) or package in (
            "huggingface_hub",
            "httpx",
            "requests",
            "urllib3",
            "http",
        ):
            raise TeacherError(
                f"the weights of {spec.name} could not be downloaded: {one_line(error)}",
                hint="download them where there is a network and give the file by --teacher_path",
            ) from None
        raise TeacherError(f"{spec.name} could not be made: {one_line(error)}") from None


def _build_private(spec: TeacherSpec) -> Built:
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
    return Built(
        module, f"{Path(target).name if is_file else target}:{name}", weights_from, config, config_from
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
