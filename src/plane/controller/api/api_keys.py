"""The file of API keys: read at start and again on SIGHUP. What it may say is decided in `plane.decisions.access`."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from plane.decisions.access import ApiKey, ApiKeys, parse_api_keys
from plane.protocol.errors import ConfigurationError, why

__all__ = ["ApiKeyFile", "reloading_on_sighup"]

log = structlog.get_logger("plane.controller")


class ApiKeyFile:
    """The keys of ``--api-key-file``. Those read last hold until a later reading succeeds."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: it cannot be read; says why.
        """
        self._path = path
        self._keys = self._read()

    def _read(self) -> ApiKeys:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"--api-key-file {self._path} cannot be read: {why(error)}") from error
        try:
            return parse_api_keys(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"--api-key-file {self._path}: {error}") from None

    def reload(self) -> None:
        """Read the file again; if that fails the keys stay what they are."""
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            log.error("API keys not read again; the former ones hold", error=str(error))
        else:
            log.info("API keys read again", count=len(self._keys))

    def find(self, key: str) -> ApiKey | None:
        """The entry of a key, if it is one."""
        return self._keys.find(key)


@contextmanager
def reloading_on_sighup(keys: ApiKeyFile, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Read the keys again on each SIGHUP, while the block runs."""
    loop.add_signal_handler(signal.SIGHUP, keys.reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
