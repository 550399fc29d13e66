"""Texts for errors of the operating system, to be shown to operators."""

from __future__ import annotations

import errno

__all__ = ["error_reason", "port_error_reason"]


def error_reason(error: BaseException) -> str:
    """Return the system's text for an error, without the number and the path that Python adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def port_error_reason(error: OSError) -> str:
    """Return why a port cannot be listened on, as a clause that follows the port's name."""
    match error.errno:
        case errno.EADDRINUSE:
            return "is in use by another program"
        case errno.EACCES:
            return "requires root (or CAP_NET_BIND_SERVICE)"
        case _:
            return f"cannot be used: {error_reason(error)}"
