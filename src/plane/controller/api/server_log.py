"""What the HTTP server itself has to say goes into the controller's log.

What clients do wrong is not among it: `plane.controller.api.http_connection`.
"""

from __future__ import annotations

import logging

import structlog

__all__ = ["server_logger"]

log = structlog.get_logger("plane.controller")


def server_logger() -> logging.Logger:
    """The logger that aiohttp's server is given."""
    logger = logging.Logger("plane.controller.http", logging.WARNING)
    logger.addHandler(_Handler())
    return logger


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.error(record.getMessage(), exc_info=record.exc_info)
