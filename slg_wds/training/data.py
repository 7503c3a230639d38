"""The label sets of a run, and the loader of a walk over them."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from slg_wds import LabelSet, SoftLabelLoader, open_labels
from slg_wds.config import SOFTLABEL_PATH, flags_that_fit, parse_store_options
from slg_wds.console import counted
from slg_wds.errors import (
    BatchTooLargeError,
    IncompleteSetError,
    LabelSetError,
    NotALabelSetError,
    UsageError,
)
from slg_wds.training.distiller import widths_of
from slg_wds.training.flags import Settings, check_chains
from slg_wds.training.processes import threads_of
from slg_wds.training.schedule import label_temperature

if TYPE_CHECKING:
    from slg_wds.replay.device import DeviceLoader
    from slg_wds.teachers import Preprocessing


def open_sets(args: Settings) -> list[LabelSet]:
    """Open the sets of --softlabel_path.

    Raises:
        LabelSetError: a set is not there, is not finished, or does not hold what --distill says.
        UsageError: no set is given; one extends a set that is not; views that are mixed would be mixed again.
    """
    sets = [_open(args, url) for url in args.softlabel_path]
    mixed = next((labels for labels in sets if labels.has_mixing), None)
    if args.mixup_cutmix and mixed is not None:
        raise UsageError(
            "its views have other images mixed in already, and --mixup_cutmix would mix four images",
            url=mixed.url,
            hint="leave out --mixup_cutmix",
        )
    check_chains(sets)
    if args.distills:
        widths_of(sets)
        return sets
    for labels in sets:
        if labels.holds_embeddings:
            raise LabelSetError(
                "the set holds embeddings",
                url=labels.url,
                hint="--distill embedding trains a student on them",
            )
    return sets


def _open(args: Settings, url: str) -> LabelSet:
    try:
        return open_labels(url, store_options=parse_store_options(args.store_option))
    except NotALabelSetError:
        if url != SOFTLABEL_PATH:
            raise
        text = f"there is no label set in {url}, the default of --softlabel_path"
        raise UsageError(text, hint="give --softlabel_path LABELS") from None
    except IncompleteSetError as error:
        error.hint = "finish it with the command that began it"  # no flag takes it as it is
        raise


def taught_widths(labels: list[LabelSet], checkpoint: dict[str, Any] | None) -> dict[str, int]:
    """Return the width of each embedding by its teacher's name: of the sets, without sets of the checkpoint."""
    if labels:
        return widths_of(labels)
    states = (checkpoint or {}).get("projectors") or {}
    return {name: len(state["weight"]) for name, state in states.items()}


def classes_of(args: Settings, labels: list[LabelSet], checkpoint: dict[str, Any] | None) -> int:
    """Return the classes of the student: those of the labels, without labels those of the flag or checkpoint.

    A student of embeddings has none.

    Raises:
        UsageError: the flag contradicts the labels.
    """
    if args.distills:
        return 0
    if not labels:
        return args.num_classes or (checkpoint or {}).get("num_classes") or 1000
    stored = labels[0].num_classes
    if args.num_classes not in (None, stored):
        raise UsageError(
            f"--num_classes {args.num_classes}, but the labels are over {stored}", url=labels[0].url
        )
    return stored


def batch_crops(args: Settings) -> int:
    """Return the crops of a batch: as in FKD, -b rounded up to whole images of --num_crops crops."""
    return ceil(args.batch_size / args.num_crops) * args.num_crops


def scale_of(args: Settings, labels: list[LabelSet], checkpoint: dict[str, Any] | None) -> float | None:
    """Return by what the teacher's logits are multiplied to be those of a student that learned them exactly.

    It learns labels of temperature T with its own logits divided by --temp, so this is --temp / T. T is the last one of
    --label-temp, else the one at which the labels were made. To be validated, a student has what its checkpoint says.

    Returns:
        None if nothing says it, or if the labels have no T: hard ones are the same at each.
    """
    last = args.label_temp_end or args.label_temp
    if labels and "hard" in (args.soft_label_type, labels[0].label_type):
        return None
    if last is None and labels:
        last = next((one.temperature for one in labels if one.temperature is not None), 1.0)
    if last is None:
        return (checkpoint or {}).get("logit_scale")
    return args.temp / last


def open_loader(
    args: Settings, labels: list[LabelSet], preprocessing: Preprocessing, crops: int
) -> DeviceLoader:
    """Return the loader of walks with `crops` crops of an image; its batches are on the device.

    Raises:
        UsageError: there are no images.
        BatchTooLargeError: they do not fill a batch.
    """
    try:
        loader = _loader(args, labels, preprocessing, crops)
    except BatchTooLargeError as error:
        raise _explained(error, args) from None
    return loader.to(args.device, preprocessing.mean, preprocessing.std)


def _explained(error: BatchTooLargeError, args: Settings) -> BatchTooLargeError:
    """Say in flags of this command which batch is too large, in which walks, and which one is not."""
    error.message = (
        f"{counted(error.images, 'image')} cannot fill a batch of {counted(batch_crops(args), 'crop')}: the last "
        f"{counted(args.num_crops, 'epoch')} (--num_crops) take one crop of each image"
    )
    fitting = flags_that_fit(error.images, args.num_crops, args.ranks)
    error.hint = (
        f"{fitting} fits" if fitting else f"start fewer than {counted(args.ranks, 'process', 'processes')}"
    )
    return error


def _loader(
    args: Settings, labels: list[LabelSet], preprocessing: Preprocessing, crops: int
) -> SoftLabelLoader:
    embedded = any(one.identity.embed_images for one in labels)
    if not embedded and args.data is None:
        raise UsageError("the label set has no images in it", hint="give IMAGES", url=labels[0].url)
    return SoftLabelLoader(
        labels,
        None if embedded else args.data,
        global_batch_size=batch_crops(args),  # as in FKD, walks with one crop have batches as large
        crops_per_image=crops,
        size=preprocessing.input_size,
        interpolation=preprocessing.interpolation,
        rule="full" if args.soft_label_type == "ori" else args.soft_label_type,
        weights=args.label_weights,
        temperature=label_temperature(args, crops),
        crop_filter=args.crop_filter and tuple(args.crop_filter),
        seed=args.seed,
        threads=max(threads_of(args), args.loader_processes),
        processes=args.loader_processes,
        cache_dir=args.cache_dir,
        store_options=parse_store_options(args.store_option),
    )


def digest_of(loader: DeviceLoader) -> str:
    """Return the first 16 digits of the digest of a loader's label sets: the same labels anywhere have the same."""
    return loader.loader.sets.digest[:16]
