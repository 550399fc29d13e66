"""The kinds of ports of a proxy. A connection knows the kind that it came in through."""

from __future__ import annotations

import enum

__all__ = ["EntryPoint"]


class EntryPoint(enum.Enum):
    """``TO_TLS``: plain HTTP that only redirects to TLS."""

    HTTP = enum.auto()
    TLS = enum.auto()
    TO_TLS = enum.auto()
