"""Sets up logging: to stderr, for people on a terminal or as JSON for programs.

``PLANE_LOG`` is the level (debug, info, warning, error; default info), ``PLANE_LOG_JSON`` selects JSON. Tracebacks
have no values of variables, and every text passes `plane.decisions.redaction`, so that a log has no secrets.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

from plane.cli.plain_structlog import structlog
from plane.decisions.redaction import redacted
from plane.decisions.terminal_text import plain_line, plain_text
from plane.protocol import codec
from plane.protocol.errors import ConfigurationError

__all__ = ["print_uncaught", "set_up_logs"]

# What makes structlog's renderer for people quote a value.
_QUOTED = re.compile(r"[ \t=\r\n\"']")
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
        ConfigurationError: ``PLANE_LOG`` is not a level.
    """
    name = os.environ.get("PLANE_LOG") or default_level
    level = _LEVELS.get(name.lower())
    if level is None:
        raise ConfigurationError(f"PLANE_LOG={name}: must be one of {', '.join(_LEVELS)}")
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # Python's plain format: rich's has the values of all variables.
        structlog.processors.format_exc_info,
        _redact,
    ]
    if os.environ.get("PLANE_LOG_JSON"):
        processors.append(structlog.processors.JSONRenderer(serializer=_json))
    else:
        colors = sys.stderr.isatty() and "NO_COLOR" not in os.environ
        processors.append(_escape_controls)
        processors.append(
            structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        )
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_OtherLibraries()], level=logging.WARNING, force=True)
    # Its pool warns with a traceback each time that it cannot connect, which a controller reports itself.
    logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


def print_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the exception that ended the program, redacted. Used as `sys.excepthook`."""
    print(plain_text(redacted("".join(traceback.format_exception(kind, error, trace)))), file=sys.stderr)  # noqa: T201


class _OtherLibraries(logging.Handler):
    """Forwards the log records of libraries that use Python's logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.name == "asyncio":
            # asyncio prints callbacks with their arguments, which are requests and actions.
            text = text.partition("(")[0].partition("\n")[0].rstrip()
        structlog.get_logger(record.name).log(record.levelno, text, exc_info=record.exc_info)


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if not isinstance(value, int | float | bool | None):
            event[name] = redacted(value if isinstance(value, str) else str(value))
    return event


def _escape_controls(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape controls for people's terminals; JSON escapes them itself. A traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str):
            # The renderer quotes values with spaces, and escapes all controls in them.
            is_quoted = name != "event" and _QUOTED.search(value)
            event[name] = plain_text(value) if name == "exception" else value if is_quoted else plain_line(value)
    return event


def _json(event: Any, **_: Any) -> str:
    return codec.encode({name: _plain(value) for name, value in event.items()}).decode()


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
