"""Pages of the documentation as scripts: the blocks to paste, where, and what they print."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "blocks", "matches"]

_FENCE = re.compile(r'^```(?P<kind>\w+)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)^```$', re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block of a page.

    Attributes:
        kind: the language, such as "sh".
        title: "terminal N" for what runs on in a terminal of its own, "output" for what the block before prints, the
            name of a file, or empty.
        text: what it contains.
    """

    kind: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    return [Block(found["kind"], found["title"] or "", found["text"]) for found in _FENCE.finditer(page.read_text())]


def matches(expected: str, printed: str) -> bool:
    """Return whether a page shows what was printed, but for the width of spaces.

    "…" in a line stands for any text, and as a line for any number of lines.
    """
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            pattern += r"(?:.*\n)*"
        else:
            text = r"[ \t]+".join(re.escape(word) for word in line.split())
            pattern += rf"[ \t]*{text.replace('…', '.*')}[ \t]*\n"
    return re.fullmatch(pattern, printed.rstrip("\n") + "\n") is not None
