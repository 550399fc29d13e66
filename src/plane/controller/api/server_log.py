"""Forwards messages of aiohttp's server to the controller's log.

Malformed requests are not among them; see `plane.controller.api.http_connection`.
"""

from __future__ import annotations

import logging

import structlog

__all__ = ["server_logger"]

log = structlog.get_logger("plane.controller")


def server_logger() -> logging.Logger:
    """Return the logger for aiohttp's server."""
    logger = logging.Logger("plane.controller.http", logging.WARNING)
    logger.addHandler(_Handler())
    return logger


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log.error("error in the HTTP server", detail=record.getMessage(), exc_info=record.exc_info)
