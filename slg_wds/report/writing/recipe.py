"""How a label set was made, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slg_wds.console import counted
from slg_wds.format.manifest.identity import Identity
from slg_wds.labels import parse_label_type
from slg_wds.labelset.embeddings import stored_as
from slg_wds.labelset.labelset import LabelSet
from slg_wds.report.writing.numbers import number, percent
from slg_wds.transforms.replaying import words_of_options

RecipeRows = list[tuple[str, list[str]]]  # (what, lines) for each row
LONGEST = 300  # characters of anything that slg.json says


def recipe(labels: LabelSet, present: int) -> RecipeRows:
    """Return how a label set was made.

    Args:
        labels: the set.
        present: how many of its shards exist.
    """
    identity, provenance = labels.identity, labels.description.provenance
    plan = labels.plan
    rows: RecipeRows = [
        ("Label set", [labels.url]),
        (_plural("Teacher", identity.teachers), _teachers(identity)),
        ("Embeddings" if labels.holds_embeddings else "Labels", _labels(labels)),
        (
            "Images",
            [
                f"{number(plan.num_samples)} in {counted(plan.num_shards, 'shard')}",
                _complete(labels, present),
            ],
        ),
        ("Crops", _crops(labels)),
        ("Classes", _classes(labels)),
        ("Pictures", [_pictures(identity, plan.source)]),
        ("Made", _made(identity, provenance)),
    ]
    if identity.parents:
        rows.insert(2, ("Merged from", [_parent(parent) for parent in identity.parents]))
    if identity.imported_from:
        rows.insert(2, ("Imported", ["from FKD's label files"]))
    rows.append(("Digest", [labels.digest[:16]]))
    return [(what, [line[:LONGEST] for line in lines if line]) for what, lines in rows if any(lines)]


def recipes(sets: Sequence[LabelSet], present: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the recipe of each set. Lines that all of several sets share stand first, once."""
    each = [recipe(labels, count) for labels, count in zip(sets, present, strict=True)]
    stated = [{(what, line) for what, lines in rows for line in lines} for rows in each]
    common = set.intersection(*stated) if len(each) > 1 else set()
    found = [{"name": "All sets", "rows": _only(each[0], common)}] if common else []
    for name, rows, mine in zip(names, each, stated, strict=True):
        found.append({"name": name, "rows": _only(rows, mine - common)})
    return found


def _only(rows: RecipeRows, wanted: set[tuple[str, str]]) -> RecipeRows:
    kept = [(what, [line for line in lines if (what, line) in wanted]) for what, lines in rows]
    return [(what, lines) for what, lines in kept if lines]


def teacher_names(labels: LabelSet) -> list[str]:
    """Return the names of a set's teachers, shortened."""
    return [str(teacher.get("arch", "a teacher"))[:80] for teacher in labels.identity.teachers]


def _teachers(identity: Identity) -> list[str]:
    lines = []
    for teacher in identity.teachers:
        parts = [f"{teacher.get('arch')} ({teacher.get('source')})"]
        if len(identity.teachers) > 1 and isinstance(teacher.get("weight"), float):
            parts.append(f"weight {percent(teacher['weight'])}")
        if teacher.get("input_size"):
            parts.append(f"{teacher['input_size']} px, {teacher.get('interpolation')}")
        parts.append(f"weights {str(teacher.get('weights_sha256'))[:8]}")
        lines.append(", ".join(parts))
    return lines or ["unknown"]


def _plural(word: str, things: Any) -> str:
    return f"{word}s" if things and len(things) > 1 else word


def _labels(labels: LabelSet) -> list[str]:
    identity = labels.identity
    if identity.embeddings is not None:
        length = ["each divided by its length"] if identity.normalize else []
        return [
            f"{one['name']}: {number(one['dim'])} numbers as {stored_as(one)}" for one in identity.embeddings
        ] + length
    kind = parse_label_type(labels.label_type)
    about = {
        "hard": "the most probable class alone",
        "smoothing": "the most probable class, the rest spread evenly",
        "marginal_smoothing": f"the {kind.k} most probable classes, the rest spread evenly",
        "marginal_renorm": f"the {kind.k} most probable classes, scaled to sum to 1",
        "shared_tail": f"the {kind.k} most probable classes, the rest in the shape of the image's own tail",
        "full": "every class",
        "lowrank": "every class, as a mean, a basis and a few coefficients for each crop",
    }[kind.kind]
    tail = identity.largest_tail
    stored = (
        f"mean KL at most {identity.max_kl:g} nats" if identity.max_kl else f"stored as {identity.coding}"
    )
    lines = [labels.label_type, about, stored]
    if tail and kind.kind != "shared_tail":
        lines.append(f"a shared tail of up to {counted(tail, 'class', 'classes')} is stored too")
    if identity.bank_sha256 is not None:
        lines.append(
            f"over the {number(identity.num_classes)} prototypes of bank {identity.bank_sha256[:12]}"
        )
    if identity.temperature != 1:
        known = "not known" if identity.temperature is None else identity.temperature
        lines.append(f"temperature {known}")
    return lines


def _complete(labels: LabelSet, present: int) -> str:
    return "complete" if present == labels.num_shards else f"shards there so far: {number(present)}"


def _crops(labels: LabelSet) -> list[str]:
    identity = labels.identity
    lines = [f"{number(labels.num_crops)} of each image"]
    if _pair(identity.crop_scale) and _pair(identity.crop_ratio):
        (low, high), (thin, wide) = identity.crop_scale, identity.crop_ratio
        lines.append(
            f"{percent(low, 0)} to {percent(high, 0)} of its area, {thin:.2f} to {wide:.2f} wide to high"
        )
        lines.append(f"{percent(float(identity.flip_probability or 0), 0)} flipped, seed {identity.seed}")
    if identity.reference:
        lines.append(
            "crops taken from a reference set" if labels.has_views else "boxes taken from a reference set"
        )
    if identity.views is not None:
        lines.append(f"then {', '.join(words_of_options(identity.views))}")
    return lines


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, (int, float)) for v in value)


def _classes(labels: LabelSet) -> list[str]:
    subset = labels.identity.class_subset
    if labels.holds_embeddings:
        return []
    return [number(labels.num_classes), "a subset of the teacher's" if subset else ""]


def _pictures(identity: Identity, source: str) -> str:
    embedding = identity.embed_images
    if not embedding:
        return "outside the set, in " + ("tars of images" if source == "shards" else "a folder")
    side = embedding.get("max_side") if isinstance(embedding, dict) else None
    return f"in the shards, at most {side} pixels" if side else "in the shards, as they were"


def _made(identity: Identity, provenance: Mapping[str, Any]) -> list[str]:
    software = provenance.get("software")
    versions = software if isinstance(software, dict) else {}
    named = ", ".join(f"{name} {versions[name]}" for name in ("slg-wds", "torch", "timm") if name in versions)
    on = " in ".join(str(v) for v in (provenance.get("device"), identity.precision) if v)
    return [str(provenance.get("date") or "").replace("T", " "), on, named]


def _parent(parent: Any) -> str:
    if not isinstance(parent, dict):
        return "a set"
    weight = parent.get("weight")
    share = f", weight {percent(weight)}" if isinstance(weight, (int, float)) else ""
    return f"{str(parent.get('digest'))[:12]}, {parent.get('label_type')}{share}"
