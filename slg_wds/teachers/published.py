"""Models of timm and torchvision, with published weights or the weights in a file."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from slg_wds.errors import SlgWdsError, TeacherError, UnknownArchError
from slg_wds.teachers.built import BuiltModel
from slg_wds.teachers.identity import digest
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.towers.headless import without_timm_head, without_torchvision_head
from slg_wds.teachers.weights import Weights, fit, head_classes, one_line, read_weights

if TYPE_CHECKING:
    import torch

# These models of torchvision can convert pixels from ImageNet's mean and std to their own. torchvision turns that on
# only for pretrained weights. A file does not say whether its weights were trained with it. It is always turned on,
# since label sets know such a teacher by the digest of its weights alone, and existing ones were made with it.
_CONVERTING = ("googlenet", "inception_v3")
_OF_CONVERSION = (
    " with transform_input=True, as torchvision's published weights have it (weights trained without it need "
    "private:, a function of yours that returns the model)"
)


def build_timm(
    spec: TeacherSpec, num_classes_hint: int | None, input_size: int | None, headless: bool = False
) -> BuiltModel:
    """Build a model of timm.

    Args:
        spec: which model and weights.
        num_classes_hint: number of the model's outputs, used if a weights file does not tell it.
        input_size: side of the input in pixels, for architectures that are built for one size; None: the model's own.
        headless: remove the model's head.

    Raises:
        UnknownArchError, WeightsError, TeacherError: no such model or weights, or it cannot be built.
    """
    import timm
    from timm import data

    # Names of old releases, such as the one in FKD's example, have new names that include the weights' tag.
    name = timm.models.get_deprecated_models().get(spec.arch) or spec.arch
    published = None if ":" in name else timm_config(name)
    weights = None if spec.path is None else read_weights(spec.path)
    if weights is not None:
        input_size = input_size or weights.shown.get("input_size")
    kwargs: dict[str, Any] = {}
    if published and published.fixed_input_size and input_size and not headless:
        kwargs = {"img_size": input_size} if tuple(published.input_size[1:]) != (input_size,) * 2 else {}
    if weights is None:
        with building(spec):
            module = timm.create_model(name, pretrained=True, **kwargs)
    else:
        kwargs |= {"num_classes": 0} if headless else {}
        module = _fill_timm(spec, weights, name, published, num_classes_hint, kwargs)
    if headless:
        module = without_timm_head(module, spec.name, input_size)
    resolve_config: Any = data.config.resolve_model_data_config
    own: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    arch = str(own.get("architecture") or name.partition(".")[0])
    config_from = "timm's pretrained_cfg of " + (f"{arch}.{own['tag']}" if own.get("tag") else arch)
    config = resolve_config(module)
    if weights is not None:
        config, config_from = weights.own(config, config_from)
    weights_from = weights.found if weights else f"timm {name}"
    folders = weights.class_folders if weights else None
    return BuiltModel(module, arch, digest(module), weights_from, config, config_from, class_folders=folders)


def _fill_timm(
    spec: TeacherSpec,
    weights: Weights,
    name: str,
    published: Any,
    num_classes_hint: int | None,
    kwargs: dict[str, Any],
) -> torch.nn.Module:
    """Return a model of timm with the weights of a file."""
    import timm

    assert spec.path is not None
    heads = (published.classifier or ()) if published else ()
    classes = head_classes(weights.state, (heads,) if isinstance(heads, str) else heads) or num_classes_hint
    if classes:
        kwargs = {**kwargs, "num_classes": classes}
    with building(spec):
        module: torch.nn.Module = timm.create_model(name, pretrained=False, **kwargs)
    fit(module, weights.state, spec.path)
    return module


def timm_config(name: str) -> Any:
    """Return timm's pretrained_cfg of a model and weights tag. Raises UnknownArchError."""
    import timm

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


