"""How large may the parts of a message be? A larger part is refused with the status that stands for it.

`request_head`, `response_reader` and `chunks` apply the limits. An operator sets them (`docs/reference/settings.md`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["DEFAULT_LIMITS", "HttpLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Sizes of the parts of a message. The defaults are those of common servers: enough for cookies and signed URLs.

    Attributes:
        head_bytes: request line and fields together (431).
        target_bytes: the request's target (414).
        fields: header fields (431).
        chunk_line_bytes: a chunk's size and extensions, or a trailer field (400).
        trailers_bytes: all trailer fields of a body (400).
        response_head_bytes: head of a backend's response (502).
    """

    head_bytes: int = 64 * 1024
    target_bytes: int = 16 * 1024
    fields: int = 200
    chunk_line_bytes: int = 4 * 1024
    trailers_bytes: int = 16 * 1024
    response_head_bytes: int = 256 * 1024


DEFAULT_LIMITS: Final = HttpLimits()
