"""The label sets of a run, and the loader of a walk over them."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from slg_wds import LabelSet, SoftLabelLoader, open_labels
from slg_wds.config import parse_store_options
from slg_wds.errors import UsageError
from slg_wds.training.flags import Settings
from slg_wds.training.processes import threads_of
from slg_wds.training.schedule import label_temperature

if TYPE_CHECKING:
    from slg_wds.replay.device import DeviceLoader
    from slg_wds.teachers import Preprocessing


def open_sets(args: Settings) -> list[LabelSet]:
    """Open the sets of --softlabel_path. Raises LabelSetError for one of embeddings."""
    options = parse_store_options(args.store_option)
    sets = [open_labels(url, store_options=options) for url in args.softlabel_path]
    for labels in sets:
        labels.refuse_embeddings()
    return sets


def classes_of(args: Settings, labels: list[LabelSet], checkpoint: dict[str, Any] | None) -> int:
    """Return the classes of the student: those of the labels, without labels those of the flag or checkpoint.

    Raises:
        UsageError: the flag contradicts the labels.
    """
    if not labels:
        return args.num_classes or (checkpoint or {}).get("num_classes") or 1000
    stored = labels[0].num_classes
    if args.num_classes not in (None, stored):
        raise UsageError(
            f"--num_classes {args.num_classes}, but the labels are over {stored}", url=labels[0].url
        )
    return stored


def open_loader(
    args: Settings, labels: list[LabelSet], preprocessing: Preprocessing, crops: int
) -> DeviceLoader:
    """Return the loader of walks with `crops` crops of an image; its batches are on the device.

    Raises:
        UsageError: there are no images.
    """
    embedded = any(one.identity.embed_images for one in labels)
    if not embedded and args.data is None:
        raise UsageError("the label set has no images in it", hint="give IMAGES", url=labels[0].url)
    loader = SoftLabelLoader(
        labels,
        None if embedded else args.data,
        # As in FKD: the images of a batch are rounded up, and walks with one crop have batches as large.
        global_batch_size=ceil(args.batch_size / args.num_crops) * args.num_crops,
        crops_per_image=crops,
        size=preprocessing.input_size,
        interpolation=preprocessing.interpolation,
        rule="full" if args.soft_label_type == "ori" else args.soft_label_type,
        weights=args.label_weights,
        temperature=label_temperature(args, crops),
        crop_filter=args.crop_filter and tuple(args.crop_filter),
        seed=args.seed,
        threads=threads_of(args),
        cache_dir=args.cache_dir,
        store_options=parse_store_options(args.store_option),
    )
    return loader.to(args.device, preprocessing.mean, preprocessing.std)
