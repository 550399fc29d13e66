"""Every message at warning or above has an entry in the reference, and every entry a message."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "log-messages.md").read_text()
LEVELS = {"warning", "error", "critical", "exception"}
THROTTLED = {"ThrottledWarning", "ThrottledWarnings"}
# Whoever adds a message that is not a literal here says where its texts are.
NOT_LITERAL = {
    ("controller/api/server_log.py", "record.getMessage()"): "texts of the HTTP library",
    ("throttled_log.py", "event"): "given where the warning is made",
    ("throttled_log.py", "self._event"): "the same",
}


def messages() -> Iterator[tuple[str, ast.expr]]:
    """Yield the file and the message of each call that logs at warning or above."""
    source = ROOT / "src" / "plane"
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = str(path.relative_to(source))
            function = node.func
            if isinstance(function, ast.Name) and function.id in THROTTLED:
                yield name, node.args[1]
            elif isinstance(function, ast.Attribute) and function.attr == "_warn":
                # The watchdog has only the standard library; its drone logs what it reports.
                yield name, node.args[0]
            elif isinstance(function, ast.Attribute) and function.attr in LEVELS:
                owner = ast.unparse(function.value)
                if owner.endswith("log") or "get_logger" in owner:
                    yield name, node.args[0]


def test_every_message_has_an_entry_and_every_entry_a_message() -> None:
    texts = set()
    for name, message in messages():
        if isinstance(message, ast.Constant):
            texts.add(str(message.value))
        else:
            assert (name, ast.unparse(message)) in NOT_LITERAL, f"{name} logs a message that is not a literal"
    entries = re.findall(r"^### `(.*)`$", PAGE, re.M)
    assert len(entries) == len(set(entries)), "one entry for each message"
    assert texts - set(entries) == set(), "messages without an entry"
    assert set(entries) - texts == set(), "entries without a message"


def test_every_entry_has_an_example_a_cause_and_what_to_do() -> None:
    for entry in PAGE.split("\n### ")[1:]:
        for part in ("**Example:**", "**Cause:**", "**What to do:**"):
            assert part in entry, f"{entry.splitlines()[0]} lacks {part}"
