"""In which form does the proxy say what it has to say itself? A page for browsers, JSON for programs.

Asked by `plane.proxy.data_plane.client_connection`, only when there is something to say.
"""

from __future__ import annotations

import enum
import re

__all__ = ["ErrorFormat", "error_format", "is_navigation"]

_HTML = re.compile(rb"\r\n(?i:accept):[^\r\n]*(?i:text/html)(?![^\r\n,]*;[ \t]*[qQ]=0(?:\.0*)?[ \t]*(?:,|\r\n|\Z))")


class ErrorFormat(enum.Enum):
    """``PAGE``: HTML, for a person; ``JSON``: for a program."""

    PAGE = enum.auto()
    JSON = enum.auto()


def error_format(lines: bytes) -> ErrorFormat:
    """``lines`` are the request's fields, each begun by CR LF. Only browsers' navigations name ``text/html``."""
    return ErrorFormat.PAGE if _HTML.search(lines) else ErrorFormat.JSON


def is_navigation(method: bytes, lines: bytes) -> bool:
    """Whether a person waits for a page: a GET that accepts one."""
    return method == b"GET" and error_format(lines) is ErrorFormat.PAGE
