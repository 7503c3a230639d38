"""What an order depends on besides the epoch, so that a state is only resumed in the order it was taken in."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from slg_wds.errors import ReplayError

ORDER_VERSION = 1


def fingerprint(digest: str | bytes, seed: int, batch: int, lanes: int, window: int) -> dict[str, int | str]:
    """Return, JSON-able, all that an order depends on besides the epoch; equal fingerprints, equal orders."""
    return {
        "order": ORDER_VERSION,
        "digest": digest if isinstance(digest, str) else digest.hex(),
        "seed": operator.index(seed),
        "batch": operator.index(batch),
        "lanes": min(operator.index(lanes), operator.index(batch)),
        "window": operator.index(window),
    }


def check_fingerprint(found: object, expected: Mapping[str, int | str]) -> None:
    """Refuse a state's fingerprint that is not the expected one.

    Raises:
        ReplayError: naming each difference.
    """
    if not isinstance(found, Mapping):
        raise ReplayError("the state says nothing of the order it was taken in")
    differences = [
        f"{name} is {found.get(name, 'missing')!r} there and {expected.get(name, 'unknown')!r} here"
        for name in sorted({*expected, *found}, key=str)
        if name not in expected or name not in found or found[name] != expected[name]
    ]
    if differences:
        hint = (
            "resume with the same label set, seed, global batch size, lanes, window, crop filter and weights"
        )
        raise ReplayError(f"the state was taken in another order: {'; '.join(differences)}", hint=hint)
