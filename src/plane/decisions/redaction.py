"""Takes secrets out of text that goes into a log or an error message. `plane.cli.logs` calls it last of all.

What is known to be secret has no place in a log call, and types that hold secrets do not show them
(`plane.protocol.codec.redacted_repr`). Texts of libraries and of the database have them all the same.
"""

from __future__ import annotations

import re

from plane.protocol.backend_state import OUTPUT_MARKER

__all__ = ["redacted"]

_GONE = "…"
_RULES = (
    # User and password, or the API key, of a URL; but not the word that errors have in their place.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?!USER@)[^\s/@'\"]+@", re.I), rf"\1{_GONE}@"),
    # Passwords in the query of a database's URL, and in libpq's own form.
    (re.compile(r"\b(password|passwd|passfile|sslpassword)(\s*[=:]\s*)[^\s&'\",]+", re.I), rf"\1\2{_GONE}"),
    (re.compile(r"\b(bearer|basic)\s+[^\s'\",]+", re.I), rf"\1 {_GONE}"),
    # API keys, and tokens of 32 random bytes (`plane.random_ids`), wherever they stand.
    (re.compile(r"\bpk_[\w-]{20,}"), f"pk_{_GONE}"),
    (re.compile(r"(?<![\w-])[\w-]{43}(?![\w-])"), _GONE),
    # PostgreSQL quotes the row, asyncpg the argument.
    (re.compile(r"(\bDETAIL:).*"), rf"\1 {_GONE}"),
    (re.compile(r"(invalid input for query argument \$\d+:).*"), rf"\1 {_GONE}"),
)


def redacted(text: str) -> str:
    """Return ``text`` without credentials in URLs, passwords, tokens, API keys, rows, and output of backends."""
    text = text.partition(OUTPUT_MARKER)[0]
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
