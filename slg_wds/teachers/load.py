"""Load teachers: a spec -> a teacher; the options of a command -> an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slg_wds.banks import read_bank
from slg_wds.concurrency.devices import device_here
from slg_wds.concurrency.rank import local_rank
from slg_wds.errors import TeacherError, UsageError
from slg_wds.teachers.built import BuiltModel
from slg_wds.teachers.ensemble import Ensemble
from slg_wds.teachers.faults import device_faults
from slg_wds.teachers.preprocessing import check_overrides, resolve
from slg_wds.teachers.private import build_private
from slg_wds.teachers.published import build_timm, build_torchvision
from slg_wds.teachers.spec import TeacherSpec, parse_teachers
from slg_wds.teachers.teacher import Teacher, check_precision
from slg_wds.teachers.towers.prototypes import PrototypeTower
from slg_wds.teachers.towers.towers import Towers
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
    headless: bool = False,
) -> Teacher:
    """Build the model, load its weights, resolve its preprocessing, and run it on two black images.

    Args:
        spec: which model and weights.
        num_classes_hint: number of the model's outputs, used if a weights file does not tell it.
        input_size: side of the square input in pixels. This and the next four replace the model's own settings: see
            `Preprocessing`.
        mean: one number per channel, for pixels in 0..1.
        std: one number per channel, for pixels in 0..1.
        interpolation: how crops are resized.
        crop_pct: for evaluation only: the part of the resized shorter side that the centre crop keeps.
        device: `cpu`, `cuda`, `cuda:1`, ...
        precision: `fp32` (no TF32), `tf32` (fp32 whose products a GPU rounds), `bf16` or `fp16` (autocast).
        compile: whether the first forward compiles the normalisation and the model (torch.compile).
        headless: remove the head of a published model, so that the teacher gives embeddings; a private model must have
            none.

    Raises:
        UsageError: a setting that is invalid, or a device that this machine lacks.
        TeacherError: a model that cannot be built or run.
        DeviceError: the device failed.
    """
    overrides = dict(zip(OVERRIDES, (input_size, mean, std, interpolation, crop_pct), strict=True))
    check_overrides(overrides)
    where = _device(device, precision)
    model = _build(spec, num_classes_hint, input_size, headless)
    return _teacher_of(model, spec.source, overrides, device=where, precision=precision, compile=compile)


def _build(
    spec: TeacherSpec, num_classes_hint: int | None, input_size: int | None, headless: bool
) -> BuiltModel:
    if spec.source == "timm":
        return build_timm(spec, num_classes_hint, input_size, headless)
    if spec.source == "pytorch":
        return build_torchvision(spec, num_classes_hint, headless)
    return build_private(spec)


def _teacher_of(model: BuiltModel, source: str, overrides: Mapping[str, Any], **placing: Any) -> Teacher:
    """Make a teacher. If it fails at an input size that is not the model's own, the error's hint says so."""
    preprocessing, preprocessing_from = resolve(model.config, model.config_from, overrides)
    try:
        return Teacher(model, source, preprocessing, preprocessing_from, **placing)
    except TeacherError as error:
        own, _ = resolve(model.config, model.config_from, {})
        if error.hint is None and preprocessing.input_size != own.input_size:
            error.hint = f"--input-size {preprocessing.input_size} is not the model's own, {own.input_size}"
        raise


def load_ensemble(
    config: Any,
    subset_of: Callable[[Sequence[Teacher]], Sequence[int] | None],
    device: str | None = None,
    settings: Sequence[Mapping[str, Any]] | None = None,
    rows: int = CPU_ROWS,
) -> Ensemble:
    """Load every teacher that the options name, and try each: see trial.py.

    Args:
        config: a TeacherConfig; its `temp` is the temperature if it has one, else 1. If its `output` is "embedding",
            the teachers have no heads, and `Towers` are returned; if "prototypes", one without a head and its `bank`.
        subset_of: the teachers -> the classes to keep, or None to keep all.
        device: where to run; None: the config's GPU, else this process's own device.
        settings: for each teacher, its overrides by the names in OVERRIDES; None: those of the config for all.
        rows: number of crops in each forward of the run that follows; the trial uses as many.

    Raises:
        UsageError, TeacherError, DeviceError: as `parse_teachers`, `load_teacher`, `Ensemble` and `try_teacher`.
    """
    paths = [config.teacher_path] if config.teacher_path else []
    specs = parse_teachers(config.arch, config.teacher_source, paths, config.weights)
    teachers = _load_all(specs, config, device or device_of(config), settings)
    ensemble = _joined(teachers, [spec.weight for spec in specs], config, subset_of)
    for teacher in teachers:
        with device_faults(teacher.device, f"{teacher.name} failed in its trial"):
            _use_graph(teacher, rows, getattr(config, "cuda_graph", "off"))
            try_teacher(teacher, rows, ensemble.temperature, embeds=_output(config) != "labels")
    return ensemble


def _joined(
    teachers: Sequence[Teacher],
    weights: Sequence[float],
    config: Any,
    subset_of: Callable[[Sequence[Teacher]], Sequence[int] | None],
) -> Ensemble:
    if _output(config) == "embedding":
        return Towers(teachers, config.normalize)
    if _output(config) == "prototypes":
        return PrototypeTower(teachers, read_bank(config.bank), config.bank_temp)
    temperature = getattr(config, "temp", 1.0)
    return Ensemble(teachers, weights, temperature=temperature, class_subset=subset_of(teachers))


def _output(config: Any) -> str:
    return str(getattr(config, "output", "labels"))


def _use_graph(teacher: Teacher, rows: int, wanted: str) -> None:
    """Record the forward as a CUDA graph, as --cuda-graph says: `auto` where it can be done, `on` or else an error."""
    if teacher.device.type != "cuda":
        if wanted == "on":
            raise UsageError(f"--cuda-graph on is for GPUs, not {teacher.device.type}", hint="leave it out")
        return
    if wanted != "off":
        teacher.use_graph(rows)
    if wanted == "on" and teacher.no_graph:
        raise TeacherError(
            f"no CUDA graph of {teacher.name}: {teacher.no_graph}", hint="leave out --cuda-graph on"
        )


def _load_all(
    specs: Sequence[TeacherSpec], config: Any, device: str, settings: Sequence[Mapping[str, Any]] | None
) -> list[Teacher]:
    if settings is None:
        settings = [{name: getattr(config, name) for name in OVERRIDES}] * len(specs)
    return [
        load_teacher(
            spec,
            device=device,
            precision=config.precision,
            compile=config.compile,
            headless=_output(config) != "labels",
            **overrides,
        )
        for spec, overrides in zip(specs, settings, strict=True)
    ]


def device_of(config: Any) -> str:
    """Return where a command's teachers run by its options: its --gpu, else this process's own device."""
    import torch

    if config.gpu is not None:
        return f"cuda:{config.gpu}"
    return own_device(torch.cuda.device_count() if torch.cuda.is_available() else 0)


def own_device(gpus: int) -> str:
    """Return the device of a process that was given none.

    Args:
        gpus: number of GPUs of this machine. With several, each process takes the one of its local rank.
    """
    if not gpus:
        return "cpu"
    return f"cuda:{(local_rank() or 0) % gpus}"


def _device(device: torch.device | str, precision: str) -> torch.device:
    """Return a device that this machine has and that can compute at a precision. Raises UsageError."""
    where = device_here(device)
    check_precision(precision, where)
    return where
