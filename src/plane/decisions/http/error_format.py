"""In which format does the proxy send its own errors? As pages for browsers, and as JSON for programs.

Called by `plane.decisions.http.exchange`, only when there is an error.
"""

from __future__ import annotations

import enum
import re
from typing import Final

__all__ = ["ErrorFormat", "error_format", "is_navigation"]

_HTML: Final = re.compile(
    rb"\r\n(?i:accept):[^\r\n]*(?i:text/html)(?![^\r\n,]*;[ \t]*[qQ]=0(?:\.0*)?[ \t]*(?:,|\r\n|\Z))"
)


class ErrorFormat(enum.Enum):
    """``PAGE``: HTML, for a person; ``JSON``: for a program."""

    PAGE = enum.auto()
    JSON = enum.auto()


def error_format(lines: bytes) -> ErrorFormat:
    """Return the format for a request. Only navigations of browsers accept ``text/html``.

    ``lines``: the request's field lines, each begun by CR LF.
    """
    return ErrorFormat.PAGE if _HTML.search(lines) else ErrorFormat.JSON


def is_navigation(method: bytes, lines: bytes) -> bool:
    """Return whether a person waits for a page: a GET request that accepts one."""
    return method == b"GET" and error_format(lines) is ErrorFormat.PAGE
