"""Escape what a terminal would obey in text of others: output of backends, keys, users, messages.

A control sequence moves the cursor, replaces what was printed before, sets the title, or writes to the clipboard
(ECMA-48, and the OSC sequences of xterm). A bidirectional control shows characters in another order (UAX 9). Called by
everything in `plane.cli` that prints for people; JSON for programs is not changed.
"""

from __future__ import annotations

import re

__all__ = ["colored_line", "plain_line", "plain_text"]

# "Select graphic rendition": colours and styles, which change nothing else. ECMA-48, 8.3.117.
_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_RESET = "\x1b[0m"
# C0 but tab and line feed, DEL and C1; line and paragraph separators; bidirectional embeddings, overrides and isolates.
_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{_CONTROLS}]")
_CONTROL_OR_NEWLINE = re.compile(rf"[\n{_CONTROLS}]")


def plain_text(text: str) -> str:
    """Return ``text`` without styles, with other controls as escapes of Python's. Lines and tabs stay."""
    return _CONTROL.sub(_escape, _STYLE.sub("", text))


def plain_line(text: str) -> str:
    """Return ``text`` as `plain_text` does, on one line."""
    return _CONTROL_OR_NEWLINE.sub(_escape, _STYLE.sub("", text))


def colored_line(line: str) -> str:
    """Return a line with its styles, which end with it, and other controls as escapes of Python's."""
    styles = _STYLE.findall(line)
    if not styles:
        return plain_line(line)
    texts = [plain_line(text) for text in _STYLE.split(line)]
    return "".join(text + style for text, style in zip(texts, [*styles, _RESET], strict=True))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
