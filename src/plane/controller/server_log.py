"""What the HTTP server itself has to say goes into the controller's log; what clients do wrong is no error of ours."""

from __future__ import annotations

import logging

import structlog
from aiohttp.http_exceptions import HttpProcessingError

__all__ = ["server_logger"]

log = structlog.get_logger("plane.controller")


def server_logger() -> logging.Logger:
    """The logger that aiohttp's server is given."""
    logger = logging.Logger("plane.controller.http", logging.WARNING)
    logger.addHandler(_Handler())
    return logger


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, HttpProcessingError):
            log.info("request is not HTTP", error=error.message.partition("\n")[0].strip(), status=error.code)
        else:
            log.error(record.getMessage(), exc_info=record.exc_info)