def build_torchvision(spec: TeacherSpec, num_classes_hint: int | None, headless: bool = False) -> BuiltModel:
    """Build a classification model of torchvision.

    Args:
        spec: which model and weights. `resnet50.IMAGENET1K_V1` names other weights than DEFAULT.
        num_classes_hint: number of the model's outputs, used if a weights file does not tell it.
        headless: remove the model's head.

    Raises:
        UnknownArchError, WeightsError, TeacherError: no such model or weights, or it cannot be built.
    """
    from torchvision import models

    base, published = _torchvision_weights(spec.arch)
    weights = None if spec.path is None else read_weights(spec.path)
    if weights is None:
        with building(spec):
            # torchvision unpickles the file that it downloads: read it first in the way that runs nothing.
            published.get_state_dict(progress=True, check_hash=True, weights_only=True)
            module = models.get_model(base, weights=published)
    else:
        module = _fill_torchvision(spec, weights, base, num_classes_hint)
    if headless:
        module = without_torchvision_head(module, spec.name)
    own = published.transforms()
    config: Mapping[str, Any] = {
        "input_size": own.crop_size[0],
        "crop_pct": own.crop_size[0] / own.resize_size[0],
        **{name: getattr(own, name) for name in ("mean", "std", "interpolation")},
    }
    config_from = f"the transforms of torchvision's {published}"
    if weights is not None:
        config, config_from = weights.own(config, config_from)
    weights_from, folders = f"torchvision {published}", None
    if weights is not None:
        weights_from = weights.found + (_OF_CONVERSION if base in _CONVERTING else "")
        folders = weights.class_folders
    return BuiltModel(module, base, digest(module), weights_from, config, config_from, class_folders=folders)


def _torchvision_weights(arch: str) -> tuple[str, Any]:
    """Return (the model's name, its published weights) of `NAME` or `NAME.WEIGHTS`. Raises UnknownArchError."""
    from torchvision import models

    base, _, tag = arch.partition(".")
    if base not in _torchvision_names():
        import timm

        raise _unknown(
            f"torchvision has no model {base!r}", base, _torchvision_names(), timm.list_models(), "timm"
        )
    known = models.get_model_weights(base)
    if tag and tag not in known.__members__:
        names = ", ".join(known.__members__)
        raise UnknownArchError(f"torchvision has no weights {tag!r} for {base}", hint=f"known are {names}")
    return base, known[tag] if tag else known.DEFAULT


def _fill_torchvision(
    spec: TeacherSpec, weights: Weights, base: str, num_classes_hint: int | None
) -> torch.nn.Module:
    """Return a model of torchvision with the weights of a file."""
    from torchvision import models

    assert spec.path is not None
    special = {"transform_input": True, "init_weights": False} if base in _CONVERTING else {}
    with building(spec):
        module: torch.nn.Module = models.get_model(base, weights=None, **special)
        own = module.state_dict()
        # torchvision does not say which layer is the head. It is the last one with 1000 outputs.
        heads = [
            name.removesuffix(".weight")
            for name in own
            if name.endswith(".weight") and len(own[name]) == 1000
        ]
        classes = head_classes(weights.state, heads[-1:]) or num_classes_hint
        if classes not in (None, 1000):
            module = models.get_model(base, weights=None, num_classes=classes, **special)
    fit(module, weights.state, spec.path)
    return module


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
def building(spec: TeacherSpec) -> Iterator[None]:
    """Turn any error of timm, torchvision or the network into a TeacherError of one line."""
    try:
        with redirect_stdout(sys.stderr):  # torch.hub announces downloads on stdout, which is for results
            yield
    except SlgWdsError:
        raise
    except Exception as error:
        if "No pretrained weights" in str(error):
            raise TeacherError(
                f"{spec.source} has no pretrained weights for {spec.arch}",
                hint="give a file of weights by --teacher-path",
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
                hint="download them where there is a network and give the file by --teacher-path",
            ) from None
        raise TeacherError(f"{spec.name} could not be built: {one_line(error)}") from None
