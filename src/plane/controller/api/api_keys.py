"""The file of API keys, read at start and again on SIGHUP. `plane.decisions.access` parses it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from plane.decisions.access import ApiKey, ApiKeys, KeyRecord, parse_api_keys
from plane.os_errors import error_reason
from plane.protocol.errors import ConfigurationError

__all__ = ["ApiKeyFile", "reload_on_sighup"]

log = structlog.get_logger("plane.controller")


class ApiKeyFile:
    """The keys of ``--api-key-file``: those of the last successful read."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigurationError: the file cannot be read or is invalid.
        """
        self._path = path
        self._keys = self._read()

    def _read(self) -> ApiKeys:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(f"--api-key-file {self._path} cannot be read: {error_reason(error)}") from error
        try:
            return parse_api_keys(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"--api-key-file {self._path}: {error}") from None

    def reload(self) -> None:
        """Read the file again; keep the current keys if that fails."""
        try:
            self._keys = self._read()
        except ConfigurationError as error:
            log.error("api keys not reloaded; keeping the current ones", error=str(error))
        else:
            log.info("api keys reloaded", count=len(self._keys))

    def find(self, key: str) -> ApiKey | None:
        """Return the entry of a key; None for an unknown key."""
        return self._keys.find(key)

    def record(self, key: str) -> KeyRecord | None:
        """Return the record of a key; None for an unknown key."""
        return self._keys.record(key)

    def of_fingerprint(self, fingerprint: str) -> KeyRecord | None:
        """Return the record with this fingerprint; None if its key is not in the file (any more)."""
        return self._keys.of_fingerprint(fingerprint)


@contextmanager
def reload_on_sighup(
    keys: ApiKeyFile, reloaded: Callable[[ApiKeyFile], None], loop: asyncio.AbstractEventLoop
) -> Iterator[None]:
    """Reload the keys on each SIGHUP while the block runs, and call ``reloaded``."""

    def reload() -> None:
        keys.reload()
        reloaded(keys)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
