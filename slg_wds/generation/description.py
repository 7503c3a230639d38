"""What slg.json says of a run: the identity, which later runs must agree on, and the provenance, only noted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from slg_wds.config import GenerateConfig
from slg_wds.format.manifest.identity import Identity
from slg_wds.generation.extension import Extension
from slg_wds.generation.recipe import Recipe
from slg_wds.labelset.provenance import now, versions
from slg_wds.teachers.forwards.backends import gpu_libraries
from slg_wds.teachers.towers.prototypes import PrototypeTower
from slg_wds.teachers.towers.towers import Towers
from slg_wds.transforms.policies.mixing import MixRule
from slg_wds.transforms.policies.rules import ViewRule

if TYPE_CHECKING:
    from slg_wds.generation.reference import Reference
    from slg_wds.teachers import Ensemble

SOFTWARE = ("slg-wds", "torch", "torchvision", "timm", "numpy", "zstandard", "pillow", "webdataset")


def identity_of(recipe: Recipe, teacher: Ensemble, reference: Reference | None) -> Identity:
    """Return what two runs must share to write into one set: every option that is meant to change labels or bytes.

    Raises:
        IdentityMismatchError: the set to extend was made with other options.
    """
    config, label, images = recipe.config, recipe.label, recipe.stored_images
    extension = reference if isinstance(reference, Extension) else None
    crops_of = extension.crops_of if extension else reference
    fields = {
        "teachers": teacher.describe(),
        "label_type": str(label),
        "k": label.stored_k(teacher.num_classes) or None,
        "values": None if recipe.max_kl or recipe.embeds else recipe.coding,
        "tail_classes": recipe.tail_classes,
        "temperature": teacher.temperature,
        "num_classes": teacher.num_classes,
        "class_subset": teacher.class_subset,
        "num_crops": config.num_crops,
        "crop_scale": [config.min_scale_crops, config.max_scale_crops],
        "crop_ratio": list(config.ratio),
        "flip_probability": config.flip_prob,
        "seed": config.seed,
        "precision": config.precision,
        "embed_images": dataclasses.asdict(images) if images else None,
        "reference": crops_of.identity if crops_of else None,
        "decode": "RGB, no EXIF rotation",
        "resize": "torchvision v2 uint8 antialias",
        **_fields_of_features(recipe, teacher),
    }
    if extension:
        extension.check(fields)
        fields["extends"] = extension.identity_field
    return Identity.from_json(fields)


def _fields_of_features(recipe: Recipe, teacher: Ensemble) -> dict[str, Any]:
    """Return the fields that only sets with a certain feature have."""
    config = recipe.config
    fields: dict[str, Any] = {}
    if (views := described_views(recipe, teacher)) is not None:
        fields["views"] = views
    if isinstance(teacher, Towers):
        kinds = zip(teacher.names, teacher.dims, strict=True)
        coding: dict[str, Any] = {"values": config.embedding_values}
        coding |= {"min_cosine": float(config.min_cosine)} if config.min_cosine else {}
        fields["embeddings"] = [{"name": name, "dim": dim, **coding} for name, dim in kinds]
        fields |= {"normalize": True} if teacher.normalize else {}
    if isinstance(teacher, PrototypeTower):
        fields["bank_sha256"] = teacher.bank.sha256
    if recipe.max_kl:
        fields["max_kl"] = float(recipe.max_kl)
    if config.extendable:
        fields["extendable"] = True
    return fields


def view_rule_of(recipe: Recipe, teacher: Ensemble) -> ViewRule | None:
    """Return how views are drawn, with the mean colour of the first teacher; None where nothing is drawn."""
    rule = recipe.view_rule
    if rule is None and recipe.mix_rule is not None:
        rule = ViewRule()  # nothing is done to the views before they are mixed
    return None if rule is None else rule.with_mean(teacher.teachers[0].preprocessing.mean)


def described_views(recipe: Recipe, teacher: Ensemble) -> dict[str, Any] | None:
    """Return what the identity says of views: the options that are used, and the colours; None without any."""
    config, rule = recipe.config, view_rule_of(recipe, teacher)
    if rule is None:
        return None
    used = {"aa": config.aa, "color_jitter": config.color_jitter, "reprob": config.reprob}
    colours = {"fill": rule.fill, "erase_fill": rule.erase_fill}
    return (
        {name: value for name, value in used.items() if value} | colours | _described_mixing(recipe.mix_rule)
    )


def _described_mixing(rule: MixRule | None) -> dict[str, float]:
    if rule is None:
        return {}
    used = {name: float(alpha) for name, alpha in (("mixup", rule.mixup), ("cutmix", rule.cutmix)) if alpha}
    switch = {"mixup_switch_prob": float(rule.switch)} if len(used) > 1 else {}
    return {**used, "mixup_prob": float(rule.probability), **switch}


def run_provenance(config: GenerateConfig, teacher: Ensemble) -> dict[str, Any]:
    """Return what is noted of a run but never compared: what may move the last bits of labels, paths, the date."""
    on_cpu = teacher.device.type == "cpu"  # on a GPU the number of threads changes no bit
    code = teacher.code()
    return {
        "num_seg": config.crops_of_forward(teacher.device.type),
        "compile": config.compile,
        **({"threads_per_forward": config.forward_threads} if on_cpu else {}),
        "device": teacher.device_name,
        "software": versions(SOFTWARE) | ({} if on_cpu else gpu_libraries()),
        **({"code": code} if code else {}),
        "image_root": config.data,
        "date": now(),
    }


def shard_provenance(provenance: Mapping[str, Any]) -> dict[str, object]:
    """Return the part of a run's provenance that may change labels or their last bits, for each shard's trailer."""
    names = ("num_seg", "compile", "threads_per_forward", "device", "software", "code")
    return {name: provenance[name] for name in names if name in provenance}
