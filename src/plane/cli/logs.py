"""How the program logs: to stderr, for people on a terminal or as JSON for programs.

``PLANE_LOG`` is the level (debug, info, warning, error; default info), ``PLANE_LOG_JSON`` asks for JSON.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import structlog

from plane.protocol import codec
from plane.protocol.errors import ConfigurationError

__all__ = ["set_up_logs"]

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def set_up_logs(default_level: str = "info") -> None:
    """Configure logging for the whole process.

    Raises:
        ConfigurationError: ``PLANE_LOG`` is no level.
    """
    name = os.environ.get("PLANE_LOG") or default_level
    level = _LEVELS.get(name.lower())
    if level is None:
        raise ConfigurationError(f"PLANE_LOG={name}: must be one of {', '.join(_LEVELS)}")
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if os.environ.get("PLANE_LOG_JSON"):
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    else:
        colors = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        processors.append(structlog.dev.ConsoleRenderer(colors=colors))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def _json(event: Any, **_: Any) -> str:
    return codec.encode({name: _plain(value) for name, value in event.items()}).decode()


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
