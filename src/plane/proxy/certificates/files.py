"""Reads the certificate's files, refuses a key that others can read, and reloads the files when they change.

Two forms: the JSON ``{"cert": PEM chain, "key": PEM}`` of ``--cert-path``, and the two PEM files of ``--tls-cert`` and
``--tls-key``.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from plane.protocol.errors import ConfigurationError
from plane.proxy.certificates.tls import Certificate, CertificateHolder, InvalidCertificate, read_certificate

__all__ = ["CertificateFiles", "JsonCertificate"]

# One or two calls of stat. A person who replaces the certificate sees the effect at once.
POLL_INTERVAL_S = 1.0

log = structlog.get_logger("plane.proxy")

Version = tuple[tuple[int, int, int], ...]


class JsonCertificate(msgspec.Struct, frozen=True):
    """The content of the file of ``--cert-path``."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """The files of the certificate: one of JSON, or two of PEM.

    Attributes:
        json: the file of ``--cert-path``.
        pair: the files of ``--tls-cert`` and ``--tls-key``.
    """

    json: Path | None = None
    pair: tuple[Path, Path] | None = None

    def read(self) -> Certificate:
        """Read and check the certificate.

        Raises:
            InvalidCertificate: names the file and what to do.
            FileNotFoundError: there is no certificate yet.
        """
        if self.pair is not None:
            chain, key = self.pair
            # The group may read it, as with Debian's "ssl-cert" and with mounted secrets.
            _require_private(key, 0o037)
            return read_certificate(_bytes(chain), _bytes(key))
        assert self.json is not None
        _require_private(self.json, 0o077)
        try:
            text = msgspec.json.decode(_bytes(self.json), type=JsonCertificate)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise InvalidCertificate(f'{self.json} is not JSON with "cert" and "key", both PEM') from None
        return read_certificate(text.cert.encode(), text.key.encode())

    def load(self, holder: CertificateHolder, *, required: bool) -> None:
        """Load the certificate into ``holder`` at the start.

        Raises:
            ConfigurationError: it cannot be used, or it is ``required`` and missing.
        """
        try:
            holder.replace(self.read())
        except FileNotFoundError as error:
            if required:
                raise ConfigurationError(f"there is no certificate: {error.filename} does not exist") from None
        except InvalidCertificate as error:
            raise ConfigurationError(str(error)) from None

    async def watch(self, holder: CertificateHolder) -> None:
        """Reload the files when they change, until cancelled. If that fails, the certificate in use stays."""
        seen = await asyncio.to_thread(self._version)
        while True:
            await asyncio.sleep(POLL_INTERVAL_S)
            version = await asyncio.to_thread(self._version)
            if version == seen:
                continue
            seen = version
            try:
                holder.replace(await asyncio.to_thread(self.read))
            except (InvalidCertificate, OSError) as error:
                # The file may be half written; its next change is read again.
                log.warning("certificate not reloaded; the one in use stays", reason=str(error))

    def _version(self) -> Version:
        """Return a value that differs whenever a file has changed."""
        found = []
        for path in (self.json,) if self.json is not None else self.pair or ():
            try:
                info = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((info.st_ino, info.st_mtime_ns, info.st_size))
        return tuple(found)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading into `InvalidCertificate`, except for a missing file."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidCertificate(f"{path} cannot be read: {error.strerror}") from None


def _bytes(path: Path) -> bytes:
    with _reading(path):
        return path.read_bytes()


def _require_private(path: Path, forbidden: int) -> None:
    with _reading(path):
        mode = stat.S_IMODE(path.stat().st_mode)
    if mode & forbidden:
        raise InvalidCertificate(
            f"{path} holds a private key, and with mode {mode:04o} others can read or write it; run: chmod 600 {path}"
        )
