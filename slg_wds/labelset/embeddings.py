"""Which embedding of a set of embeddings is meant, which teacher gave it, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slg_wds.errors import UsageError
from slg_wds.format.manifest.identity import Identity
from slg_wds.labelset.labelset import LabelSet


def embedding_of(labels: LabelSet, asked: str | None, own: str | None = None) -> str:
    """Return the name of the embedding of a set that is to be used.

    Args:
        labels: the set.
        asked: the name asked for; None for another.
        own: the name that is taken if none is asked for and the set holds several.

    Raises:
        UsageError: the set holds labels, or no embedding of that name, or several.
    """
    names = [one["name"] for one in labels.identity.embeddings or []]
    if not names:
        raise UsageError(
            "the set holds labels, and embeddings are needed here",
            url=labels.url,
            hint="slg-wds generate --output embedding makes such a set",
        )
    wanted = asked or (names[0] if len(names) == 1 else own)
    if wanted not in names:
        what = f"holds no embedding {wanted!r}" if wanted else "holds several embeddings"
        raise UsageError(
            f"the set {what}", url=labels.url, hint=f"give --embedding, one of: {', '.join(names)}"
        )
    return str(wanted)


def teacher_of(identity: Identity, embedding: str) -> dict[str, Any]:
    """Return what the identity of a set says of the teacher of an embedding; nothing if it does not say it."""
    names = [one["name"] for one in identity.embeddings or []]
    known = len(names) == len(identity.teachers)
    return identity.teachers[names.index(embedding)] if known else {}


def stored_as(kind: Mapping[str, Any]) -> str:
    """Describe how the numbers of an embedding are stored, from its entry in the identity of a set."""
    least = f", mean cosine at least {kind['min_cosine']:g}" if "min_cosine" in kind else ""
    return f"{kind['values']}{least}"
