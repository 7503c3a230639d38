"""A spec -> a teacher."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.concurrency.rank import local_rank
from slg_wds.errors import TeacherError, UsageError
from slg_wds.teachers.built import Built
from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.faults import device_faults
from slg_wds.teachers.preprocessing import check_overrides, resolve
from slg_wds.teachers.private import build_private
from slg_wds.teachers.published import build_timm, build_torchvision
from slg_wds.teachers.spec import TeacherSpec, parse_teachers
from slg_wds.teachers.teacher import Teacher, check_precision
from slg_wds.teachers.trial import CPU_ROWS, try_teacher

if TYPE_CHECKING:
    import torch

OVERRIDES = ("input_size", "mean", "std", "interpolation", "crop_pct")


def load_teacher(
    spec: TeacherSpec,
    *,
    num_classes_hint: int | None = None,
    input_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    crop_pct: float | None = None,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    compile: bool = False,
) -> Teacher:
    """Make the model, load its weights, find out how it wants its pixels, and try it on two black images.

    Preprocessing is the model's own: timm's pretrained_cfg; the transforms of torchvision's weights, those called
    DEFAULT unless `-a resnet50.IMAGENET1K_V1` names others, also where the weights come from a file; what a private
    factory returns beside its module, or its `preprocessing`, `pretrained_cfg` or `default_cfg`. What none of them
    says is ImageNet's default: 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bilinear, 0.875.

    Args:
        num_classes_hint: width of the head where a weights file does not tell it.
        input_size, mean, std, interpolation, crop_pct: in place of the model's own.
        device: `cpu`, `cuda`, `cuda:1`, ...
        precision: `fp32` (no TF32), `tf32` (fp32 whose products a GPU rounds), `bf16` or `fp16` (autocast).
        compile: torch.compile the normalisation and the model, at the first forward.

    Raises:
        UsageError: settings that cannot be.
        TeacherError: the model cannot be made or run; UnknownArchError, WeightsError, TeacherOutputError below it.
    """
    overrides = {
        "input_size": input_size,
        "mean": mean,
        "std": std,
        "interpolation": interpolation,
        "crop_pct": crop_pct,
    }
    check_overrides(overrides)
    where = _device(device)
    check_precision(precision, where)
    built = _build(spec, num_classes_hint, input_size)
    preprocessing, preprocessing_from = resolve(built.config, built.config_from, overrides)
    try:
        return Teacher(
            built.module,
            source=spec.source,
            arch=built.arch,
            weights_digest=built.digest,
            weights_from=built.weights_from,
            preprocessing=preprocessing,
            preprocessing_from=preprocessing_from,
            device=where,
            precision=precision,
            compile=compile,
            hidden_digest=built.hidden_digest,
        )
    except TeacherError as error:
        own, _ = resolve(built.config, built.config_from, {})
        if error.hint is None and preprocessing.input_size != own.input_size:
            error.hint = f"--input_size {preprocessing.input_size} is not the model's own, {own.input_size}"
        raise


def load_ensemble(
    config: Any,
    subset_of: Callable[[int], Sequence[int] | None],
    device: str | None = None,
    settings: Sequence[Mapping[str, Any]] | None = None,
    rows: int = CPU_ROWS,
) -> Ensemble:
    """Load every teacher that the options name, and try each: see trial.py.

    Args:
        config: a TeacherConfig; its `temp` where it has one.
        subset_of: from the teachers' number of classes to the classes to keep, None for all.
        device: where to run; None: the config's GPU, else this process's own device.
        settings: each teacher's own overrides, by the names in OVERRIDES; None: the config's for all.
        rows: crops in a forward of what follows.

    Raises:
        UsageError, TeacherError: as parse_teachers, load_teacher and Ensemble do.
    """
    import torch

    paths = [config.teacher_path] if config.teacher_path else []
    specs = parse_teachers(config.arch, config.teacher_source, paths, config.weights)
    if device is None and config.gpu is not None:
        device = f"cuda:{config.gpu}"
    device = device or own_device(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    if settings is None:
        settings = [{name: getattr(config, name) for name in OVERRIDES}] * len(specs)
    teachers = [
        load_teacher(
            spec,
            device=device,
            precision=config.precision,
            compile=config.compile,
            **given,
        )
        for spec, given in zip(specs, settings, strict=True)
    ]
    ensemble = Ensemble(
        teachers,
        [spec.weight for spec in specs],
        temperature=getattr(config, "temp", 1.0),
        class_subset=subset_of(teachers[0].num_classes),
    )
    for teacher in teachers:
        with device_faults(teacher.device, f"{teacher.name} failed in its trial"):
            try_teacher(teacher, rows, ensemble.temperature)
    return ensemble


def own_device(gpus: int) -> str:
    """The device of a process that was not told one: of several GPUs the one that its launcher numbered it for."""
    if not gpus:
        return "cpu"
    return f"cuda:{(local_rank() or 0) % gpus}"


def _build(spec: TeacherSpec, num_classes_hint: int | None, input_size: int | None) -> Built:
    if spec.source == "timm":
        return build_timm(spec, num_classes_hint, input_size)
    if spec.source == "pytorch":
        return build_torchvision(spec, num_classes_hint)
    return build_private(spec)


def _device(device: torch.device | str) -> torch.device:
    import torch

    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}", hint="write cpu, cuda or cuda:N") from None
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"no device {where}, this machine has {torch.cuda.device_count()} of that kind")
    return where
