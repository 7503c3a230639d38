"""The README's code blocks, in order, and its commands."""

from __future__ import annotations

import re
from dataclasses import dataclass

from support.paths import ROOT

README = (ROOT / "README.md").read_text()
IN_ORDER = ("pip install", "slg-wds demo", "demo-output")  # what marks the commands of the quick start


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line where it begins."""

    language: str
    text: str
    line: int


def blocks(text: str = README) -> list[Block]:
    """All fenced blocks. A block without a language has the language ""."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [Block(one[1], one[2], text[: one.start()].count("\n") + 1) for one in found]


def commands(text: str = README) -> list[str]:
    """All lines of the bash blocks, those that end in a backslash joined with the next, without comments."""
    joined = re.sub(r"\\\n\s*", "", "".join(one.text for one in blocks(text) if one.language == "bash"))
    return [re.sub(r"\s+#.*", "", line) for line in joined.splitlines() if line.strip()]


def block_with(language: str, mark: str) -> str:
    """The text of the only block of a language that has the mark in it."""
    (found,) = [one.text for one in blocks() if one.language == language and mark in one.text]
    return found
