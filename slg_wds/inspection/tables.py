"""Prints what `inspect` found as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slg_wds.console import counted, duration, per_second, tell, tell_table
from slg_wds.format.manifest.identity import Identity
from slg_wds.format.records.embeddings.low_rank import StatedCosine
from slg_wds.inspection.image import InspectedImage
from slg_wds.inspection.sizes import IMAGES
from slg_wds.labelset.embeddings import stored_as
from slg_wds.labelset.makers import MADE_BY, consequence, shards_by_value
from slg_wds.transforms.replaying import words_of, words_of_options

DIGITS = 12  # of a digest
LONGEST = 400  # characters of one value


def print_set(summary: Mapping[str, Any]) -> None:
    """Print the tables of a set.

    Args:
        summary: what `inspect` returns.
    """
    sections = (
        ("label set " + str(summary["url"]), _what(summary)),
        ("how it was made", _how(summary)),
        ("how far it is", _far(summary)),
    )
    for title, rows in sections:
        _tell_pairs(title, rows)
    if summary["bytes_per_crop"] is not None:
        _tell_sizes(summary["bytes_per_crop"], summary["sampled"])
    if "low_rank" in summary:
        _tell_pairs("low-rank labels of these records", _low_rank(summary["low_rank"]))
    for name, figures in summary.get("low_rank_embeddings", {}).items():
        _tell_pairs(f"low-rank embeddings of {name} in these records", _low_rank_embedding(figures))
    reasons = summary["images"]["left_out_reasons"]
    if reasons:
        rows = [(entry["path"], entry["reason"]) for entry in reasons]
        tell_table("left out", ("image", "reason"), rows)
    for note in summary["notes"]:
        tell(f"note: {note}")


def _tell_pairs(title: str, rows: Iterable[tuple[str, object]]) -> None:
    tell_table(title, (), [row for row in rows if row[1] not in (None, "")])


FOLDERS_ONLY = " that only number their folders, not the labels' classes"


def _embeddings(identity: Identity) -> str:
    """Describe the embeddings of a set; "" for a set of labels."""
    kinds = [f"{one['name']}: {one['dim']} numbers as {stored_as(one)}" for one in identity.embeddings or []]
    return ", ".join(kinds) + (", of unit length" if kinds and identity.normalize else "")


def _bank(identity: Identity) -> str | None:
    """Describe the bank of labels over prototypes; None for other labels."""
    if identity.bank_sha256 is None:
        return None
    return f"{identity.num_classes} prototypes, SHA-256 {_digest(identity.bank_sha256)}"


def _what(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    identity, images = Identity.from_json(summary["identity"]), summary["images"]
    names, tail, base = summary["class_names"], identity.largest_tail, identity.extends
    kl = identity.max_kl
    labels = f"{identity.label_type}, " + (
        f"mean KL at most {kl:g} nats" if kl else f"values {identity.coding}"
    )
    classes, crops = f"{identity.num_classes}", f"{identity.num_crops} an image"
    embeddings = _embeddings(identity)
    labels, classes = ("", "") if embeddings else (labels, classes)
    if base is not None:
        crops += f", the first {base.first_crop} in set {_digest(base.digest)}"
    return [
        ("images", f"{images['planned']:,} planned{_targets(images)}"),
        ("crops", crops),
        ("labels", labels + (f", shared tail of up to {counted(tail, 'class', 'classes')}" if tail else "")),
        ("embeddings", embeddings),
        ("classes", classes + (f": {'; '.join(names['first'])}; ..." if names and classes else "")),
        ("bank", _bank(identity)),
        ("temperature", None if embeddings else identity.temperature or "not known"),
        ("embedded images", _embedded(identity.embed_images)),
        ("image checksums", "yes" if summary["image_checksums"] else _NO_CHECKSUMS),
        ("digest", summary["digest"]),
    ]


_NO_CHECKSUMS = "none: replayed images cannot be checked"


def _targets(images: Mapping[str, Any]) -> str:
    if not images["with_target"]:
        return ", without targets"
    some = "" if images["with_target"] == images["planned"] else f"{images['with_target']:,} "
    return f", {some}with targets" + ("" if images["targets_are_classes"] else FOLDERS_ONLY)


def _how(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    identity, provenance = Identity.from_json(summary["identity"]), summary["provenance"]
    rows: list[tuple[str, object]] = [("teacher", _teacher(t)) for t in identity.teachers]
    rows += [("merged from", _short(parent)) for parent in identity.parents]
    rows += [
        ("imported from", _short(identity.imported_from)),
        ("crop area", _range(identity.crop_scale)),
        ("crop aspect ratio", _range(identity.crop_ratio)),
        ("flip probability", identity.flip_probability),
        ("seed", identity.seed),
        ("views", ", ".join(words_of_options(identity.views)) if identity.views else None),
        ("crops taken from", _short(identity.reference)),
        ("precision", identity.precision),
        ("decoding, resize", f"{identity.decode}; {identity.resize}"),
    ]
    rows += [(name.replace("_", " "), _short(value)) for name, value in provenance.items()]
    return rows + _made_by(summary["makers"], summary["shards"]["present"])


def _made_by(makers: Mapping[str, Any], present: int) -> list[tuple[str, object]]:
    """Return how many shards were looked at, and what differs between them and so may change labels."""
    examined, differing = makers["examined_shards"], makers["differing"]
    rest = "; slg-wds verify looks at all" if examined < present else ""
    if not differing:
        same = (
            f"the same in {examined:,} of {counted(present, 'shard')} looked at"
            if examined
            else "not looked at"
        )
        return [(MADE_BY, same + rest)]
    of = f"of {counted(examined, 'examined shard')}"
    return [
        (f"DIFFERENT {name}", f"{shards_by_value(counts)} {of}; {consequence(name)}{rest}")
        for name, counts in differing.items()
    ]


def _teacher(teacher: Any) -> str:
    if not isinstance(teacher, dict):
        return str(teacher)
    weight = teacher.get("weight")  # embeddings have none
    return (
        f"{teacher.get('source')}:{teacher.get('arch')}, weights {_digest(teacher.get('weights_sha256'))}, "
        f"{teacher.get('input_size')} px {teacher.get('interpolation')}, mean {teacher.get('mean')}, "
        f"std {teacher.get('std')}" + ("" if weight is None else f", weight {weight}")
    )


def _far(summary: Mapping[str, Any]) -> list[tuple[str, object]]:
    shards, images, progress = summary["shards"], summary["images"], summary["progress"]
    rows: list[tuple[str, object]] = [("state", _state(summary))]
    if shards["bytes"] is not None:
        rows.append(("bytes in shards", f"{shards['bytes']:,}"))
    if images["labelled"] is not None:
        rows.append(("images labelled", f"{images['labelled']:,}"))
    of = ""
    if summary["state"] != "complete":
        of = f", in {counted(images['left_out_of_shards'], 'examined shard')}"
    rows.append(("images left out", f"{images['left_out']:,}{of}"))
    if shards["missing_names"]:
        more = f" and {shards['missing'] - len(shards['missing_names']):,} more"
        names = ", ".join(shards["missing_names"])
        rows.append(("missing", names + (more if shards["missing"] > len(shards["missing_names"]) else "")))
    if progress is not None:
        rows.append(("commits", f"{progress['first_commit']} to {progress['last_commit']}"))
        if progress["shards_per_hour"] is not None:
            rows.append(("pace", _pace(progress)))
        if progress["idle"]:
            rows.append(
                (
                    "IDLE",
                    "no shard for a long time, so nobody seems to be at work: run the command that made it to go on",
                )
            )
        elif progress["seconds_left"]:
            rows.append(("left", f"about {duration(progress['seconds_left'])}"))
    return rows


def _state(summary: Mapping[str, Any]) -> str:
    shards = summary["shards"]
    if summary["state"] == "complete":
        return f"complete: {counted(shards['planned'], 'shard')}"
    present = shards["present"]
    if shards["missing"] is None:
        asked = counted(shards["asked"], "shard")
        return f"unfinished: {present} of {asked} asked for exist (a web server cannot list them)"
    part = present / max(1, shards["planned"])
    return (
        f"unfinished: {present:,} of {counted(shards['planned'], 'shard')} ({part:.1%}), "
        f"{shards['missing']:,} missing"
    )


def _pace(progress: Mapping[str, Any]) -> str:
    return (
        f"{progress['shards_per_hour']:,.1f} shards/h, {per_second(progress['images_per_second'])} images/s, "
        f"{per_second(progress['crops_per_second'])} crops/s over the last {counted(progress['measured_on'], 'commit')}"
    )


def _tell_sizes(sizes: Mapping[str, float], sampled: Mapping[str, int]) -> None:
    by = f"{counted(sampled['records'], 'record')} of {counted(sampled['shards'], 'shard')}"
    title = f"bytes per crop, measured on {by}"
    names = sorted(sizes, key=lambda name: name == IMAGES)  # images last: what is together leaves them out
    _tell_pairs(title, [(name, f"{sizes[name]:.2f}") for name in names])


def _low_rank(figures: Mapping[str, Any]) -> list[tuple[str, object]]:
    spread, against = figures["kl"], figures["against"]
    parts = f"{figures['rank']:.1f} components, {figures['blocks']:.1f} blocks"
    return [
        ("KL against", "the teachers" if against == "teacher" else f"{against}, not the teachers"),
        ("mean KL of an image", ", ".join(f"{name} {value:.4f}" for name, value in spread.items()) + " nats"),
        ("worst crop", f"{figures['worst_kl']:.3f} nats"),
        ("an image has", f"{figures['classes']:.0f} classes, {parts}"),
    ]


def _low_rank_embedding(figures: Mapping[str, Any]) -> list[tuple[str, object]]:
    spread = ", ".join(f"{name} {value:.5f}" for name, value in figures["cosine"].items())
    return [
        ("mean cosine of an image", f"{spread}, to the teacher's own"),
        ("worst crop", f"{figures['worst_cosine']:.4f}"),
        ("an image has", f"{figures['rank']:.1f} components, {figures['blocks']:.1f} blocks"),
        ("a crop has", f"{figures['bytes']:.1f} bytes"),
    ]


def _digest(digest: Any) -> str:
    return str(digest)[:DIGITS]


def _range(pair: Any) -> str | None:
    return f"{pair[0]:g} to {pair[1]:g}" if isinstance(pair, list) and len(pair) == 2 else None


def _embedded(given: Any) -> str | None:
    if isinstance(given, dict) and given.get("max_side") is None:
        return "original"  # not re-encoded, so there is no quality to show
    return _short(given)


def _short(value: Any) -> str | None:
    """Return a value on one line: the fields of an object, with shortened digests; None for None."""
    if value is None:
        return None
    if isinstance(value, dict):
        parts = (
            f"{name} {_digest(v) if 'digest' in name else v}" for name, v in value.items() if v is not None
        )
        value = ", ".join(parts)
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def print_image(found: InspectedImage, crops: int) -> None:
    """Print the first `crops` crops of an image with their labels."""
    record = found.record
    _tell_pairs(record.key, _about_image(found))
    shown = min(crops, record.num_crops)
    title = counted(record.num_crops, "crop")
    if shown < record.num_crops:
        title = f"the first {crops} of {title}"
    about = ["classes", "others" if found.shows_some else "tail mass"]
    if record.embeddings is not None or found.is_hard:
        about = ["most probable class" if found.is_hard else "lengths of embeddings"]
    rows = [_crop_row(found, crop) for crop in range(shown)]
    tell_table(title, ("crop", "top, left, height, width", *about), rows)


def _about_image(found: InspectedImage) -> list[tuple[str, object]]:
    record = found.record
    target = None if record.target is None else f"{record.target} {found.target_name or ''}".rstrip()
    return [
        ("path", record.path),
        ("where", f"image {found.number:,} of the plan, in {found.shard}"),
        ("size", f"{record.size[1]} x {record.size[0]} pixels (width x height)"),
        ("target", target),
        ("tail", ", ".join(_labelled(found, *pair) for pair in found.tail())),
        ("KL", _stated(found)),
        *(
            (name, f"cosine {mean:.4f} between two of its crops")
            for name, mean in found.similarities().items()
        ),
        *((f"{name}, stored", _near(cosine)) for name, cosine in found.stated_cosines().items()),
    ]


def _crop_row(found: InspectedImage, crop: int) -> tuple[object, ...]:
    """Return the number of a crop, what was done to it, and its labels or the lengths of its embeddings."""
    record = found.record
    done = [] if record.views is None else words_of(record.views, crop, found.key_of)
    flipped = " flipped" if record.flips[crop] else ""
    box = ", ".join(map(str, record.crops[crop].tolist()))
    place = "; ".join([f"{box}{flipped}", *done])
    if lengths := found.lengths(crop):
        return crop, place, "; ".join(f"{name} {length:.2f}" for name, length in lengths.items())
    classes = "; ".join(_labelled(found, *pair) for pair in found.top(crop))
    return (crop, place, classes) if found.is_hard else (crop, place, classes, f"{found.others(crop):.3f}")


def _stated(found: InspectedImage) -> str | None:
    if found.record.low_rank is None:
        return None
    kl = found.record.low_rank.kl
    return f"mean {kl.mean:.4f}, worst crop {kl.worst:.3f} nats, against {kl.against}"


def _near(cosine: StatedCosine) -> str:
    return f"cosine {cosine.mean:.4f} to the teacher's own, worst crop {cosine.worst:.4f}"


def _labelled(found: InspectedImage, number: int, probability: float | None) -> str:
    text = found.brief(number)
    return text if probability is None else f"{probability:.3f} {text}"
