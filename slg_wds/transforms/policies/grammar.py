"""The texts of --aa: timm's `rand-...`, torchvision's `ra-...` and `trivialaugment`, and DeiT III's `3a`."""

from __future__ import annotations

import difflib
import re

from slg_wds.errors import UsageError
from slg_wds.format.records.views import MAX_OPERATIONS
from slg_wds.transforms.policies.libraries import (
    TIMM_SETS,
    TORCHVISION_BINS,
    color_jitter,
    three_augment,
    timm_randaugment,
    torchvision_randaugment,
    torchvision_trivialaugment,
)
from slg_wds.transforms.policies.rules import BLACK, Levels, OperationRule, ViewRule

EXAMPLES = ("rand-m9-mstd0.5-inc1", "ra-n2-m9", "trivialaugment", "3a")
# Names of torchvision's reference training that mean a policy of ours.
_SAME = {"ta_wide": "trivialaugment"}
_TIMM_MAGNITUDE = 10
_UNIFORM_FROM = 100  # timm draws evenly where mstd is above it


def parse_views(aa: str | None, jitter: float, erased: float) -> ViewRule | None:
    """Parse the options of views.

    Args:
        aa: the value of --aa; None for no policy.
        jitter: the value of --color-jitter, 0..1; 0 for none.
        erased: the value of --reprob; 0 for no erased boxes.

    Returns:
        How views are drawn; None where nothing is done to crops. Of its colours those that follow a teacher are open.

    Raises:
        UsageError: there is no such policy, or a number is out of its range.
    """
    if not 0 <= jitter <= 1:
        raise UsageError(f"--color-jitter {jitter:g} is not within 0 to 1")
    rules = [] if aa is None else [parse_policy(aa)]
    rules += [color_jitter(jitter)] if jitter else []
    rule = ViewRule(tuple(rules), erased, None if aa is not None and aa.startswith("rand") else BLACK)
    return rule if rule.operations or rule.erased else None


def parse_policy(text: str) -> OperationRule:
    """Parse the value of --aa.

    Raises:
        UsageError: there is no such policy, or a number is out of its range.
    """
    name, *sections = _SAME.get(text, text).split("-")
    if name == "rand":
        return _timm(text, sections)
    if name == "ra":
        numbers = _numbers(text, sections, {"n": (1, MAX_OPERATIONS), "m": (0, TORCHVISION_BINS - 1)})
        return torchvision_randaugment(int(numbers.get("n", 2)), int(numbers.get("m", 9)))
    if name in ("trivialaugment", "3a") and not sections:
        return torchvision_trivialaugment() if name == "trivialaugment" else three_augment()
    near = difflib.get_close_matches(text, [*EXAMPLES, *_SAME], 1, 0.5)
    meant = f"did you mean {near[0]}?" if near else f"give one like {', '.join(EXAMPLES)}"
    raise UsageError(f"--aa {text!r} is not a known policy", hint=meant)


def _timm(text: str, sections: list[str]) -> OperationRule:
    """Parse the sections of timm's grammar, as in timm's `rand_augment_transform`."""
    among = [section[1:] for section in sections if section.startswith("t")]
    if any(name not in TIMM_SETS for name in among):
        raise UsageError(f"--aa {text!r}: {among[-1]!r} is no set", hint=f"one of {', '.join(TIMM_SETS)}")
    ranges: dict[str, tuple[float, float]] = {
        "m": (0, _TIMM_MAGNITUDE),
        "n": (1, MAX_OPERATIONS),
        "p": (0, 1),
        "mstd": (0, float("inf")),
        "inc": (0, 1),
    }
    numbers = _numbers(text, [one for one in sections if not one.startswith("t")], ranges)
    count = int(numbers.get("n", 2))
    rule = timm_randaugment(
        _timm_levels(numbers.get("m", _TIMM_MAGNITUDE), numbers.get("mstd", 0.0)),
        count,
        numbers.get("p", 0.5),
        bool(numbers.get("inc", 0)),
        among[0] if among else "",
    )
    if rule.weights is not None and count > len(rule.choices):
        raise UsageError(f"--aa {text!r} draws {count} of {len(rule.choices)} operations")
    return rule


def _timm_levels(magnitude: float, spread: float) -> Levels:
    if spread > _UNIFORM_FROM:
        return Levels(magnitude / _TIMM_MAGNITUDE, even=True)
    return Levels(magnitude / _TIMM_MAGNITUDE, spread / _TIMM_MAGNITUDE)


def _numbers(text: str, sections: list[str], ranges: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Parse sections such as `m9` or `mstd0.5`: a name of `ranges` and a number within its range."""
    found: dict[str, float] = {}
    for section in sections:
        match = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", section)
        if match is None or match[1] not in ranges:
            known = ", ".join(f"{one}N" for one in ranges)
            raise UsageError(f"--aa {text!r}: {section!r} is none of {known}")
        name, number = match.groups()
        low, high = ranges[name]
        whole = name in ("n", "m", "inc")
        if not low <= float(number) <= high or (whole and not number.isdigit()):
            what = "a whole number" if whole else "a number"
            raise UsageError(f"--aa {text!r}: {name} is {what} from {low:g} to {high:g}, not {number}")
        if name in found:
            raise UsageError(f"--aa {text!r} gives {name} twice")
        found[name] = float(number)
    return found
