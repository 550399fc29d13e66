"""Texts for errors of the operating system, to be shown to operators."""

from __future__ import annotations

__all__ = ["error_reason"]


def error_reason(error: BaseException) -> str:
    """Return the system's text for an error, without the number and the path that Python adds."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
