"""Models of timm and torchvision, with the weights they publish or a file's."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from slg_wds.errors import SlgWdsError, TeacherError, UnknownArchError
from slg_wds.teachers.built import Built
from slg_wds.teachers.identity import digest
from slg_wds.teachers.spec import TeacherSpec
from slg_wds.teachers.weights import fit, head_classes, one_line, read_weights

if TYPE_CHECKING:
    import torch


def build_timm(spec: TeacherSpec, num_classes_hint: int | None, input_size: int | None) -> Built:
    """Make a model of timm. An architecture that is made for one input size is made for `input_size`.

    Raises UnknownArchError, WeightsError, TeacherError.
    """
    import timm
    from timm import data

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
    resolve_config: Any = data.config.resolve_model_data_config
    own_config: dict[str, Any] = resolve_config(module)
    own: dict[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    arch = str(own.get("architecture") or name.partition(".")[0])
    tag = f"{arch}.{own['tag']}" if own.get("tag") else arch
    return Built(
        module,
        arch,
        digest(module),
        weights_from,
        own_config,
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


def build_torchvision(spec: TeacherSpec, num_classes_hint: int | None) -> Built:
    """Make a classification model of torchvision; `resnet50.IMAGENET1K_V1` names other weights than DEFAULT.

    Raises UnknownArchError, WeightsError, TeacherError.
    """
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
    return Built(
        module, base, digest(module), weights_from, config, f"the transforms of torchvision's {weights}"
    )


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
        with redirect_stdout(sys.stderr):  # torch.hub announces downloads where results go
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
