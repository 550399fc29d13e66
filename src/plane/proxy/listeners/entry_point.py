"""By what kind of port a connection came in. Known to `service`, which makes connections, and to what they do."""

from __future__ import annotations

import enum

__all__ = ["EntryPoint"]


class EntryPoint(enum.Enum):
    """``TO_TLS``: a plain one that only leads to the one of TLS."""

    HTTP = enum.auto()
    TLS = enum.auto()
    TO_TLS = enum.auto()
