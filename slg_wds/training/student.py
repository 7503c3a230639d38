"""The student: its architecture, how it is shown pixels, and the moving average of its weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm import data as timm_data
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn

from slg_wds import LabelSet
from slg_wds.errors import UnknownArchError, UsageError
from slg_wds.teachers import Preprocessing, TeacherSpec
from slg_wds.teachers.preprocessing import resolve
from slg_wds.teachers.private import build_private
from slg_wds.teachers.published import building, timm_config
from slg_wds.training.distiller import Distiller
from slg_wds.training.flags import Settings
from slg_wds.training.optimizer import make_optimizer
from slg_wds.training.state import Progress, Training
from slg_wds.training.trial import refused_images

_SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")  # timm's own names with a colon


def make_student(
    args: Settings, num_classes: int, shown: Mapping[str, Any]
) -> tuple[nn.Module, Preprocessing]:
    """Build the student on the CPU, in the memory layout of the flags.

    Args:
        args: the flags.
        num_classes: its outputs; 0 for a model without a head.
        shown: settings of its preprocessing, as `shown_as` returns them.

    Returns:
        The model, and its own preprocessing but for the flags and what is `shown`.

    Raises:
        UnknownArchError: timm has no such model.
        UsageError: the model does not take --drop-path, --model-kwargs or --size.
        TeacherError: timm cannot build it, or its weights cannot be downloaded.
    """
    model, config, origin = _built(args, num_classes)
    resize: Any = getattr(model, "set_input_size", None)
    overrides = {
        "input_size": args.size or shown.get("input_size"),
        "interpolation": args.interpolation or shown.get("interpolation"),
    }
    size: Any = overrides["input_size"]
    if size and resize is not None:  # for models that are made for one size
        with refused_images(args, size):
            resize(img_size=size)
    fix_layout(model, torch.channels_last if args.channels_last else torch.contiguous_format)
    return model, resolve(config, origin, overrides)[0]


def fix_layout(model: nn.Module, layout: torch.memory_format) -> None:
    """Put a student's weights, and from now on all images that it is given, into a memory layout.

    Weights alone do not decide: torch computes a convolution in channels_last as soon as images or weights have it, and
    those who give images, in training and in each validation, have them as it suits them.
    """

    def images_laid_out(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(one.contiguous(memory_format=layout) for one in inputs)

    model.to(memory_format=layout)
    model.register_forward_pre_hook(images_laid_out)


def make_distiller(args: Settings, backbone: nn.Module, widths: Mapping[str, int], size: int) -> Distiller:
    """Give a student its projectors, as the flags say.

    Args:
        args: the flags.
        backbone: the student without a head.
        widths: of each teacher's embedding, by its name.
        size: side of the student's input.
    """
    return Distiller(backbone, widths, size, args.embedding_loss != "relation", args.embedding_norm)


def _built(args: Settings, num_classes: int) -> tuple[nn.Module, Mapping[str, Any], str]:
    """Return the model, the settings of its pixels, and where these come from."""
    if ":" in args.arch and not args.arch.startswith(_SCHEMES):
        if args.model_kwargs or args.drop_path is not None:
            raise UsageError(
                "--drop-path and --model-kwargs are for models of timm, not for a factory of your own"
            )
        built = build_private(TeacherSpec("private", args.arch))
        return built.module, built.config, built.config_from
    if ":" not in args.arch:
        _check_name(args.arch)
    model = _of_timm(args, num_classes)
    resolve_config: Any = timm_data.config.resolve_model_data_config
    return model, resolve_config(model), "timm"


def _check_name(name: str) -> None:
    """Raise UnknownArchError where timm has no such model, or no such weights of it."""
    if not timm.is_model(name.partition(".")[0]):
        near = difflib.get_close_matches(name, timm.list_models(), 4)
        raise UnknownArchError(f"timm has no model {name!r}", hint=f"near names are {', '.join(near)}")
    timm_config(name)


def _of_timm(args: Settings, num_classes: int) -> nn.Module:
    options: dict[str, Any] = {
        "pretrained": args.pretrained,
        "num_classes": num_classes,
        "drop_path_rate": args.drop_path,
    }
    with building(TeacherSpec("timm", args.arch)):
        try:
            model: nn.Module = timm.create_model(args.arch, **options, **args.model_kwargs)
        except (TypeError, ValueError, AssertionError) as error:
            if not args.model_kwargs and args.drop_path is None:
                raise
            raise UsageError(
                f"timm's {args.arch} does not take --drop-path or --model-kwargs so: {error}"
            ) from None
    return model


def shown_as(labels: list[LabelSet], checkpoint: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return in which way images are shown to the student if no flag says it, as settings of `Preprocessing`.

    To learn, it sees crops that are resized as the first teacher's were. To be validated later, it sees images as it
    did in training, which its checkpoint says.
    """
    if labels:
        teachers = labels[0].identity.teachers
        return {"interpolation": teachers[0].get("interpolation")} if teachers else {}
    return (checkpoint or {}).get("preprocessing") or {}


def set_up(
    args: Settings,
    model: nn.Module,
    preprocessing: Preprocessing,
    checkpoint: Mapping[str, Any] | None = None,
) -> Training:
    """Move the student to the device, wrap it, and make its optimizer and its average.

    Training averages if --ema says so. To be validated, a student has an average where its checkpoint has one: by that
    the best checkpoint was chosen.
    """
    if args.sync_bn and args.ranks > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    model.to(args.device)
    averages = (checkpoint or {}).get("ema") is not None if args.evaluate else args.ema > 0
    average = make_average(model, args.ema) if averages else None
    net: nn.Module = model
    if args.ranks > 1:
        ids = [args.device.index] if args.device.type == "cuda" else None
        net = nn.parallel.DistributedDataParallel(model, device_ids=ids)
    if args.compile:
        net = torch.compile(net)  # type: ignore[assignment]
    scaler = torch.amp.GradScaler(args.device.type, enabled=args.amp == "fp16")
    progress = Progress(epoch=args.start_epoch)
    return Training(model, net, average, make_optimizer(args, model), scaler, preprocessing, progress)


def make_average(model: nn.Module, decay: float) -> ModelEmaV3:
    """Return an exponential moving average of all weights and buffers, which starts as the model is now.

    It updates all tensors in a few calls (`foreach`), not one by one.

    Args:
        model: the student on its device.
        decay: 0..1; each update keeps this part of the average.
    """
    return ModelEmaV3(model, decay=decay, foreach=True)
